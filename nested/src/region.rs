//! A VMCS region in L1's memory, as it is while the VMCS is in no slot.
//!
//! SDM "Format of the VMCS Region": the revision identifier and the abort indicator come first.
//! The rest is the implementation's: here the launch state, then the values.

use umbra_arch::Gpa1;
use umbra_vmcs::Vmcs12;

use crate::hw::Memory;

const LAUNCH_STATE_OFFSET: u64 = 8;
const VALUES_OFFSET: u64 = 16;
const _: () = assert!(Vmcs12::BYTES as u64 + VALUES_OFFSET <= 4096);

/// The launch state of a VMCS that is launched. Whatever else is there is "clear": [`CLEAR`],
/// or a [`Tag`].
pub(crate) const LAUNCHED: u64 = 1;
pub(crate) const CLEAR: u64 = 0;

/// A launch state "clear" that no two VMCLEARs write: a region that still has it has the
/// values which that VMCLEAR wrote.
///
/// SDM "Initializing a VMCS", "Software Access to the VMCS and Related Structures": the values
/// are not software's to write by ordinary stores. Where it copies a region, or clears or
/// fills it, the tag is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// The `count`th of this owner, counted from 1. It is even, unlike [`LAUNCHED`], and
    /// not [`CLEAR`].
    pub(crate) const fn new(count: u64, owner: u16) -> Self {
        Self(count << 17 | (owner as u64) << 1)
    }

    /// As a launch state.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }
}

/// Takes the fields from the region at `gpa`.
pub(crate) fn read(hw: &impl Memory, gpa: Gpa1, vmcs12: &mut Vmcs12) {
    vmcs12.fill(|bytes| hw.read_l1(gpa.plus(VALUES_OFFSET), bytes));
}

/// Puts the fields into the region at `gpa`, and the launch state: whoever writes the one has
/// the other changed, so that no [`Tag`] outlives its values.
pub(crate) fn write(hw: &mut impl Memory, gpa: Gpa1, vmcs12: &Vmcs12, launch_state: u64) {
    hw.write_l1(gpa.plus(VALUES_OFFSET), vmcs12.as_bytes());
    write_launch_state(hw, gpa, launch_state);
}

/// The launch state.
pub(crate) fn launch_state(hw: &impl Memory, gpa: Gpa1) -> u64 {
    let mut state = [0; 8];
    hw.read_l1(gpa.plus(LAUNCH_STATE_OFFSET), &mut state);
    u64::from_le_bytes(state)
}

/// Writes the launch state alone.
pub(crate) fn write_launch_state(hw: &mut impl Memory, gpa: Gpa1, state: u64) {
    hw.write_l1(gpa.plus(LAUNCH_STATE_OFFSET), &state.to_le_bytes());
}

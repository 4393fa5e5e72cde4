//! The hardware that nested virtualisation works on, behind traits, one for each
//! thing that a room may touch.
//!
//! `core` implements it for the machine; the tests implement it over arrays.

use umbra_arch::{Gpa1, Hpa, Linear};
use umbra_ept::eptp::OwnEptp;
use umbra_ept::mem::{L1Memory, TableMemory};
use umbra_vmcs::field::FieldSet;
use umbra_vmcs::{Field, Vmcs12};

use crate::derived::{ALWAYS_SAVED, LENT, LENT_FOR_WRITING, LENT_WHOLE};
use crate::host_image::HostImage;
use crate::slot_id::SlotId;

/// The VMCS that VMREAD, VMWRITE and the next VM entry use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Current {
    /// L0 runs L1.
    Vmcs01,
    /// L0 runs L2 for L1, with the vmcs02 of this slot.
    Vmcs02(SlotId),
}

/// How a vmcs02 is lent to L1: which fields its VMREAD and VMWRITE reach. See
/// [`lend`](crate::lend).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lent {
    /// What every hypervisor reads and writes.
    InPart = 0,
    /// The same, and the registers that vmcs02 always loads and saves may be read.
    WithRegisters = 1,
    /// All guest state but those registers may be written.
    Whole = 2,
    /// All guest state may be read and written.
    WholeWithRegisters = 3,
}

impl Lent {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [
        Self::InPart,
        Self::WithRegisters,
        Self::Whole,
        Self::WholeWithRegisters,
    ];

    pub(crate) const fn new(is_whole: bool, has_registers: bool) -> Self {
        match (is_whole, has_registers) {
            (false, false) => Self::InPart,
            (false, true) => Self::WithRegisters,
            (true, false) => Self::Whole,
            (true, true) => Self::WholeWithRegisters,
        }
    }

    #[inline]
    pub(crate) const fn is_whole(self) -> bool {
        self as u8 & Self::Whole as u8 != 0
    }

    #[inline]
    pub(crate) const fn has_registers(self) -> bool {
        self as u8 & Self::WithRegisters as u8 != 0
    }

    /// What L1 reads without an exit.
    #[inline]
    pub const fn read(self) -> FieldSet {
        match self.has_registers() {
            false => LENT,
            true => LENT.union(ALWAYS_SAVED),
        }
    }

    /// What it writes without one.
    #[inline]
    pub const fn written(self) -> FieldSet {
        LENT_FOR_WRITING.union(self.beyond_part())
    }

    /// What of that is more than every hypervisor writes. Every CPU has these fields, or
    /// vmcs12 has the controls with which they are there.
    #[inline]
    pub(crate) const fn beyond_part(self) -> FieldSet {
        match self {
            Self::InPart | Self::WithRegisters => FieldSet::EMPTY,
            Self::Whole => LENT_WHOLE,
            Self::WholeWithRegisters => LENT_WHOLE.union(ALWAYS_SAVED),
        }
    }
}

/// An MSR access that a CPU would answer with #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrFault;

/// The VMCSs that L0 runs L1 and L2 with.
pub trait VmcsAccess {
    /// VMREAD of the current VMCS.
    fn read(&mut self, field: Field) -> u64;
    /// VMWRITE to the current VMCS, of a field that is [no
    /// address](umbra_vmcs::field::flow::ADDRESSES) and no host state.
    fn write(&mut self, field: Field, value: u64);
    /// The same of a field that takes [the address of a page with
    /// data](umbra_vmcs::field::flow::DATA_ADDRESSES).
    fn write_address(&mut self, field: Field, address: Hpa);
    /// The same of the EPT pointer.
    fn write_ept_pointer(&mut self, pointer: OwnEptp);
    /// Writes all fields of the image to vmcs01, which is current. Apart from
    /// [`write`](Self::write) because half of what an exit to L1 costs is here.
    fn write_host_image(&mut self, image: &HostImage);
    /// Makes a VMCS current (VMPTRLD); nothing when it is already.
    fn switch_to(&mut self, which: Current);
    /// Starts a vmcs02 afresh: VMCLEAR, then L0's host state and whatever else
    /// does not depend on vmcs12. Leaves it current.
    fn reset_vmcs02(&mut self, slot: SlotId);

    /// Lends a vmcs02, which is current, to L1: VMCLEAR, a shadow VMCS from now on, and
    /// L1's VMREAD and VMWRITE reach it. Leaves vmcs01 current. Asked for only where
    /// the CPU [can](crate::lend::can_lend).
    fn lend_vmcs02(&mut self, slot: SlotId, how: Lent);
    /// Takes a vmcs02 that was lent back: VMCLEAR, and an ordinary VMCS again. Leaves
    /// it current. Before L1 runs again it is lent once more, or another is linked.
    fn take_back_vmcs02(&mut self, slot: SlotId);
    /// L1's VMREAD and VMWRITE reach this vmcs02, which is lent in this way; or they
    /// exit. vmcs01 is current.
    fn link_vmcs02(&mut self, lent: Option<(SlotId, Lent)>);

    /// L0's shadow VMCS: for the link pointer of a vmcs02. Asked for only where L1 is
    /// offered VMCS shadowing.
    fn shadow_region(&self) -> Hpa;
    /// Writes these fields to L0's shadow VMCS, and clears it, so that its region
    /// has them. Leaves vmcs01 current.
    fn fill_shadow(&mut self, from: &Vmcs12, fields: &FieldSet);
    /// Reads these fields from L0's shadow VMCS, and gives each to `take`. Leaves vmcs01
    /// current.
    fn drain_shadow(&mut self, fields: &FieldSet, take: impl FnMut(Field, u64));
}

/// The registers that no VMCS holds, of the level that just exited.
pub trait Registers {
    /// A general register, by its encoding in instructions (4, RSP, is never
    /// asked for).
    fn gpr(&self, number: usize) -> u64;
    /// Sets a general register.
    fn set_gpr(&mut self, number: usize, value: u64);
    /// Sets CR2, which VM entry does not load.
    fn set_cr2(&mut self, value: u64);
    /// PKRU.
    fn pkru(&mut self) -> u32;
    /// L0 has read or written this operand of an instruction of L1's in linear
    /// memory: a breakpoint on it is met.
    fn note_access(&mut self, linear: Linear, bytes: u64, is_write: bool);
}

/// L1's memory.
///
/// Addresses named `gpa` are L1-physical and come from L1 unchecked: an
/// implementation gives for each what L1 itself would find there, and never
/// fails.
pub trait Memory {
    /// Copies L1-physical memory out.
    fn read_l1(&self, gpa: Gpa1, bytes: &mut [u8]);
    /// Whether the 64-bit words at these aligned addresses have these values.
    fn holds_l1(&self, words: &[(Gpa1, u64)]) -> bool {
        words.iter().all(|&(gpa, value)| {
            let mut bytes = [0; 8];
            self.read_l1(gpa, &mut bytes);
            u64::from_le_bytes(bytes) == value
        })
    }
    /// Copies into L1-physical memory.
    fn write_l1(&mut self, gpa: Gpa1, bytes: &[u8]);
    /// Sets bits of an aligned little-endian word of L1 memory, 4 or 8 bytes
    /// wide, if it still holds `expected`; whether it did.
    fn set_bits_l1(&mut self, gpa: Gpa1, wide: bool, expected: u64, bits: u64) -> bool;
    /// What L1 reaches at `gpa`.
    fn backing(&mut self, gpa: Gpa1) -> Hpa;
}

/// Model-specific registers and what decides on their exits.
pub trait Msrs {
    /// RDMSR as L1 would do it, MSRs that L0 presents otherwise included.
    fn rdmsr_l1(&mut self, index: u32) -> Result<u64, MsrFault>;
    /// WRMSR as L1 would do it.
    fn wrmsr_l1(&mut self, index: u32, value: u64) -> Result<(), MsrFault>;
    /// An MSR bitmap for L2 that exits wherever L1's
    /// at `gpa` does, wherever L0 has its own reasons, and where nothing was
    /// opened yet.
    fn merge_msr_bitmap(&mut self, gpa: Gpa1) -> Hpa;
    /// Opens that bitmap for an access which L1's lets through. False if L0
    /// intercepts the access for its own sake.
    fn open_msr(&mut self, gpa: Gpa1, index: u32, is_write: bool) -> bool;
    /// The time-stamp counter, in ticks, without any guest's offset.
    fn tsc(&mut self) -> u64;
    /// The time-stamp counter when L2 exited last, in ticks, as the CPU stored it:
    /// only where vmcs02's VM-exit MSR-store count was 1.
    fn tsc_at_exit(&self) -> u64;
}

/// Extended page tables and cached translations.
pub trait Translations {
    /// The tables of ept01 and ept02.
    type Tables: TableMemory;
    /// L1's memory as ept12 is read from it.
    type Memory<'a>: L1Memory
    where
        Self: 'a;

    /// Both, for the pool of ept02 caches.
    fn ept(&mut self) -> (Self::Tables, Self::Memory<'_>);

    /// INVVPID, single-context.
    fn invvpid_single(&mut self, vpid: u16);
    /// INVVPID, individual-address.
    fn invvpid_address(&mut self, vpid: u16, linear: Linear);
    /// INVVPID, single-context retaining globals.
    fn invvpid_single_retaining_globals(&mut self, vpid: u16);
    /// INVVPID, all-context.
    fn invvpid_all(&mut self);
    /// INVEPT, single-context, for the EPTP given.
    fn invept_single(&mut self, eptp: OwnEptp);
    /// INVEPT, all-context.
    fn invept_all(&mut self);

    /// Whether [`take_ept01_change`](Self::take_ept01_change) would give true.
    fn has_ept01_change(&self) -> bool;
    /// Whether the types of ept01 have changed since the last call, so that
    /// what was composed with them is out of date.
    fn take_ept01_change(&mut self) -> bool;
    /// The EPTP of ept01.
    fn ept01_pointer(&self) -> OwnEptp;
    /// Has ept01 map the L1-physical page by a 4 KiB leaf from now on, as far as
    /// there is room. Done for the APIC-access page of an L2 that runs on ept01.
    fn keep_small_ept01(&mut self, gpa: Gpa1);
    /// Maps the L1-physical address in ept01, which so far left it out. Done
    /// when an L2 that runs on ept01 touches it. False if L1 has no such
    /// address.
    fn map_ept01(&mut self, gpa: Gpa1) -> bool;
}

/// All of it: what a VM entry or exit may touch.
pub trait Hardware: VmcsAccess + Registers + Memory + Msrs + Translations {}

impl<T: VmcsAccess + Registers + Memory + Msrs + Translations> Hardware for T {}

//! Which VMCS is current on a CPU, and which were launched.

use umbra_nested::Current;
use umbra_nested::slots::MAX_SLOTS;

/// Which VMCS the CPU has current, and which have been launched since they were
/// last cleared.
#[derive(Debug)]
pub struct VmcsState {
    current: Current,
    /// vmcs01 first, then the vmcs02s by their slots.
    is_launched: [bool; 1 + MAX_SLOTS],
    /// The last VM entry was a VMLAUNCH.
    was_launch: bool,
}

impl VmcsState {
    /// vmcs01 is current.
    pub const fn new() -> Self {
        Self {
            current: Current::Vmcs01,
            is_launched: [false; 1 + MAX_SLOTS],
            was_launch: false,
        }
    }

    /// The current VMCS.
    #[inline]
    pub const fn current(&self) -> Current {
        self.current
    }

    /// `which` was made current.
    #[inline]
    pub fn switched_to(&mut self, which: Current) {
        self.current = which;
    }

    /// `which` was cleared, and made current.
    pub fn made(&mut self, which: Current) {
        self.current = which;
        *self.is_launched() = false;
    }

    #[inline]
    fn is_launched(&mut self) -> &mut bool {
        let number = match self.current {
            Current::Vmcs01 => 0,
            Current::Vmcs02(slot) => 1 + slot.number(),
        };
        &mut self.is_launched[number]
    }

    /// Whether the VM entry that now follows is a VMLAUNCH. It is taken to succeed
    /// unless [`entry_failed`](Self::entry_failed) says otherwise.
    #[inline]
    pub fn next_entry_launches(&mut self) -> bool {
        let was_launched = core::mem::replace(self.is_launched(), true);
        self.was_launch = !was_launched;
        !was_launched
    }

    /// The last VM entry, with the VMCS that is still current, failed: a VMLAUNCH
    /// has launched nothing.
    pub fn entry_failed(&mut self) {
        if self.was_launch {
            *self.is_launched() = false;
        }
    }
}

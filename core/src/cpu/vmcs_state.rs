//! Which VMCS is current on a CPU, and which were launched.

use umbra_nested::Current;
use umbra_nested::slots::MAX_SLOTS;

/// Which VMCS the CPU has current, and which have been launched since they were
/// last cleared.
#[derive(Debug)]
pub struct VmcsState {
    current: Current,
    is_vmcs01_launched: bool,
    is_vmcs02_launched: [bool; MAX_SLOTS],
}

impl VmcsState {
    /// vmcs01 is current.
    pub const fn new() -> Self {
        Self {
            current: Current::Vmcs01,
            is_vmcs01_launched: false,
            is_vmcs02_launched: [false; MAX_SLOTS],
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
        match self.current {
            Current::Vmcs01 => &mut self.is_vmcs01_launched,
            Current::Vmcs02(slot) => &mut self.is_vmcs02_launched[slot.number()],
        }
    }

    /// Whether the next VM entry is a VMLAUNCH.
    #[inline]
    pub fn next_entry_launches(&mut self) -> bool {
        !*self.is_launched()
    }

    /// The current VMCS has been entered.
    #[inline]
    pub fn note_launch(&mut self) {
        *self.is_launched() = true;
    }
}

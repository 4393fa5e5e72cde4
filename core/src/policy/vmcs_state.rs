//! Which VMCS is current on a CPU, and which were launched.

use umbra_nested::slots::MAX_SLOTS;
use umbra_nested::{Current, Lent, SlotId};

/// The number of a VMCS in the table: vmcs01 first, then the vmcs02s by their slots.
#[inline]
const fn number(which: Current) -> usize {
    match which {
        Current::Vmcs01 => 0,
        Current::Vmcs02(slot) => 1 + slot.number(),
    }
}

/// Which VMCS the CPU has current, and which have been launched since they were
/// last cleared.
#[derive(Debug)]
pub struct VmcsState {
    /// The number of the current one.
    current: usize,
    is_launched: [bool; 1 + MAX_SLOTS],
    /// Those that are shadow VMCSs, lent to L1.
    is_lent: [bool; 1 + MAX_SLOTS],
    /// What vmcs01's link pointer names, as [`link`](Self::link) has it.
    linked: usize,
    /// The last VM entry was a VMLAUNCH.
    was_launch: bool,
}

impl Default for VmcsState {
    fn default() -> Self {
        Self::new()
    }
}

impl VmcsState {
    /// vmcs01 is current.
    pub const fn new() -> Self {
        Self {
            current: number(Current::Vmcs01),
            is_launched: [false; 1 + MAX_SLOTS],
            is_lent: [false; 1 + MAX_SLOTS],
            linked: 0,
            was_launch: false,
        }
    }

    /// Whether this is the current VMCS.
    #[inline]
    pub const fn is_current(&self, which: Current) -> bool {
        self.current == number(which)
    }

    /// `which` was made current.
    #[inline]
    pub const fn switched_to(&mut self, which: Current) {
        self.current = number(which);
    }

    /// `which` was cleared, and made current.
    pub const fn made(&mut self, which: Current) {
        self.current = number(which);
        self.is_launched[self.current] = false;
        self.is_lent[self.current] = false;
    }

    /// Whether this one is lent to L1.
    #[inline]
    pub const fn is_lent(&self, which: Current) -> bool {
        self.is_lent[number(which)]
    }

    /// The slot of the current one, a vmcs02, if it is.
    #[inline]
    pub const fn lent_current(&self) -> Option<u64> {
        match self.is_lent[self.current] {
            true => Some(self.current as u64 - 1),
            false => None,
        }
    }

    /// `which` was cleared and lent to L1; vmcs01 is current.
    #[inline]
    pub const fn lent(&mut self, which: Current) {
        self.is_lent[number(which)] = true;
        self.current = number(Current::Vmcs01);
    }

    /// Notes what vmcs01's link pointer is to name, and how that is lent; whether that is
    /// another one, or otherwise lent.
    #[inline]
    pub fn link(&mut self, lent: Option<(SlotId, Lent)>) -> bool {
        let linked = match lent {
            None => 0,
            Some((slot, how)) => number(Current::Vmcs02(slot)) << 2 | how as usize,
        };
        core::mem::replace(&mut self.linked, linked) != linked
    }

    /// Whether the VM entry that now follows is a VMLAUNCH. It is taken to succeed
    /// unless [`not_entered`](Self::not_entered) says otherwise.
    #[inline]
    pub const fn next_entry_launches(&mut self) -> bool {
        self.was_launch = !core::mem::replace(&mut self.is_launched[self.current], true);
        self.was_launch
    }

    /// The VM entry that was to follow, with the VMCS that is still current, failed, or
    /// an NMI came before it: a VMLAUNCH has launched nothing.
    pub const fn not_entered(&mut self) {
        if self.was_launch {
            self.is_launched[self.current] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmcs_is_launched_once() {
        let mut state = VmcsState::new();
        assert!(state.next_entry_launches());
        assert!(!state.next_entry_launches());
        state.made(Current::Vmcs01);
        assert!(state.next_entry_launches());
    }

    /// An NMI at the last moment has the entry decided again: it is still a VMLAUNCH.
    #[test]
    fn an_entry_that_was_not_made_launches_nothing() {
        let mut state = VmcsState::new();
        for _ in 0..3 {
            assert!(state.next_entry_launches());
            state.not_entered();
        }
        assert!(state.next_entry_launches());
        // A VMRESUME that fails leaves the VMCS launched.
        assert!(!state.next_entry_launches());
        state.not_entered();
        assert!(!state.next_entry_launches());
    }
}

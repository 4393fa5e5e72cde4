//! The end of the entry stub, where an NMI must not be overlooked.

/// The stretch of the entry stub from its last look at the [`Inbox`] to the
/// instruction that enters.
///
/// An NMI before `start` is seen by that look. One after the VM entry is the
/// CPU's business. One in between has been missed by the look, so L0's handler
/// sends the stub back: it resumes at `retry`, which decides again. That holds
/// at every instruction boundary, so nothing has to be disabled and no
/// instruction sequence has to be short. The stub's part of the bargain: from
/// `retry` on it takes everything from memory that the stretch only reads.
///
/// [`Inbox`]: crate::Inbox
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryWindow {
    /// Address of the instruction that looks at the inbox.
    pub start: u64,
    /// Address of the last VM-entry instruction (VMLAUNCH or VMRESUME,
    /// whichever comes later in the stub).
    pub last_entry: u64,
    /// Address at which the stub decides again.
    pub retry: u64,
}

impl EntryWindow {
    /// Where L0's NMI handler returns to, given the interrupted RIP.
    pub const fn resume_at(&self, rip: u64) -> u64 {
        if self.start <= rip && rip <= self.last_entry {
            self.retry
        } else {
            rip
        }
    }
}

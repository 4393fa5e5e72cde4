//! What the handler of an exit decides, and the events that it may deliver.

use crate::arch::cr;
use umbra_arch::{EventInfo, Exception};

/// An event for L1, as VM entry delivers it. SDM "VM-Entry Controls for Event
/// Injection".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// With the valid bit.
    pub information: EventInfo,
    /// For the kinds that have one.
    pub error_code: u32,
    /// For software interrupts and exceptions, in bytes.
    pub instruction_bytes: u32,
}

impl Event {
    /// A hardware exception.
    pub const fn exception(exception: Exception) -> Self {
        Self {
            information: exception.information(true),
            error_code: match exception.error_code {
                Some(code) => code,
                None => 0,
            },
            instruction_bytes: 0,
        }
    }

    /// In real mode VM entry takes no error code.
    pub const fn delivered_in(self, real_mode: bool) -> Self {
        Self {
            information: match real_mode {
                true => self.information.with_has_error_code(false),
                false => self.information,
            },
            ..self
        }
    }

    /// #UD.
    pub const INVALID_OPCODE: Self = Self::exception(Exception::UD);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self::exception(Exception::GP);
}

/// What a handler decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Go on where L1 was; an event whose delivery the exit interrupted is
    /// delivered anew.
    Resume,
    /// L1's state was replaced: nothing of what the exit interrupted counts.
    Restart,
    /// The instruction is done: go on behind it.
    Skip,
    /// Deliver a fault of the instruction.
    Inject(Event),
    /// Deliver a trap: it comes between two instructions.
    Trap(Event),
    /// Go on wherever nested VMX went: L2, or L1 after a failed entry.
    Entered,
}

impl Action {
    /// The exception that L1's instruction raises.
    pub fn raise(exception: Exception) -> Self {
        if let Some(linear) = exception.cr2 {
            cr::set_cr2(linear);
        }
        Self::Inject(Event::exception(exception))
    }
}

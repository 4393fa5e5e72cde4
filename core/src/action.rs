//! What the handler of an exit decides, and the events that it may deliver.

use crate::arch::cr;
use umbra_nested::Fault;

/// An event for L1, in the form of the VM-entry interruption-information
/// field. SDM "VM-Entry Controls for Event Injection".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// With the valid bit.
    pub information: u32,
    /// For the kinds that have one.
    pub error_code: u32,
    /// For software interrupts and exceptions, in bytes.
    pub instruction_bytes: u32,
}

impl Event {
    const VALID: u32 = 1 << 31;
    /// Bit 11: an error code comes with it.
    pub const HAS_ERROR_CODE: u32 = 1 << 11;
    const HARDWARE_EXCEPTION: u32 = 3 << 8;

    /// A hardware exception without an error code.
    pub const fn exception(vector: u8) -> Self {
        Self {
            information: Self::VALID | Self::HARDWARE_EXCEPTION | vector as u32,
            error_code: 0,
            instruction_bytes: 0,
        }
    }

    /// A hardware exception with one.
    pub const fn exception_with_code(vector: u8, error_code: u32) -> Self {
        Self {
            information: Self::exception(vector).information | Self::HAS_ERROR_CODE,
            error_code,
            instruction_bytes: 0,
        }
    }

    /// As VM entry takes it: no error code in real mode. SDM "VM-Entry Controls
    /// for Event Injection".
    pub const fn delivered_in(self, real_mode: bool) -> Self {
        let information = match real_mode {
            true => self.information & !Self::HAS_ERROR_CODE,
            false => self.information,
        };
        Self {
            information,
            ..self
        }
    }

    /// #UD.
    pub const INVALID_OPCODE: Self = Self::exception(6);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self::exception_with_code(13, 0);
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
    pub fn raise(fault: Fault) -> Self {
        if let Some(linear) = fault.cr2 {
            cr::set_cr2(linear);
        }
        Self::Inject(match fault.error_code {
            Some(code) => Event::exception_with_code(fault.vector, code),
            None => Event::exception(fault.vector),
        })
    }
}

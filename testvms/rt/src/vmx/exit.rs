//! A VM exit and how a transcript shows it.
//!
//! The SDM leaves several exit-information fields undefined for many reasons; those are not shown,
//! as they may differ between CPUs and say nothing. Sections: "Basic VM-Exit Information" and those
//! after it.

use core::fmt;

use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, Field};

use super::insn::read;

/// The exit-information fields, read at once.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Exit {
    pub reason: u32,
    pub qualification: u64,
    pub guest_linear: u64,
    pub guest_physical: u64,
    pub length: u32,
    pub information: u32,
    pub interruption: u32,
    pub interruption_error: u32,
    pub vectoring: u32,
    pub vectoring_error: u32,
    pub rip: u64,
}

impl Exit {
    /// Reads them from the current VMCS.
    pub fn read(has_ept: bool) -> Self {
        let small = |field: Field| read(field) as u32;
        Self {
            reason: small(field::EXIT_REASON),
            qualification: read(field::EXIT_QUALIFICATION),
            guest_linear: read(field::GUEST_LINEAR_ADDRESS),
            guest_physical: if has_ept {
                read(field::GUEST_PHYSICAL_ADDRESS)
            } else {
                0
            },
            length: small(field::VM_EXIT_INSTRUCTION_LENGTH),
            information: small(field::VM_EXIT_INSTRUCTION_INFORMATION),
            interruption: small(field::VM_EXIT_INTERRUPTION_INFORMATION),
            interruption_error: small(field::VM_EXIT_INTERRUPTION_ERROR_CODE),
            vectoring: small(field::IDT_VECTORING_INFORMATION),
            vectoring_error: small(field::IDT_VECTORING_ERROR_CODE),
            rip: read(field::GUEST_RIP),
        }
    }

    /// Stands for an exit that did not come. Its reason is one that no CPU gives.
    pub fn none() -> Self {
        Self {
            reason: 0xffff,
            qualification: 0,
            guest_linear: 0,
            guest_physical: 0,
            length: 0,
            information: 0,
            interruption: 0,
            interruption_error: 0,
            vectoring: 0,
            vectoring_error: 0,
            rip: 0,
        }
    }

    /// The basic reason's number.
    pub fn basic(&self) -> u16 {
        self.reason as u16
    }

    /// The basic reason, `None` for a number that has no meaning.
    pub fn known(&self) -> Option<Reason> {
        Reason::from_number(self.basic())
    }

    /// The SDM's word for the reason.
    pub fn name(&self) -> &'static str {
        self.known().map_or("unknown", Reason::name)
    }

    /// Whether it is a failed VM entry.
    pub fn is_entry_failure(&self) -> bool {
        self.reason >> 31 != 0
    }

    fn is_software_event(information: u32) -> bool {
        information >> 31 != 0 && matches!(information >> 8 & 7, 4..=6)
    }

    /// Whether the instruction length is defined: exits by an instruction, by a software event,
    /// and during the delivery of one. SDM "Information for VM Exits Due to Instruction Execution".
    pub fn has_length(&self) -> bool {
        let by_event = self.basic() == 0 && Self::is_software_event(self.interruption);
        let in_delivery = Self::is_software_event(self.vectoring);
        let by_task_switch = self.basic() == 9 && self.qualification >> 30 & 3 != 3;
        let apic_by_instruction = self.basic() == 44 && self.qualification >> 12 & 15 <= 1;
        by_event
            || in_delivery
            || by_task_switch
            || apic_by_instruction
            || (self.basic() != 9 && self.known().is_some_and(Reason::is_instruction))
    }

    /// Whether the instruction information is defined.
    /// SDM "VM-Exit Instruction-Information Field".
    pub fn has_information(&self) -> bool {
        match self.basic() {
            // Not for IN and OUT, only for their string forms.
            30 => self.qualification & 1 << 4 != 0,
            19 | 21..=23 | 25 | 27 | 46 | 47 | 50 | 53 | 57 | 58 | 61 | 63 | 64 | 65 => true,
            _ => false,
        }
    }

    /// Whether the qualification is defined. It is a displacement for instructions that may have a
    /// memory operand, and undefined when they have a register instead (instruction information,
    /// bit 10).
    pub fn has_qualification(&self) -> bool {
        let may_be_register = matches!(self.basic(), 23 | 25 | 47);
        !(may_be_register && self.information & 1 << 10 != 0)
    }

    /// Whether the guest-linear address is defined.
    pub fn has_linear(&self) -> bool {
        match self.basic() {
            30 => self.qualification & 1 << 4 != 0,
            28 => self.qualification >> 4 & 3 == 3 && self.qualification >> 6 & 1 == 1,
            48 => self.qualification & 1 << 7 != 0,
            _ => false,
        }
    }

    /// Whether the guest-physical address is defined.
    pub fn has_physical(&self) -> bool {
        matches!(self.basic(), 48 | 49 | 66)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_entry_failure() {
            return write!(
                f,
                "entry-failure {} q={:x}",
                self.basic(),
                self.qualification
            );
        }
        write!(f, "{} {}", self.basic(), self.name())?;
        if self.has_qualification() {
            write!(f, " q={:x}", self.qualification)?;
        }
        if self.has_linear() {
            write!(f, " linear={:x}", self.guest_linear)?;
        }
        if self.has_physical() {
            write!(f, " physical={:x}", self.guest_physical)?;
        }
        if self.has_length() {
            write!(f, " len={}", self.length)?;
        }
        if self.has_information() {
            write!(f, " info={:x}", self.information)?;
        }
        for (name, information, error) in [
            ("int", self.interruption, self.interruption_error),
            ("idt", self.vectoring, self.vectoring_error),
        ] {
            if information >> 31 != 0 {
                write!(f, " {name}={information:x}")?;
                if information & 1 << 11 != 0 {
                    write!(f, "/{error:x}")?;
                }
            }
        }
        write!(f, " rip={:x}", self.rip)
    }
}

//! Accesses to physical addresses beyond the width that L1 is shown.
//!
//! ept01 has four levels, so L1 is shown 48 bits at most, and a CPU with more
//! does not raise the page fault that reserved bits of a paging entry cause: the
//! access comes to L0 as an EPT violation that nothing can map. SDM "Paging",
//! "Page-Fault Exceptions".

use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::bits::*;
use crate::event::{TYPE_HARDWARE_EXCEPTION, kind};
use crate::exit::L2Done;
use crate::fault::Fault;
use crate::hw::{Hardware, VmcsAccess};
use crate::slots::SlotId;
use crate::state::Nested;

/// Bits of an EPT violation's exit qualification.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 2;
const LINEAR_VALID: u64 = 1 << 7;
const NMI_UNBLOCKING: u64 = 1 << 12;

/// Bits of a page fault's error code.
const ERROR_P: u32 = 1 << 0;
const ERROR_W: u32 = 1 << 1;
const ERROR_U: u32 = 1 << 2;
const ERROR_RSVD: u32 = 1 << 3;
const ERROR_I: u32 = 1 << 4;

const PAGE_FAULT: u8 = 14;
const DOUBLE_FAULT: Fault = Fault {
    vector: 8,
    error_code: Some(0),
    cr2: None,
};

/// The fault that the current VMCS's guest takes for an access beyond the
/// width: a page fault for reserved bits. `qualification` is that of the EPT
/// violation. Where no linear address led to the access, #GP(0).
pub fn fault(hw: &mut impl VmcsAccess, qualification: u64) -> Fault {
    if qualification & LINEAR_VALID == 0 {
        return Fault::GP;
    }
    let mut code = ERROR_P | ERROR_RSVD;
    if qualification & WRITE != 0 {
        code |= ERROR_W;
    }
    if hw.read(field::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3 == 3 {
        code |= ERROR_U;
    }
    let tells_fetches = hw.read(field::GUEST_IA32_EFER) & EFER_NXE != 0
        || hw.read(field::GUEST_CR4) & CR4_SMEP != 0;
    if qualification & FETCH != 0 && tells_fetches {
        code |= ERROR_I;
    }
    Fault::page(hw.read(field::GUEST_LINEAR_ADDRESS), code)
}

/// What the CPU makes of `fault` when it comes up in the delivery of the event
/// of this IDT-vectoring information; `None` is a triple fault. SDM "Interrupt
/// 8 - Double Fault Exception (#DF)". Events that the fault replaces and that
/// were no exceptions are lost, or come again with their instruction.
pub fn in_delivery(vectoring: u64, fault: Fault) -> Option<Fault> {
    #[derive(PartialEq)]
    enum Class {
        Benign,
        Contributory,
        Page,
    }
    const fn class(vector: u8) -> Class {
        match vector {
            0 | 10..=13 | 21 => Class::Contributory,
            14 | 20 => Class::Page,
            _ => Class::Benign,
        }
    }
    let is_exception = vectoring & INFO_VALID != 0 && kind(vectoring) == TYPE_HARDWARE_EXCEPTION;
    let first = vectoring as u8;
    let second = class(fault.vector);
    if !is_exception || second == Class::Benign {
        return Some(fault);
    }
    if first == DOUBLE_FAULT.vector {
        return None;
    }
    match (class(first), second) {
        (Class::Page, _) | (Class::Contributory, Class::Contributory) => Some(DOUBLE_FAULT),
        _ => Some(fault),
    }
}

impl Nested {
    /// L2 touched such an address: it gets the fault, or L1 the exit that it
    /// asked for; ept12 is not asked. vmcs02 is current.
    pub(crate) fn l2_beyond_width(&mut self, hw: &mut impl Hardware, id: SlotId) -> L2Done {
        let qualification = hw.read(field::EXIT_QUALIFICATION);
        let vectoring = hw.read(field::IDT_VECTORING_INFORMATION);
        let first = fault(hw, qualification);
        let Some(fault) = in_delivery(vectoring, first) else {
            self.note_exit_without_event(id, 0);
            return self.reflect_event(hw, Reason::TripleFault as u32);
        };
        if !self.l1_wants_fault(id, fault) {
            if let Some(linear) = fault.cr2 {
                hw.set_cr2(linear);
            }
            self.inject_fault(hw, id, fault);
            self.continue_l2(hw);
            return L2Done::Resume;
        }
        // A double fault that exits is no longer the delivery of what led to it.
        let in_delivery = vectoring & INFO_VALID != 0 && fault == first;
        let mut info = self.raise_info(hw, fault);
        if qualification & NMI_UNBLOCKING != 0 && vectoring & INFO_VALID == 0 {
            info |= NMI_UNBLOCKING;
        }
        self.note_exit_without_event(id, if in_delivery { vectoring } else { 0 });
        let slot = self.slots.get(id);
        if in_delivery {
            for f in [
                field::IDT_VECTORING_ERROR_CODE,
                field::VM_EXIT_INSTRUCTION_LENGTH,
            ] {
                slot.cpu_stored(f, hw.read(f));
            }
        }
        let code = fault.error_code.unwrap_or(0);
        for (f, value) in [
            (field::VM_EXIT_INTERRUPTION_INFORMATION, info),
            (field::VM_EXIT_INTERRUPTION_ERROR_CODE, u64::from(code)),
            (field::EXIT_QUALIFICATION, fault.cr2.unwrap_or(0)),
        ] {
            slot.l0_records(f, value);
        }
        self.reflect_event(hw, Reason::ExceptionOrNmi as u32)
    }

    /// Whether the fault exits to L1. SDM "Exception Bitmap".
    fn l1_wants_fault(&mut self, id: SlotId, fault: Fault) -> bool {
        let v = self.slots.get(id);
        let is_set = v.get32(field::EXCEPTION_BITMAP) & 1 << (fault.vector & 31) != 0;
        if fault.vector != PAGE_FAULT {
            return is_set;
        }
        let code = fault.error_code.unwrap_or(0);
        let matches = code & v.get32(field::PAGE_FAULT_ERROR_CODE_MASK)
            == v.get32(field::PAGE_FAULT_ERROR_CODE_MATCH);
        matches == is_set
    }
}

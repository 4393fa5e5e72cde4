//! Accesses to physical addresses beyond the width that L1 is shown.
//!
//! ept01 has four levels, so L1 is shown 48 bits at most, and a CPU with more
//! does not raise the page fault that reserved bits of a paging entry cause: the
//! access comes to L0 as an EPT violation that nothing can map. SDM "Paging",
//! "Page-Fault Exceptions".

use umbra_arch::event::vector;
use umbra_arch::qualification::EptViolation;
use umbra_arch::{Cr4, Efer, EventInfo, EventType, Exception, Linear, PageFaultCode};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::event::event_in;
use crate::exit::L2Done;
use crate::hw::{Hardware, VmcsAccess};
use crate::operand::rights_in;
use crate::slots::SlotId;
use crate::state::Nested;

const DOUBLE_FAULT: Exception = Exception::with_code(vector::DF, 0);

/// The fault that the current VMCS's guest takes for an access beyond the
/// width: a page fault for reserved bits. `qualification` is that of the EPT
/// violation. Where no linear address led to the access, #GP(0).
pub fn fault(hw: &mut impl VmcsAccess, qualification: u64) -> Exception {
    if !EptViolation::LINEAR_VALID.is_in(qualification) {
        return Exception::GP;
    }
    let mut code = PageFaultCode::P | PageFaultCode::RSVD;
    if EptViolation::WRITE.is_in(qualification) {
        code |= PageFaultCode::W;
    }
    if rights_in(hw, field::GUEST_SS_ACCESS_RIGHTS).dpl() == 3 {
        code |= PageFaultCode::U;
    }
    let tells_fetches = Efer::NXE.is_in(hw.read(field::GUEST_IA32_EFER))
        || Cr4::SMEP.is_in(hw.read(field::GUEST_CR4));
    if EptViolation::FETCH.is_in(qualification) && tells_fetches {
        code |= PageFaultCode::I;
    }
    Exception::page(
        Linear::new(hw.read(field::GUEST_LINEAR_ADDRESS)),
        code.bits(),
    )
}

/// What the CPU makes of `fault` when it comes up in the delivery of the event
/// of this IDT-vectoring information; `None` is a triple fault. SDM "Interrupt
/// 8 - Double Fault Exception (#DF)". Events that the fault replaces and that
/// were no exceptions are lost, or come again with their instruction.
pub fn in_delivery(vectoring: EventInfo, fault: Exception) -> Option<Exception> {
    #[derive(PartialEq)]
    enum Class {
        Benign,
        Contributory,
        Page,
    }
    const fn class(vector: u8) -> Class {
        match vector {
            vector::DE | vector::TS..=vector::GP | vector::CP => Class::Contributory,
            vector::PF | vector::VE => Class::Page,
            _ => Class::Benign,
        }
    }
    let is_exception = vectoring.is(EventType::HardwareException);
    let first = vectoring.vector();
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
        let fault = fault(hw, qualification);
        self.l2_faults(hw, id, fault, qualification)
    }

    /// The instruction of L2 that exited, which L1 had no part in, raises this: in L2, or
    /// L1 sees it if it wants that. vmcs02 is current.
    pub fn fault_in_l2(&mut self, hw: &mut impl Hardware, fault: Exception) -> L2Done {
        let id = self.non_root().current;
        self.non_root().has_run = true;
        self.l2_faults(hw, id, fault, 0)
    }

    /// `qualification` is that of the EPT violation that the fault is for, or 0.
    fn l2_faults(
        &mut self,
        hw: &mut impl Hardware,
        id: SlotId,
        first: Exception,
        qualification: u64,
    ) -> L2Done {
        let vectoring = event_in(hw, field::IDT_VECTORING_INFORMATION);
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
        let in_delivery = vectoring.valid() && fault == first;
        let mut info = self.raise_info(hw, fault);
        if EptViolation::NMI_UNBLOCKING.is_in(qualification) && !vectoring.valid() {
            info.set_nmi_unblocking(true);
        }
        let on_record = if in_delivery {
            vectoring.into_bits()
        } else {
            0
        };
        self.note_exit_without_event(id, on_record.into());
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
            (
                field::VM_EXIT_INTERRUPTION_INFORMATION,
                u64::from(info.into_bits()),
            ),
            (field::VM_EXIT_INTERRUPTION_ERROR_CODE, u64::from(code)),
            (field::EXIT_QUALIFICATION, fault.cr2.unwrap_or(0)),
        ] {
            slot.l0_records(f, value);
        }
        self.reflect_event(hw, Reason::ExceptionOrNmi as u32)
    }

    /// Whether the fault exits to L1. SDM "Exception Bitmap".
    fn l1_wants_fault(&mut self, id: SlotId, fault: Exception) -> bool {
        let v = self.slots.get(id);
        let is_set = v.get32(field::EXCEPTION_BITMAP) & 1 << (fault.vector & 31) != 0;
        if fault.vector != vector::PF {
            return is_set;
        }
        let code = fault.error_code.unwrap_or(0);
        let matches = code & v.get32(field::PAGE_FAULT_ERROR_CODE_MASK)
            == v.get32(field::PAGE_FAULT_ERROR_CODE_MATCH);
        matches == is_set
    }
}

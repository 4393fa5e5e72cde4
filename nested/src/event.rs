//! Events on their way to L2: put back after an exit that L1 never sees, or
//! raised by L0 on L2's behalf.
//!
//! SDM "Information for VM Exits During Event Delivery", "Event Injection".

use umbra_vmcs::controls::Pin;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::bits::*;
use crate::fault::Fault;
use crate::hw::Hardware;
use crate::state::Nested;

/// Bits of event information: the error-code bit and the type.
const INFO_ERROR_CODE: u64 = 1 << 11;
const TYPE_NMI: u64 = 2;
const TYPE_HARDWARE_EXCEPTION: u64 = 3;
const TYPE_SOFTWARE_INTERRUPT: u64 = 4;
const TYPE_PRIVILEGED_SOFTWARE_EXCEPTION: u64 = 5;
const TYPE_SOFTWARE_EXCEPTION: u64 = 6;

const fn kind(info: u64) -> u64 {
    info >> 8 & 7
}

impl Nested {
    /// Before L0 resumes L2 after an exit of its own: the event that was being
    /// delivered is injected again, NMI blocking is put right, and the
    /// preemption timer has gone on. vmcs02 is current.
    pub(crate) fn resume_l2(&mut self, hw: &mut impl Hardware, number: usize) {
        let idt = hw.read(field::IDT_VECTORING_INFORMATION);
        if idt & INFO_VALID != 0 {
            self.inject_again(hw, number, idt);
        } else if self.exit_unblocked_nmis(hw) {
            let state = hw.read(field::GUEST_INTERRUPTIBILITY_STATE);
            hw.write(field::GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_NMI);
        }
        self.continue_timer(hw);
    }

    fn inject_again(&mut self, hw: &mut impl Hardware, number: usize, idt: u64) {
        let slot = self.slots.get(number);
        // Bits 30:12 of the vectoring information are no part of an event.
        hw.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, idt & 0x8000_0fff);
        if idt & INFO_ERROR_CODE != 0 {
            let code = hw.read(field::IDT_VECTORING_ERROR_CODE);
            hw.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
            slot.dirty.insert(field::VM_ENTRY_EXCEPTION_ERROR_CODE);
        }
        match kind(idt) {
            TYPE_SOFTWARE_INTERRUPT
            | TYPE_PRIVILEGED_SOFTWARE_EXCEPTION
            | TYPE_SOFTWARE_EXCEPTION => {
                let length = hw.read(field::VM_EXIT_INSTRUCTION_LENGTH);
                hw.write(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
                slot.dirty.insert(field::VM_ENTRY_INSTRUCTION_LENGTH);
            }
            TYPE_NMI => {
                // The delivery that broke off had blocked NMIs; the one that
                // starts over must not find them blocked.
                let state = hw.read(field::GUEST_INTERRUPTIBILITY_STATE);
                hw.write(
                    field::GUEST_INTERRUPTIBILITY_STATE,
                    state & !BLOCKING_BY_NMI,
                );
            }
            _ => {}
        }
    }

    /// Whether the exit is a fault of an IRET that had unblocked NMIs already.
    /// SDM "Exit Qualification for EPT Violations", bit 12.
    fn exit_unblocked_nmis(&self, hw: &mut impl Hardware) -> bool {
        let reason = hw.read(field::EXIT_REASON) as u16;
        reason == Reason::EptViolation as u16 && hw.read(field::EXIT_QUALIFICATION) & 1 << 12 != 0
    }

    /// Raises an exception in L2 for an instruction that L0 carried out for
    /// it: an exit to L1 if L1 wants that vector. True if L2 gets it.
    pub(crate) fn raise_in_l2(
        &mut self,
        hw: &mut impl Hardware,
        number: usize,
        fault: Fault,
    ) -> bool {
        let slot = self.slots.get(number);
        let bitmap = slot.vmcs12.get32(field::EXCEPTION_BITMAP);
        let mut info = INFO_VALID | TYPE_HARDWARE_EXCEPTION << 8 | u64::from(fault.vector);
        if fault.error_code.is_some() {
            info |= INFO_ERROR_CODE;
        }
        let code = u64::from(fault.error_code.unwrap_or(0));
        if bitmap & 1 << (fault.vector & 31) != 0 {
            hw.write_exit_event(slot, info, code);
            return false;
        }
        hw.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, info);
        if fault.error_code.is_some() {
            hw.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
            slot.dirty.insert(field::VM_ENTRY_EXCEPTION_ERROR_CODE);
        }
        true
    }

    /// Whether NMIs are blocked for L1 after this exit of L2: an NMI exit
    /// blocks them, any other leaves them as they were, and with virtual NMIs
    /// they were not blocked physically.
    pub(crate) fn blocks_nmis(&mut self, number: usize, is_nmi_exit: bool, l2_state: u64) -> bool {
        let slot = self.slots.get(number);
        is_nmi_exit || !slot.pin(Pin::VIRTUAL_NMIS) && l2_state & BLOCKING_BY_NMI != 0
    }
}

/// Storing an exception exit that no CPU exit stored.
trait ExitEvent {
    fn write_exit_event(&mut self, slot: &mut crate::slots::Slot, info: u64, code: u64);
}

impl<H: Hardware> ExitEvent for H {
    fn write_exit_event(&mut self, slot: &mut crate::slots::Slot, info: u64, code: u64) {
        slot.vmcs12
            .set(field::VM_EXIT_INTERRUPTION_INFORMATION, info);
        slot.vmcs12
            .set(field::VM_EXIT_INTERRUPTION_ERROR_CODE, code);
        slot.vmcs12.set(field::EXIT_QUALIFICATION, 0);
        slot.vmcs12.set(field::IDT_VECTORING_INFORMATION, 0);
    }
}

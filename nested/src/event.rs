//! Events on their way to L2: put back after an exit that L1 never sees, or
//! raised by L0 on L2's behalf.
//!
//! SDM "Information for VM Exits During Event Delivery", "Event Injection".

use umbra_arch::{Cr0, Dr7, EventInfo, Exception, Rflags};
use umbra_nmi::{Interruptibility, Policy, blocking};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, Field};

use crate::exit::L2Done;
use crate::hw::{Memory, Msrs, Translations, VmcsAccess};
use crate::slots::{Slot, SlotId};
use crate::state::{Nested, Vmx};

/// The event information in a field of the current VMCS.
pub(crate) fn event_in(hw: &mut impl VmcsAccess, field: Field) -> EventInfo {
    EventInfo::from_bits(hw.read(field) as u32)
}

/// Writes event information into a field of the current VMCS.
pub(crate) fn write_event(hw: &mut impl VmcsAccess, field: Field, event: EventInfo) {
    hw.write(field, u64::from(event.into_bits()));
}

impl Nested {
    /// What becomes of an NMI under vmcs12's controls.
    pub(crate) fn nmi_policy(&mut self, id: SlotId) -> Policy {
        let pin = self.slots.get(id).get32(field::PIN_BASED_CONTROLS);
        Policy::of_pin_controls(pin)
    }

    /// Before L0 resumes L2 after an exit of its own: the event that was being
    /// delivered is injected again, NMI blocking is put right, and the
    /// preemption timer has gone on. vmcs02 is current. `violation` is the
    /// qualification of an EPT violation, if that was it.
    pub(crate) fn resume_l2(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
        violation: Option<u64>,
    ) {
        let policy = self.nmi_policy(id);
        let idt = hw.read(field::IDT_VECTORING_INFORMATION) as u32;
        let now = Interruptibility(hw.read(field::GUEST_INTERRUPTIBILITY_STATE) as u32);
        let after = match blocking::before_reinjection(policy, now, idt) {
            Some((info, after)) => {
                self.inject_again(hw, id, EventInfo::from_bits(info));
                after
            }
            None => {
                self.forget_own_rf(hw);
                blocking::before_retry(policy, now, violation.unwrap_or(0), idt, false)
            }
        };
        if after != now {
            hw.write(field::GUEST_INTERRUPTIBILITY_STATE, u64::from(after.0));
        }
        self.continue_l2(hw);
    }

    /// An EPT violation that no event delivery met saves RF set, like any fault.
    /// L2 has not faulted: its instruction runs again as if for the first time,
    /// and some push RFLAGS. RF of L2's own keeps an instruction breakpoint from
    /// coming twice, so it stays where one is enabled.
    fn forget_own_rf(&mut self, hw: &mut impl VmcsAccess) {
        let rflags = hw.read(field::GUEST_RFLAGS);
        if Rflags::RF.is_in(rflags) && !Dr7::ENABLES.any_in(hw.read(field::GUEST_DR7)) {
            hw.write(field::GUEST_RFLAGS, rflags & !Rflags::RF.bits());
        }
    }

    /// RF is as the event pushes it: the exit saved just that. SDM "Saving RIP, RSP,
    /// RFLAGS, and SSP".
    fn inject_again(&mut self, hw: &mut impl VmcsAccess, id: SlotId, info: EventInfo) {
        let slot = self.slots.get(id);
        write_event(hw, field::VM_ENTRY_INTERRUPTION_INFORMATION, info);
        if info.has_error_code() {
            let code = hw.read(field::IDT_VECTORING_ERROR_CODE);
            slot.l0_overwrites(hw, field::VM_ENTRY_EXCEPTION_ERROR_CODE);
            hw.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
        }
        if info.kind().is_of_instruction() {
            let length = hw.read(field::VM_EXIT_INSTRUCTION_LENGTH);
            slot.l0_overwrites(hw, field::VM_ENTRY_INSTRUCTION_LENGTH);
            hw.write(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
        }
    }

    /// The entry about to be done, as far as an NMI that waits in L0 cares. The
    /// VMCS of the level that runs next is current.
    pub fn nmi_entry(&mut self, hw: &mut impl VmcsAccess) -> umbra_nmi::Entry {
        let interruptibility = hw.read(field::GUEST_INTERRUPTIBILITY_STATE) as u32;
        let event = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION) as u32;
        let activity = hw.read(field::GUEST_ACTIVITY_STATE) as u32;
        let debug = hw.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        let Vmx::NonRoot(l2) = &self.vmx else {
            return umbra_nmi::Entry::l1(interruptibility, event, activity, debug);
        };
        let id = l2.current;
        let exits_first = l2.timer_end.is_some() && hw.read(field::VMX_PREEMPTION_TIMER_VALUE) == 0;
        let v = self.slots.get(id);
        umbra_nmi::Entry::l2(
            v.get32(field::PIN_BASED_CONTROLS),
            v.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS),
            interruptibility,
            event,
            activity,
            debug,
            exits_first,
        )
    }

    /// Before L0 enters L2 again after an exit that was for an NMI of L0's alone.
    pub fn after_own_exit(&mut self, hw: &mut (impl VmcsAccess + Memory + Msrs)) {
        if self.in_l2() {
            self.non_root().has_run = true;
            self.continue_l2(hw);
        }
    }

    /// An NMI that arrived in L0 is an exit of L2, which was about to run.
    pub fn reflect_nmi(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
    ) -> L2Done {
        let id = self.non_root().current;
        let slot = self.slots.get(id);
        record_exit_event(slot, EventInfo::NMI, 0);
        self.reflect_event(hw, Reason::ExceptionOrNmi as u32)
    }

    /// Raises an exception in L2 for an instruction that L0 carried out for
    /// it: an exit to L1 if L1 wants that vector. True if L2 gets it.
    pub(crate) fn raise_in_l2(
        &mut self,
        hw: &mut impl VmcsAccess,
        id: SlotId,
        fault: Exception,
    ) -> bool {
        let bitmap = self.slots.get(id).get32(field::EXCEPTION_BITMAP);
        if bitmap & 1 << (fault.vector & 31) != 0 {
            let info = self.raise_info(hw, fault);
            let code = u64::from(fault.error_code.unwrap_or(0));
            record_exit_event(self.slots.get(id), info, code);
            return false;
        }
        self.inject_fault(hw, id, fault);
        true
    }

    /// The event information of a fault in L2, whose image of RFLAGS then has RF
    /// set, as that of any fault.
    pub(crate) fn raise_info(&self, hw: &mut impl VmcsAccess, fault: Exception) -> EventInfo {
        let info = fault.information(Cr0::PE.is_in(hw.read(field::GUEST_CR0)));
        let rflags = hw.read(field::GUEST_RFLAGS);
        hw.write(field::GUEST_RFLAGS, rflags | Rflags::RF.bits());
        info
    }

    /// The next entry of L2 delivers the fault.
    pub(crate) fn inject_fault(&mut self, hw: &mut impl VmcsAccess, id: SlotId, fault: Exception) {
        let info = self.raise_info(hw, fault);
        write_event(hw, field::VM_ENTRY_INTERRUPTION_INFORMATION, info);
        if info.has_error_code() {
            let code = u64::from(fault.error_code.unwrap_or(0));
            let slot = self.slots.get(id);
            slot.l0_overwrites(hw, field::VM_ENTRY_EXCEPTION_ERROR_CODE);
            hw.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
        }
    }
}

/// Records an exception exit that no CPU exit stored.
fn record_exit_event(slot: &mut Slot, info: EventInfo, code: u64) {
    let info = u64::from(info.into_bits());
    slot.l0_records(field::VM_EXIT_INTERRUPTION_INFORMATION, info);
    slot.l0_records(field::VM_EXIT_INTERRUPTION_ERROR_CODE, code);
    slot.l0_records(field::EXIT_QUALIFICATION, 0);
    slot.l0_records(field::IDT_VECTORING_INFORMATION, 0);
}

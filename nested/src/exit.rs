//! An exit of L2: L0's own, or L1's to see.
//!
//! SDM "VM Exits": recording exit information, saving guest state, loading
//! host state.

use umbra_arch::msr;
use umbra_arch::{Efer, EventInfo, EventType, Exception, Rflags};
use umbra_nmi::{Interruptibility, Policy, blocking};
use umbra_vmcs::controls::{Entry, Proc};
use umbra_vmcs::exit::{ExitReason, Reason};
use umbra_vmcs::field;

use crate::derived::OnExit;
use crate::host_state::{LeftByL2, abort, write_host_state};
use crate::hw::{Current, Hardware, Memory, Msrs, Translations, VmcsAccess};
use crate::lend::leave_vmcs02;
use crate::msr_list::in_vmcs;
use crate::slots::{Saved, Slot, SlotId};
use crate::state::Nested;
use crate::step::skip_instruction;

/// What becomes of an exit of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Done {
    /// L0 dealt with it: L2 goes on.
    Resume,
    /// L1 runs next, with the exit in vmcs12.
    Reflected,
    /// A VMX abort, with this indicator: the CPU is in the shutdown state.
    Abort(u32),
}

impl Nested {
    /// Deals with an exit of L2 for this reason. vmcs02 is current; afterwards the
    /// VMCS of whichever level runs next.
    pub fn l2_exit(&mut self, hw: &mut impl Hardware, reason: ExitReason) -> L2Done {
        let id = self.non_root().current;
        if reason.is_entry_failure() {
            return self.l2_entry_failed(hw, id, reason);
        }
        self.non_root().has_run = true;
        match reason.known() {
            Some(Reason::MonitorTrapFlag) if core::mem::take(&mut self.non_root().init_waits) => {
                self.note_exit_without_event(id, 0);
                self.reflect_event(hw, Reason::Init as u32)
            }
            Some(Reason::CrAccess)
                if self.is_own_cr8_load(id, hw.read(field::EXIT_QUALIFICATION)) =>
            {
                self.l2_cr8_load(hw, id)
            }
            Some(reason @ (Reason::EptViolation | Reason::EptMisconfiguration)) => {
                self.l2_ept_violation(hw, id, reason)
            }
            Some(Reason::Rdmsr) => self.l2_msr(hw, id, false),
            Some(Reason::Wrmsr) => self.l2_msr(hw, id, true),
            Some(Reason::Vmfunc) => self.l2_vmfunc(hw, id),
            // Every other exit has its cause in a control of vmcs12 or has no
            // control at all: L1's. So is a reason that Umbra does not know.
            _ => self.reflect(hw, reason.bits()),
        }
    }

    /// The CPU refused a vmcs02 whose vmcs12 the rules had let through: L1
    /// learns what the CPU said.
    fn l2_entry_failed(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
        reason: ExitReason,
    ) -> L2Done {
        let reason = reason.known().unwrap_or(Reason::EntryGuestState);
        if self.non_root().has_run && reason != Reason::EntryMachineCheck {
            return self.l2_cannot_go_on(hw, id);
        }
        let qualification = hw.read(field::EXIT_QUALIFICATION);
        self.slots.get(id).distrust_vmcs02();
        self.end_l2();
        hw.switch_to(Current::Vmcs01);
        self.undo_launch(hw, id);
        match self.entry_failure(hw, id, reason, qualification, None) {
            crate::Done::Abort(indicator) => L2Done::Abort(indicator),
            _ => L2Done::Reflected,
        }
    }

    /// A VMLAUNCH that failed leaves the launch state clear. vmcs01 is current.
    fn undo_launch(&mut self, hw: &mut impl VmcsAccess, id: SlotId) {
        if hw.read(field::EXIT_REASON) as u16 == Reason::Vmlaunch as u16 {
            self.slots.get(id).set_launched(false);
        }
    }

    /// The CPU takes L2 no further, and the VM entry of L1 lies behind: what a
    /// guest ends in that cannot go on.
    fn l2_cannot_go_on(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
    ) -> L2Done {
        self.note_exit_without_event(id, 0);
        self.reflect_event(hw, Reason::TripleFault as u32)
    }

    /// VMLAUNCH or VMRESUME of vmcs02 ended in VMfailValid with this error:
    /// like [`l2_exit`](Self::l2_exit) for a vmcs12 that the rules let through
    /// and the CPU does not. L1's instruction ends in the same failure, and the
    /// caller moves L1 behind it (`None`), unless L2 has run since.
    pub fn l2_vmfail(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        error: u32,
    ) -> Option<L2Done> {
        let id = self.non_root().current;
        if self.non_root().has_run {
            return Some(match self.retry_own_entry(hw) {
                true => L2Done::Resume,
                false => self.l2_cannot_go_on(hw, id),
            });
        }
        self.end_l2();
        let slot = self.slots.get(id);
        slot.distrust_vmcs02();
        slot.l0_records(field::VM_INSTRUCTION_ERROR, u64::from(error));
        self.back_to_vmcs01(hw, id);
        self.undo_launch(hw, id);
        let rflags = hw.read(field::GUEST_RFLAGS) & !Rflags::STATUS.bits();
        hw.write(field::GUEST_RFLAGS, rflags | Rflags::ZF.bits());
        None
    }

    /// RDMSR or WRMSR of L2: L1's if its bitmap says so; else the CPU's, from now
    /// on; or L0 intercepts the MSR for itself and does what L1's own access
    /// would do.
    fn l2_msr(&mut self, hw: &mut impl Hardware, id: SlotId, is_write: bool) -> L2Done {
        let index = hw.gpr(1) as u32;
        if self.l1_wants_msr(hw, id, index, is_write) {
            let reason = if is_write {
                Reason::Wrmsr
            } else {
                Reason::Rdmsr
            };
            return self.reflect(hw, reason as u32);
        }
        let bitmap = self.slots.get(id).gpa1(field::MSR_BITMAP);
        if hw.open_msr(bitmap, index, is_write) {
            // L2 executes its instruction again, and the CPU carries it out.
            self.continue_l2(hw);
            return L2Done::Resume;
        }
        // L1 may have changed its bitmap since the entry, so the MSR can be any;
        // the CPU's own copy of one that vmcs02 holds is L0's here.
        let result = if is_write {
            let value = hw.gpr(2) << 32 | hw.gpr(0) & 0xffff_ffff;
            match in_vmcs(index) {
                Some(f) => self.load_vmcs_msr(hw, f, value),
                None => hw.wrmsr_l1(index, value),
            }
        } else {
            let value = match in_vmcs(index) {
                Some(f) => Ok(hw.read(f)),
                None => hw.rdmsr_l1(index),
            };
            value.map(|value| {
                hw.set_gpr(0, value & 0xffff_ffff);
                hw.set_gpr(2, value >> 32);
            })
        };
        match result {
            Ok(()) => {
                if is_write {
                    // An MTRR changes the memory types that ept02 was made of.
                    self.use_ept(hw, id);
                }
                self.end_instruction_of_l2(hw, id)
            }
            Err(_) => {
                if !self.raise_in_l2(hw, id, Exception::GP) {
                    return self.reflect_event(hw, Reason::ExceptionOrNmi as u32);
                }
                self.continue_l2(hw);
                L2Done::Resume
            }
        }
    }

    /// L0 has carried out the instruction of L2 that exited, which L1 had no part in: L2
    /// goes on behind it, or exits where L1 asked for that after each instruction. vmcs02
    /// is current.
    pub fn skip_in_l2(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
    ) -> L2Done {
        let id = self.non_root().current;
        self.non_root().has_run = true;
        self.end_instruction_of_l2(hw, id)
    }

    /// L0 has carried out the instruction that L2 exited with: L2 goes on
    /// behind it, unless L1 asked for an exit after each instruction (SDM
    /// "Monitor Trap Flag").
    pub(crate) fn end_instruction_of_l2(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
    ) -> L2Done {
        skip_instruction(hw);
        if self.slots.get(id).proc(Proc::MONITOR_TRAP_FLAG) {
            self.note_exit_without_event(id, 0);
            return self.reflect_event(hw, Reason::MonitorTrapFlag as u32);
        }
        self.continue_l2(hw);
        L2Done::Resume
    }

    /// The information of an exit that no CPU recorded and that is no event.
    pub(crate) fn note_exit_without_event(&mut self, id: SlotId, vectoring: u64) {
        let slot = self.slots.get(id);
        for (f, value) in [
            (field::EXIT_QUALIFICATION, 0),
            (field::VM_EXIT_INTERRUPTION_INFORMATION, 0),
            (field::IDT_VECTORING_INFORMATION, vectoring),
            (field::IDT_VECTORING_ERROR_CODE, 0),
        ] {
            slot.l0_records(f, value);
        }
    }

    /// Reflects the exit that vmcs02 recorded, under `reason`.
    #[inline]
    pub(crate) fn reflect(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        reason: u32,
    ) -> L2Done {
        self.exit_to_l1(hw, reason, true)
    }

    /// Reflects an exit whose information is in vmcs12 already.
    pub(crate) fn reflect_event(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        reason: u32,
    ) -> L2Done {
        self.exit_to_l1(hw, reason, false)
    }

    /// The exit to L1. Its information is what vmcs02 has recorded, or in vmcs12
    /// already.
    fn exit_to_l1(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        reason: u32,
        is_recorded: bool,
    ) -> L2Done {
        let id = self.non_root().current;
        let mut slot = self.slots.get(id);
        let is_nmi_exit = reason as u16 == Reason::ExceptionOrNmi as u16 && {
            let event = match is_recorded {
                true => hw.read(field::VM_EXIT_INTERRUPTION_INFORMATION),
                false => slot.get(field::VM_EXIT_INTERRUPTION_INFORMATION),
            };
            EventInfo::from_bits(event as u32).is(EventType::Nmi)
        };
        let on = slot.derived().exit;
        let saved = match is_recorded {
            true if slot.is_lending() => Saved::AllOfIt,
            true => Saved::Information,
            false => Saved::GuestState,
        };
        if saved != Saved::AllOfIt {
            slot.l0_records(field::EXIT_REASON, u64::from(reason));
        }
        let left = left_by_l2(hw, slot, is_nmi_exit);
        save_guest_state(hw, slot, &left, saved);
        if on.contains(OnExit::STORE_LIST) {
            if self.store_exit_msrs(hw, id).is_err() {
                self.end_l2();
                return L2Done::Abort(self.vmx_abort(hw, id, abort::SAVING_GUEST_MSRS));
            }
            slot = self.slots.get(id);
        }
        leave_vmcs02(hw, slot, id, saved, &self.fields);
        let on = write_host_state(hw, slot, &left);
        self.end_l2();
        match self.load_rare_host_state(hw, id, on) {
            Ok(()) => L2Done::Reflected,
            Err(indicator) => L2Done::Abort(indicator),
        }
    }
}

/// Saves L2's state into vmcs12: nearly all of it by noting that vmcs02 has it.
#[inline(always)]
fn save_guest_state(
    hw: &mut (impl VmcsAccess + Msrs),
    slot: &mut Slot,
    left: &LeftByL2,
    saved: Saved,
) {
    // The event of the entry has been delivered or is on record.
    let event = EventInfo::from_bits(slot.get32(field::VM_ENTRY_INTERRUPTION_INFORMATION));
    if event.valid() {
        let delivered = event.with_valid(false).into_bits();
        slot.l0_records(field::VM_ENTRY_INTERRUPTION_INFORMATION, delivered.into());
    }
    slot.cpu_saved(saved);
    slot.fetch_asked(hw);
    let on = slot.derived().exit;
    if on.contains(OnExit::SAVES_PERF)
        && let Ok(value) = hw.rdmsr_l1(msr::IA32_PERF_GLOBAL_CTRL)
    {
        slot.cpu_stored(field::GUEST_IA32_PERF_GLOBAL_CTRL, value);
    }
    if on.contains(OnExit::STORES_LMA) {
        let control = u64::from(Entry::IA32E_MODE_GUEST.bits());
        let old = slot.get(field::VM_ENTRY_CONTROLS);
        let new = match Efer::LMA.is_in(left.efer) {
            true => old | control,
            false => old & !control,
        };
        if new != old {
            slot.l1_writes(field::VM_ENTRY_CONTROLS, new);
        }
    }
}

/// What L1 keeps of L2's state where vmcs12 loads none of its own. vmcs02 is current
/// and has it.
#[inline(always)]
pub(crate) fn left_by_l2(hw: &mut impl VmcsAccess, slot: &Slot, is_nmi_exit: bool) -> LeftByL2 {
    let policy = Policy::of_pin_controls(slot.get32(field::PIN_BASED_CONTROLS));
    let l2 = Interruptibility(hw.read(field::GUEST_INTERRUPTIBILITY_STATE) as u32);
    LeftByL2 {
        efer: hw.read(field::GUEST_IA32_EFER),
        pat: hw.read(field::GUEST_IA32_PAT),
        cr0: hw.read(field::GUEST_CR0),
        blocks_nmis: blocking::l1_after_exit(policy, l2, is_nmi_exit).nmi(),
    }
}

//! Nested VM entry, once the rules have passed.
//!
//! SDM "Loading Guest State", "Loading MSRs", "VM-Entry Failures During or
//! After Loading Guest State".

use umbra_ept::ept02::{Context12, Pml};
use umbra_ept::eptp::Eptp;
use umbra_ept::invalidate::Invalidate;
use umbra_vmcs::controls::{Entry, Pin, Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::bits::*;
use crate::event::{TYPE_OTHER, kind};
use crate::host_state::LeftByL2;
use crate::hw::{Current, Memory, Msrs, Translations, VmcsAccess};
use crate::insn::Done;
use crate::pdptes::{PDPTES, load_pdptes};
use crate::slots::SlotId;
use crate::state::Nested;

/// L1's registers that L2 starts with unless vmcs12 loads its own.
struct Inherited {
    efer: u64,
    pat: u64,
    debugctl: u64,
    dr7: u64,
}

impl Nested {
    /// Enters L2: leaves vmcs02 current and complete. vmcs01 is current.
    pub(crate) fn enter_l2(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
    ) -> Done {
        self.hold_shadow(hw, id);
        let inherited = self.inherited(hw, id);
        let slot = self.slots.get(id);
        if slot.take_reset() {
            hw.reset_vmcs02(id);
        } else {
            hw.switch_to(Current::Vmcs02(id));
        }
        self.compose(hw, id);
        self.load_unsaved_state(hw, id, &inherited);
        self.use_bitmap(hw, id);
        self.use_vpid(hw, id);
        if !self.use_ept(hw, id) {
            // The rules let no such EPT pointer through.
            return self.entry_failure(hw, id, Reason::EntryGuestState, 0, None);
        }
        if let Err(entry) = self.load_entry_msrs(hw, id) {
            // Guest state has been loaded by then: what the exit does not load is
            // L2's.
            let left = self.left_by_l2(hw, id, false);
            return self.entry_failure(hw, id, Reason::EntryMsrLoading, entry, Some(left));
        }
        if hw.has_ept01_change() {
            // The list has loaded MTRRs, and the EPT pointer was good before.
            self.use_ept(hw, id);
        }
        // Counted from here: the list may have loaded the TSC.
        let timer_end = self.start_timer(hw, id);
        self.slots.get(id).set_launched(true);
        self.begin_l2(id, timer_end);
        self.release_init(hw, id)
    }

    /// Blocked in VMX root operation, an INIT exits at once in VMX non-root
    /// operation, but for the wait-for-SIPI state. An event that the VM entry
    /// injects is delivered first: monitor trap flag ends L2's run behind it. A
    /// pending MTF exit comes after INIT, and is lost. SDM "Event Injection",
    /// "Monitor Trap Flag".
    fn release_init(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
    ) -> Done {
        const WAIT_FOR_SIPI: u64 = 3;

        if !self.non_root().init_waits || hw.read(field::GUEST_ACTIVITY_STATE) == WAIT_FOR_SIPI {
            return Done::Switched;
        }
        let event = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION);
        if event & INFO_VALID != 0 && kind(event) != TYPE_OTHER {
            let slot = self.slots.get(id);
            slot.l0_overwrites(hw, field::PRIMARY_PROCESSOR_BASED_CONTROLS);
            let controls = hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
            let trap = u64::from(Proc::MONITOR_TRAP_FLAG.bits());
            hw.write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, controls | trap);
            return Done::Switched;
        }
        self.non_root().init_waits = false;
        // No CPU has cleared it.
        hw.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
        self.note_exit_without_event(id, 0);
        match self.reflect_event(hw, Reason::Init as u32) {
            crate::L2Done::Abort(indicator) => Done::Abort(indicator),
            _ => Done::Switched,
        }
    }

    /// L1's own registers, as far as vmcs12 does not load them. vmcs01 is
    /// current.
    fn inherited(&mut self, hw: &mut impl VmcsAccess, id: SlotId) -> Inherited {
        let slot = self.slots.get(id);
        let mut read_unless = |control, field| {
            if slot.entry(control) {
                0
            } else {
                hw.read(field)
            }
        };
        Inherited {
            efer: read_unless(Entry::LOAD_EFER, field::GUEST_IA32_EFER),
            pat: read_unless(Entry::LOAD_PAT, field::GUEST_IA32_PAT),
            debugctl: read_unless(Entry::LOAD_DEBUG_CONTROLS, field::GUEST_IA32_DEBUGCTL),
            dr7: read_unless(Entry::LOAD_DEBUG_CONTROLS, field::GUEST_DR7),
        }
    }

    /// The state that vmcs02 saves at each exit though vmcs12 may not: EFER,
    /// PAT, DR7 and IA32_DEBUGCTL, and PDPTEs without EPT.
    fn load_unsaved_state(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
        l1: &Inherited,
    ) {
        let slot = self.slots.get(id);
        // What the last exit saved and L1 has not read lies in vmcs02 alone,
        // and the writes below would lose it.
        for f in [
            field::GUEST_IA32_PAT,
            field::GUEST_IA32_DEBUGCTL,
            field::GUEST_DR7,
        ] {
            slot.fetch(hw, f);
        }
        let v = &*slot;
        let cr0 = v.get(field::GUEST_CR0);
        let efer = if slot.entry(Entry::LOAD_EFER) {
            v.get(field::GUEST_IA32_EFER)
        } else {
            // SDM "Loading Guest Control Registers, Debug Registers, and MSRs":
            // LMA follows the control, and LME does too where paging is on.
            let mut efer = l1.efer & !EFER_LMA;
            if cr0 & CR0_PG != 0 {
                efer &= !EFER_LME;
            }
            if slot.entry(Entry::IA32E_MODE_GUEST) {
                efer |= EFER_LMA | EFER_LME;
            }
            efer
        };
        hw.write(field::GUEST_IA32_EFER, efer);
        let pat = match slot.entry(Entry::LOAD_PAT) {
            true => v.get(field::GUEST_IA32_PAT),
            false => l1.pat,
        };
        hw.write(field::GUEST_IA32_PAT, pat);
        let (debugctl, dr7) = match slot.entry(Entry::LOAD_DEBUG_CONTROLS) {
            true => (v.get(field::GUEST_IA32_DEBUGCTL), v.get(field::GUEST_DR7)),
            false => (l1.debugctl, l1.dr7),
        };
        hw.write(field::GUEST_IA32_DEBUGCTL, debugctl);
        hw.write(field::GUEST_DR7, dr7);
        if slot.entry(Entry::LOAD_PERF_GLOBAL_CTRL) {
            // A CPU may have the control and not the MSR.
            let value = v.get(field::GUEST_IA32_PERF_GLOBAL_CTRL);
            let _ = hw.wrmsr_l1(MSR_IA32_PERF_GLOBAL_CTRL, value);
        }

        let is_pae = cr0 & CR0_PG != 0
            && v.get(field::GUEST_CR4) & CR4_PAE != 0
            && !slot.entry(Entry::IA32E_MODE_GUEST);
        if is_pae && !slot.proc2(Proc2::ENABLE_EPT) {
            // vmcs02 uses EPT, so the CPU takes the PDPTEs from vmcs02; for L1
            // they come from memory.
            for f in PDPTES {
                slot.l0_overwrites(hw, f);
            }
            load_pdptes(hw, slot.get(field::GUEST_CR3));
        }
    }

    fn use_bitmap(&mut self, hw: &mut (impl VmcsAccess + Msrs), id: SlotId) {
        let slot = self.slots.get(id);
        if slot.proc(Proc::USE_MSR_BITMAPS) {
            let address = slot.get(field::MSR_BITMAP);
            let merged = hw.merge_msr_bitmap(address);
            hw.write(field::MSR_BITMAP, merged);
        }
    }

    fn use_vpid(&mut self, hw: &mut (impl VmcsAccess + Translations), id: SlotId) {
        let slot = self.slots.get(id);
        let vpid12 = match slot.proc2(Proc2::ENABLE_VPID) {
            true => Some(slot.get(field::VIRTUAL_PROCESSOR_ID) as u16),
            false => None,
        };
        let assigned = self.vpids.enter(vpid12);
        hw.write(field::VIRTUAL_PROCESSOR_ID, u64::from(assigned.hardware));
        if assigned.flush_needed {
            hw.invvpid_single(assigned.hardware);
        }
    }

    /// What the pool has to know of L2; `None` if L1 does not use EPT for it.
    pub(crate) fn context12(&mut self, id: SlotId) -> Option<Context12> {
        let ept_caps = self.ept_caps;
        let slot = self.slots.get(id);
        if !slot.proc2(Proc2::ENABLE_EPT) {
            return None;
        }
        let mode_based = slot.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL);
        let caps = ept_caps.with_mode_based_execute(mode_based);
        let eptp = Eptp::new(slot.get(field::EPT_POINTER), &caps).ok()?;
        Some(Context12 { eptp, caps })
    }

    /// Page-modification logging as vmcs12 asks for it.
    pub(crate) fn pml12(&mut self, id: SlotId) -> Pml {
        let slot = self.slots.get(id);
        if !slot.proc2(Proc2::ENABLE_PML) {
            return Pml::Off;
        }
        Pml::On {
            full: slot.get(field::PML_INDEX) > 511,
        }
    }

    /// Gives vmcs02 its EPT pointer; false if vmcs12's is not one.
    pub(crate) fn use_ept(
        &mut self,
        hw: &mut (impl VmcsAccess + Translations),
        id: SlotId,
    ) -> bool {
        let slot = self.slots.get(id);
        if !slot.proc2(Proc2::ENABLE_EPT) {
            if slot.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES) {
                // Behind a large page the CPU may not know the page again: SDM
                // "Virtualizing Memory-Mapped APIC Accesses". With EPT in L1 the
                // size of ept12's leaf decides.
                hw.keep_small_ept01(slot.get(field::APIC_ACCESS_ADDRESS));
            }
            let pointer = hw.ept01_pointer();
            hw.write(field::EPT_POINTER, pointer);
            return true;
        }
        let Some(context) = self.context12(id) else {
            return false;
        };
        if hw.take_ept01_change() {
            let owed = self.pool.drop_all();
            invalidate(hw, owed);
        }
        let active = {
            let (mut tables, mut memory) = hw.ept();
            self.pool.activate(&context, &mut tables, &mut memory)
        };
        let Some(active) = active else { return false };
        hw.write(field::EPT_POINTER, active.eptp.raw());
        let mut owed = active.invalidate;
        if let Some(gpa2) = self.slots.get(id).take_violation() {
            // L1 has most likely mended it, and L2 would fault there once more.
            let (mut tables, mut memory) = hw.ept();
            let more = self.pool.prefill(&context, gpa2, &mut tables, &mut memory);
            owed = owed.and(more);
        }
        invalidate(hw, owed);
        true
    }

    /// Gives where the preemption timer runs out, if it is on.
    fn start_timer(&mut self, hw: &mut (impl VmcsAccess + Msrs), id: SlotId) -> Option<u64> {
        let slot = self.slots.get(id);
        if !slot.pin(Pin::ACTIVATE_PREEMPTION_TIMER) {
            return None;
        }
        slot.fetch(hw, field::VMX_PREEMPTION_TIMER_VALUE);
        let value = slot.get(field::VMX_PREEMPTION_TIMER_VALUE);
        let now = hw.tsc() >> (self.caps.misc & 0x1f);
        hw.write(field::VMX_PREEMPTION_TIMER_VALUE, value);
        Some(now.wrapping_add(value))
    }

    /// Before L0 resumes L2 by itself: the timer has gone on meanwhile, and VTPR
    /// may have fallen.
    pub(crate) fn continue_l2(&mut self, hw: &mut (impl VmcsAccess + Memory + Msrs)) {
        self.fit_tpr_threshold(hw);
        if let Some(end) = self.non_root().timer_end {
            let now = hw.tsc() >> (self.caps.misc & 0x1f);
            hw.write(
                field::VMX_PREEMPTION_TIMER_VALUE,
                end.saturating_sub(now).min(0xffff_ffff),
            );
        }
    }

    /// A VM entry that failed after the checks on host state: an exit to L1
    /// that saves nothing of L2. Whichever VMCS is current. `left` as in
    /// [`load_host_state`](Self::load_host_state).
    pub(crate) fn entry_failure(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
        reason: Reason,
        qualification: u64,
        left: Option<LeftByL2>,
    ) -> Done {
        hw.switch_to(Current::Vmcs01);
        // The CPU stored the outcome, no field besides; guest state and the
        // valid bit of the entry's event stay as they are.
        let slot = self.slots.get(id);
        let reason = u64::from(reason as u32 | umbra_vmcs::exit::ENTRY_FAILURE);
        slot.l0_records(field::EXIT_REASON, reason);
        slot.l0_records(field::EXIT_QUALIFICATION, qualification);
        match self.load_host_state(hw, id, left) {
            Ok(()) => Done::Switched,
            Err(indicator) => Done::Abort(indicator),
        }
    }
}

/// Carries out the INVEPT that a change of ept02 is followed by.
pub(crate) fn invalidate(hw: &mut impl Translations, what: Invalidate) {
    match what {
        Invalidate::None => {}
        Invalidate::Single(eptp) => hw.invept_single(eptp.raw()),
        Invalidate::All => hw.invept_all(),
    }
}

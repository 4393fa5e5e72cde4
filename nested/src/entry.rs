//! Nested VM entry, once the rules have passed.
//!
//! SDM "Loading Guest State", "Loading MSRs", "VM-Entry Failures During or
//! After Loading Guest State".

use umbra_arch::msr;
use umbra_arch::state::Activity;
use umbra_arch::{Cr0, Cr4, Efer, EventType};
use umbra_ept::ept02::{Context12, Pml, Pool};
use umbra_ept::invalidate::Invalidate;
use umbra_ept::vpid::Vpids;
use umbra_vmcs::controls::{Entry, Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, FieldSet};

use crate::compose::compose;
use crate::derived::{ALWAYS_SAVED, OnEntry, OnExit};
use crate::event::event_in;
use crate::exit::left_by_l2;
use crate::host_state::LeftByL2;
use crate::hw::{Current, Memory, Msrs, Translations, VmcsAccess};
use crate::insn::Done;
use crate::pdptes::{PDPTES, load_pdptes};
use crate::slots::{Own, Slot, SlotId};
use crate::state::Nested;

/// L1's registers that L2 starts with unless vmcs12 loads its own.
pub(crate) struct Inherited {
    efer: u64,
    pat: u64,
    debugctl: u64,
    dr7: u64,
}

impl Inherited {
    /// As far as L2 gets them. vmcs01 is current.
    #[inline(always)]
    pub(crate) fn read(hw: &mut impl VmcsAccess, on: OnEntry) -> Self {
        let mut read_on = |flag, field| match on.contains(flag) {
            true => hw.read(field),
            false => 0,
        };
        Self {
            efer: read_on(OnEntry::INHERITS_EFER, field::GUEST_IA32_EFER),
            pat: read_on(OnEntry::INHERITS_PAT, field::GUEST_IA32_PAT),
            debugctl: read_on(OnEntry::INHERITS_DEBUG, field::GUEST_IA32_DEBUGCTL),
            dr7: read_on(OnEntry::INHERITS_DEBUG, field::GUEST_DR7),
        }
    }
}

impl Nested {
    /// Enters L2: leaves vmcs02 current and complete.
    /// `inherited` is what L2 gets of L1's registers. Whichever VMCS is current.
    pub(crate) fn enter_l2(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
        inherited: &Inherited,
    ) -> Done {
        let slot = self.slots.get(id);
        let on = slot.derived().entry;
        if slot.take_reset() {
            hw.reset_vmcs02(id);
        } else {
            hw.switch_to(Current::Vmcs02(id));
        }
        let changed = compose(hw, slot, self.fields, &self.caps, &self.cpu);
        load_registers(hw, slot, inherited, changed);
        if on.intersects(OnEntry::LOADS_PERF | OnEntry::PDPTES_IN_MEMORY) {
            load_rare_registers(hw, slot);
        }
        if on.contains(OnEntry::MSR_BITMAP) {
            let merged = hw.merge_msr_bitmap(slot.gpa1(field::MSR_BITMAP));
            slot.write_own(hw, Own::MsrBitmap(merged));
        }
        use_vpid(hw, slot, &mut self.vpids);
        if !use_ept(hw, slot, &mut self.pool) {
            // The rules let no such EPT pointer through.
            return self.entry_failure(hw, id, Reason::EntryGuestState, 0, None);
        }
        let was_launched = slot.is_launched();
        slot.set_launched(true);
        if on.contains(OnEntry::MSR_LIST) {
            if let Err(entry) = self.load_entry_msrs(hw, id) {
                // Guest state has been loaded by then: what the exit does not load is
                // L2's.
                let left = left_by_l2(hw, self.slots.get(id), false);
                self.slots.get(id).set_launched(was_launched);
                return self.entry_failure(hw, id, Reason::EntryMsrLoading, entry, Some(left));
            }
            if hw.has_ept01_change() {
                // The list has loaded MTRRs, and the EPT pointer was good before.
                self.use_ept(hw, id);
            }
        }
        // Counted from here: the list may have loaded the TSC.
        let timer_end = match on.contains(OnEntry::TIMER) {
            true => Some(self.timer_end(hw)),
            false => None,
        };
        self.begin_l2(id, timer_end);
        match self.non_root().init_waits {
            true => self.release_init(hw, id),
            false => Done::Switched,
        }
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
        if hw.read(field::GUEST_ACTIVITY_STATE) == Activity::WaitForSipi as u64 {
            return Done::Switched;
        }
        let event = event_in(hw, field::VM_ENTRY_INTERRUPTION_INFORMATION);
        if event.valid() && event.kind() != EventType::Other {
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

    /// What the pool has to know of L2; `None` if L1 does not use EPT for it.
    pub(crate) fn context12(&mut self, id: SlotId) -> Option<Context12> {
        self.slots.get(id).derived().context
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

    /// Gives vmcs02, which is current, its EPT pointer; false if vmcs12's is not one.
    pub(crate) fn use_ept(
        &mut self,
        hw: &mut (impl VmcsAccess + Translations),
        id: SlotId,
    ) -> bool {
        use_ept(hw, self.slots.get(id), &mut self.pool)
    }

    /// Gives where the preemption timer runs out, which is on.
    fn timer_end(&self, hw: &mut (impl VmcsAccess + Msrs)) -> u64 {
        let now = hw.tsc() >> (self.caps.misc & 0x1f);
        now.wrapping_add(hw.read(field::VMX_PREEMPTION_TIMER_VALUE))
    }

    /// Before L0 resumes L2 by itself: the timer has gone on meanwhile, and VTPR
    /// may have fallen.
    pub(crate) fn continue_l2(&mut self, hw: &mut (impl VmcsAccess + Memory + Msrs)) {
        self.fit_tpr_threshold(hw);
        if let Some(end) = self.non_root().timer_end {
            let now = hw.tsc() >> (self.caps.misc & 0x1f);
            let left = end.saturating_sub(now).min(0xffff_ffff);
            let id = self.non_root().current;
            let slot = self.slots.get(id);
            slot.l0_replaces(hw, field::VMX_PREEMPTION_TIMER_VALUE, left);
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
        // The CPU stored the outcome, no field besides; guest state and the
        // valid bit of the entry's event stay as they are.
        let slot = self.slots.get(id);
        let reason = u64::from(reason as u32 | umbra_vmcs::exit::ENTRY_FAILURE);
        slot.l0_records(field::EXIT_REASON, reason);
        slot.l0_records(field::EXIT_QUALIFICATION, qualification);
        self.back_to_vmcs01(hw, id);
        match self.load_host_state(hw, id, left) {
            Ok(()) => Done::Switched,
            Err(indicator) => Done::Abort(indicator),
        }
    }
}

/// The EFER of L2 where vmcs12 does not load one. SDM "Loading Guest Control
/// Registers, Debug Registers, and MSRs": LMA follows the control, and LME does too
/// where paging is on.
fn inherited_efer(hw: &mut impl VmcsAccess, slot: &Slot, l1_efer: u64) -> u64 {
    let mut efer = l1_efer & !Efer::LMA.bits();
    if Cr0::PG.is_in(hw.read(field::GUEST_CR0)) {
        efer &= !Efer::LME.bits();
    }
    if slot.entry(Entry::IA32E_MODE_GUEST) {
        efer |= Efer::LMA.bits() | Efer::LME.bits();
    }
    efer
}

/// EFER, PAT, DR7 and IA32_DEBUGCTL: vmcs02 loads and saves them whatever vmcs12
/// does. Where vmcs12 loads its own, vmcs02 has it unless it `changed`.
#[inline(always)]
fn load_registers(hw: &mut impl VmcsAccess, slot: &mut Slot, l1: &Inherited, changed: FieldSet) {
    let on = slot.derived().entry;
    let mut own = changed.intersection(slot.derived().loaded);
    if !own.is_empty() {
        own.drain_within(&ALWAYS_SAVED, |f| hw.write(f, slot.get(f)));
    }
    if !on.intersects(OnEntry::INHERITS) {
        return;
    }
    if on.contains(OnEntry::INHERITS_EFER) {
        let efer = inherited_efer(hw, slot, l1.efer);
        slot.l0_replaces(hw, field::GUEST_IA32_EFER, efer);
    }
    if on.contains(OnEntry::INHERITS_PAT) {
        slot.l0_replaces(hw, field::GUEST_IA32_PAT, l1.pat);
    }
    if on.contains(OnEntry::INHERITS_DEBUG) {
        slot.l0_replaces(hw, field::GUEST_IA32_DEBUGCTL, l1.debugctl);
        slot.l0_replaces(hw, field::GUEST_DR7, l1.dr7);
    }
}

/// IA32_PERF_GLOBAL_CTRL, and the PDPTEs of an L2 with PAE paging for which L1 does
/// not use EPT: vmcs02 does, so the CPU takes them from vmcs02; for L1 they come from
/// memory.
fn load_rare_registers(hw: &mut (impl VmcsAccess + Memory + Msrs), slot: &mut Slot) {
    let on = slot.derived().entry;
    if on.contains(OnEntry::LOADS_PERF) {
        // A CPU may have the control and not the MSR.
        let value = slot.get(field::GUEST_IA32_PERF_GLOBAL_CTRL);
        let _ = hw.wrmsr_l1(msr::IA32_PERF_GLOBAL_CTRL, value);
    }
    let is_pae = on.contains(OnEntry::PDPTES_IN_MEMORY)
        && Cr0::PG.is_in(hw.read(field::GUEST_CR0))
        && Cr4::PAE.is_in(hw.read(field::GUEST_CR4));
    if is_pae {
        for f in PDPTES {
            slot.l0_overwrites(hw, f);
        }
        let cr3 = hw.read(field::GUEST_CR3);
        load_pdptes(hw, cr3);
    }
}

/// See [`Nested::use_ept`].
#[inline(always)]
fn use_ept(hw: &mut (impl VmcsAccess + Translations), slot: &mut Slot, pool: &mut Pool) -> bool {
    let Some(context) = &slot.derived().context else {
        return use_ept01(hw, slot);
    };
    let context = *context;
    let violated = slot.take_violation();
    if hw.take_ept01_change() {
        let owed = pool.drop_all();
        invalidate(hw, owed);
    }
    let active = {
        let (mut tables, mut memory) = hw.ept();
        pool.activate(&context, &mut tables, &mut memory)
    };
    let Some(active) = active else { return false };
    slot.write_own(hw, Own::EptPointer(active.eptp));
    let mut owed = active.invalidate;
    if let Some(gpa2) = violated {
        // L1 has most likely mended it, and L2 would fault there once more.
        let (mut tables, mut memory) = hw.ept();
        let more = pool.prefill(&context, gpa2, &mut tables, &mut memory);
        owed = owed.and(more);
    }
    if owed != Invalidate::None {
        invalidate(hw, owed);
    }
    true
}

/// The same where vmcs12 has no EPT context.
fn use_ept01(hw: &mut (impl VmcsAccess + Translations), slot: &mut Slot) -> bool {
    if slot.proc2(Proc2::ENABLE_EPT) {
        return false;
    }
    if slot.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES) {
        // Behind a large page the CPU may not know the page again: SDM
        // "Virtualizing Memory-Mapped APIC Accesses". With EPT in L1 the size of
        // ept12's leaf decides.
        hw.keep_small_ept01(slot.gpa1(field::APIC_ACCESS_ADDRESS));
    }
    let pointer = hw.ept01_pointer();
    slot.write_own(hw, Own::EptPointer(pointer));
    true
}

/// Gives vmcs02 its VPID.
#[inline(always)]
fn use_vpid(hw: &mut (impl VmcsAccess + Translations), slot: &mut Slot, vpids: &mut Vpids) {
    let vpid12 = match slot.derived().exit.contains(OnExit::DROPS_TRANSLATIONS) {
        true => None,
        false => Some(slot.get(field::VIRTUAL_PROCESSOR_ID) as u16),
    };
    let assigned = vpids.enter(vpid12);
    slot.write_own(hw, Own::Vpid(assigned.hardware));
    if assigned.flush_needed {
        hw.invvpid_single(assigned.hardware);
    }
}

/// Carries out the INVEPT that a change of ept02 is followed by.
pub(crate) fn invalidate(hw: &mut impl Translations, what: Invalidate) {
    match what {
        Invalidate::None => {}
        Invalidate::Single(eptp) => hw.invept_single(eptp),
        Invalidate::All => hw.invept_all(),
    }
}

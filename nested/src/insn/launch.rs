//! VMLAUNCH and VMRESUME up to the checks on guest state.

use umbra_arch::Gpa1;
use umbra_arch::state::Blocking;
use umbra_vmcs::field;
use umbra_vmcs::field::FieldSet;
use umbra_vmcs::rules::instructions::{
    VMLAUNCH_MOV_SS, VMLAUNCH_POINTER, VMLAUNCH_STATE, VMRESUME_STATE,
};
use umbra_vmcs::rules::{self, Answer, Ctx, L1Facts, L1Memory, Rule};

use super::{Done, FailValid, broken};
use crate::derived::OnEntry;
use crate::entry::Inherited;
use crate::hw::{Memory, Msrs, Translations, VmcsAccess};
use crate::slots::SlotId;
use crate::state::Nested;

/// L1's memory as the rules read it.
struct RuleMemory<'a, H>(&'a H);

impl<H: Memory> L1Memory for RuleMemory<'_, H> {
    fn read_u32(&self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_l1(Gpa1::new(address), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn read_u64(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_l1(Gpa1::new(address), &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Guest state by which the rules tell that PDPTEs in memory count: the only guest
/// state that is looked at for each entry, and then only where they can count.
const PAE_REGISTERS: FieldSet =
    FieldSet::of(&[field::GUEST_CR0, field::GUEST_CR3, field::GUEST_CR4]);

impl Nested {
    pub(super) fn launch(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        is_resume: bool,
    ) -> Done {
        if let Err(fault) = self.require_root(hw) {
            return Done::Fault(fault);
        }
        let Some(current) = self.root().current else {
            return self.finish(hw, Ok(broken(&VMLAUNCH_POINTER)));
        };
        let stores_lma = self.caps.stores_lma();
        let slot = self.slots.get(current);
        if slot.is_shadow() {
            return self.finish(hw, Ok(broken(&VMLAUNCH_POINTER)));
        }
        if Blocking::MOV_SS.is_in(hw.read(field::GUEST_INTERRUPTIBILITY_STATE) as u32) {
            return self.finish(hw, Ok(broken(&VMLAUNCH_MOV_SS)));
        }
        if slot.is_launched() != is_resume {
            let rule = match is_resume {
                false => &VMLAUNCH_STATE,
                true => &VMRESUME_STATE,
            };
            return self.finish(hw, Ok(broken(rule)));
        }
        slot.derive(self.fields, &self.ept_caps, stores_lma);
        let on = slot.derived().entry;
        let inherited = Inherited::read(hw, on);
        if slot.is_lent() {
            hw.take_back_vmcs02(current);
            slot.take_back(hw, &self.cpu);
        }
        if slot.must_be_checked() {
            self.sync_for_rules(hw, current);
            if let Err(rule) = self.check(hw, current) {
                return self.broken_entry(hw, current, rule);
            }
            self.slots.get(current).passed();
        }
        if on.contains(OnEntry::SHADOWS) {
            self.hold_shadow(hw, current);
        }
        self.enter_l2(hw, current, &inherited)
    }

    /// The end of an entry that broke this rule.
    fn broken_entry(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        current: SlotId,
        rule: &'static Rule,
    ) -> Done {
        self.broken = Some(rule);
        match rule.answer {
            Answer::FailValid(error) => {
                self.back_to_vmcs01(hw, current);
                self.finish(hw, Ok(FailValid(error)))
            }
            Answer::GuestState { qualification } => {
                let reason = umbra_vmcs::exit::Reason::EntryGuestState;
                self.entry_failure(hw, current, reason, qualification, None)
            }
            Answer::MsrLoading => {
                let reason = umbra_vmcs::exit::Reason::EntryMsrLoading;
                self.entry_failure(hw, current, reason, 0, None)
            }
        }
    }

    /// Reads back from vmcs02 what the groups of rules that have to run look at.
    fn sync_for_rules(&mut self, hw: &mut impl VmcsAccess, current: SlotId) {
        let slot = self.slots.get(current);
        let counts_pdptes = slot.derived().entry.contains(OnEntry::PDPTES_IN_MEMORY);
        if slot.unchecked().is_empty() && !counts_pdptes || slot.stale().is_empty() {
            return;
        }
        let mut looked_at = rules::read_with(slot.unchecked());
        if counts_pdptes {
            looked_at = looked_at.union(PAE_REGISTERS);
        }
        self.slots.sync_of(hw, current, looked_at);
    }

    fn check<H: VmcsAccess + Memory>(
        &mut self,
        hw: &mut H,
        current: SlotId,
    ) -> Result<(), &'static Rule> {
        let l1 = L1Facts {
            ia32e_mode: self.in_ia32e_mode,
            current_vmcs: self.current_pointer(),
            pt_enabled: false,
        };
        let slot = self.slots.get(current);
        let memory = RuleMemory(&*hw);
        let ctx = Ctx::new(slot.vmcs12(), &self.caps, &self.cpu, l1, &memory);
        rules::check_all(&ctx, slot.unchecked())
    }
}

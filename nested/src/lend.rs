//! VMCS shadowing, used for L1: its VMREAD and VMWRITE go to vmcs02 without an exit.
//!
//! SDM "VMCS Types: Ordinary and Shadow", "Format of the VMCS Region".
//!
//! What L1 reads after an exit of L2, and most of what it writes, is a field that
//! vmcs02 has just as vmcs12 would have it. So nothing is copied: while L1 runs, its
//! current VMCS's vmcs02 is *lent* to it. L0 clears it, makes it a shadow VMCS by the
//! indicator in its region, and has vmcs01's link pointer name it; before L2 runs
//! again, L0 clears it once more and makes it an ordinary VMCS. Bitmaps let through
//! what the field table allows.
//!
//! An L1 that writes much of the guest state each time, as another Umbra does with its own
//! vmcs01, has vmcs02 lent *whole*: all of the guest state is its to write there. At the
//! next entry L0 reads it, and what is not as it was at the last one is checked.
//!
//! A lent vmcs02 is the truth for the fields that L1 may write there: they are stale
//! in vmcs12. L0 looks at them before the next entry, and only where a quick look does
//! not show that all rules hold are they checked like any other field that L1 wrote.

use umbra_arch::{AccessRights, EventInfo, Rflags};
use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::{Entry, Proc2};
use umbra_vmcs::field::{self, Field, FieldSet};
use umbra_vmcs::rules::CpuFacts;

use crate::derived::{ALWAYS_SAVED, LENT};
use crate::hw::{Current, VmcsAccess};
use crate::slots::{Saved, Slot, SlotId};
use crate::state::Nested;

/// The event that the next entry injects.
const EVENT: FieldSet = FieldSet::of(&[
    field::VM_ENTRY_INTERRUPTION_INFORMATION,
    field::VM_ENTRY_EXCEPTION_ERROR_CODE,
    field::VM_ENTRY_INSTRUCTION_LENGTH,
]);

/// What the rules on RFLAGS, the interruptibility and the activity state look at.
const STATE: FieldSet = FieldSet::of(&[field::GUEST_RFLAGS, field::GUEST_INTERRUPTIBILITY_STATE]);

/// The bits of RFLAGS that a guest may have set without a further look.
const RFLAGS_PLAIN: u64 = Rflags::all().difference(Rflags::VM).bits();

/// Whether a CPU with these capabilities and fields can lend: it can shadow a VMCS,
/// and L0 can write exit information.
pub fn can_lend(below: &VmxCaps, present: &FieldSet) -> bool {
    below.offers_proc2(Proc2::VMCS_SHADOWING)
        && below.vmwrite_any_field()
        && present.contains(field::VMREAD_BITMAP_ADDRESS)
        && present.contains(field::VMWRITE_BITMAP_ADDRESS)
}

impl Nested {
    /// L1 runs next though no exit of L2 was stored for it: vmcs01 is current
    /// afterwards, and what L1 is to find is in vmcs12.
    pub(crate) fn back_to_vmcs01(&mut self, hw: &mut impl VmcsAccess, id: SlotId) {
        leave_vmcs02(hw, self.slots.get(id), id, Saved::GuestState, &self.fields);
    }

    /// L1 has used VMREAD or VMWRITE on a field of its current VMCS that it could have
    /// had without an exit: from the next exit of L2 on, it has.
    pub(crate) fn note_use(&mut self, id: SlotId, field: Field) {
        if self.can_lend && LENT.contains(field) {
            let slot = self.slots.get(id);
            if !slot.is_launched() {
                slot.note_early_use();
            } else if !slot.is_lending() {
                slot.begin_lending();
            }
        }
    }

    /// The VMCS has been made current: its vmcs02, which was lent before VMCLEAR, is again,
    /// if L1 used the VMCS before its entry the last time.
    pub(crate) fn lend_again(&mut self, hw: &mut impl VmcsAccess, id: SlotId) {
        let slot = self.slots.get(id);
        if slot.is_lending() && slot.is_used_early() && !slot.is_lent() {
            leave_vmcs02(hw, slot, id, Saved::GuestState, &self.fields);
        }
    }

    /// Another VMCS of L1's is current, or none: its VMREAD and VMWRITE follow.
    pub(crate) fn follow_current(&mut self, hw: &mut impl VmcsAccess) {
        if !self.can_lend {
            return;
        }
        let lent = self.current().filter(|id| self.slots.get(*id).is_lent());
        hw.link_vmcs02(lent.map(|id| (id, self.slots.get(id).how_lent())));
    }
}

/// From L2 to L1, in the VMCSs, after the CPU has stored what `saved` says: vmcs01 is
/// current afterwards, and L1's VMREAD and VMWRITE reach vmcs02 if they are to. `fields`
/// are those of L1's VMCSs.
#[inline(always)]
pub(crate) fn leave_vmcs02(
    hw: &mut impl VmcsAccess,
    slot: &mut Slot,
    id: SlotId,
    saved: Saved,
    fields: &FieldSet,
) {
    if slot.is_lending() {
        hw.switch_to(Current::Vmcs02(id));
        slot.prepare_lending(hw, saved, fields);
        hw.lend_vmcs02(id, slot.how_lent());
    } else {
        hw.switch_to(Current::Vmcs01);
    }
}

impl Slot {
    /// vmcs02, which is current, gets what it lacks of what L1 reads there.
    #[inline(always)]
    fn prepare_lending(&mut self, hw: &mut impl VmcsAccess, saved: Saved, fields: &FieldSet) {
        // L0 may have injected something of its own since the entry.
        let event = self.vmcs12().get(field::VM_ENTRY_INTERRUPTION_INFORMATION);
        if hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION) != event {
            hw.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
        }
        let ahead = self.ahead_of_vmcs02();
        let is_ahead = ahead.intersects(&LENT)
            || self.how_lent().has_registers() && ahead.intersects(&ALWAYS_SAVED);
        if saved != Saved::AllOfIt || is_ahead {
            self.catch_up(hw, ahead.intersection(*fields));
        }
        self.lend();
    }

    fn catch_up(&mut self, hw: &mut impl VmcsAccess, mut ahead: FieldSet) {
        let reads = self.how_lent().read();
        ahead.drain_within(&reads, |f| hw.write(f, self.get(f)));
        self.caught_up(&reads);
    }

    /// L0 has vmcs02 back, which is current: what L1 may have written there is looked
    /// at, and what may break a rule is to be checked.
    #[inline(always)]
    pub(crate) fn take_back(&mut self, hw: &mut impl VmcsAccess, cpu: &CpuFacts) {
        if self.how_lent().is_whole() {
            self.take_back_whole(hw);
        }
        self.taken_back();
        let event = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION);
        self.cpu_stored(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
        if EventInfo::from_bits(event as u32).valid() {
            self.must_check(&EVENT);
        }
        let rflags = hw.read(field::GUEST_RFLAGS);
        let is_plain = rflags & !RFLAGS_PLAIN == 0
            && Rflags::FIXED.is_in(rflags)
            && hw.read(field::GUEST_INTERRUPTIBILITY_STATE) == 0
            && hw.read(field::GUEST_ACTIVITY_STATE) == 0;
        if !is_plain {
            self.must_check(&STATE);
        }
        let rip = hw.read(field::GUEST_RIP);
        // Below 2 GiB RIP is good in every mode.
        if rip >> 31 != 0 && !self.is_good_64_bit_rip(hw, cpu, rip) {
            self.must_check(&FieldSet::of(&[field::GUEST_RIP]));
        }
    }

    /// What L1 may have written where it may write all guest state: what is not as it was
    /// when the rules last saw it has to be seen again.
    fn take_back_whole(&mut self, hw: &mut impl VmcsAccess) {
        let written = self.written_whole();
        let mut changed = FieldSet::EMPTY;
        written.for_each(|f| {
            let value = hw.read(f);
            if value != self.vmcs12().get(f) {
                self.cpu_stored(f, value);
                changed.insert(f);
            }
        });
        self.has_whole_back(&written);
        self.must_check(&changed);
    }

    fn is_good_64_bit_rip(&self, hw: &mut impl VmcsAccess, cpu: &CpuFacts, rip: u64) -> bool {
        self.entry(Entry::IA32E_MODE_GUEST)
            && AccessRights::from_bits(hw.read(field::GUEST_CS_ACCESS_RIGHTS) as u32).long()
            && cpu.canonical(rip)
    }
}

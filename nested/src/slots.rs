//! The bounded table of vmcs12s that a CPU keeps at hand.
//!
//! A VMCS of L1 lives in L1's own memory; while it is in a slot, the slot is
//! the truth, as the CPU's own cache is on hardware (SDM "Software Use of the
//! VMCS and Related Structures"). More VMCSs than slots cost a write-back, and
//! nothing else.

use umbra_arch::{Gpa1, Gpa2, Hpa};
use umbra_ept::caps::Caps as EptCaps;
use umbra_ept::eptp::OwnEptp;
use umbra_vmcs::field::{self, Field, FieldSet};
use umbra_vmcs::rules::CpuFacts;
use umbra_vmcs::{InsnError, Vmcs12};

use crate::blame::blame;
use crate::derived::{self, Derived, LENT, LENT_WHOLE, OnEntry};
use crate::hw::{Current, Lent, Memory, VmcsAccess};
use crate::region::{self, CLEAR, LAUNCHED, Tag};
pub use crate::slot_id::{MAX_SLOTS, SlotId};

/// A VMCS that was cleared, and whose vmcs12 and vmcs02 are still here.
#[derive(Clone, Copy, Debug)]
struct Kept {
    gpa: Gpa1,
    tag: Tag,
}

/// One vmcs12 and what is known of its vmcs02.
///
/// Who has a field's newest value is told by two sets, which never share a
/// field: where it is dirty, vmcs12 has it and vmcs02 is to get it; where it
/// is stale, vmcs02 has it and vmcs12 is to get it. In neither, both have it,
/// or only vmcs12 ever does.
#[derive(Debug)]
pub struct Slot {
    /// The region's address, or `None` for a free slot.
    gpa: Option<Gpa1>,
    /// The VMCS that a free slot had before it was cleared, unless its values are gone.
    kept: Option<Kept>,
    vmcs12: Vmcs12,
    /// It is as its region has it.
    is_as_in_region: bool,
    /// VMLAUNCH has succeeded since VMCLEAR.
    is_launched: bool,
    /// It is a shadow VMCS, which cannot be entered: the indicator at the last
    /// VMPTRLD.
    is_shadow: bool,
    dirty: FieldSet,
    /// Fields that changed since the rules last passed.
    unchecked: FieldSet,
    /// vmcs02 is to be lent to L1 while L1 runs (see `lend`).
    is_lending: bool,
    /// It is lent.
    is_lent: bool,
    /// VMWRITEs of L1's while it is lent that would not have exited were it lent whole.
    whole_writes: u8,
    /// How it is lent, or will be.
    how_lent: Lent,
    /// How it was lent until L1 changed a control that this hangs on, before the entry.
    was_lent: Option<Lent>,
    /// L1 used the VMCS between its VMPTRLD and its VMLAUNCH.
    is_used_early: bool,
    /// Entries for which it is yet to be lent whole.
    whole_for: u8,
    /// What L0 recorded in vmcs12 alone.
    recorded: FieldSet,
    stale: FieldSet,
    /// What follows from vmcs12, but for what is dirty.
    derived: Derived,
    /// Stale fields that L1 asked for, and is likely to ask for again: read back at
    /// once.
    asked: FieldSet,
    /// What L1 read of them lately.
    read_lately: FieldSet,
    /// Exits since `asked` was last cut down to what is read.
    exits: u8,
    /// How many stale fields L1 has had read back since the last exit.
    asked_for: u8,
    /// Where L1 was told of an EPT violation, since the last entry.
    violated: Option<Gpa2>,
    /// vmcs02 has to be reset before it is used.
    needs_reset: bool,
    /// What vmcs02 has in the fields [`Own`].
    own: [u64; 3],
    last_used: u64,
}

/// Fields of vmcs02 that L0 gives a value of its own at each entry, most often the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    EptPointer(OwnEptp),
    Vpid(u16),
    MsrBitmap(Hpa),
}

/// No field of [`Own`] has this value: the upper bits of each are 0.
const UNKNOWN: [u64; 3] = [u64::MAX; 3];

/// What the CPU has stored in vmcs02 that is L1's to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Guest state: what else L1 is to find, L0 has recorded in vmcs12.
    GuestState,
    /// Exit information as well, but for the reason.
    Information,
    /// The reason, too; and vmcs02 is lent to L1 next.
    AllOfIt,
}

/// After how many exits a field that L1 does not read any more is left in vmcs02
/// again. To read one that was left there costs eight times what it costs to bring
/// it along.
const EXITS_UNREAD: u8 = 8;

/// How many VMWRITEs of guest state make it worth to lend vmcs02 whole: reading it all
/// costs what these exits do.
const MANY_WRITES: u8 = 4;

/// For how many entries; then L1 has to show again that it writes.
const WHOLE_FOR: u8 = u8::MAX;

/// How many fields L1 has read back one by one after an exit; then it gets all.
const ONE_BY_ONE: u8 = 4;

impl Slot {
    /// A slot without a VMCS.
    pub const fn free() -> Self {
        Self {
            gpa: None,
            kept: None,
            vmcs12: Vmcs12::new(),
            is_as_in_region: false,
            is_launched: false,
            is_shadow: false,
            dirty: FieldSet::FULL,
            unchecked: FieldSet::FULL,
            is_lending: false,
            is_lent: false,
            how_lent: Lent::InPart,
            was_lent: None,
            is_used_early: false,
            whole_for: 0,
            whole_writes: 0,
            recorded: FieldSet::EMPTY,
            stale: FieldSet::EMPTY,
            derived: Derived::NOTHING,
            asked: FieldSet::EMPTY,
            read_lately: FieldSet::EMPTY,
            exits: 0,
            asked_for: 0,
            violated: None,
            needs_reset: true,
            own: UNKNOWN,
            last_used: 0,
        }
    }

    /// The VMCS goes. Its values stay: the next one brings all of its own.
    fn release(&mut self) {
        self.gpa = None;
        self.kept = None;
        self.is_as_in_region = false;
        self.is_launched = false;
        self.dirty = FieldSet::FULL;
        self.unchecked = FieldSet::FULL;
        self.stale = FieldSet::EMPTY;
        self.asked = FieldSet::EMPTY;
        self.recorded = FieldSet::EMPTY;
        self.is_lending = false;
        self.is_lent = false;
        self.was_lent = None;
        self.is_used_early = false;
        self.whole_for = 0;
        self.whole_writes = 0;
        self.settle_how_lent();
        self.violated = None;
        self.needs_reset = true;
    }

    /// The VMCS goes, to come back most likely: it was cleared, and its region has all
    /// values and this tag. A hypervisor that lends its own vmcs02s clears each twice a
    /// round trip, and KVM clears one to run it on another CPU and back.
    fn keep(&mut self, gpa: Gpa1, tag: Tag) {
        self.gpa = None;
        self.kept = Some(Kept { gpa, tag });
        self.is_used_early &= self.is_launched;
        self.is_launched = false;
        self.violated = None;
    }

    /// It has come back as it went.
    fn has_again(&mut self, kept: Kept) {
        self.gpa = Some(kept.gpa);
        self.kept = None;
        self.is_as_in_region = true;
    }

    /// A field of vmcs12 that holds an address of L1's.
    #[inline]
    pub(crate) const fn gpa1(&self, field: Field) -> Gpa1 {
        Gpa1::new(self.get(field))
    }

    /// A field as vmcs12 has it, which must not be one whose value lies in vmcs02
    /// alone.
    #[inline]
    pub const fn get(&self, field: Field) -> u64 {
        debug_assert!(!self.stale.contains(field), "a stale field is read");
        self.vmcs12.get(field)
    }

    /// The same for a field of 32 bits.
    #[inline]
    pub const fn get32(&self, field: Field) -> u32 {
        self.get(field) as u32
    }

    /// All of it, for the rules.
    #[inline]
    pub const fn vmcs12(&self) -> &Vmcs12 {
        &self.vmcs12
    }

    /// Whether VMLAUNCH has succeeded since VMCLEAR.
    #[inline]
    pub const fn is_launched(&self) -> bool {
        self.is_launched
    }

    /// Whether it is a shadow VMCS.
    #[inline]
    pub const fn is_shadow(&self) -> bool {
        self.is_shadow
    }

    /// VMPTRLD found it to be a shadow VMCS, or not.
    #[inline]
    pub fn set_shadow(&mut self, is_shadow: bool) {
        self.is_shadow = is_shadow;
    }

    /// VMLAUNCH succeeded; or, after all, did not.
    #[inline]
    pub fn set_launched(&mut self, is_launched: bool) {
        self.is_launched = is_launched;
        self.is_as_in_region = false;
    }

    /// L1 is about to write a field, by a VMWRITE that exited.
    #[inline]
    pub(crate) fn note_write(&mut self, field: Field) {
        // To fill a VMCS before its VMLAUNCH is no habit.
        if self.is_lent && self.is_launched && LENT_WHOLE.contains(field) {
            self.whole_writes = self.whole_writes.saturating_add(1);
            if self.whole_writes > MANY_WRITES {
                // That L1 cannot write it all before the next exit does no harm.
                self.whole_for = WHOLE_FOR;
                self.settle_how_lent();
            }
        }
    }

    /// L1 writes a field, by VMWRITE; or L0 on L1's behalf.
    #[inline]
    pub fn l1_writes(&mut self, field: Field, value: u64) {
        self.vmcs12.set(field, value);
        self.is_as_in_region = false;
        self.dirty.insert(field);
        self.unchecked.insert(field);
        self.stale.remove(field);
    }

    /// A field that the CPU stored in vmcs02 at an exit has been read from there.
    /// The rules need not see it: should the CPU not take back what it stored,
    /// the entry fails in hardware and L1 is told so.
    #[inline]
    pub fn cpu_stored(&mut self, field: Field, value: u64) {
        self.vmcs12.set(field, value);
        self.is_as_in_region = false;
        self.stale.remove(field);
    }

    /// L0 records in vmcs12 what a CPU would have stored there, and vmcs02 has no
    /// part in it.
    #[inline]
    pub fn l0_records(&mut self, field: Field, value: u64) {
        self.vmcs12.set(field, value);
        self.is_as_in_region = false;
        self.stale.remove(field);
        self.recorded.insert(field);
    }

    /// The CPU has saved guest state at an exit to L1, and stored what `Saved` says: in
    /// vmcs02 it stays until someone asks. Where vmcs12 is not to have it, vmcs02 gets
    /// vmcs12's again.
    #[inline(always)]
    pub(crate) fn cpu_saved(&mut self, what: Saved) {
        let derived = &self.derived;
        let saved = match what {
            Saved::GuestState => derived.saved,
            Saved::Information => derived.saved_with_information,
            Saved::AllOfIt => derived.saved_and_lent,
        };
        // Where L0 has put something of its own into vmcs02, vmcs12 still has L1's.
        let kept = self.dirty.intersection(derived.lent_unsaved);
        self.stale = self.stale.union(saved).difference(kept);
        let dirty = self.dirty.difference(saved).union(derived.unsaved);
        self.dirty = dirty.union(kept);
        self.recorded = self.recorded.difference(saved);
    }

    /// The CPU has stored exit information, of which vmcs12 has these `fields`: in
    /// vmcs02 it stays until someone asks.
    pub(crate) fn cpu_stored_information(&mut self, fields: FieldSet) {
        let stored = derived::INFORMATION.intersection(fields);
        self.stale = self.stale.union(stored);
        self.dirty = self.dirty.difference(stored);
        self.recorded = self.recorded.difference(stored);
    }

    /// Whether vmcs02 is to be lent to L1 while L1 runs.
    #[inline]
    pub(crate) const fn is_lending(&self) -> bool {
        self.is_lending && !self.needs_reset
    }

    /// From the next exit on it is.
    pub(crate) const fn begin_lending(&mut self) {
        self.is_lending = true;
        // L1 reads these without asking.
        self.asked = self.asked.difference(LENT);
    }

    /// Whether vmcs02 is lent to L1.
    #[inline]
    pub(crate) const fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// What vmcs12 has and vmcs02 has not, or another value; fields that L1's VMCSs do
    /// not have among it.
    #[inline]
    pub(crate) fn ahead_of_vmcs02(&self) -> FieldSet {
        self.dirty.union(self.recorded)
    }

    /// vmcs02 has got what vmcs12 had alone of the fields that L1 `reads` there, and is
    /// about to be lent: it has what L1 may write.
    pub(crate) fn caught_up(&mut self, reads: &FieldSet) {
        self.dirty = self.dirty.difference(*reads);
        self.recorded = FieldSet::EMPTY;
        self.stale = self.stale.union(self.lent_for_writing());
    }

    /// vmcs02 is lent to L1.
    #[inline]
    pub(crate) const fn lend(&mut self) {
        self.is_lent = true;
    }

    /// L1 uses a field of it before its VMLAUNCH.
    pub(crate) const fn note_early_use(&mut self) {
        self.is_used_early = true;
    }

    /// Whether L1 did, the last time.
    pub(crate) const fn is_used_early(&self) -> bool {
        self.is_used_early
    }

    /// How it is lent to L1 where it is lent.
    #[inline]
    pub(crate) const fn how_lent(&self) -> Lent {
        self.how_lent
    }

    const fn settle_how_lent(&mut self) {
        self.how_lent = Lent::new(self.whole_for > 0, self.derived.has_registers);
    }

    /// What L1 may have written in vmcs02, which was lent whole, without a look of the
    /// rules' own at it.
    pub(crate) fn written_whole(&mut self) -> FieldSet {
        self.was_lent.take().unwrap_or(self.how_lent).beyond_part()
    }

    /// vmcs12 has got what vmcs02 had alone of that.
    pub(crate) fn has_whole_back(&mut self, written: &FieldSet) {
        self.stale = self.stale.difference(*written);
        self.whole_for = self.whole_for.saturating_sub(1);
        self.settle_how_lent();
    }

    /// vmcs02 is L0's again.
    #[inline]
    pub(crate) const fn taken_back(&mut self) {
        self.is_lent = false;
        self.whole_writes = 0;
    }

    /// What L1 may have written in vmcs02, for the rules.
    #[inline]
    pub(crate) fn must_check(&mut self, fields: &FieldSet) {
        self.unchecked = self.unchecked.union(*fields);
    }

    /// L1 has written a field by an exit that it otherwise reads in vmcs02, which is
    /// lent: it goes there at once.
    pub(crate) fn write_through(&mut self, hw: &mut impl VmcsAccess, id: SlotId, field: Field) {
        hw.switch_to(Current::Vmcs02(id));
        hw.write(field, self.get(field));
        hw.switch_to(Current::Vmcs01);
        self.dirty.remove(field);
        self.keep_stale();
    }

    /// A lent vmcs02 stays the truth for what L1 writes there.
    #[inline]
    fn keep_stale(&mut self) {
        if self.is_lent {
            self.stale = self.stale.union(self.lent_for_writing());
        }
    }

    /// What L1 may write in vmcs02 where it is lent.
    #[inline]
    fn lent_for_writing(&self) -> FieldSet {
        self.derived.lent.union(self.how_lent.beyond_part())
    }

    /// What follows from vmcs12, as of the last [`derive`](Self::derive).
    #[inline]
    pub(crate) const fn derived(&self) -> &Derived {
        &self.derived
    }

    /// Works out anew what follows from vmcs12, if L1 changed what it follows from
    /// since vmcs02 was composed. The parameters as for [`Derived::of`].
    #[inline]
    pub(crate) fn derive(&mut self, fields: FieldSet, caps: &EptCaps, stores_lma: bool) {
        if self.dirty.intersects(&derived::INPUTS) {
            self.derived = Derived::of(&self.vmcs12, fields, caps, stores_lma);
            if self.is_lent && self.how_lent.is_whole() {
                self.was_lent = Some(self.how_lent);
            }
            self.settle_how_lent();
        }
    }

    /// vmcs12's EPT pointer changed, and nothing else.
    pub(crate) fn derive_context(&mut self, caps: &EptCaps) {
        self.derived.context = derived::context(&self.vmcs12, caps);
    }

    /// An exit is being recorded, and vmcs02 is current: reads back at once what L1
    /// asked for after earlier exits.
    #[inline]
    pub fn fetch_asked(&mut self, hw: &mut impl VmcsAccess) {
        self.asked_for = 0;
        if self.asked.is_empty() {
            return;
        }
        self.exits = self.exits.wrapping_add(1);
        if self.exits.is_multiple_of(EXITS_UNREAD) {
            self.asked = self.asked.intersection(self.read_lately);
            self.read_lately = FieldSet::EMPTY;
        }
        let mut asked = self.asked.intersection(self.stale);
        if self.is_lending() {
            // A lent vmcs02 stays the truth for these.
            asked = asked.difference(self.lent_for_writing());
        }
        self.fetch_all(hw, asked);
    }

    /// Reads back these fields, whose values lie in vmcs02, which is current.
    #[inline]
    fn fetch_all(&mut self, hw: &mut impl VmcsAccess, mut fields: FieldSet) {
        if fields.is_empty() {
            return;
        }
        self.stale = self.stale.difference(fields);
        fields.drain_within(&FieldSet::FULL, |field| {
            self.vmcs12.set(field, hw.read(field));
        });
        self.is_as_in_region = false;
    }

    /// Before L0 writes something of its own over a field of vmcs02, which is
    /// current: vmcs12 takes the value first if only vmcs02 has it, and the next
    /// entry puts it back unless an exit has stored a newer one.
    #[inline]
    pub fn l0_overwrites(&mut self, hw: &mut impl VmcsAccess, field: Field) {
        self.fetch(hw, field);
        self.dirty.insert(field);
    }

    /// The same, and L0 writes `value` there.
    #[inline(always)]
    pub(crate) fn l0_replaces(&mut self, hw: &mut impl VmcsAccess, field: Field, value: u64) {
        self.l0_overwrites(hw, field);
        hw.write(field, value);
    }

    /// Reads a field back if its value lies in vmcs02, which is current.
    #[inline]
    pub fn fetch(&mut self, hw: &mut impl VmcsAccess, field: Field) {
        if self.stale.contains(field) {
            let value = hw.read(field);
            self.cpu_stored(field, value);
        }
    }

    /// The CPU did not take vmcs02: all that vmcs12 has goes there again and is
    /// checked again.
    pub fn distrust_vmcs02(&mut self) {
        self.dirty = FieldSet::FULL.difference(self.stale);
        self.unchecked = FieldSet::FULL;
    }

    /// The fields that vmcs02 is to get, which it now gets.
    #[inline]
    pub(crate) fn take_dirty(&mut self) -> FieldSet {
        core::mem::replace(&mut self.dirty, FieldSet::EMPTY)
    }

    /// Whether vmcs02 has to be reset, which now happens.
    #[inline]
    pub(crate) fn take_reset(&mut self) -> bool {
        if self.needs_reset {
            self.needs_reset = false;
            self.own = UNKNOWN;
            return true;
        }
        false
    }

    /// Gives vmcs02, which is current, this value of L0's own, unless it has it. To a CPU
    /// the VMWRITE is cheap; below another hypervisor it may be an exit.
    #[inline(always)]
    pub(crate) fn write_own(&mut self, hw: &mut impl VmcsAccess, own: Own) {
        let [eptp, vpid, bitmap] = &mut self.own;
        let (has, value) = match own {
            Own::EptPointer(pointer) => (eptp, pointer.raw()),
            Own::Vpid(number) => (vpid, number.into()),
            Own::MsrBitmap(page) => (bitmap, page.raw()),
        };
        if *has != value {
            *has = value;
            match own {
                Own::EptPointer(pointer) => hw.write_ept_pointer(pointer),
                Own::Vpid(_) => hw.write(field::VIRTUAL_PROCESSOR_ID, value),
                Own::MsrBitmap(page) => hw.write_address(field::MSR_BITMAP, page),
            }
        }
    }

    /// Fields that changed since the rules last passed.
    #[inline]
    pub(crate) const fn unchecked(&self) -> &FieldSet {
        &self.unchecked
    }

    /// The rules have passed.
    #[inline]
    pub(crate) fn passed(&mut self) {
        self.unchecked = FieldSet::EMPTY;
    }

    /// Whether the rules have to run before the next entry: a field changed that they
    /// look at, or they look at L1's memory. L1's mode, which some look at, stays the
    /// same as long as L1 is in VMX operation, which fixes CR0.PG at 1; when L1 leaves
    /// it, no VMCS stays in its slot.
    #[inline]
    pub(crate) fn must_be_checked(&self) -> bool {
        !self.unchecked.is_empty() || self.derived.entry.contains(OnEntry::RULES_READ_MEMORY)
    }

    /// L1 is told of an EPT violation at this L2-physical address.
    #[inline]
    pub(crate) fn told_of_violation(&mut self, gpa2: Gpa2) {
        self.violated = Some(gpa2);
    }

    /// Where that was, once.
    #[inline]
    pub(crate) fn take_violation(&mut self) -> Option<Gpa2> {
        self.violated.take()
    }

    /// Fields whose value lies in vmcs02 alone.
    #[inline]
    pub(crate) const fn stale(&self) -> &FieldSet {
        &self.stale
    }

    /// The address of the VMCS region.
    pub(crate) fn gpa(&self) -> Gpa1 {
        match self.gpa {
            Some(gpa) => gpa,
            None => blame("a free slot is used"),
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Slots {
    slots: &'static mut [Slot],
    /// Where a region was last, by some bits of its address.
    hints: [u8; HINTS],
    clock: u64,
    /// Whose table it is: another number on each CPU.
    owner: u16,
    /// How many [`Tag`]s there were.
    tags: u64,
}

const HINTS: usize = 256;

/// The entry of `hints` for a region. Regions beside each other have each their own.
const fn hint(gpa: Gpa1) -> usize {
    let page = gpa.raw() >> 12;
    (page ^ page >> 8) as usize % HINTS
}

impl Slots {
    /// Keeps vmcs12s in these slots, all of them free; of more than
    /// [`MAX_SLOTS`] the rest is not used. `owner` is the CPU's number.
    pub fn new(slots: &'static mut [Slot], owner: u16) -> Self {
        let used = slots.len().min(MAX_SLOTS);
        let Some(slots) = slots.get_mut(..used).filter(|slots| !slots.is_empty()) else {
            blame("there is no slot")
        };
        Self {
            slots,
            hints: [0; HINTS],
            clock: 0,
            owner,
            tags: 0,
        }
    }

    fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        SlotId::all(self.slots.len())
    }

    /// The slot that [`load`](Self::load) gave.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "`SlotId` promises that it is there"
    )]
    pub fn get(&mut self, id: SlotId) -> &mut Slot {
        &mut self.slots[id.number()]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`SlotId` promises that it is there"
    )]
    fn find(&self, gpa: Gpa1) -> Option<SlotId> {
        self.find_by_hint(gpa).or_else(|| {
            let mut ids = self.ids();
            ids.find(|id| self.slots[id.number()].gpa == Some(gpa))
        })
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`hint` is below `HINTS`")]
    fn find_by_hint(&self, gpa: Gpa1) -> Option<SlotId> {
        let hint = self.hints[hint(gpa)];
        let slot = self.slots.get(usize::from(hint))?;
        (slot.gpa == Some(gpa)).then_some(SlotId::new(hint))
    }

    /// The free slot that still has the VMCS at `gpa` as it was when it was cleared last.
    ///
    /// The hint is enough: it names the slot where the VMCS was last, or one that has
    /// another since.
    #[expect(clippy::indexing_slicing, reason = "`hint` is below `HINTS`")]
    fn find_kept(&self, hw: &impl Memory, gpa: Gpa1) -> Option<(SlotId, Kept)> {
        let hint = self.hints[hint(gpa)];
        let kept = self.slots.get(usize::from(hint))?.kept?;
        let is_same = kept.gpa == gpa && region::launch_state(hw, gpa) == kept.tag.raw();
        is_same.then_some((SlotId::new(hint), kept))
    }

    /// The slot that still has the VMCS at `gpa`, which is in no slot, as its region has it.
    pub(crate) fn kept(&mut self, hw: &impl Memory, gpa: Gpa1) -> Option<&mut Slot> {
        let (id, _) = self.find_kept(hw, gpa)?;
        Some(self.get(id))
    }

    /// What is kept of the VMCS at `gpa` has changed: its region gets it, with another tag.
    pub(crate) fn write_kept(&mut self, hw: &mut impl Memory, gpa: Gpa1) {
        if let Some((id, _)) = self.find_kept(hw, gpa) {
            let tag = self.next_tag();
            let slot = self.get(id);
            region::write(hw, gpa, &slot.vmcs12, tag.raw());
            slot.kept = Some(Kept { gpa, tag });
        }
    }

    const fn next_tag(&mut self) -> Tag {
        self.tags += 1;
        Tag::new(self.tags, self.owner)
    }

    /// Brings the VMCS at `gpa` into a slot, writing back the least recently
    /// used one if all are taken.
    pub fn load(&mut self, hw: &mut (impl VmcsAccess + Memory), gpa: Gpa1) -> SlotId {
        self.clock += 1;
        let id = match self.find_by_hint(gpa) {
            Some(id) => id,
            None => self.bring(hw, gpa),
        };
        #[expect(clippy::indexing_slicing, reason = "`hint` is below `HINTS`")]
        {
            self.hints[hint(gpa)] = id.hint();
        }
        let clock = self.clock;
        self.get(id).last_used = clock;
        id
    }

    fn bring(&mut self, hw: &mut (impl VmcsAccess + Memory), gpa: Gpa1) -> SlotId {
        if let Some((id, kept)) = self.find_kept(hw, gpa) {
            self.get(id).has_again(kept);
            return id;
        }
        if let Some(id) = self.find(gpa) {
            return id;
        }
        let id = self.victim();
        self.write_back(hw, id);
        let slot = self.get(id);
        slot.release();
        slot.gpa = Some(gpa);
        region::read(hw, gpa, &mut slot.vmcs12);
        slot.is_launched = region::launch_state(hw, gpa) == LAUNCHED;
        id
    }

    /// The slot to use next: one that has nothing, else the one of the VMCS that L1
    /// cleared or, if it cleared none, loaded the longest time ago.
    #[expect(
        clippy::indexing_slicing,
        reason = "`SlotId` promises that it is there"
    )]
    fn victim(&self) -> SlotId {
        let (mut best, mut best_rank) = (SlotId::FIRST, (true, u64::MAX));
        for id in self.ids() {
            let slot = &self.slots[id.number()];
            if slot.gpa.is_none() && slot.kept.is_none() {
                return id;
            }
            let rank = (slot.gpa.is_some(), slot.last_used);
            if rank < best_rank {
                (best, best_rank) = (id, rank);
            }
        }
        best
    }

    /// VMCLEAR of the VMCS at `gpa`: its data go to L1's memory, its launch
    /// state becomes clear, its slot free.
    pub fn clear(&mut self, hw: &mut (impl VmcsAccess + Memory), gpa: Gpa1, cpu: &CpuFacts) {
        if self.find_kept(hw, gpa).is_some() {
            return;
        }
        let Some(id) = self.find(gpa) else {
            region::write_launch_state(hw, gpa, CLEAR);
            return;
        };
        let tag = self.next_tag();
        let slot = self.get(id);
        if slot.is_lent() {
            hw.take_back_vmcs02(id);
            slot.take_back(hw, cpu);
        }
        self.sync(hw, id);
        hw.switch_to(Current::Vmcs01);
        let slot = self.get(id);
        if slot.is_as_in_region {
            region::write_launch_state(hw, gpa, tag.raw());
        } else {
            region::write(hw, gpa, &slot.vmcs12, tag.raw());
        }
        slot.keep(gpa, tag);
    }

    /// Writes the VMCS at `gpa` back and frees its slot, if it is in one.
    pub fn give_back(&mut self, hw: &mut (impl VmcsAccess + Memory), gpa: Gpa1) {
        if self.find_kept(hw, gpa).is_none()
            && let Some(id) = self.find(gpa)
        {
            self.write_back(hw, id);
            self.get(id).release();
        }
    }

    /// Writes every slot back and frees it.
    pub fn flush(&mut self, hw: &mut (impl VmcsAccess + Memory)) {
        for id in self.ids() {
            self.write_back(hw, id);
            self.get(id).release();
        }
    }

    fn write_back(&mut self, hw: &mut (impl VmcsAccess + Memory), id: SlotId) {
        self.sync(hw, id);
        let slot = self.get(id);
        let Some(gpa) = slot.gpa else { return };
        let state = if slot.is_launched { LAUNCHED } else { CLEAR };
        region::write(hw, gpa, &slot.vmcs12, state);
    }

    /// Reads back what vmcs02 holds newer than vmcs12. Leaves vmcs01 current
    /// if there was anything to read.
    pub fn sync(&mut self, hw: &mut impl VmcsAccess, id: SlotId) {
        let slot = self.get(id);
        if slot.stale.is_empty() {
            return;
        }
        hw.switch_to(Current::Vmcs02(id));
        let stale = slot.stale;
        slot.fetch_all(hw, stale);
        slot.keep_stale();
        hw.switch_to(Current::Vmcs01);
    }

    /// Reads back those of these fields that vmcs02 has newer than vmcs12, before an
    /// entry. Leaves vmcs02 current if there was any.
    pub(crate) fn sync_of(&mut self, hw: &mut impl VmcsAccess, id: SlotId, fields: FieldSet) {
        let slot = self.get(id);
        let fields = fields.intersection(slot.stale);
        if fields.is_empty() {
            return;
        }
        // A lent vmcs02 stays the truth for what L1 writes there.
        let again = match slot.is_lending() {
            true => fields.difference(slot.lent_for_writing()),
            false => fields,
        };
        slot.asked = slot.asked.union(again);
        slot.read_lately = slot.read_lately.union(again);
        hw.switch_to(Current::Vmcs02(id));
        slot.fetch_all(hw, fields);
    }

    /// A field as L1 sees it, read back from vmcs02 if need be: alone, or with all
    /// others if L1 has asked for several since the exit.
    #[inline]
    pub fn field(&mut self, hw: &mut impl VmcsAccess, id: SlotId, field: Field) -> u64 {
        let slot = self.get(id);
        slot.read_lately.insert(field);
        if slot.stale.contains(field) {
            // A field that vmcs02 is lent for is not asked for again.
            if !slot.is_lending() || !slot.how_lent.read().contains(field) {
                slot.asked.insert(field);
            }
            slot.asked_for = slot.asked_for.saturating_add(1);
            if slot.asked_for > ONE_BY_ONE {
                self.sync(hw, id);
            } else {
                hw.switch_to(Current::Vmcs02(id));
                slot.fetch(hw, field);
                hw.switch_to(Current::Vmcs01);
            }
            let slot = self.get(id);
            slot.keep_stale();
            return slot.vmcs12.get(field);
        }
        self.get(id).get(field)
    }

    /// VMfailValid: the error goes to the current vmcs12.
    pub fn set_error(&mut self, id: SlotId, error: InsnError) {
        let error = u64::from(error.number());
        self.get(id).l0_records(field::VM_INSTRUCTION_ERROR, error);
    }
}

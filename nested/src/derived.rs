//! What follows from the fields of vmcs12 that L1 seldom writes: worked out when one
//! of them changed, and only looked at by each entry and exit.

use bitflags::bitflags;
use umbra_arch::{Cr4, Gpa1};
use umbra_ept::caps::Caps as EptCaps;
use umbra_ept::ept02::Context12;
use umbra_ept::eptp::Eptp;
use umbra_vmcs::Vmcs12;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::flow::{self, Back, Into02, On, Shadow};
use umbra_vmcs::field::{self, Area, FieldSet};
use umbra_vmcs::rules;

use crate::host_image::HostImage;

bitflags! {
    /// What an entry does besides what every entry does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct OnEntry: u16 {
        /// L2 starts with L1's IA32_EFER, as far as controls do not say otherwise.
        const INHERITS_EFER = 1 << 0;
        /// L2 starts with L1's IA32_PAT.
        const INHERITS_PAT = 1 << 1;
        /// L2 starts with L1's DR7 and IA32_DEBUGCTL.
        const INHERITS_DEBUG = 1 << 2;
        /// IA32_PERF_GLOBAL_CTRL is loaded.
        const LOADS_PERF = 1 << 3;
        /// PDPTEs come from L1's memory, if L2 uses PAE paging.
        const PDPTES_IN_MEMORY = 1 << 4;
        /// L1's MSR bitmap is merged.
        const MSR_BITMAP = 1 << 5;
        /// There is an MSR-load list.
        const MSR_LIST = 1 << 6;
        /// The VMX-preemption timer is on.
        const TIMER = 1 << 7;
        /// L2's VMREAD and VMWRITE reach a shadow VMCS of L1's.
        const SHADOWS = 1 << 8;
        /// The rules look at L1's memory for each entry.
        const RULES_READ_MEMORY = 1 << 9;
        /// Some register is L1's.
        const INHERITS =
            Self::INHERITS_EFER.bits() | Self::INHERITS_PAT.bits() | Self::INHERITS_DEBUG.bits();
    }
}

bitflags! {
    /// What an exit to L1 does besides what every exit does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct OnExit: u16 {
        /// L1 keeps L2's IA32_EFER, but for the mode.
        const KEEPS_EFER = 1 << 0;
        /// L1 keeps L2's IA32_PAT.
        const KEEPS_PAT = 1 << 1;
        /// IA32_PERF_GLOBAL_CTRL is loaded.
        const LOADS_PERF = 1 << 2;
        /// IA32_PERF_GLOBAL_CTRL is saved.
        const SAVES_PERF = 1 << 3;
        /// There is an MSR-store list.
        const STORE_LIST = 1 << 4;
        /// There is an MSR-load list.
        const LOAD_LIST = 1 << 5;
        /// L1 uses PAE paging outside IA-32e mode.
        const PAE_HOST = 1 << 6;
        /// L1's translations are dropped: "enable VPID" is 0.
        const DROPS_TRANSLATIONS = 1 << 7;
        /// "IA-32e mode guest" follows IA32_EFER.LMA: L2 is unrestricted.
        const STORES_LMA = 1 << 8;
        /// L1 is in IA-32e mode afterwards.
        const IS_64_BIT = 1 << 9;
    }
}

/// Control words: any of them changed, and all are composed anew.
pub(crate) const CONTROL_WORDS: FieldSet = flow::into02(Into02::ControlWord);

/// The fields of vmcs12 from which the rest follows.
pub(crate) const INPUTS: FieldSet =
    flow::area(Area::Host)
        .union(CONTROL_WORDS)
        .union(FieldSet::of(&[
            field::EPT_POINTER,
            field::VMCS_LINK_POINTER,
            field::TPR_THRESHOLD,
            field::VM_ENTRY_MSR_LOAD_COUNT,
            field::VM_EXIT_MSR_STORE_COUNT,
            field::VM_EXIT_MSR_LOAD_COUNT,
        ]));

/// Registers that vmcs02 loads and saves whatever the controls of vmcs12 say.
pub(crate) const ALWAYS_SAVED: FieldSet = FieldSet::of(&[
    field::GUEST_IA32_EFER,
    field::GUEST_IA32_PAT,
    field::GUEST_IA32_DEBUGCTL,
    field::GUEST_DR7,
]);

/// What L1 writes in a vmcs02 that is lent to it.
pub(crate) const LENT_FOR_WRITING: FieldSet = flow::shadow(Shadow::ReadWrite);

/// What L1 reads there.
pub(crate) const LENT: FieldSet = LENT_FOR_WRITING.union(flow::shadow(Shadow::Read));

/// Guest state that each exit saves, and that L1 writes in a vmcs02 that is lent to it whole.
pub(crate) const LENT_WHOLE: FieldSet = flow::shadow(Shadow::Read).intersection(GUEST_STATE);

/// Exit information. It stays in vmcs02 until L1 asks.
pub(crate) const INFORMATION: FieldSet =
    flow::back(Back::WhenAsked, On::Any).intersection(flow::area(Area::ExitInformation));

/// Guest state that the CPU saves at each exit, likewise.
const GUEST_STATE: FieldSet = flow::back(Back::WhenAsked, On::Any).difference(INFORMATION);

/// Guest state that vmcs12 gets back only where a control of its is 1.
const ON_CONTROLS: [(On, FieldSet); 6] = [
    on(On::SaveDebugControls),
    on(On::SavePat),
    on(On::SaveEfer),
    on(On::SavePreemptionTimer),
    on(On::Ept),
    on(On::VirtualInterruptDelivery),
];

const fn on(on: On) -> (On, FieldSet) {
    (on, flow::back(Back::WhenAsked, on))
}

// No row's way back is left out.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const _: () = {
    let mut fields = INFORMATION.len() + GUEST_STATE.len();
    let mut n = 0;
    while n < ON_CONTROLS.len() {
        fields += ON_CONTROLS[n].1.len();
        n += 1;
    }
    assert!(fields == flow::read_back().len());
};

/// All of it.
#[derive(Debug)]
pub(crate) struct Derived {
    /// What each entry does besides.
    pub entry: OnEntry,
    /// What each exit to L1 does besides.
    pub exit: OnExit,
    /// Those of [`ALWAYS_SAVED`] that each entry loads of vmcs12.
    pub loaded: FieldSet,
    /// Guest state that an exit leaves in vmcs02 for vmcs12.
    pub saved: FieldSet,
    /// The same, with exit information.
    pub saved_with_information: FieldSet,
    /// The same, with the exit reason and what L1 may write in a vmcs02 that is lent.
    pub saved_and_lent: FieldSet,
    /// What L1 may write in a vmcs02 that is lent.
    pub lent: FieldSet,
    /// [`ALWAYS_SAVED`] is vmcs12's at entries and exits alike, so that vmcs02 has it as
    /// vmcs12 would.
    pub has_registers: bool,
    /// The part of `lent` that no exit saves: L0 may have replaced it in vmcs02.
    pub lent_unsaved: FieldSet,
    /// What an exit leaves in vmcs02 though vmcs12 keeps a value of its own.
    pub unsaved: FieldSet,
    /// L2's extended page tables; `None` if L1 does not use EPT for it, or its
    /// pointer is not one.
    pub context: Option<Context12>,
    /// What exits to L1 load into vmcs01.
    pub host: HostImage,
}

impl Derived {
    /// Before there is a vmcs12.
    pub(crate) const NOTHING: Self = Self {
        entry: OnEntry::empty(),
        exit: OnExit::empty(),
        loaded: FieldSet::EMPTY,
        saved: FieldSet::EMPTY,
        saved_with_information: FieldSet::EMPTY,
        saved_and_lent: FieldSet::EMPTY,
        lent: FieldSet::EMPTY,
        has_registers: false,
        lent_unsaved: FieldSet::EMPTY,
        unsaved: FieldSet::EMPTY,
        context: None,
        host: HostImage::EMPTY,
    };

    /// What follows from a vmcs12 with these `fields`, on a CPU that stores LMA in
    /// the entry controls at exits, or not.
    pub(crate) fn of(v: &Vmcs12, fields: FieldSet, caps: &EptCaps, stores_lma: bool) -> Self {
        let saved = saved(v).intersection(fields);
        let loaded = loaded(v);
        let unsaved = ALWAYS_SAVED.difference(saved);
        Self {
            entry: on_entry(v),
            exit: on_exit(v, stores_lma),
            loaded,
            saved,
            saved_with_information: saved.union(INFORMATION.intersection(fields)),
            saved_and_lent: saved
                .union(INFORMATION.intersection(fields))
                .union(LENT_FOR_WRITING.intersection(fields))
                .with(field::EXIT_REASON),
            lent: LENT_FOR_WRITING.intersection(fields),
            has_registers: ALWAYS_SAVED.difference(loaded).union(unsaved).is_empty(),
            lent_unsaved: LENT_FOR_WRITING.intersection(fields).difference(saved),
            unsaved: unsaved.intersection(fields),
            context: context(v, caps),
            host: HostImage::of(v),
        }
    }
}

fn on_entry(v: &Vmcs12) -> OnEntry {
    let mut on = OnEntry::empty();
    on.set(OnEntry::INHERITS_EFER, !v.entry(Entry::LOAD_EFER));
    on.set(OnEntry::INHERITS_PAT, !v.entry(Entry::LOAD_PAT));
    on.set(
        OnEntry::INHERITS_DEBUG,
        !v.entry(Entry::LOAD_DEBUG_CONTROLS),
    );
    on.set(OnEntry::LOADS_PERF, v.entry(Entry::LOAD_PERF_GLOBAL_CTRL));
    on.set(OnEntry::PDPTES_IN_MEMORY, may_have_pdptes_in_memory(v));
    on.set(OnEntry::MSR_BITMAP, v.proc(Proc::USE_MSR_BITMAPS));
    on.set(
        OnEntry::MSR_LIST,
        v.get(field::VM_ENTRY_MSR_LOAD_COUNT) != 0,
    );
    on.set(OnEntry::TIMER, v.pin(Pin::ACTIVATE_PREEMPTION_TIMER));
    on.set(OnEntry::SHADOWS, shadow_link(v).is_some());
    on.set(OnEntry::RULES_READ_MEMORY, rules::read_memory(v));
    on
}

fn on_exit(v: &Vmcs12, stores_lma: bool) -> OnExit {
    let is_64_bit = v.exit(Exit::HOST_ADDRESS_SPACE_SIZE);
    let mut on = OnExit::empty();
    on.set(OnExit::KEEPS_EFER, !v.exit(Exit::LOAD_EFER));
    on.set(OnExit::KEEPS_PAT, !v.exit(Exit::LOAD_PAT));
    on.set(OnExit::LOADS_PERF, v.exit(Exit::LOAD_PERF_GLOBAL_CTRL));
    on.set(OnExit::SAVES_PERF, v.exit(Exit::SAVE_PERF_GLOBAL_CTRL));
    on.set(
        OnExit::STORE_LIST,
        v.get(field::VM_EXIT_MSR_STORE_COUNT) != 0,
    );
    on.set(OnExit::LOAD_LIST, v.get(field::VM_EXIT_MSR_LOAD_COUNT) != 0);
    on.set(
        OnExit::PAE_HOST,
        !is_64_bit && Cr4::PAE.is_in(v.get(field::HOST_CR4)),
    );
    on.set(OnExit::DROPS_TRANSLATIONS, !v.proc2(Proc2::ENABLE_VPID));
    on.set(
        OnExit::STORES_LMA,
        stores_lma && v.proc2(Proc2::UNRESTRICTED_GUEST),
    );
    on.set(OnExit::IS_64_BIT, is_64_bit);
    on
}

/// A VMCS link pointer that names nothing.
const NO_LINK: u64 = u64::MAX;

/// The shadow VMCS of L1's that L2 reaches; `None` where it reaches none.
pub(crate) fn shadow_link(v: &Vmcs12) -> Option<Gpa1> {
    let link = v.get(field::VMCS_LINK_POINTER);
    (v.proc2(Proc2::VMCS_SHADOWING) && link != NO_LINK).then_some(Gpa1::new(link))
}

fn loaded(v: &Vmcs12) -> FieldSet {
    let mut loaded = FieldSet::EMPTY;
    if v.entry(Entry::LOAD_EFER) {
        loaded.insert(field::GUEST_IA32_EFER);
    }
    if v.entry(Entry::LOAD_PAT) {
        loaded.insert(field::GUEST_IA32_PAT);
    }
    if v.entry(Entry::LOAD_DEBUG_CONTROLS) {
        loaded.insert(field::GUEST_IA32_DEBUGCTL);
        loaded.insert(field::GUEST_DR7);
    }
    loaded
}

/// Whether L2's PDPTEs come from memory if it uses PAE paging.
fn may_have_pdptes_in_memory(v: &Vmcs12) -> bool {
    !v.entry(Entry::IA32E_MODE_GUEST) && !v.proc2(Proc2::ENABLE_EPT)
}

fn saved(v: &Vmcs12) -> FieldSet {
    let mut saved = GUEST_STATE;
    for (on, fields) in ON_CONTROLS {
        let is_saved = match on {
            On::Any => true,
            On::SaveDebugControls => v.exit(Exit::SAVE_DEBUG_CONTROLS),
            On::SavePat => v.exit(Exit::SAVE_PAT),
            On::SaveEfer => v.exit(Exit::SAVE_EFER),
            On::SavePerfGlobalCtrl => v.exit(Exit::SAVE_PERF_GLOBAL_CTRL),
            On::SavePreemptionTimer => {
                v.exit(Exit::SAVE_PREEMPTION_TIMER) && v.pin(Pin::ACTIVATE_PREEMPTION_TIMER)
            }
            On::Ept => v.proc2(Proc2::ENABLE_EPT),
            On::VirtualInterruptDelivery => v.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY),
        };
        if is_saved {
            saved = saved.union(fields);
        }
    }
    saved
}

/// L2's extended page tables as vmcs12 has them.
pub(crate) fn context(v: &Vmcs12, caps: &EptCaps) -> Option<Context12> {
    if !v.proc2(Proc2::ENABLE_EPT) {
        return None;
    }
    let mode_based = v.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL);
    let caps = caps.with_mode_based_execute(mode_based);
    let eptp = Eptp::new(v.get(field::EPT_POINTER), &caps).ok()?;
    Some(Context12 { eptp, caps })
}

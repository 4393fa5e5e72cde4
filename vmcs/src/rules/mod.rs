//! The rules of VM entry, one row each. SDM chapter "VM Entries".
//!
//! A [`Rule`] says what has to hold, under which title the SDM says so, and
//! what the CPU answers when it does not. Rules stand in [`Group`]s, groups in
//! the SDM's order: controls, host state, guest state. The same rows make the
//! checks that run at a nested VM entry, the page `docs/rules.md`, and the
//! cases of the tests ([`cases`]).
//!
//! Within one phase the SDM leaves the order open. Only the exit qualification
//! of a failed guest-state check shows it; the order here is that of the CPUs
//! that the transcripts are compared with.

mod apic;
pub mod cases;
mod control_words;
mod cpu;
mod ctx;
pub mod doc;
mod ept;
mod event;
mod guest_registers;
mod guest_segments;
mod guest_state;
mod host;
pub mod instructions;
mod msr;
mod pointers;
#[cfg(test)]
mod tests;
mod transitions;

pub use cpu::{CpuFacts, CpuidLeaf};
pub use ctx::{Ctx, L1Facts, L1Memory, NoMemory};
pub use ept::eptp_valid;
pub use msr::{
    MSR_LOAD_RULES, MSR_STORE_RULES, MsrEntry, MsrRule, check_msr_load_entry, check_msr_store_entry,
};

use umbra_arch::qualification::entry_failure;

use crate::Vmcs12;
use crate::controls::{Entry, Proc2};
use crate::error::InsnError;
use crate::field::{self, ALL, FIELD_COUNT, FieldSet};

/// What a CPU answers to a broken rule of VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// VMfailValid with the number given; nothing else happens.
    FailValid(InsnError),
    /// A VM exit with basic reason 33 ("VM-entry failure due to invalid guest
    /// state") and bit 31 of the reason set, with this qualification.
    GuestState {
        /// The exit qualification.
        qualification: u64,
    },
    /// A VM exit with basic reason 34 ("VM-entry failure due to MSR loading")
    /// and bit 31 set; the qualification is the number of the entry, from 1.
    MsrLoading,
}

/// One check of VM entry.
pub struct Rule {
    /// A stable name: phase, subject, detail.
    pub id: &'static str,
    /// The title of the SDM's section.
    pub section: &'static str,
    /// What has to hold.
    pub what: &'static str,
    /// What the CPU answers when it does not.
    pub answer: Answer,
    holds: fn(&Ctx<'_>) -> bool,
}

impl Rule {
    /// Whether the rule holds, whatever the others do.
    ///
    /// A rule may take for granted those before it: its own verdict counts
    /// only where they hold.
    pub fn holds(&self, ctx: &Ctx<'_>) -> bool {
        (self.holds)(ctx)
    }
}

impl core::fmt::Debug for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.id)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Rule {}

/// When a group has to be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// When one of the fields that it reads changed since it last passed.
    OnChange,
    /// At each VM entry: it also reads memory or L1's registers.
    Always,
}

/// Rules that read much the same fields.
pub struct Group {
    /// A name, for the docs.
    pub name: &'static str,
    /// The fields that its rules read.
    pub reads: FieldSet,
    /// When it is evaluated.
    pub runs: Runs,
    /// The rules, in the order in which they are evaluated.
    pub rules: &'static [Rule],
    first_broken: fn(&Ctx<'_>) -> Option<&'static Rule>,
}

impl Group {
    /// The first broken rule of the group.
    pub fn first_broken(&self, ctx: &Ctx<'_>) -> Option<&'static Rule> {
        (self.first_broken)(ctx)
    }
}

/// Makes a module with the predicates of one group, its rows, and the function
/// that evaluates them in order (all inlined into one, so that a field is read
/// once).
macro_rules! rules {
    (
        $(#[$doc:meta])*
        $module:ident: $name:expr;
        section: $section:expr;
        answer: $answer:expr;
        runs: $runs:ident;
        reads: [$($field:ident),* $(,)?];
        $($rule:ident = $id:expr, $what:expr, |$c:ident| $body:expr;)+
    ) => {
        $(#[$doc])*
        pub(super) mod $module {
            #[allow(unused_imports)]
            use super::*;
            use $crate::field::FieldSet;
            use $crate::rules::{Ctx, Group, Rule, Runs};

            $(
                #[inline(always)]
                fn $rule($c: &Ctx<'_>) -> bool {
                    $body
                }
            )+

            static RULES: &[Rule] = &[$(
                Rule {
                    id: $id,
                    section: $section,
                    what: $what,
                    answer: $answer,
                    holds: $rule,
                },
            )+];

            pub(in $crate::rules) const READS: FieldSet =
                FieldSet::of(&[$($crate::field::$field),*]);
            pub(in $crate::rules) const ALWAYS: bool = matches!(Runs::$runs, Runs::Always);

            #[allow(unused_assignments)]
            pub(in $crate::rules) fn first_broken(ctx: &Ctx<'_>) -> Option<&'static Rule> {
                let mut n = 0;
                $(
                    if !$rule(ctx) {
                        return RULES.get(n);
                    }
                    n += 1;
                )+
                None
            }

            pub static GROUP: Group = Group {
                name: $name,
                reads: READS,
                runs: Runs::$runs,
                rules: RULES,
                first_broken,
            };
        }
    };
}
use rules;

const CONTROLS_ANSWER: Answer = Answer::FailValid(InsnError::EntryInvalidControls);
const HOST_ANSWER: Answer = Answer::FailValid(InsnError::EntryInvalidHostState);
const GUEST_ANSWER: Answer = Answer::GuestState {
    qualification: entry_failure::NONE,
};

/// The groups of a phase, and the function that evaluates those that have to
/// be. Written out group by group, so that what a group reads is a constant
/// where it is compared with what changed.
macro_rules! phase {
    (
        $(#[$doc:meta])*
        $groups:ident, $broken:ident: $($file:ident::$group:ident),+ $(,)?
    ) => {
        $(#[$doc])*
        pub static $groups: &[&Group] = &[$(&$file::$group::GROUP),+];

        fn $broken(ctx: &Ctx<'_>, dirty: &FieldSet) -> Option<&'static Rule> {
            const READS: FieldSet = FieldSet::EMPTY$(.union($file::$group::READS))+;
            let changed = dirty.intersects(&READS);
            $(
                if ($file::$group::ALWAYS || changed && dirty.intersects(&$file::$group::READS))
                    && let Some(rule) = $file::$group::first_broken(ctx)
                {
                    return Some(rule);
                }
            )+
            None
        }
    };
}

phase! {
    /// The groups of the checks on VMX controls, in order.
    CONTROLS, controls_broken:
    control_words::execution,
    pointers::bitmaps,
    control_words::nmi,
    pointers::shadowing,
    pointers::ve,
    apic::controls,
    apic::vtpr,
    apic::posted,
    ept::eptp,
    ept::features,
    ept::functions,
    control_words::others,
    transitions::exit,
    transitions::exit_msrs,
    transitions::entry,
    transitions::tracing,
    event::injection,
}

phase! {
    /// The groups of the checks on the host-state area, in order.
    HOST_STATE, host_state_broken:
    host::mode,
    host::registers,
    host::segments,
    host::msrs,
    host::address_space,
}

phase! {
    /// The groups of the checks on the guest-state area, in order.
    GUEST_STATE, guest_state_broken:
    guest_state::rflags,
    guest_registers::control_registers,
    guest_registers::debug,
    guest_segments::es,
    guest_segments::cs,
    guest_segments::ss,
    guest_segments::ds,
    guest_segments::fs,
    guest_segments::gs,
    guest_segments::tables,
    guest_segments::ldtr,
    guest_segments::tr,
    guest_registers::msrs,
    guest_state::rip,
    guest_state::link_pointer,
    guest_state::rflags_interrupt,
    guest_state::pending_debug,
    guest_state::activity,
    guest_state::interruptibility,
    guest_state::nmi_and_sti,
    guest_state::pdpte_fields,
    guest_state::pdpte_memory,
}

/// The checks on VMX controls. SDM "Checks on VMX Controls".
///
/// `dirty` has at least the fields that changed since these checks last
/// passed for this VMCS on this CPU; a group that reads none of them is not
/// evaluated again. A value that the CPU itself stored at a VM exit, in a
/// VMCS whose entry had passed, need not be in it.
///
/// # Errors
/// The first broken rule.
pub fn check_controls(ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    controls_broken(ctx, dirty).map_or(Ok(()), Err)
}

/// The checks on the host-state area. SDM "Checks on the Host State Area".
/// They suppose that the controls passed; `dirty` as in [`check_controls`].
///
/// # Errors
/// The first broken rule.
pub fn check_host_state(ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    host_state_broken(ctx, dirty).map_or(Ok(()), Err)
}

/// The checks on the guest-state area and the PDPTEs. SDM "Checks on the
/// Guest State Area". They suppose that controls and host state passed;
/// `dirty` as in [`check_controls`].
///
/// # Errors
/// The first broken rule.
pub fn check_guest_state(ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    guest_state_broken(ctx, dirty).map_or(Ok(()), Err)
}

/// All of the checks before the MSRs are loaded, in order.
///
/// # Errors
/// The first broken rule.
pub fn check_all(ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    check_controls(ctx, dirty)?;
    check_host_state(ctx, dirty)?;
    check_guest_state(ctx, dirty)
}

/// Whether a group that runs always looks at L1's memory for this VMCS. If not, and
/// no field changed since all passed, they pass again for the same [`L1Facts`].
pub fn read_memory(vmcs: &Vmcs12) -> bool {
    apic::reads_vtpr(vmcs)
        || vmcs.get(field::VMCS_LINK_POINTER) != guest_state::NO_LINK
        || !vmcs.proc2(Proc2::ENABLE_EPT) && !vmcs.entry(Entry::IA32E_MODE_GUEST)
}

/// For each field, what the groups that read it read.
static READ_WITH: [FieldSet; FIELD_COUNT] = {
    let mut read_with = [FieldSet::EMPTY; FIELD_COUNT];
    let phases = [CONTROLS, HOST_STATE, GUEST_STATE];
    let mut phase = 0;
    while phase < phases.len() {
        let mut group = 0;
        while group < phases[phase].len() {
            let reads = phases[phase][group].reads;
            let mut n = 0;
            while n < FIELD_COUNT {
                if reads.contains(ALL[n]) {
                    read_with[n] = read_with[n].union(reads);
                }
                n += 1;
            }
            group += 1;
        }
        phase += 1;
    }
    read_with
};

/// What the groups that have to be evaluated read, when these fields changed.
pub fn read_with(changed: &FieldSet) -> FieldSet {
    let mut reads = FieldSet::EMPTY;
    let mut changed = *changed;
    changed.drain_within(&FieldSet::FULL, |field| {
        reads = reads.union(READ_WITH[field.index()]);
    });
    reads
}

/// Every group of every phase, in order.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    [CONTROLS, HOST_STATE, GUEST_STATE]
        .into_iter()
        .flatten()
        .copied()
}

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
pub use event::kind as interruption_kind;
pub use msr::{
    MSR_LOAD_RULES, MSR_STORE_RULES, MsrEntry, MsrRule, check_msr_load_entry, check_msr_store_entry,
};

use crate::error::InsnError;
use crate::field::FieldSet;

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

/// The exit qualifications of a VM entry that fails on guest state. SDM
/// "VM-Entry Failures During or After Loading Guest State".
pub mod qualification {
    /// No cause is named.
    pub const NONE: u64 = 0;
    /// The PDPTEs could not be loaded.
    pub const PDPTE: u64 = 2;
    /// An NMI was to be injected while STI blocks.
    pub const NMI_INJECTION: u64 = 3;
    /// The VMCS link pointer is not valid.
    pub const LINK_POINTER: u64 = 4;
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

            #[allow(unused_assignments)]
            fn first_broken(ctx: &Ctx<'_>) -> Option<&'static Rule> {
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
                reads: FieldSet::of(&[$($crate::field::$field),*]),
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
    qualification: qualification::NONE,
};

/// The groups of the checks on VMX controls, in order.
pub static CONTROLS: &[&Group] = &[
    &control_words::execution::GROUP,
    &pointers::bitmaps::GROUP,
    &control_words::nmi::GROUP,
    &pointers::shadowing::GROUP,
    &pointers::ve::GROUP,
    &apic::controls::GROUP,
    &apic::vtpr::GROUP,
    &apic::posted::GROUP,
    &ept::eptp::GROUP,
    &ept::features::GROUP,
    &ept::functions::GROUP,
    &control_words::others::GROUP,
    &transitions::exit::GROUP,
    &transitions::exit_msrs::GROUP,
    &transitions::entry::GROUP,
    &transitions::tracing::GROUP,
    &event::injection::GROUP,
];

/// The groups of the checks on the host-state area, in order.
pub static HOST_STATE: &[&Group] = &[
    &host::mode::GROUP,
    &host::registers::GROUP,
    &host::segments::GROUP,
    &host::msrs::GROUP,
    &host::address_space::GROUP,
];

/// The groups of the checks on the guest-state area, in order.
pub static GUEST_STATE: &[&Group] = &[
    &guest_state::rflags::GROUP,
    &guest_registers::control_registers::GROUP,
    &guest_registers::debug::GROUP,
    &guest_segments::es::GROUP,
    &guest_segments::cs::GROUP,
    &guest_segments::ss::GROUP,
    &guest_segments::ds::GROUP,
    &guest_segments::fs::GROUP,
    &guest_segments::gs::GROUP,
    &guest_segments::tables::GROUP,
    &guest_segments::ldtr::GROUP,
    &guest_segments::tr::GROUP,
    &guest_registers::msrs::GROUP,
    &guest_state::rip::GROUP,
    &guest_state::link_pointer::GROUP,
    &guest_state::pending_debug::GROUP,
    &guest_state::activity::GROUP,
    &guest_state::interruptibility::GROUP,
    &guest_state::nmi_and_sti::GROUP,
    &guest_state::pdpte_fields::GROUP,
    &guest_state::pdpte_memory::GROUP,
];

fn check(groups: &[&Group], ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    for group in groups {
        if (group.runs == Runs::Always || group.reads.intersects(dirty))
            && let Some(rule) = group.first_broken(ctx)
        {
            return Err(rule);
        }
    }
    Ok(())
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
    check(CONTROLS, ctx, dirty)
}

/// The checks on the host-state area. SDM "Checks on the Host State Area".
/// They suppose that the controls passed; `dirty` as in [`check_controls`].
///
/// # Errors
/// The first broken rule.
pub fn check_host_state(ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    check(HOST_STATE, ctx, dirty)
}

/// The checks on the guest-state area and the PDPTEs. SDM "Checks on the
/// Guest State Area". They suppose that controls and host state passed;
/// `dirty` as in [`check_controls`].
///
/// # Errors
/// The first broken rule.
pub fn check_guest_state(ctx: &Ctx<'_>, dirty: &FieldSet) -> Result<(), &'static Rule> {
    check(GUEST_STATE, ctx, dirty)
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

/// Every group of every phase, in order.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    [CONTROLS, HOST_STATE, GUEST_STATE]
        .into_iter()
        .flatten()
        .copied()
}

//! The rule table of `umbra-vmcs` beside the machine: with the word `rules` only those cases are
//! printed in which the two do not agree on whether, and how, a VM entry fails.
//!
//! This finds mistakes in the table, and where a CPU departs from the SDM.

use rt::cpu;
use rt::page::Page;
use rt::vmx::vm::Outcome;
use rt::vmx::{VmxError, insn};
use umbra_vmcs::field::{ALL, FieldSet};
use umbra_vmcs::rules::{Answer, CpuFacts, CpuidLeaf, Ctx, L1Facts, L1Memory, Rule, check_all};
use umbra_vmcs::{Field, Vmcs12, VmxCaps};

/// What the rules have to know.
pub struct Judge {
    facts: CpuFacts,
    caps: VmxCaps,
}

/// The program's own memory, read as the CPU would.
struct OwnMemory;

impl L1Memory for OwnMemory {
    fn read_u32(&self, address: u64) -> u32 {
        Page::read_foreign(address).map_or(u32::MAX, |value| value as u32)
    }

    fn read_u64(&self, address: u64) -> u64 {
        Page::read_foreign(address).unwrap_or(u64::MAX)
    }
}

impl Judge {
    /// Asks CPUID.
    pub fn new(caps: VmxCaps) -> Self {
        let leaf = |n, sub| {
            let found = cpu::cpuid(n, sub);
            CpuidLeaf {
                eax: found.eax,
                ebx: found.ebx,
                ecx: found.ecx,
                edx: found.edx,
            }
        };
        Self {
            facts: CpuFacts::from_cpuid(leaf, 0),
            caps,
        }
    }

    /// What CPUID says.
    pub const fn facts(&self) -> CpuFacts {
        self.facts
    }

    /// The first rule that these values break.
    pub fn first_broken(&self, value: impl Fn(Field) -> u64) -> Option<&'static Rule> {
        let mut vmcs = Vmcs12::new();
        for field in ALL {
            vmcs.set(field, value(field));
        }
        let l1 = L1Facts {
            ia32e_mode: true,
            current_vmcs: insn::vmptrst().unwrap_or(u64::MAX),
            ..L1Facts::default()
        };
        let ctx = Ctx::new(&vmcs, &self.caps, &self.facts, l1, &OwnMemory);
        check_all(&ctx, &FieldSet::of(&ALL)).err()
    }
}

/// Whether the machine did what the rule says.
pub fn agree(broken: Option<&Rule>, outcome: &Outcome) -> bool {
    let failure = match outcome {
        Outcome::Failed(VmxError::Valid(number)) => Some((7, u64::from(*number))),
        Outcome::Failed(_) => Some((0, 0)),
        Outcome::Exit(exit) if exit.is_entry_failure() => Some((exit.basic(), exit.qualification)),
        Outcome::Exit(_) | Outcome::HostFault(_) => None,
    };
    match (broken.map(|rule| rule.answer), failure) {
        (None, None) => true,
        // Loading MSRs comes after these checks, and is not among them.
        (None, Some((34, _))) => true,
        (Some(Answer::FailValid(number)), Some((7, found))) => u64::from(number.number()) == found,
        (Some(Answer::GuestState { qualification }), Some((33, found))) => qualification == found,
        _ => false,
    }
}

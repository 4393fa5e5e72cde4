//! Each row against its cases, and what a rule reads against what its group
//! says.

extern crate std;

use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

use core::cell::Cell;
use proptest::prelude::*;

use super::cases::{self, Bench};
use super::{Ctx, FieldSet, L1Memory, Rule, Runs, check_all, groups, read_memory};
use crate::field::{self, FIELD_COUNT};
use umbra_arch::EventType;

fn rules() -> impl Iterator<Item = &'static Rule> {
    groups().flat_map(|group| group.rules)
}

/// Rules that hold whenever those before them do: the SDM states them all the
/// same.
const IMPLIED: &[&str] = &["host.size.guest-needs-host"];

#[test]
fn the_bench_starts_valid() {
    let bench = Bench::new();
    assert_eq!(check_all(&bench.ctx(), &FieldSet::FULL), Ok(()));
}

#[test]
fn every_case_breaks_its_rule_first_or_none() {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let mut bench = Bench::new();
        (case.apply)(&mut bench);
        let broken = check_all(&bench.ctx(), &FieldSet::FULL)
            .err()
            .map(|rule| rule.id);
        let expected = case.breaks.then_some(case.rule);
        if broken != expected {
            wrong.push(std::format!(
                "{} ({}): expected {expected:?}, got {broken:?}",
                case.rule,
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case_on_each_side() {
    let ids: BTreeSet<_> = rules().map(|rule| rule.id).collect();
    let mut kept = BTreeSet::new();
    let mut broken = BTreeSet::new();
    for case in cases::all() {
        assert!(ids.contains(case.rule), "no rule {}", case.rule);
        if case.breaks { &mut broken } else { &mut kept }.insert(case.rule);
    }
    let lacking: Vec<String> = ids
        .iter()
        .filter(|id| !kept.contains(*id) || !broken.contains(*id) && !IMPLIED.contains(id))
        .map(|id| String::from(*id))
        .collect();
    assert!(
        lacking.is_empty(),
        "rules without a case: {}",
        lacking.join(", ")
    );
}

#[test]
fn the_implied_rules_are_checked_too() {
    let mut bench = Bench::new();
    bench.host32();
    bench.entry(crate::controls::Entry::IA32E_MODE_GUEST);
    for id in IMPLIED {
        let rule = rules().find(|rule| rule.id == *id).unwrap();
        assert!(!rule.holds(&bench.ctx()), "{id}");
        assert!(rule.holds(&Bench::new().ctx()), "{id}");
    }
}

#[test]
fn ids_and_names_are_unique() {
    let mut seen = BTreeSet::new();
    for rule in rules() {
        assert!(seen.insert(rule.id), "two rules {}", rule.id);
        assert!(
            !rule.what.is_empty() && !rule.what.ends_with('.'),
            "{}",
            rule.id
        );
    }
    let mut seen = BTreeSet::new();
    for case in cases::all() {
        assert!(
            seen.insert((case.rule, case.name)),
            "{} {}",
            case.rule,
            case.name
        );
    }
}

/// Which fields each group's rules read, over states of many kinds.
#[test]
fn a_group_reads_the_fields_it_says() {
    let mut read: BTreeMap<&str, FieldSet> = BTreeMap::new();
    let mut look = |bench: &Bench| {
        for group in groups() {
            let seen = Cell::new(FieldSet::EMPTY);
            let ctx = bench.ctx().recording(&seen);
            for rule in group.rules {
                rule.holds(&ctx);
            }
            let all = read.entry(group.name).or_insert(FieldSet::EMPTY);
            *all = all.union(seen.get());
        }
    };
    for case in cases::all() {
        let mut bench = Bench::new();
        (case.apply)(&mut bench);
        look(&bench);
        bench.cpu.linear_address_bits = 57;
        look(&bench);
        // The same with every control on.
        for word in CONTROL_WORDS {
            bench.set(word, u64::MAX);
        }
        look(&bench);
    }
    let mut wrong = Vec::new();
    for group in groups() {
        for f in field::ALL {
            let (said, seen) = (group.reads.contains(f), read[group.name].contains(f));
            if said != seen {
                wrong.push(std::format!(
                    "{}: {f:?} said {said}, seen {seen}",
                    group.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Memory that is not to be looked at.
struct Forbidden;

impl L1Memory for Forbidden {
    fn read_u32(&self, address: u64) -> u32 {
        panic!("{address:#x} is read");
    }

    fn read_u64(&self, address: u64) -> u64 {
        panic!("{address:#x} is read");
    }
}

/// Where it is said that no rule looks at memory, none does.
#[test]
fn only_vmcss_that_are_said_to_have_memory_read() {
    let mut without = 0;
    for case in cases::all() {
        let mut bench = Bench::new();
        (case.apply)(&mut bench);
        if !read_memory(&bench.vmcs) {
            without += 1;
            let ctx = Ctx::new(&bench.vmcs, &bench.caps, &bench.cpu, bench.l1, &Forbidden);
            for group in groups().filter(|group| group.runs == Runs::Always) {
                let _ = group.first_broken(&ctx);
            }
        }
    }
    assert!(without > 100);
}

const CONTROL_WORDS: [field::Field; 7] = [
    field::PIN_BASED_CONTROLS,
    field::PRIMARY_PROCESSOR_BASED_CONTROLS,
    field::SECONDARY_PROCESSOR_BASED_CONTROLS,
    field::TERTIARY_PROCESSOR_BASED_CONTROLS,
    field::PRIMARY_VM_EXIT_CONTROLS,
    field::SECONDARY_VM_EXIT_CONTROLS,
    field::VM_ENTRY_CONTROLS,
];

/// What a state is checked to: the id, `None` for accepted.
fn verdict(bench: &Bench) -> Option<&'static str> {
    check_all(&bench.ctx(), &FieldSet::FULL)
        .err()
        .map(|rule| rule.id)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Fields of any value: an answer, and the one that rule by rule gives.
    #[test]
    fn any_fields_have_an_answer(
        edits in proptest::collection::vec((0..FIELD_COUNT, any::<u64>(), 0..4u8), 0..40),
        memory in any::<[u64; 4]>(),
        capabilities in any::<[u64; 4]>(),
    ) {
        let mut bench = Bench::new();
        for (n, value, how) in edits {
            let f = field::ALL[n];
            match how {
                0 => bench.set(f, value),
                1 => bench.or(f, 1 << (value % 64)),
                2 => bench.clear(f, 1 << (value % 64)),
                _ => bench.set(f, [0, u64::MAX, 1 << 63, 0xfff][value as usize % 4]),
            }
        }
        for (n, value) in memory.into_iter().enumerate() {
            bench.poke64(bench.pages.pdpt + n as u64 * 8, value);
        }
        bench.caps.ept_vpid ^= capabilities[0] & capabilities[1];
        bench.caps.misc ^= capabilities[1] & capabilities[2] & capabilities[3];
        bench.cpu.physical_address_bits = capabilities[2] as u8;
        bench.cpu.linear_address_bits = capabilities[3] as u8;
        let ctx = bench.ctx();
        let one_by_one = rules().find(|rule| !rule.holds(&ctx)).map(|rule| rule.id);
        prop_assert_eq!(verdict(&bench), one_by_one);
    }

    /// A group that is skipped would have passed.
    #[test]
    fn what_did_not_change_need_not_be_looked_at(
        edits in proptest::collection::vec((0..FIELD_COUNT, 0..64u32), 1..4),
    ) {
        let mut bench = Bench::new();
        let mut dirty = FieldSet::EMPTY;
        for (n, bit) in edits {
            let f = field::ALL[n];
            let value = bench.get(f);
            bench.set(f, value ^ 1 << bit);
            if bench.get(f) != value {
                dirty.insert(f);
            }
        }
        let partial = check_all(&bench.ctx(), &dirty).err().map(|rule| rule.id);
        prop_assert_eq!(partial, verdict(&bench));
    }
}

/// Of a bad link pointer and an external interrupt with RFLAGS.IF 0 the former answers, as on the
/// CPU that transcripts are compared with; a reserved RFLAGS bit comes before both.
#[test]
fn link_pointer_comes_between_rflags_and_the_injected_interrupt() {
    let mut bench = Bench::new();
    bench.inject(EventType::ExternalInterrupt, 0x30);
    assert_eq!(verdict(&bench), Some("guest.rflags.if-injection"));
    bench.set(field::VMCS_LINK_POINTER, 1);
    assert_eq!(verdict(&bench), Some("guest.link-pointer.address"));
    bench.or(field::GUEST_RFLAGS, 1 << 3);
    assert_eq!(verdict(&bench), Some("guest.rflags.reserved"));
}

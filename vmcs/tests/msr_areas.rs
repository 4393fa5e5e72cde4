//! The rules for the entries of MSR areas.

use std::cell::Cell;

use proptest::prelude::*;
use umbra_vmcs::rules::{
    MSR_LOAD_RULES, MSR_STORE_RULES, MsrEntry, check_msr_load_entry, check_msr_store_entry,
};

fn load(low: u64, writable: bool) -> Option<&'static str> {
    check_msr_load_entry(&MsrEntry::from_halves(low, 0), |_, _| writable)
        .err()
        .map(|rule| rule.id)
}

fn store(low: u64, readable: bool) -> Option<&'static str> {
    check_msr_store_entry(&MsrEntry::from_halves(low, 0), |_| readable.then_some(5))
        .err()
        .map(|rule| rule.id)
}

#[test]
fn loading() {
    let cases = [
        (0x10, None),
        (0xc000_0080, None),
        (0xc000_00ff, None),
        (0xc000_0100, Some("msr.load.base")),
        (0xc000_0101, Some("msr.load.base")),
        (0xc000_0102, None),
        (0x7ff, None),
        (0x800, Some("msr.load.x2apic")),
        (0x8ff, Some("msr.load.x2apic")),
        (0x900, None),
        (0x9a, None),
        (0x9b, Some("msr.load.smm")),
        (0x9c, None),
        (1 << 32 | 0x10, Some("msr.load.reserved")),
        (1 << 63 | 0x10, Some("msr.load.reserved")),
    ];
    for (low, expected) in cases {
        assert_eq!(load(low, true), expected, "{low:#x}");
        assert_eq!(
            load(low, false),
            expected.or(Some("msr.load.wrmsr")),
            "{low:#x}"
        );
    }
}

#[test]
fn storing() {
    let cases = [
        (0x10, None),
        (0xc000_0100, None),
        (0x7ff, None),
        (0x800, Some("msr.store.x2apic")),
        (0x8ff, Some("msr.store.x2apic")),
        (0x900, None),
        (0x9b, None),
        (0x9e, Some("msr.store.smm")),
        (1 << 32 | 0x10, Some("msr.store.reserved")),
    ];
    for (low, expected) in cases {
        assert_eq!(store(low, true), expected, "{low:#x}");
        assert_eq!(
            store(low, false),
            expected.or(Some("msr.store.rdmsr")),
            "{low:#x}"
        );
    }
    let entry = MsrEntry::from_halves(0x10, 7);
    assert_eq!(check_msr_store_entry(&entry, |_| Some(42)).unwrap(), 42);
}

proptest! {
    /// An entry that breaks a rule never reaches the MSR; one that does not
    /// reaches it once, with its own number and value.
    #[test]
    fn a_bad_entry_writes_nothing(low in any::<u64>(), near in 0..4u64, value in any::<u64>()) {
        // Half of the entries lie where the rules are.
        let low = match near {
            0 => low,
            1 => low & 0xfff,
            2 => 0xc000_0000 | low & 0x1ff,
            _ => low & 0xffff_ffff,
        };
        let written = Cell::new(None);
        let entry = MsrEntry::from_halves(low, value);
        let answer = check_msr_load_entry(&entry, |index, value| {
            assert_eq!(written.replace(Some((index, value))), None);
            true
        });
        let (table, last) = MSR_LOAD_RULES.split_at(MSR_LOAD_RULES.len() - 1);
        prop_assert!(last[0].holds(&entry));
        prop_assert_eq!(answer.is_ok(), table.iter().all(|rule| rule.holds(&entry)));
        prop_assert_eq!(written.get(), answer.is_ok().then_some((low as u32, value)));

        let read = Cell::new(0);
        let answer = check_msr_store_entry(&entry, |_| { read.set(read.get() + 1); Some(1) });
        prop_assert_eq!(answer.is_ok(), MSR_STORE_RULES.iter().all(|rule| rule.holds(&entry)));
        prop_assert_eq!(read.get(), u32::from(answer.is_ok()));
    }
}

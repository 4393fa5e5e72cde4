//! Entries that are not legal: every bit of every level, memory types, addresses, rights.
//!
//! SDM "EPT Misconfigurations", "Prioritization of EPT Misconfigurations and EPT Violations".

use rt::vmx::ept::{ALL, READ, WRITE, WRITE_BACK};

use crate::lab::{Access, Lab};
use crate::path::Path;
use crate::show::Rights;

const EXECUTE: u64 = 4;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for leaf in 1..=3 {
        lab.choose(leaf);
        leaf_bits(lab);
        types(lab);
        mmio(lab);
        for level in leaf + 1..=4 {
            table_bits(lab, level);
        }
        order(lab);
    }
    lab.choose(1);
}

/// Bits that are no part of an address of this CPU, and those that are reserved in a large leaf.
fn odd_bits(low: u32) -> impl Iterator<Item = u32> {
    (3..12).chain(12..low).chain(rt::cpu::maxphyaddr()..64)
}

fn leaf_bits(lab: &mut Lab) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    let low = Path::mask(leaf).trailing_ones();
    // Bit 12 is reserved in a large leaf, and Bochs does not look at it.
    for bit in odd_bits(low).filter(|bit| *bit != 12) {
        let entry = lab.path.leaf_entry(WRITE_BACK | ALL) ^ 1 << bit;
        lab.set(leaf, entry);
        let answer = lab.access(Access::Read);
        lab.record(format_args!("{size} bit {bit}"), answer);
    }
    lab.mend();
}

/// Every memory type, with the ignore-PAT bit and without.
fn types(lab: &mut Lab) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    for kind in 0..16 {
        let entry = lab.path.leaf_entry(kind << 3 | ALL);
        lab.set(leaf, entry);
        lab.all_accesses(format_args!("{size} type {kind}"));
    }
    lab.mend();
}

/// A misconfigured leaf with and without rights that no access has: what KVM makes of MMIO pages,
/// and its neighbours.
fn mmio(lab: &mut Lab) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    let large = lab.path.leaf_entry(0) & 1 << 7;
    let width = rt::cpu::maxphyaddr();
    let all_above = (1u64 << 52) - (1 << width);
    for (name, address) in [
        ("all address bits above the width", all_above),
        ("the lowest above", 1 << width),
        ("none above", 0),
    ] {
        for rights in [WRITE | EXECUTE, WRITE, READ, ALL, EXECUTE] {
            lab.set(leaf, address | 6 << 3 | large | rights);
            let accesses: &[Access] = if rights & READ == 0 || address != 0 {
                &[Access::Read, Access::Write, Access::Fetch, Access::Modify]
            } else {
                // Legal: this would be a page at address 0.
                &[]
            };
            for access in accesses {
                if address == 0 && rights == EXECUTE && *access == Access::Fetch {
                    continue;
                }
                lab.flush();
                let answer = lab.access(*access);
                lab.record(format_args!("{size} {name} {}", Rights(rights)), answer);
            }
        }
    }
    // Not present, so nothing is reserved.
    lab.set(leaf, all_above | 7 << 3 | large);
    let answer = lab.access(Access::Read);
    lab.record(format_args!("{size} not present, all wrong"), answer);
    lab.mend();
}

fn table_bits(lab: &mut Lab, level: u32) {
    let size = lab.path.size();
    for bit in odd_bits(12) {
        // Bit 7 makes a leaf of it, legal or not by the address of the table.
        if bit == 7 && level < 4 {
            continue;
        }
        let entry = lab.path.table_entry(level, ALL) ^ 1 << bit;
        lab.set(level, entry);
        let answer = lab.access(Access::Read);
        lab.record(format_args!("{size} level {level} bit {bit}"), answer);
    }
    lab.mend();
}

/// A fault at one level and another below it: which one is told.
fn order(lab: &mut Lab) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    let bad_leaf = lab.path.leaf_entry(7 << 3 | ALL);
    let bad_table = lab.path.table_entry(4, ALL | 1 << 5);
    for (name, upper, lower) in [
        ("absent above bad", 0, bad_leaf),
        (
            "read-only above bad",
            lab.path.table_entry(4, READ),
            bad_leaf,
        ),
        ("bad above absent", bad_table, 0),
        ("bad above bad", bad_table, bad_leaf),
        (
            "no read above bad",
            lab.path.table_entry(4, EXECUTE),
            bad_leaf,
        ),
    ] {
        lab.set(leaf, lower);
        lab.set(4, upper);
        lab.all_accesses(format_args!("{size} {name}"));
        lab.mend();
    }
}

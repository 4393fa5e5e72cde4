//! Rights of the leaf, of each level above it, and entries that are not present.
//!
//! SDM "EPT Translation Mechanism", "EPT Violations", "Exit Qualification for EPT Violations".

use rt::report;
use rt::vmx::ept::{ALL, WRITE_BACK};

use crate::lab::{ACCESSES, Access, Lab};
use crate::show::Rights;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for leaf in 1..=3 {
        lab.choose(leaf);
        let size = lab.path.size();
        for rights in 0..8 {
            let entry = lab.path.leaf_entry(WRITE_BACK | rights);
            lab.set(leaf, entry);
            lab.all_accesses(format_args!("{size} {}", Rights(rights)));
        }
        lab.mend();
        for level in leaf + 1..=4 {
            for rights in 0..8 {
                let entry = lab.path.table_entry(level, rights);
                lab.set(level, entry);
                lab.all_accesses(format_args!("{size} level {level} {}", Rights(rights)));
            }
            lab.mend();
        }
        empty(lab);
        pairs(lab);
        what_is_read(lab);
    }
    lab.choose(1);
}

/// Entries that are zero.
fn empty(lab: &mut Lab) {
    let size = lab.path.size();
    for level in lab.path.leaf..=4 {
        lab.set(level, 0);
        lab.all_accesses(format_args!("{size} level {level} zero"));
        lab.mend();
    }
}

/// Rights taken away at two levels: the qualification has the AND of both.
fn pairs(lab: &mut Lab) {
    let leaf = lab.path.leaf;
    let size = lab.path.size();
    for (above, below) in [
        (1, 3),
        (3, 1),
        (5, 3),
        (3, 5),
        (1, 5),
        (5, 1),
        (4, 1),
        (4, 5),
    ] {
        let upper = lab.path.table_entry(4, above);
        let lower = lab.path.leaf_entry(WRITE_BACK | below);
        lab.set(4, upper);
        lab.set(leaf, lower);
        lab.all_accesses(format_args!(
            "{size} level 4 {} leaf {}",
            Rights(above),
            Rights(below)
        ));
        lab.mend();
    }
}

/// What arrives in L2, and in memory, is that page's.
fn what_is_read(lab: &mut Lab) {
    let size = lab.path.size();
    lab.set(lab.path.leaf, lab.path.leaf_entry(WRITE_BACK | ALL));
    for (letter, access) in ACCESSES {
        let answer = lab.access(access);
        let rax = lab.vm.registers.rax as u32;
        let memory = lab.target.read::<u32>(0x10);
        lab.record(
            format_args!("{size} value {letter}"),
            format_args!("{answer} rax={rax:x} memory={memory:x}"),
        );
        let expected = match access {
            Access::Read | Access::Fetch => 0x1357_9bdf,
            Access::Write => 5,
            Access::Modify => 0x1357_9be0,
        };
        report::check(format_args!("what is in memory"), memory == expected);
    }
}

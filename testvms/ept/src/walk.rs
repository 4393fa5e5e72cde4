//! The page that faults holds L2's own tables. With accessed and dirty flags for EPT on, each read of
//! such an entry counts as a write.
//!
//! SDM "Exit Qualification for EPT Violations", "Accessed and Dirty Flags for EPT".

use rt::report;
use rt::vmx::ept::{ALL, READ, WRITE_BACK};
use rt::vmx::vm::layout;

use crate::lab::{GUEST_FLAGS, LINEAR, Lab};
use crate::show::Rights;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for on in [false, true] {
        if !lab.use_flags(on) {
            report::lacks(format_args!("accessed and dirty flags"));
            continue;
        }
        let word = if on { "flags on" } else { "flags off" };
        for (name, gpa) in [
            ("level 4", layout::TABLES),
            ("level 3", layout::TABLES + 0x1000),
            ("level 2", layout::TABLES + 0x2000),
            ("level 1", layout::PAGE_TABLE),
        ] {
            for rights in 0..8 {
                let hpa = lab.vm.memory.address() + gpa;
                lab.ept().map(gpa, hpa, rights);
                lab.all_accesses(format_args!("{name} {word} {}", Rights(rights)));
                lab.ept().set_entry(gpa, 1, hpa | 7 << 3 | ALL);
                lab.flush();
                if rights == 7 {
                    lab.all_accesses(format_args!("{name} {word} type 7"));
                }
                lab.ept().map(gpa, hpa, ALL);
            }
        }
        far_table(lab, word);
        both(lab, word);
    }
    lab.use_flags(false);
}

/// L2's directory says that its table is where EPT has no entry, or one that is not legal.
fn far_table(lab: &mut Lab, word: &str) {
    let at = layout::TABLES + 0x2000;
    let entry = lab.vm.memory.read::<u64>(at);
    for (name, gpa) in [("at 4 MiB", 0x40_0000), ("at 256 GiB", 1 << 38)] {
        lab.vm.memory.write(at, gpa | GUEST_FLAGS);
        lab.all_accesses(format_args!("page table {name} {word}"));
    }
    lab.vm.memory.write(at, entry);
    lab.flush();
}

/// The table may be read, the page may not: the second violation is the page's.
fn both(lab: &mut Lab, word: &str) {
    let hpa = lab.vm.memory.address() + layout::PAGE_TABLE;
    for (name, table, page) in [
        ("table and page absent", 0, 0),
        ("table read-only, page absent", READ, 0),
        ("table all, page read-only", ALL, READ),
    ] {
        lab.ept().map(layout::PAGE_TABLE, hpa, table);
        lab.set(1, lab.path.leaf_entry(WRITE_BACK | page));
        lab.all_accesses(format_args!("{name} {word}"));
    }
    lab.ept().map(layout::PAGE_TABLE, hpa, ALL);
    lab.mend();
    // L2's own fault comes first: EPT is not asked about the page.
    lab.set(1, 0);
    lab.point(lab.path.gpa, 0);
    lab.all_accesses(format_args!("L2's own #PF at {LINEAR:x} {word}"));
    lab.point(lab.path.gpa, GUEST_FLAGS);
    lab.mend();
}

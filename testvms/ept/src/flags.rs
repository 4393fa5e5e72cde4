//! Accessed and dirty flags in ept12 after each kind of access.
//!
//! SDM "Accessed and Dirty Flags for EPT".

use core::fmt;

use rt::report;
use rt::vmx::ept::{ALL, READ, WRITE, WRITE_BACK};
use rt::vmx::vm::layout;

use crate::lab::{ACCESSES, Access, GUEST_FLAGS, Lab};
use crate::path::Path;
use crate::show::Rights;

const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;

/// The flags of each level on the way, from the root on: `a`, `d`.
struct Flags([u64; 4]);

impl Flags {
    fn read(lab: &Lab) -> Self {
        let path: Path = lab.path;
        Self([4, 3, 2, 1].map(|level| {
            if level < path.leaf {
                0
            } else {
                path.get(lab.ept(), level)
            }
        }))
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self.0 {
            f.write_str(match (entry & ACCESSED != 0, entry & DIRTY != 0) {
                (false, false) => " --",
                (true, false) => " a-",
                (false, true) => " -d",
                (true, true) => " ad",
            })?;
        }
        Ok(())
    }
}

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for on in [true, false] {
        if !lab.use_flags(on) {
            report::lacks(format_args!("accessed and dirty flags"));
            continue;
        }
        let word = if on { "on" } else { "off" };
        for leaf in 1..=3 {
            lab.choose(leaf);
            each_access(lab, word);
            one_after_another(lab, word);
            lacking(lab, word);
        }
        lab.choose(1);
        guest_tables(lab, word);
    }
    lab.use_flags(false);
}

fn each_access(lab: &mut Lab, word: &str) {
    let size = lab.path.size();
    for (letter, access) in ACCESSES {
        lab.mend();
        let answer = lab.access(access);
        let flags = Flags::read(lab);
        lab.record(
            format_args!("{size} {word} {letter}"),
            format_args!("{answer}{flags}"),
        );
    }
}

/// A read, then a write; flags cleared by L1, which are set again after INVEPT.
fn one_after_another(lab: &mut Lab, word: &str) {
    let size = lab.path.size();
    lab.mend();
    for (name, access, cleared) in [
        ("read", Access::Read, 0),
        ("then write", Access::Write, 0),
        ("dirty cleared, read", Access::Read, DIRTY),
        ("then write again", Access::Write, 0),
        ("both cleared, read", Access::Read, DIRTY | ACCESSED),
        ("then fetch", Access::Fetch, 0),
        ("then modify", Access::Modify, 0),
        ("accessed cleared, write", Access::Write, ACCESSED),
    ] {
        if cleared != 0 {
            let (leaf, path) = (lab.path.leaf, lab.path);
            let entry = path.get(lab.ept(), leaf) & !cleared;
            lab.set(leaf, entry);
        }
        let answer = lab.access(access);
        let flags = Flags::read(lab);
        lab.record(
            format_args!("{size} {word} {name}"),
            format_args!("{answer}{flags}"),
        );
    }
    // Cleared in an upper entry alone.
    for level in lab.path.leaf + 1..=4 {
        lab.mend();
        let _ = lab.access(Access::Write);
        let entry = lab.path.get(lab.ept(), level) & !ACCESSED;
        lab.set(level, entry);
        let answer = lab.access(Access::Read);
        let flags = Flags::read(lab);
        lab.record(
            format_args!("{size} {word} accessed cleared at level {level}"),
            format_args!("{answer}{flags}"),
        );
    }
}

/// An access that is refused sets no flag in the leaf.
fn lacking(lab: &mut Lab, word: &str) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    for rights in [0, READ, READ | WRITE, 4, 5] {
        for (letter, access) in ACCESSES {
            lab.mend();
            let entry = lab.path.leaf_entry(WRITE_BACK | rights);
            lab.set(leaf, entry);
            let answer = lab.access(access);
            let flags = Flags::read(lab);
            lab.record(
                format_args!("{size} {word} {} {letter}", Rights(rights)),
                format_args!("{answer}{flags}"),
            );
        }
    }
    lab.mend();
    let entry = lab.path.leaf_entry(7 << 3 | ALL);
    lab.set(leaf, entry);
    let answer = lab.access(Access::Write);
    let flags = Flags::read(lab);
    lab.record(
        format_args!("{size} {word} misconfigured"),
        format_args!("{answer}{flags}"),
    );
    lab.mend();
}

/// The pages that hold L2's own tables.
fn guest_tables(lab: &mut Lab, word: &str) {
    for (name, keep) in [("marked", GUEST_FLAGS), ("unmarked", 7)] {
        for (letter, access) in ACCESSES {
            lab.mend();
            let pages = [
                layout::TABLES,
                layout::TABLES + 0x1000,
                layout::TABLES + 0x2000,
                layout::PAGE_TABLE,
                layout::CODE,
            ];
            for page in pages {
                lab.ept().map(page, lab.vm.memory.address() + page, ALL);
            }
            lab.point(lab.path.gpa, keep);
            lab.flush();
            let answer = lab.access(access);
            let [a, b, c, d, e] = pages.map(|page| lab.ept().entry(page, 1) >> 8 & 3);
            let own = lab
                .vm
                .memory
                .read::<u64>(layout::PAGE_TABLE + 8 * (crate::lab::LINEAR >> 12))
                & 0x60;
            lab.record(
                format_args!("tables {name} {word} {letter}"),
                format_args!("{answer} {a}{b}{c}{d} code {e} own {own:x}"),
            );
        }
    }
    lab.point(lab.path.gpa, GUEST_FLAGS);
}

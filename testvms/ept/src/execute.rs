//! Mode-based execute control: fetches from user-mode and from supervisor-mode addresses.
//!
//! SDM "Mode-Based Execute Control for EPT" and the rights bits in "Exit Qualification for EPT Violations".

use rt::vmx::ept::{ALL, WRITE_BACK};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::Proc2;

use crate::lab::{GUEST_FLAGS, Lab};
use crate::show::Rights;

/// Fetches from user-mode addresses.
const USER_EXECUTE: u64 = 1 << 10;

/// What Bochs does not report, or reports wrongly, for a data access under the control: bit 6, the right
/// to fetch from user-mode addresses, and bit 13, a shadow-stack access.
const ERRATA: u64 = 1 << 6 | 1 << 13;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    lab.reset(Mode::Long);
    // With the control off the bit is ignored.
    for rights in 0..8 {
        let entry = lab.path.leaf_entry(WRITE_BACK | rights | USER_EXECUTE);
        lab.set(1, entry);
        lab.all_accesses(format_args!(
            "control off {}",
            Rights(rights | USER_EXECUTE)
        ));
    }
    lab.mend();
    if !lab.turn_on(
        Proc2::MODE_BASED_EXECUTE_CONTROL,
        "mode-based execute control",
    ) {
        return;
    }
    open(lab);
    lab.hidden = ERRATA;
    for leaf in 1..=3 {
        lab.choose(leaf);
        let size = lab.path.size();
        for (name, flags) in [("user", GUEST_FLAGS), ("supervisor", GUEST_FLAGS & !4)] {
            let gpa = lab.path.gpa;
            lab.point(gpa, flags);
            for user in [0, USER_EXECUTE] {
                for rights in 0..8 {
                    mend(lab);
                    let entry = lab.path.leaf_entry(WRITE_BACK | rights | user);
                    lab.set(leaf, entry);
                    lab.all_accesses(format_args!("{size} {name} {}", Rights(rights | user)));
                    for level in leaf + 1..=4 {
                        mend(lab);
                        let entry = lab.path.table_entry(level, rights | user);
                        lab.set(level, entry);
                        let rights = Rights(rights | user);
                        lab.all_accesses(format_args!("{size} {name} level {level} {rights}"));
                    }
                }
            }
            mend(lab);
        }
    }
    lab.hidden = 0;
    lab.reset(Mode::Long);
}

/// All of L2's memory may be executed from user-mode addresses, which all of its addresses are.
fn open(lab: &mut Lab) {
    for level in 2..=4 {
        let entry = lab.ept().entry(0, level);
        lab.ept().set_entry(0, level, entry | USER_EXECUTE);
    }
    for gpa in (0..layout::BYTES).step_by(4096) {
        let hpa = lab.vm.memory.address() + gpa;
        lab.ept().map(gpa, hpa, ALL | USER_EXECUTE);
    }
    lab.flush();
}

/// The way to the page with all rights, this one included.
fn mend(lab: &mut Lab) {
    let path = lab.path;
    for level in path.leaf + 1..=4 {
        path.set(
            lab.ept(),
            level,
            path.table_entry(level, ALL | USER_EXECUTE),
        );
    }
    path.set(
        lab.ept(),
        path.leaf,
        path.leaf_entry(WRITE_BACK | ALL | USER_EXECUTE),
    );
    lab.flush();
}

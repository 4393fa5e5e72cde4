//! Page-modification logging: what is logged, the index, a full log.
//!
//! SDM "Page-Modification Logging", "Page-Modification Log-Full Event".

use rt::page::Page;
use rt::vmx::ept::{ALL, READ, WRITE_BACK};
use rt::vmx::insn::{read, write};
use rt::vmx::vm::Mode;
use rt::{more, report};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use crate::lab::{ACCESSES, Access, Lab};

/// What a log entry holds before a test.
const UNUSED: u64 = 0x5555_5555_5555_5555;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    lab.reset(Mode::Long);
    let log = Page::alloc(1);
    if !lab.use_flags(true) || !lab.turn_on(Proc2::ENABLE_PML, "page-modification logging") {
        return;
    }
    write(field::PML_ADDRESS, log.address());
    for leaf in 1..=3 {
        lab.choose(leaf);
        for (letter, access) in ACCESSES {
            for index in [511, 5, 0] {
                once(lab, log, letter, access, index);
            }
        }
        for index in [0xffff, 0x8000, 0x200] {
            full(lab, log, index);
        }
        full_and_read(lab, log);
        again(lab, log);
    }
    lab.choose(1);
    tables(lab, log);
    lab.vm.proc2(Proc2::empty(), Proc2::ENABLE_PML);
    lab.reset(Mode::Long);
}

/// An empty log, and L2's own tables already dirty.
fn start(lab: &mut Lab, log: Page, index: u64) {
    lab.mend();
    write(field::PML_INDEX, 511);
    let _ = lab.access(Access::Read);
    for at in 0..512 {
        log.write(8 * at, UNUSED);
    }
    write(field::PML_INDEX, index);
}

/// Prints the entries of a log that are used, newest last, and the index.
fn print(lab: &mut Lab, log: Page, id: core::fmt::Arguments<'_>, answer: crate::show::Short) {
    let index = read(field::PML_INDEX);
    lab.record(id, format_args!("{answer} index {index:x}"));
    for at in (0..512).rev() {
        let entry = log.read::<u64>(8 * at);
        if entry != UNUSED {
            let offset = entry.wrapping_sub(lab.path.gpa);
            if offset < 4096 {
                more!("[{at}] +{offset:x}");
            } else {
                more!("[{at}] {entry:x}");
            }
        }
    }
}

fn once(lab: &mut Lab, log: Page, letter: &str, access: Access, index: u64) {
    start(lab, log, index);
    let answer = lab.access(access);
    let size = lab.path.size();
    print(
        lab,
        log,
        format_args!("{size} {letter} index {index}"),
        answer,
    );
    // A second write to the same page is not logged. Bochs exits for a full log even if no flag has to be
    // set, so not with a log that is full now.
    if read(field::PML_INDEX) < 512 {
        let answer = lab.access(access);
        print(lab, log, format_args!("{size} {letter} once more"), answer);
    }
}

/// The log is full: an exit before the write, and the write after L1 made room.
fn full(lab: &mut Lab, log: Page, index: u64) {
    start(lab, log, index);
    let size = lab.path.size();
    let answer = lab.access(Access::Modify);
    print(
        lab,
        log,
        format_args!("{size} full {index:x}, modify"),
        answer,
    );
    let path = lab.path;
    let flags = path.get(lab.ept(), path.leaf) >> 8 & 3;
    lab.record(format_args!("flags"), flags);
    write(field::PML_INDEX, 511);
    let answer = lab.resume();
    print(lab, log, format_args!("room made"), answer);
    let value = lab.target.read::<u32>(0x10);
    report::check(format_args!("modified once"), value == 0x1357_9be0);
}

/// The log is full and an accessed flag has to be set: an exit too, and the flag stays.
fn full_and_read(lab: &mut Lab, log: Page) {
    start(lab, log, 0xffff);
    lab.mend();
    let size = lab.path.size();
    let answer = lab.access(Access::Read);
    print(lab, log, format_args!("{size} full, first read"), answer);
    let path = lab.path;
    let flags = path.get(lab.ept(), path.leaf) >> 8 & 3;
    lab.record(format_args!("flags"), flags);
    write(field::PML_INDEX, 511);
    let answer = lab.resume();
    print(lab, log, format_args!("room made"), answer);
}

/// Dirty flags cleared by L1 are logged again after INVEPT.
fn again(lab: &mut Lab, log: Page) {
    start(lab, log, 511);
    let size = lab.path.size();
    let (path, leaf) = (lab.path, lab.path.leaf);
    let _ = lab.access(Access::Write);
    let entry = path.get(lab.ept(), leaf) & !(1 << 9);
    lab.set(leaf, entry);
    let answer = lab.access(Access::Write);
    print(lab, log, format_args!("{size} dirty cleared"), answer);
    lab.set(leaf, path.leaf_entry(WRITE_BACK | READ));
    let answer = lab.access(Access::Write);
    print(lab, log, format_args!("{size} read-only"), answer);
}

/// L2's own tables are logged where a walk makes them dirty.
fn tables(lab: &mut Lab, log: Page) {
    for leaf_bits in [0, 1 << 9] {
        start(lab, log, 511);
        for page in 0..64u64 {
            let hpa = lab.vm.memory.address() + page * 4096;
            lab.ept().map(page * 4096, hpa, ALL | leaf_bits);
        }
        lab.flush();
        let answer = lab.access(Access::Write);
        print(
            lab,
            log,
            format_args!("tables, flags {leaf_bits:x}"),
            answer,
        );
    }
    for page in 0..64u64 {
        let hpa = lab.vm.memory.address() + page * 4096;
        lab.ept().map(page * 4096, hpa, ALL);
    }
}

//! What INVEPT and INVVPID are for: rights added count at once, rights taken away count afterwards.
//!
//! SDM "Operations that Invalidate Cached Mappings", "INVEPT", "INVVPID".

use rt::page::Page;
use rt::report;
use rt::vmx::ept::{ALL, LARGE, READ, WRITE, WRITE_BACK};
use rt::vmx::insn::{self, Shown, read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use crate::lab::{ACCESSES, Access, GUEST_FLAGS, LINEAR, Lab};
use crate::path::Path;
use crate::show::Rights;

const EXECUTE: u64 = 4;
const SINGLE: u64 = 1;
const ALL_CONTEXTS: u64 = 2;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    lab.reset(Mode::Long);
    for leaf in 1..=3 {
        lab.choose(leaf);
        added(lab);
        removed(lab);
    }
    lab.choose(1);
    for kind in [SINGLE, ALL_CONTEXTS] {
        remapped(lab, kind);
        split(lab, kind);
        other_pointer(lab, kind);
    }
    many(lab);
    descriptors(lab);
    if lab.turn_on(Proc2::ENABLE_VPID, "VPID") {
        vpids(lab);
    }
    lab.reset(Mode::Long);
}

fn flush(kind: u64) {
    let pointer = if kind == SINGLE {
        read(field::EPT_POINTER)
    } else {
        0
    };
    insn::invept(kind, [pointer, 0]).expect("INVEPT");
}

/// Rights are only added, and nothing is invalidated, at the leaf or above.
fn added(lab: &mut Lab) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    for level in leaf..=4 {
        let with = |lab: &Lab, rights: u64| {
            if level == leaf {
                lab.path.leaf_entry(WRITE_BACK | rights)
            } else {
                lab.path.table_entry(level, rights)
            }
        };
        lab.mend();
        let first = with(lab, 0);
        lab.set(level, first);
        for (rights, access, letter) in [
            (0, Access::Read, "r"),
            (READ, Access::Read, "r"),
            (READ, Access::Write, "w"),
            (READ | WRITE, Access::Write, "w"),
            (READ | WRITE, Access::Fetch, "x"),
            (ALL, Access::Fetch, "x"),
            (ALL, Access::Modify, "m"),
        ] {
            let path = lab.path;
            path.set(lab.ept(), level, with(lab, rights));
            let answer = lab.access(access);
            let rights = Rights(rights);
            lab.record(
                format_args!("{size} level {level} add {rights} {letter}"),
                answer,
            );
        }
        lab.mend();
    }
}

/// Rights are taken away, and each kind of INVEPT makes that count.
fn removed(lab: &mut Lab) {
    let (size, leaf) = (lab.path.size(), lab.path.leaf);
    for kind in [SINGLE, ALL_CONTEXTS] {
        for level in leaf..=4 {
            for rights in [READ | EXECUTE, READ | WRITE, READ, 0] {
                lab.mend();
                for (_, access) in ACCESSES {
                    let _ = lab.access(access);
                }
                let entry = if level == leaf {
                    lab.path.leaf_entry(WRITE_BACK | rights)
                } else {
                    lab.path.table_entry(level, rights)
                };
                let path = lab.path;
                path.set(lab.ept(), level, entry);
                flush(kind);
                for (letter, access) in ACCESSES {
                    let answer = lab.access(access);
                    lab.record(
                        format_args!(
                            "{size} type {kind} level {level} take to {} {letter}",
                            Rights(rights)
                        ),
                        answer,
                    );
                }
            }
        }
        lab.mend();
    }
}

/// The leaf leads to another page.
fn remapped(lab: &mut Lab, kind: u64) {
    let other = Page::alloc(1);
    other.write(0x10, 0x2222_2222u32);
    lab.mend();
    let _ = lab.access(Access::Read);
    let path = lab.path;
    for (name, address) in [
        ("other page", other.address()),
        ("back", lab.target.address()),
        ("other page again", other.address()),
    ] {
        path.set(lab.ept(), 1, address | WRITE_BACK | ALL);
        flush(kind);
        let answer = lab.access(Access::Read);
        let rax = lab.vm.registers.rax as u32;
        lab.record(
            format_args!("type {kind} {name}"),
            format_args!("{answer} rax={rax:x}"),
        );
        let answer = lab.access(Access::Write);
        let value = other.read::<u32>(0x10);
        other.write(0x10, 0x2222_2222u32);
        lab.record(
            format_args!("write"),
            format_args!("{answer} other={value:x}"),
        );
    }
    lab.mend();
}

/// A large leaf becomes a table of small ones, with another page in the place under test, and back.
fn split(lab: &mut Lab, kind: u64) {
    let other = Page::alloc(1);
    other.write(0x10, 0x3333_3333u32);
    let table = Page::alloc(1);
    for level in [2, 3] {
        lab.choose(level);
        let _ = lab.access(Access::Write);
        let _ = lab.access(Access::Fetch);
        // One level down: everything as before but the page under test.
        let path = lab.path;
        let start = path.page & !Path::mask(level);
        let step = Path::mask(level - 1) + 1;
        let large = if level > 2 { LARGE } else { 0 };
        for slot in 0..512 {
            table.write(8 * slot, (start + slot * step) | large | WRITE_BACK | ALL);
        }
        let slot = (path.page - start) / step;
        if level == 2 {
            table.write(8 * slot, other.address() | WRITE_BACK | ALL);
        } else {
            table.write(8 * slot, (start + slot * step) | large | WRITE_BACK | READ);
        }
        path.set(lab.ept(), level, table.address() | ALL);
        flush(kind);
        let answer = lab.access(Access::Read);
        let rax = lab.vm.registers.rax as u32;
        lab.record(
            format_args!("type {kind} level {level} split"),
            format_args!("{answer} rax={rax:x}"),
        );
        let answer = lab.access(Access::Write);
        lab.record(format_args!("write"), answer);
        path.set(lab.ept(), level, path.leaf_entry(WRITE_BACK | ALL));
        flush(kind);
        let answer = lab.access(Access::Modify);
        let value = lab.target.read::<u32>(0x10);
        lab.record(
            format_args!("joined"),
            format_args!("{answer} memory={value:x}"),
        );
    }
    lab.choose(1);
}

/// INVEPT of another pointer must not hurt; INVEPT of this one afterwards counts.
fn other_pointer(lab: &mut Lab, kind: u64) {
    lab.mend();
    let _ = lab.access(Access::Write);
    let stranger = Page::alloc(1).address() | 3 << 3 | 6;
    insn::invept(SINGLE, [stranger, 0]).expect("INVEPT of a pointer never used");
    let answer = lab.access(Access::Write);
    lab.record(format_args!("after INVEPT of another pointer"), answer);
    let path = lab.path;
    path.set(lab.ept(), 1, path.leaf_entry(WRITE_BACK | READ));
    insn::invept(SINGLE, [stranger, 0]).expect("INVEPT of a pointer never used");
    flush(kind);
    let answer = lab.access(Access::Write);
    lab.record(format_args!("after INVEPT of this one"), answer);
    lab.mend();
}

/// Every page of L2's memory in use, all taken away and given back, many times: the answer is the same.
fn many(lab: &mut Lab) {
    // again: mov eax, [rdi]; add edx, eax; add rdi, 0x1000; dec ebx; jnz again; vmcall
    const SUM: [u8; 18] = [
        0x8b, 0x07, 0x01, 0xc2, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0xff, 0xcb, 0x75, 0xf1,
        0x0f, 0x01, 0xc1,
    ];
    let memory = lab.vm.memory;
    for page in 0x21..0x40u64 {
        memory.write(page * 4096 + 0xff8, page as u32);
    }
    for round in 0..4u64 {
        for page in 0x21..0x40u64 {
            // Each round exchanges two neighbours at a distance that grows.
            let to = 0x21 + (page - 0x21 + round) % 0x1f;
            lab.ept()
                .map(page * 4096, memory.address() + to * 4096, READ);
        }
        flush(SINGLE + round % 2);
        lab.vm.registers.rdi = 0x21 * 4096 + 0xff8;
        lab.vm.registers.rbx = 0x1f;
        lab.vm.registers.rdx = 0;
        let answer = lab.execute(&SUM);
        let rdx = lab.vm.registers.rdx;
        lab.record(
            format_args!("all pages, round {round}"),
            format_args!("{answer} sum={rdx:x}"),
        );
        report::check(
            format_args!("sum of all pages"),
            rdx == (0x21..0x40).sum::<u64>(),
        );
        // One page at a time becomes absent.
        let page = 0x21 + 7 * round;
        lab.ept().map(page * 4096, 0, 0);
        flush(SINGLE);
        lab.vm.registers.rdi = 0x21 * 4096 + 0xff8;
        lab.vm.registers.rbx = 0x1f;
        let answer = lab.execute(&SUM);
        lab.record(format_args!("one absent"), answer);
    }
    lab.reset(Mode::Long);
}

/// Descriptors of INVEPT and INVVPID, good and bad.
fn descriptors(lab: &mut Lab) {
    let pointer = lab.ept().pointer();
    for kind in [0, 1, 2, 3, 0xff] {
        for (name, value) in [
            ("this pointer", pointer),
            ("0", 0),
            ("flags", pointer | 1 << 6),
            ("type 0", pointer & !7),
            ("type 1", pointer & !7 | 1),
            ("5 levels", pointer + (1 << 3)),
            ("bit 7", pointer | 1 << 7),
            ("bit 11", pointer | 1 << 11),
            ("beyond", pointer | 1 << rt::cpu::maxphyaddr()),
        ] {
            let answer = Shown(insn::invept(kind, [value, 0]));
            lab.record(format_args!("INVEPT {kind} {name}"), answer);
        }
        let answer = Shown(insn::invept(kind, [pointer, 1]));
        lab.record(format_args!("INVEPT {kind} reserved"), answer);
    }
    for kind in 0..6 {
        for vpid in [0u64, 1, 2, 0xfffd, 0xffff, 0x1_0000, 1 << 63 | 1] {
            for linear in [LINEAR, 1 << 47, 0xffff_8000_0000_0000] {
                let answer = Shown(insn::invvpid(kind, [vpid, linear]));
                lab.record(format_args!("INVVPID {kind} {vpid:x} {linear:x}"), answer);
            }
        }
    }
}

/// L2's own tables change behind its back: INVVPID makes that count, whatever its VPID.
fn vpids(lab: &mut Lab) {
    let other = layout::DATA;
    lab.vm.memory.write(other + 0x10, 0x4444_4444u32);
    for vpid in [1u64, 2, 0xfffd, 0xffff] {
        write(field::VIRTUAL_PROCESSOR_ID, vpid);
        for kind in 0..4 {
            let gpa = lab.path.gpa;
            lab.point(gpa, GUEST_FLAGS);
            let good = insn::invvpid(kind, [vpid, LINEAR]);
            lab.record(format_args!("VPID {vpid:x} type {kind}"), Shown(good));
            for (name, gpa, flags) in [
                ("first", gpa, GUEST_FLAGS),
                ("read-only", gpa, GUEST_FLAGS & !2),
                ("moved", other, GUEST_FLAGS),
                ("absent", gpa, 0),
                ("back", gpa, GUEST_FLAGS),
            ] {
                // CR0.WP is 0 in L2: let it count.
                write(field::GUEST_CR0, read(field::GUEST_CR0) | 1 << 16);
                lab.point(gpa, flags);
                let _ = insn::invvpid(kind, [vpid, LINEAR]);
                let answer = lab.access(Access::Read);
                let rax = lab.vm.registers.rax as u32;
                lab.record(
                    format_args!("{name}"),
                    format_args!("r {answer} rax={rax:x}"),
                );
                let answer = lab.access(Access::Write);
                lab.record(format_args!("{name}"), format_args!("w {answer}"));
                lab.vm.memory.write(other + 0x10, 0x4444_4444u32);
            }
        }
        // INVEPT counts for every VPID.
        lab.set(1, 0);
        let answer = lab.access(Access::Read);
        lab.record(format_args!("VPID {vpid:x}, absent after INVEPT"), answer);
        lab.mend();
    }
    // One VPID after another on one VMCS, each with its own view.
    for round in 0..2 {
        for vpid in [1u64, 2, 0xfffd, 0xffff] {
            write(field::VIRTUAL_PROCESSOR_ID, vpid);
            let answer = lab.access(Access::Modify);
            lab.record(format_args!("VPID {vpid:x} round {round}"), answer);
        }
    }
}

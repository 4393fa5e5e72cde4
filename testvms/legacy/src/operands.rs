//! Where the memory operand lies: paging.
//!
//! SDM "Determination of Access Rights", "Page-Fault Exceptions", "Accessed and Dirty Flags".

use crate::bench::{Bench, Case, FLAGS};
use crate::insn::{AT_EAX, AT_EBP, Insn, MEMORY, STORE_POINTER, VMREAD, VMWRITE};
use crate::machine::Setup;
use crate::modes::fill;
use crate::segments::{USER_CODE32, USER_FLAT};
use crate::tables::{A, D, Kind, LARGE, LARGE_READ_ONLY, LARGE_RESERVED, P, U, W};
use crate::window::{ABSENT, DATA, KERNEL, READ_ONLY, RESERVED, at};
use rt::{case, report};

const WRITE_PROTECT: u32 = 1 << 16;
const SMAP: u32 = 1 << 21;
const ALIGNMENT_CHECK: u32 = 1 << 18;
const NO_EXECUTE: u32 = 1 << 11;
const XD: u64 = 1 << 63;

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("operands"));
    for kind in Kind::ALL {
        for insn in &MEMORY {
            // VMXON looks at its operand outside VMX operation alone.
            let (setup, cr4) = match insn.name {
                "vmxon" => (Setup::Off, rt::vmx::CR4_VMXE as u32),
                _ => (Setup::Current, 0),
            };
            places(bench, kind, insn, setup, cr4);
            rights(bench, kind, insn, setup, cr4);
        }
        flags(bench, kind);
    }
}

fn one(bench: &Bench, name: &str, insn: &Insn, case: Case<'_>, operand: u32) {
    fill(bench, insn.holds);
    let mut case = case;
    case.gprs.eax = operand;
    case.gprs.ebp = operand;
    case.gprs.ecx = insn.ecx;
    bench.show(
        format_args!("{} {} {name}", case.kind.name(), insn.name),
        &case,
    );
}

/// Good and bad addresses, in one page and in two.
fn places(bench: &Bench, kind: Kind, insn: &Insn, setup: Setup, cr4: u32) {
    let bytes = insn.encode(&[], AT_EAX);
    let case = Case {
        cr4,
        ..bench.case(kind, setup, &bytes)
    };
    let physical = bench.data.address() as u32;
    // The last byte but one of the operand lies before the page that is bad.
    let into = |page: u32| at(page) - (insn.bytes - 1);
    for (name, operand) in [
        ("good", at(DATA)),
        ("odd", at(DATA) + 1),
        ("across", into(DATA + 1)),
        ("absent", at(ABSENT)),
        ("into absent", into(ABSENT)),
        ("last byte in absent", at(ABSENT) - insn.bytes + 1),
        ("up to absent", at(ABSENT) - insn.bytes),
        ("out of absent", at(ABSENT) + 0xffd),
        ("read-only", at(READ_ONLY)),
        ("into read-only", into(READ_ONLY)),
        ("supervisor", at(KERNEL)),
        ("supervisor read-only", at(KERNEL + 1)),
        ("reserved", at(RESERVED)),
        ("into reserved", into(RESERVED)),
        ("large", LARGE + physical),
        ("large, across", LARGE + physical + 0xffe),
        ("large read-only", LARGE_READ_ONLY + physical),
        ("large reserved", LARGE_RESERVED + 0x1000),
        ("into large reserved", LARGE_RESERVED - 2),
    ] {
        one(bench, name, insn, case, operand);
    }
    let bytes = insn.encode(&[], AT_EBP);
    let case = Case {
        bytes: &bytes,
        ..case
    };
    for (name, operand) in [("ss good", at(DATA)), ("ss absent", at(ABSENT))] {
        one(bench, name, insn, case, operand);
    }
    // The privilege level comes before the operand.
    let bytes = insn.encode(&[], AT_EAX);
    let mut case = Case {
        bytes: &bytes,
        ..case
    };
    case.frame.cs = USER_CODE32;
    case.frame.ss = USER_FLAT;
    one(bench, "level 3, absent", insn, case, at(ABSENT));
}

/// The bits of CR0, CR4, EFER and EFLAGS that change what supervisor code may do.
fn rights(bench: &Bench, kind: Kind, insn: &Insn, setup: Setup, cr4: u32) {
    let bytes = insn.encode(&[], AT_EAX);
    let case = Case {
        cr4,
        ..bench.case(kind, setup, &bytes)
    };
    let free = Case {
        cr0: WRITE_PROTECT,
        ..case
    };
    for (name, operand) in [
        ("WP 0, read-only", at(READ_ONLY)),
        ("WP 0, supervisor read-only", at(KERNEL + 1)),
        ("WP 0, absent", at(ABSENT)),
    ] {
        one(bench, name, insn, free, operand);
    }
    if rt::cpu::cpuid(7, 0).ebx & 1 << 20 != 0 {
        let mut guarded = Case {
            cr4: cr4 | SMAP,
            ..case
        };
        guarded.frame.esp = at(KERNEL) + 0x800;
        for (name, operand) in [
            ("SMAP, user", at(DATA)),
            ("SMAP, into user", at(READ_ONLY) - 2),
            ("SMAP, supervisor", at(KERNEL)),
            ("SMAP, large user", LARGE + bench.data.address() as u32),
        ] {
            one(bench, name, insn, guarded, operand);
        }
        guarded.frame.eflags = FLAGS | ALIGNMENT_CHECK;
        one(bench, "SMAP, AC 1, user", insn, guarded, at(DATA));
    }
    if kind == Kind::Pae {
        let physical = bench.data.address();
        for (name, efer) in [("NXE 0, XD", 0), ("NXE 1, XD", NO_EXECUTE)] {
            bench.tables(kind).map(at(ABSENT), physical, P | W | U | XD);
            one(bench, name, insn, Case { efer, ..case }, at(ABSENT));
        }
        let (start, end) = (rt::cpu::maxphyaddr(), 63);
        for bit in [start, end - 1] {
            bench
                .tables(kind)
                .map(at(ABSENT), physical, P | W | U | 1 << bit);
            one(bench, "address too wide", insn, case, at(ABSENT));
        }
        bench.tables(kind).map(at(ABSENT), physical, W | U);
    }
}

/// Accessed and dirty flags after an operand was read or written.
fn flags(bench: &Bench, kind: Kind) {
    for insn in [STORE_POINTER, VMREAD, VMWRITE, &MEMORY[0], &MEMORY[6]] {
        for (name, operand) in [
            ("one page", at(DATA)),
            ("two pages", at(DATA + 1) - 2),
            ("read-only", at(READ_ONLY)),
            ("large", LARGE + bench.data.address() as u32),
        ] {
            let bytes = insn.encode(&[], AT_EAX);
            let mut case = bench.case(kind, Setup::Current, &bytes);
            fill(bench, insn.holds);
            case.gprs.eax = operand;
            case.gprs.ecx = insn.ecx;
            let tables = bench.tables(kind);
            let pages = [at(DATA), at(DATA + 1), at(READ_ONLY)];
            let large = bench.data.address() as u32 & !0x1f_ffff;
            let before = pages.map(|page| tables.entry(page));
            for (page, entry) in pages.into_iter().zip(before) {
                tables.map(page, entry & !(A | D), 0);
            }
            tables.clear_flags(LARGE + large);
            tables.clear_flags(at(DATA));
            let out = bench.run(&case);
            let tables = bench.tables(kind);
            let [first, second, third] = pages.map(|page| tables.entry(page) & (A | D));
            let large = tables.directory(LARGE + large) & (A | D);
            let table = tables.directory(at(DATA)) & A;
            case!(
                "{} {} flags, {name}: {}{first:x} {second:x} {third:x} large {large:x} table {table:x}",
                kind.name(),
                insn.name,
                if out.vector == 3 { "" } else { "fault, " },
            );
        }
    }
}

//! The segment of the memory operand: type, limit, base.
//!
//! SDM "Limit Checking", "Type Checking", "Segment Descriptors"; #SS for the stack segment, #GP for the
//! others. An operand that passes the end of a flat segment of 4 GiB is not here: the SDM leaves it
//! open.

use crate::bench::{Bench, Case};
use crate::insn::{AT_EAX, AT_EBP, Insn, MEMORY};
use crate::machine::Setup;
use crate::modes::fill;
use crate::segments::{
    BASED_CODE, CONFORMING, DOWN_READ_ONLY, DOWN16, DOWN32, EXECUTE_ONLY, ONE_BYTE,
    READ_ONLY as FLAT_READ_ONLY, READABLE_CODE, SMALL, TOP, USER_CODE32, USER_DATA16, USER_FLAT,
    WRAPPED, WRAPPED_BASE,
};
use crate::tables::Kind;
use crate::window::{ABSENT, CODE, DATA, READ_ONLY, at};
use rt::report;

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("segments"));
    for insn in &MEMORY {
        let (setup, cr4) = match insn.name {
            "vmxon" => (Setup::Off, rt::vmx::CR4_VMXE as u32),
            _ => (Setup::Current, 0),
        };
        for (prefix, register) in [(0x64, "fs"), (0x65, "gs"), (0x26, "es"), (0x3e, "ds")] {
            for (name, selector, offset) in data_segments(insn.bytes) {
                if register != "fs" && !matches!(name, "small, into limit" | "small" | "null") {
                    continue;
                }
                let bytes = insn.encode(&[prefix], AT_EAX);
                let mut case = Case {
                    cr4,
                    ..bench.case(Kind::Pae, setup, &bytes)
                };
                match register {
                    "fs" => case.frame.fs = selector,
                    "gs" => case.frame.gs = selector,
                    "es" => case.frame.es = selector,
                    _ => case.frame.ds = selector,
                }
                one(bench, (register, name), insn, case, offset);
            }
        }
        stack_segments(bench, insn, setup, cr4);
        code_segments(bench, insn, setup, cr4);
    }
}

fn one(bench: &Bench, (register, name): (&str, &str), insn: &Insn, case: Case<'_>, offset: u32) {
    fill(bench, insn.holds);
    let mut case = case;
    case.gprs.eax = offset;
    case.gprs.ebp = offset;
    case.gprs.ecx = insn.ecx;
    bench.show(format_args!("{} {register} {name}", insn.name), &case);
}

/// Selectors and offsets for an operand of so many bytes.
fn data_segments(bytes: u32) -> [(&'static str, u32, u32); 25] {
    [
        ("small", SMALL, 0),
        ("small, up to limit", SMALL, 0x1000 - bytes),
        ("small, into limit", SMALL, 0x1001 - bytes),
        ("small, last byte", SMALL, 0xfff),
        ("small, behind", SMALL, 0x1000),
        ("small, far behind", SMALL, 0xffff_fff0),
        ("small, wraps", SMALL, 0xffff_ffff),
        ("one byte", ONE_BYTE, 0),
        ("down, before", DOWN32, 0xfff),
        ("down, first", DOWN32, 0x1000),
        ("down, absent", DOWN32, (ABSENT - DATA) * 4096),
        ("down, beyond the end", DOWN32, 0xffff_ffff - bytes + 2),
        ("down 16, before", DOWN16, 0xfff),
        ("down 16, first", DOWN16, 0x1000),
        ("down 16, beyond the end", DOWN16, 0xffff - bytes + 2),
        ("down 16, behind", DOWN16, 0x1_0000),
        ("down read-only", DOWN_READ_ONLY, 0x1000),
        ("read-only", FLAT_READ_ONLY, at(DATA)),
        ("read-only, absent", FLAT_READ_ONLY, at(ABSENT)),
        ("readable code", READABLE_CODE, 0),
        ("null", 0, at(DATA)),
        ("null, level 3", 3, at(DATA)),
        (
            "wraps to data",
            WRAPPED,
            at(DATA).wrapping_sub(WRAPPED_BASE),
        ),
        (
            "wraps to read-only",
            WRAPPED,
            at(READ_ONLY).wrapping_sub(WRAPPED_BASE),
        ),
        ("across the end", TOP, 0),
    ]
}

/// The stack segment, which the stack of the case has to lie in.
fn stack_segments(bench: &Bench, insn: &Insn, setup: Setup, cr4: u32) {
    let bytes = insn.encode(&[], AT_EBP);
    for (name, selector, esp, offset) in [
        ("small", SMALL, 0x900, 0),
        ("small, up to limit", SMALL, 0x900, 0x1000 - insn.bytes),
        ("small, into limit", SMALL, 0x900, 0x1001 - insn.bytes),
        ("small, behind", SMALL, 0x900, 0x1000),
        ("down, before", DOWN32, 0x2900, 0xfff),
        ("down, first", DOWN32, 0x2900, 0x1000),
        ("down 16, behind", DOWN16, 0x2900, 0x1_0000),
    ] {
        let mut case = Case {
            cr4,
            ..bench.case(Kind::Pse, setup, &bytes)
        };
        case.frame.ss = selector;
        case.frame.esp = esp;
        one(bench, ("ss", name), insn, case, offset);
    }
    // Prefixes choose another segment for EBP, and SS for EAX.
    for (name, prefix, tail, offset) in [
        ("ebp by ds", 0x3e, AT_EBP, at(DATA)),
        ("eax by ss, behind", 0x36, AT_EAX, 0x1000),
        ("eax by ss", 0x36, AT_EAX, 0),
    ] {
        let bytes = insn.encode(&[prefix], tail);
        let mut case = Case {
            cr4,
            ..bench.case(Kind::Pse, setup, &bytes)
        };
        case.frame.ss = SMALL;
        case.frame.esp = 0x900;
        one(bench, ("ss", name), insn, case, offset);
    }
    // At level 3 the privilege level is looked at first: #GP, not #SS.
    let mut case = Case {
        cr4,
        ..bench.case(Kind::Pse, setup, &bytes)
    };
    case.frame.cs = USER_CODE32;
    case.frame.ss = USER_DATA16;
    case.frame.ds = USER_FLAT;
    case.frame.esp = 0x2900;
    one(bench, ("ss", "level 3, behind"), insn, case, 0x1_0000);
}

/// The code segment: read where its type lets it, never written.
fn code_segments(bench: &Bench, insn: &Insn, setup: Setup, cr4: u32) {
    let bytes = insn.encode(&[0x2e], AT_EAX);
    let start = at(CODE);
    for (name, selector, eip, offset) in [
        ("flat", crate::segments::CODE32, start, at(DATA)),
        ("execute-only", EXECUTE_ONLY, start, at(DATA)),
        ("conforming", CONFORMING, 0, 0x800),
        ("4 KiB", BASED_CODE, 0, 0x800),
        ("4 KiB, into limit", BASED_CODE, 0, 0xffd),
        ("4 KiB, behind", BASED_CODE, 0, 0x1000),
    ] {
        let mut case = Case {
            cr4,
            ..bench.case(Kind::Pae, setup, &bytes)
        };
        case.frame.cs = selector;
        case.frame.eip = eip;
        one(bench, ("cs", name), insn, case, offset);
    }
    // The data segments of a CS that can only be executed are of use.
    let bytes = insn.encode(&[], AT_EAX);
    let mut case = Case {
        cr4,
        ..bench.case(Kind::Pae, setup, &bytes)
    };
    case.frame.cs = EXECUTE_ONLY;
    one(bench, ("cs", "execute-only, by ds"), insn, case, at(DATA));
}

//! Every form of address, of 16 and 32 bits, in code segments of both widths.
//!
//! SDM volume 2, "Addressing-Mode Encoding of ModR/M and SIB Bytes". The operand is where the bytes that
//! the instruction stored are found.

use crate::bench::{Bench, Case};
use crate::insn::{Bytes, Insn, STORE_POINTER, VMREAD};
use crate::machine::Setup;
use crate::segments::{BASED_CODE, CODE16, DATA16};
use crate::tables::Kind;
use crate::window::{DATA, STACK};
use rt::{case, report};

/// What the pages hold where nothing was stored.
const EMPTY: u8 = 0x55;

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("addressing"));
    for (name, code, prefix) in [
        ("32 in 32", BASED_CODE, &[][..]),
        ("32 in 16", CODE16, &[0x67]),
    ] {
        wide(bench, name, code, prefix);
    }
    for (name, code, prefix) in [
        ("16 in 32", BASED_CODE, &[0x67][..]),
        ("16 in 16", CODE16, &[]),
    ] {
        narrow(bench, name, code, prefix);
    }
}

/// Where the instruction stored something: the first and the last byte that changed.
fn one(bench: &Bench, id: core::fmt::Arguments<'_>, insn: &Insn, code: u32, bytes: Bytes) {
    bench.data.fill(EMPTY);
    let mut case = Case {
        ..bench.case(Kind::Pae, Setup::Root, &bytes)
    };
    case.frame.cs = code;
    case.frame.eip = 0;
    for segment in [&mut case.frame.ss, &mut case.frame.ds] {
        *segment = DATA16;
    }
    let registers = &mut case.gprs;
    (registers.eax, registers.ecx, registers.edx) = (0x0410, 0x0120, 0x0230);
    (registers.ebx, registers.ebp) = (0x0500, 0x0640);
    (registers.esi, registers.edi) = (0x0150, 0x0160);
    if insn.name == "vmread" {
        case.setup = Setup::Current;
        registers.ecx = insn.ecx;
    }
    case.frame.esp = (STACK - DATA) * 4096 + 0x800;
    let out = bench.run(&case);
    let stack = case.frame.esp as u64 - 64..case.frame.esp as u64;
    let is_stored = |at: &u64| bench.data.read::<u8>(*at) != EMPTY && !stack.contains(at);
    let all = 0..0x3000;
    let (first, last) = (all.clone().find(is_stored), all.rev().find(is_stored));
    let shown = crate::bench::Shown {
        bench,
        case: &case,
        out: &out,
    };
    match (first, last) {
        (Some(first), Some(last)) => case!(
            "{id} {}: {shown} at {first:x} {} bytes",
            insn.name,
            last - first + 1
        ),
        _ => case!("{id} {}: {shown} nothing stored", insn.name),
    }
}

/// 32-bit addresses.
fn wide(bench: &Bench, name: &str, code: u32, prefix: &[u8]) {
    let store = |bench: &Bench, id: core::fmt::Arguments<'_>, tail: &[u8]| {
        one(
            bench,
            id,
            STORE_POINTER,
            code,
            STORE_POINTER.encode(prefix, tail),
        );
    };
    for mode in 0..3u8 {
        for rm in 0..8u8 {
            if rm == 4 {
                continue;
            }
            let id = format_args!("{name} mod {mode} rm {rm}");
            match (mode, rm) {
                (0, 5) => store(bench, id, &[5, 0x44, 0x11, 0, 0]),
                (0, _) => store(bench, id, &[rm]),
                (1, _) => store(bench, id, &[0x40 | rm, 0xf8]),
                _ => store(bench, id, &[0x80 | rm, 0x80, 0x12, 0, 0]),
            }
        }
        // Each base with one index, and each index and scale with one base.
        for base in 0..8u8 {
            sib(mode, 1, 1, base, |tail| {
                store(bench, format_args!("{name} mod {mode} base {base}"), tail);
            });
        }
        for index in 0..8u8 {
            for scale in 0..4u8 {
                sib(mode, scale, index, 0, |tail| {
                    let id = format_args!("{name} mod {mode} index {index} scale {scale}");
                    store(bench, id, tail);
                });
            }
        }
    }
    // No base and no index; a displacement that wraps; a displacement beyond the limit.
    store(
        bench,
        format_args!("{name} sib, disp32 alone"),
        &[4, 0x25, 0x40, 0x13, 0, 0],
    );
    store(
        bench,
        format_args!("{name} wraps"),
        &[0x80, 0x00, 0xfd, 0xff, 0xff],
    );
    store(bench, format_args!("{name} behind"), &[0x80, 0, 0, 1, 0]);
    store(
        bench,
        format_args!("{name} behind, stack"),
        &[0x85, 0, 0, 1, 0],
    );
    let field = VMREAD.encode(prefix, &[0x40, 0x20]);
    one(bench, format_args!("{name} disp8"), VMREAD, code, field);
}

/// ModRM, SIB and displacement.
fn sib(mode: u8, scale: u8, index: u8, base: u8, mut found: impl FnMut(&[u8])) {
    let byte = scale << 6 | index << 3 | base;
    match (mode, base) {
        (0, 5) => found(&[4, byte, 0x40, 0x10, 0, 0]),
        (0, _) => found(&[4, byte]),
        (1, _) => found(&[0x44, byte, 0x18]),
        _ => found(&[0x84, byte, 0x20, 0x03, 0, 0]),
    }
}

/// 16-bit addresses.
fn narrow(bench: &Bench, name: &str, code: u32, prefix: &[u8]) {
    let store = |bench: &Bench, id: core::fmt::Arguments<'_>, tail: &[u8]| {
        one(
            bench,
            id,
            STORE_POINTER,
            code,
            STORE_POINTER.encode(prefix, tail),
        );
    };
    for rm in 0..8u8 {
        match rm {
            6 => store(bench, format_args!("{name} disp16"), &[rm, 0x46, 0x0a]),
            _ => store(bench, format_args!("{name} mod 0 rm {rm}"), &[rm]),
        }
        store(
            bench,
            format_args!("{name} mod 1 rm {rm}"),
            &[0x40 | rm, 0xf0],
        );
        store(
            bench,
            format_args!("{name} mod 2 rm {rm}"),
            &[0x80 | rm, 0x34, 0x02],
        );
    }
    // 64 KiB and a bit: the offset wraps, the operand does not.
    store(bench, format_args!("{name} wraps"), &[0x87, 0x80, 0xfb]);
    store(
        bench,
        format_args!("{name} into the limit"),
        &[6, 0xfc, 0xff],
    );
    store(
        bench,
        format_args!("{name} up to the limit"),
        &[6, 0xf8, 0xff],
    );
    store(
        bench,
        format_args!("{name} into the limit, stack"),
        &[0x86, 0xbc, 0xf9],
    );
}

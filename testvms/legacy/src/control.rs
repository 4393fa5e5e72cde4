//! What VMX operation keeps a legacy L1 from: real mode, paging off, CR4.VMXE off.
//!
//! SDM "Restrictions on VMX Operation", "Supporting Processor Operating Modes in VMX Operation".

use crate::bench::{Bench, Case, Shown};
use crate::insn::Bytes;
use crate::machine::Setup;
use crate::segments::CODE16;
use crate::tables::Kind;
use rt::{case, report};

const MOV_TO_CR0: &[u8] = &[0x0f, 0x22, 0xc0];
const MOV_TO_CR4: &[u8] = &[0x0f, 0x22, 0xe0];
const LMSW: &[u8] = &[0x0f, 0x01, 0xf0];

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("control"));
    for kind in [Kind::Pae, Kind::Pse] {
        for setup in [Setup::Root, Setup::Current] {
            cr0(bench, kind, setup);
            cr4(bench, kind, setup);
        }
        efer(bench, kind);
    }
}

/// Runs a case and shows CR0 and CR4 afterwards by the bits that changed.
fn one(bench: &Bench, id: core::fmt::Arguments<'_>, case: &Case<'_>) {
    let job = bench.job(case);
    let out = bench.run(case);
    let (cr0, cr4) = (out.out_cr0 ^ job.cr0, out.out_cr4 ^ job.cr4);
    let shown = Shown {
        bench,
        case,
        out: &out,
    };
    case!("{id}: {shown} cr0^{cr0:x} cr4^{cr4:x}");
}

/// Each bit of CR0 inverted alone, and the way into real mode.
fn cr0(bench: &Bench, kind: Kind, setup: Setup) {
    let what = kind.name();
    let before = bench.job(&bench.case(kind, setup, MOV_TO_CR0)).cr0;
    for bit in 0..32 {
        let mut case = bench.case(kind, setup, MOV_TO_CR0);
        case.gprs.eax = before ^ 1 << bit;
        if bit == 30 || bit == 29 {
            // CD and NW together: NW alone causes #GP anywhere.
            case.gprs.eax = before ^ 3 << 29;
        }
        one(bench, format_args!("{what} {setup:?} cr0 bit {bit}"), &case);
    }
    for (name, bits) in [
        ("PG, PE", 0x8000_0001u32),
        ("PG, PE, NE", 0x8000_0021),
        ("PE, NE", 0x21),
    ] {
        let mut case = bench.case(kind, setup, MOV_TO_CR0);
        case.gprs.eax = before & !bits;
        one(
            bench,
            format_args!("{what} {setup:?} cr0 less {name}"),
            &case,
        );
    }
    // LMSW cannot clear PE anywhere; 16-bit code is where real-mode kernels turn.
    for (name, value) in [("0", 0), ("e", 0xe), ("1", 1)] {
        let mut case = bench.case(kind, setup, LMSW);
        case.gprs.eax = value;
        one(bench, format_args!("{what} {setup:?} lmsw {name}"), &case);
    }
    let mut case = bench.case(kind, setup, MOV_TO_CR0);
    case.frame.cs = CODE16;
    case.frame.eip = 0;
    case.gprs.eax = before & !0x8000_0001;
    one(
        bench,
        format_args!("{what} {setup:?} 16-bit code, cr0 less PG, PE"),
        &case,
    );
}

/// Each bit of CR4 inverted alone.
fn cr4(bench: &Bench, kind: Kind, setup: Setup) {
    let what = kind.name();
    let before = bench.job(&bench.case(kind, setup, MOV_TO_CR4)).cr4;
    for bit in 0..32 {
        if matches!(bit, 4 | 5 | 14 | 21) {
            // Another kind of paging; SMX, which Umbra hides; SMAP, which the stack is not made for.
            continue;
        }
        let mut case = bench.case(kind, setup, MOV_TO_CR4);
        case.gprs.eax = before ^ 1 << bit;
        one(bench, format_args!("{what} {setup:?} cr4 bit {bit}"), &case);
    }
}

/// VMX operation does not come in the way of EFER: LME with paging on is refused anywhere.
fn efer(bench: &Bench, kind: Kind) {
    for (name, value) in [("SCE", 1u8), ("LME", 1), ("NXE", 8)] {
        let low = if name == "SCE" { value } else { 0 };
        let high = if name == "SCE" { 0 } else { value };
        // mov ecx, IA32_EFER; xor edx, edx; mov eax, VALUE; wrmsr
        let bytes = Bytes::of(&[&[
            0xb9, 0x80, 0, 0, 0xc0, 0x31, 0xd2, 0xb8, low, high, 0, 0, 0x0f, 0x30,
        ]]);
        let case = bench.case(kind, Setup::Root, &bytes);
        one(bench, format_args!("{} efer {name}", kind.name()), &case);
    }
}

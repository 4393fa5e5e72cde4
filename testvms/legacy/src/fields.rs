//! VMREAD and VMWRITE with operands of 32 bits: each field, whole and by its upper half.
//!
//! SDM "VMREAD", "VMWRITE", "Field Encoding in VMCS": outside 64-bit mode a wider field is read without its
//! upper half, and written with zeros there.

use rt::vmx::insn;
use rt::{case, report};
use umbra_vmcs::field::{ALL, Field, Width};

use crate::bench::Bench;
use crate::machine::Setup;
use crate::tables::Kind;

/// VMWRITE ECX, EAX; LAHF; MOV DH, AH; VMREAD ESI, ECX; XOR ECX, 1; VMREAD EDI, ECX.
const WRITE: &[u8] = &[
    0x0f, 0x79, 0xc8, 0x9f, 0x88, 0xe6, 0x0f, 0x78, 0xce, 0x83, 0xf1, 0x01, 0x0f, 0x78, 0xcf,
];

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("fields"));
    for field in ALL {
        for half in 0..2 {
            if half == 1 && field.width() != Width::W64 {
                continue;
            }
            one(bench, field, half);
        }
    }
    report::group(format_args!("encodings"));
    for encoding in [
        0x1,
        0x6001,
        0x4001,
        0x801,
        0x1_0000,
        0x8000,
        0x7fff,
        0xffff,
        0x681e_0000,
        0x8000_681e,
        u32::MAX,
    ] {
        let mut case = bench.case(Kind::Pse, Setup::Current, &[0x0f, 0x78, 0xca]);
        case.gprs.ecx = encoding;
        bench.show(format_args!("vmread {encoding:x}"), &case);
        case.bytes = &[0x0f, 0x79, 0xca];
        bench.show(format_args!("vmwrite {encoding:x}"), &case);
    }
}

/// Fills a field in 64-bit mode, writes it in 32-bit mode, and reads it in both.
fn one(bench: &Bench, field: Field, half: u32) {
    let encoding = field.encoding();
    // What a wide operand puts there: all ones, as far as the field holds them.
    let Some(before) = in_long_mode(
        bench,
        |e| {
            let _ = insn::vmwrite_raw(e, u64::MAX);
        },
        encoding,
    ) else {
        case!("{encoding:x}: none");
        return;
    };
    let mut case = bench.case(Kind::Pae, Setup::Current, WRITE);
    case.gprs.ecx = encoding + half;
    case.gprs.eax = 0x1234_5678;
    case.gprs.esi = 0x5e5e_5e5e;
    case.gprs.edi = 0x5e5e_5e5e;
    let out = bench.run(&case);
    let after = in_long_mode(bench, |_| {}, encoding).unwrap_or(0);
    let gprs = &out.out_gprs;
    case!(
        "{:x}: {before:x} -> {after:x} flags {:x} read {:x} other half {:x} flags {:x}",
        encoding + half,
        gprs.edx >> 8 & 0xd5,
        gprs.esi,
        gprs.edi,
        out.out_frame.eflags & 0x8d5,
    );
}

/// Does something to a field in 64-bit mode, and reads it. `None` for a field that the CPU lacks.
fn in_long_mode(bench: &Bench, what: impl Fn(u64), encoding: u32) -> Option<u64> {
    bench.in_long_mode(&bench.own, || {
        what(encoding.into());
        insn::vmread_raw(encoding.into()).ok()
    })
}

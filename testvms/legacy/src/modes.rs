//! Every instruction in every mode and at both privilege levels.
//!
//! SDM: the "Operation" sections of the VMX instruction reference: which of mode, VMX operation and
//! privilege level is looked at first.

use core::fmt::Arguments;

use rt::report;
use rt::vmx::CR4_VMXE;

use crate::bench::{Bench, Case, FLAGS};
use crate::insn::{AT_BX, AT_EAX, Bytes, Holds, MEMORY, PLAIN};
use crate::machine::{Frame, Setup};
use crate::segments::{
    CODE16, CODE32, CODE32_1, CONFORMING, DATA16, FLAT, FLAT_1, USER_CODE16, USER_CODE32,
    USER_DATA16, USER_FLAT,
};
use crate::tables::{Kind, V86};
use crate::window::{DATA, STACK, at};

/// The modes; all that do not begin with 32 have 16-bit addresses. Conforming code of level 0 runs at the
/// level of its caller.
const MODES: [&str; 7] = [
    "32/0",
    "32/1",
    "32/3",
    "32/3 conforming",
    "16/0",
    "16/3",
    "v86",
];

/// Where code of a mode starts.
fn frame(mode: &str) -> Frame {
    let flat = |cs, data| Frame {
        eip: at(0),
        cs,
        eflags: FLAGS,
        esp: at(STACK) + 0x800,
        ss: data,
        es: data,
        ds: data,
        fs: data,
        gs: data,
    };
    let narrow = |cs, data| Frame {
        eip: 0,
        esp: (STACK - DATA) * 4096 + 0x800,
        ..flat(cs, data)
    };
    match mode {
        "32/0" => flat(CODE32, FLAT),
        "32/1" => flat(CODE32_1, FLAT_1),
        "32/3" => flat(USER_CODE32, USER_FLAT),
        "32/3 conforming" => Frame {
            eip: 0,
            ..flat(CONFORMING | 3, USER_FLAT)
        },
        "16/0" => narrow(CODE16, DATA16),
        "16/3" => narrow(USER_CODE16, USER_DATA16),
        _ => Frame {
            eip: 0,
            eflags: FLAGS | 0x2_3000,
            esp: 0xf00,
            ..flat(V86 >> 4, V86 >> 4)
        },
    }
}

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("modes"));
    for (what, setup, cr4) in [
        ("VMXE 0", Setup::Off, 0),
        ("VMXE 1", Setup::Off, CR4_VMXE as u32),
        ("root", Setup::Root, 0),
        ("current", Setup::Current, 0),
    ] {
        for kind in [Kind::Pae, Kind::Pse] {
            for mode in MODES {
                for insn in &MEMORY {
                    let tail = if mode.starts_with("32") {
                        AT_EAX
                    } else {
                        AT_BX
                    };
                    let bytes = insn.encode(&[], tail);
                    let mut case = bench.case(kind, setup, &bytes);
                    // 16-bit data segments begin at the data pages.
                    let operand = if mode.starts_with("32") {
                        at(DATA)
                    } else {
                        0x1000
                    };
                    case.gprs.ecx = insn.ecx;
                    fill(bench, insn.holds);
                    one(
                        bench,
                        format_args!("{what} {} {mode} {}", kind.name(), insn.name),
                        mode,
                        case,
                        operand,
                        cr4,
                    );
                }
                for (name, bytes) in PLAIN {
                    if name == "vmcall" && setup == Setup::Current && mode.ends_with("/0") {
                        // Bochs stops: docs/errata.md, `vmcall.in-root`.
                        continue;
                    }
                    let mut case = bench.case(kind, setup, bytes);
                    case.gprs.ecx = umbra_vmcs::field::GUEST_RIP.encoding();
                    one(
                        bench,
                        format_args!("{what} {} {mode} {name}", kind.name()),
                        mode,
                        case,
                        0,
                        cr4,
                    );
                }
            }
        }
    }
    bits(bench);
    prefixes(bench);
}

/// Memory as an instruction wants to find it.
pub fn fill(bench: &Bench, holds: Holds) {
    bench.fill(match holds {
        Holds::Pointer => bench.other.address(),
        Holds::Value => 0x1234_5678_9abc_def0,
        Holds::Descriptor => 1,
    });
}

fn one(bench: &Bench, id: Arguments<'_>, mode: &str, case: Case<'_>, operand: u32, cr4: u32) {
    let mut case = Case {
        frame: frame(mode),
        cr4,
        ..case
    };
    case.gprs.eax = operand;
    case.gprs.ebx = operand;
    bench.show(id, &case);
}

/// VMXON and the bits of CR0 and CR4 that VMX operation fixes; CR0.WP is not one of them.
fn bits(bench: &Bench) {
    let vmxe = CR4_VMXE as u32;
    for kind in Kind::ALL {
        for (name, cr0, cr4) in [
            ("NE 0", 1 << 5, vmxe),
            ("NE 0, VMXE 0", 1 << 5, 0),
            ("WP 0", 1 << 16, vmxe),
            ("MP 0", 1 << 1, vmxe),
            ("TS 1", 1 << 3, vmxe),
            ("OSFXSR 0", 0, vmxe | 1 << 9),
        ] {
            let bytes = MEMORY[3].encode(&[], AT_EAX);
            fill(bench, Holds::Pointer);
            let mut case = Case {
                cr0,
                cr4,
                ..bench.case(kind, Setup::Off, &bytes)
            };
            case.gprs.eax = at(DATA);
            bench.show(format_args!("vmxon {} {name}", kind.name()), &case);
        }
    }
}

/// Prefixes that make another instruction, or none, of it, with code segments of both widths. An
/// operand-size prefix is no way to 32-bit operands in 16-bit code: they have 32 bits anyway.
fn prefixes(bench: &Bench) {
    for mode in ["32/0", "16/0"] {
        for prefix in [0x66u8, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65] {
            for insn in &MEMORY {
                if prefix == 0x2e && insn.writes {
                    // Code segments are a group of their own.
                    continue;
                }
                let (tail, operand) = match mode {
                    "32/0" => (AT_EAX, at(DATA)),
                    _ => (AT_BX, if prefix == 0x2e { 0x800 } else { 0x1000 }),
                };
                let bytes = insn.encode(&[prefix], tail);
                fill(bench, insn.holds);
                let mut case = bench.case(Kind::Pae, Setup::Current, &bytes);
                case.gprs.ecx = insn.ecx;
                one(
                    bench,
                    format_args!("prefix {prefix:x} {mode} {}", insn.name),
                    mode,
                    case,
                    operand,
                    0,
                );
            }
            for (name, bytes) in PLAIN {
                if name == "vmcall" {
                    continue;
                }
                let bytes = Bytes::of(&[&[prefix], bytes]);
                let mut case = bench.case(Kind::Pae, Setup::Current, &bytes);
                case.gprs.ecx = umbra_vmcs::field::GUEST_RIP.encoding();
                one(
                    bench,
                    format_args!("prefix {prefix:x} {mode} {name}"),
                    mode,
                    case,
                    0,
                    0,
                );
            }
        }
    }
}

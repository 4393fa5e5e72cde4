//! What the operands say: pointers, revision identifiers, types, descriptors; and every general register.
//!
//! SDM: the "Operation" sections of the VMX instruction reference. Pointers and descriptors have 64-bit
//! parts outside 64-bit mode too; types and encodings have 32 bits.

use rt::vmx::CR4_VMXE;
use rt::{case, more, report};
use umbra_vmcs::field;

use crate::bench::Bench;
use crate::insn::{AT_EAX, Bytes, Insn, MEMORY};
use crate::machine::Setup;
use crate::tables::Kind;
use crate::window::{DATA, at};

const GUEST_RIP: u32 = field::GUEST_RIP.encoding();

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("values"));
    for kind in [Kind::Pae, Kind::Pse] {
        pointers(bench, kind);
        revisions(bench, kind);
        descriptors(bench, kind);
        registers(bench, kind);
    }
    page_directory_pointers(bench);
    for kind in Kind::ALL {
        last_bytes(bench, kind);
    }
}

fn one(bench: &Bench, kind: Kind, id: core::fmt::Arguments<'_>, insn: &Insn, ecx: u32) {
    let bytes = insn.encode(&[], AT_EAX);
    let mut case = bench.case(kind, Setup::Current, &bytes);
    if insn.name == "vmxon" {
        case.setup = Setup::Off;
        case.cr4 = CR4_VMXE as u32;
    }
    case.gprs.eax = at(DATA);
    case.gprs.ecx = ecx;
    bench.show(format_args!("{} {} {id}", kind.name(), insn.name), &case);
}

/// VMCLEAR, VMPTRLD and VMXON: each bit that must be 0, and pointers to what is in use.
fn pointers(bench: &Bench, kind: Kind) {
    let width = rt::cpu::maxphyaddr();
    for insn in [&MEMORY[0], &MEMORY[1], &MEMORY[3]] {
        for bit in (0..12).chain(width..64) {
            bench.fill(bench.other.address() | 1 << bit);
            one(bench, kind, format_args!("bit {bit}"), insn, 0);
        }
        for (name, pointer) in [
            ("VMXON region", bench.vmx.region.address()),
            ("own", bench.own.address()),
            ("all 1", u64::MAX),
        ] {
            bench.fill(pointer);
            one(bench, kind, format_args!("{name}"), insn, 0);
        }
    }
}

/// VMPTRLD and VMXON look at the revision identifier. Bit 31, which says shadow VMCS, is left out.
fn revisions(bench: &Bench, kind: Kind) {
    for insn in [&MEMORY[1], &MEMORY[3]] {
        for bit in [0, 1, 15, 16, 30] {
            bench.other.write(0, bench.caps.revision() ^ 1 << bit);
            bench.fill(bench.other.address());
            // The bench clears both VMCSs beforehand, which leaves the identifier alone.
            one(bench, kind, format_args!("revision^{bit}"), insn, 0);
        }
        bench.other.write(0, bench.caps.revision());
    }
}

/// INVEPT and INVVPID: types and what the descriptor holds.
fn descriptors(bench: &Bench, kind: Kind) {
    let good = bench.other.address() | 0x1e;
    for (insn, low) in [(&MEMORY[6], good), (&MEMORY[7], 1)] {
        for of_type in [0, 1, 2, 3, 4, 5, 0x1_0001, 0x8000_0001, u32::MAX] {
            for (name, low, high) in [
                ("good", low, 0u64),
                ("0", 0, 0),
                ("high 1", low, 1),
                ("high not canonical", low, 1 << 63),
                ("high wide", low, 0x7fff_0000_0000),
                ("low bit 16", low | 1 << 16, 0),
                ("low bit 63", low | 1 << 63, 0),
                ("low bit 3", low ^ 1 << 3, 0),
            ] {
                bench.fill(0);
                bench.data.write(0, low);
                bench.data.write(8, high);
                one(
                    bench,
                    kind,
                    format_args!("{of_type:x} {name}"),
                    insn,
                    of_type,
                );
            }
        }
    }
}

/// VMREAD and VMWRITE with each general register, ESP among them, as value and as encoding.
fn registers(bench: &Bench, kind: Kind) {
    let what = kind.name();
    for register in 0..8u8 {
        // VMWRITE ECX, register; VMREAD EDX, ECX.
        let bytes = Bytes::of(&[&[0x0f, 0x79, 0xc8 | register, 0x0f, 0x78, 0xca]]);
        let mut case = bench.case(kind, Setup::Current, &bytes);
        let esp = case.frame.esp;
        let g = &mut case.gprs;
        (g.eax, g.ecx, g.edx, g.ebx) = (0x1001, GUEST_RIP, 0x1003, 0x1004);
        (g.ebp, g.esi, g.edi) = (0x1006, 0x8000_1007, 0x1008);
        let out = bench.show(
            format_args!("{what} vmwrite from register {register}"),
            &case,
        );
        let value = out.out_gprs.edx;
        let shown = if value == esp { 0 } else { value };
        more!("holds {shown:x}");

        // VMWRITE ECX, ESP; VMREAD register, ECX.
        let bytes = Bytes::of(&[&[0x0f, 0x79, 0xcc, 0x0f, 0x78, 0xc8 | register]]);
        case.bytes = &bytes;
        let out = bench.show(format_args!("{what} vmread to register {register}"), &case);
        let g = &out.out_gprs;
        let all = [
            g.eax,
            g.ecx,
            g.edx,
            g.ebx,
            out.out_frame.esp,
            g.ebp,
            g.esi,
            g.edi,
        ];
        let same = all.map(|value| u8::from(value == esp));
        more!("in {same:?}");

        // The encoding in the register: VMWRITE register, EAX; VMREAD EDX, register.
        if matches!(register, 0 | 2 | 4) {
            continue;
        }
        let modrm = 0xc0 | register << 3;
        let bytes = Bytes::of(&[&[0x0f, 0x79, modrm, 0x0f, 0x78, modrm | 2]]);
        case.bytes = &bytes;
        let g = &mut case.gprs;
        (g.ecx, g.ebx, g.ebp, g.esi, g.edi) =
            (GUEST_RIP, GUEST_RIP, GUEST_RIP, GUEST_RIP, GUEST_RIP);
        let out = bench.show(
            format_args!("{what} encoding in register {register}"),
            &case,
        );
        more!("holds {:x}", out.out_gprs.edx);
    }
}

/// PAE paging goes by the PDPTEs that MOV to CR3 loaded, not by what memory holds since.
fn page_directory_pointers(bench: &Bench) {
    let tables = bench.tables(Kind::Pae);
    let linear = tables.open_second_directory();
    let slot = (tables.cr3() + 8).to_le_bytes();
    let operand = linear + bench.data.address() as u32;
    for insn in &MEMORY {
        if insn.name == "vmxon" {
            continue;
        }
        for (name, reload) in [("memory changed", false), ("loaded anew", true)] {
            // MOV EAX, slot; MOV DWORD PTR [EAX], 0; MOV EAX, CR3; MOV CR3, EAX; MOV EAX, operand.
            let encoded = insn.encode(&[], AT_EAX);
            let bytes = Bytes::of(&[
                &[0xb8],
                &slot,
                &[0xc7, 0x00, 0, 0, 0, 0],
                if reload {
                    &[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]
                } else {
                    &[]
                },
                &[0xb8],
                &operand.to_le_bytes(),
                &encoded,
            ]);
            crate::modes::fill(bench, insn.holds);
            let mut case = bench.case(Kind::Pae, Setup::Current, &bytes);
            case.gprs.ecx = insn.ecx;
            let out = bench.run(&case);
            tables.open_second_directory();
            let start = case.frame.eip + (bytes.len() - encoded.len()) as u32;
            case!(
                "pae {} pdpte, {name}: {} error {:x} cr2 {} eip+{:x}",
                insn.name,
                rt::trap::vector_name(out.vector as u8),
                out.error,
                out.cr2 == operand,
                out.out_frame.eip.wrapping_sub(start),
            );
        }
    }
}

/// Instructions that end with the last byte of the linear addresses: EIP goes on at 0.
fn last_bytes(bench: &Bench, kind: Kind) {
    for (name, bytes) in [
        ("vmptrst", &[0x0f, 0xc7, 0x38][..]),
        ("vmread", &[0x0f, 0x78, 0x08]),
        ("vmxoff", &[0x0f, 0x01, 0xc4]),
        ("vmclear", &[0x66, 0x0f, 0xc7, 0x30]),
        ("cpuid", &[0x0f, 0xa2]),
    ] {
        crate::modes::fill(bench, crate::insn::Holds::Pointer);
        bench.ends.fill(0xcc);
        bench.ends.write_bytes(0x2000 - bytes.len() as u64, bytes);
        let mut case = bench.case(kind, Setup::Root, bytes);
        case.frame.eip = 0u32.wrapping_sub(bytes.len() as u32);
        case.gprs.eax = at(DATA);
        case.gprs.ecx = GUEST_RIP;
        bench.show(format_args!("{} last bytes, {name}", kind.name()), &case);
    }
}

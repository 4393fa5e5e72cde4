//! The host-state area. A value that VM entry accepts is also one that L1 survives at the exit.
//!
//! SDM "Checks on Host Control Registers, MSRs, and SSP", "Checks on Host Segment and
//! Descriptor-Table Registers", "Checks Related to Address-Space Size".

use rt::vmx::vm::Mode;
use umbra_vmcs::controls::Exit;
use umbra_vmcs::field::{self, Field};

use crate::lab::Lab;

/// The edges of what is canonical with 48-bit linear addresses, and of 57-bit ones.
pub const EDGES: [u64; 8] = [
    0,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0x00ff_ffff_ffff_ffff,
    0xff00_0000_0000_0000,
    u64::MAX,
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    if lab.begin("host control registers", Mode::Long, true) {
        control_registers(lab);
        lab.end();
    }
    if lab.begin("host segments", Mode::Long, true) {
        segments(lab);
        lab.end();
    }
    if lab.begin("host msrs", Mode::Long, true) {
        msrs(lab);
        lab.end();
    }
    for (mode, with_ept) in [
        (Mode::Long, true),
        (Mode::Prot32, true),
        (Mode::Prot32, false),
    ] {
        if lab.begin("host address space", mode, with_ept) {
            address_space(lab);
            lab.end();
        }
    }
}

fn control_registers(lab: &mut Lab) {
    for bit in 0..64 {
        lab.flip(field::HOST_CR0, bit);
        lab.run(format_args!("cr0 {bit}"));
    }
    for bit in 0..64 {
        lab.flip(field::HOST_CR4, bit);
        lab.run(format_args!("cr4 {bit}"));
    }
    // Bits from 12 up to the physical width would move L1's page tables.
    for bit in (0..12).chain(rt::cpu::maxphyaddr()..64) {
        lab.flip(field::HOST_CR3, bit);
        lab.run(format_args!("cr3 {bit}"));
    }
}

fn segments(lab: &mut Lab) {
    for (name, field) in [
        ("es", field::HOST_ES_SELECTOR),
        ("cs", field::HOST_CS_SELECTOR),
        ("ss", field::HOST_SS_SELECTOR),
        ("ds", field::HOST_DS_SELECTOR),
        ("fs", field::HOST_FS_SELECTOR),
        ("gs", field::HOST_GS_SELECTOR),
        ("tr", field::HOST_TR_SELECTOR),
    ] {
        for selector in [0, 1, 2, 3, 4, 8, 9, 0xa, 0xc, 0x10, 0x14, 0xfff8, 0xffff] {
            lab.set(field, selector);
            lab.run(format_args!("{name} {selector:x}"));
        }
    }
    for (name, field) in [
        ("fs base", field::HOST_FS_BASE),
        ("gs base", field::HOST_GS_BASE),
        ("tr base", field::HOST_TR_BASE),
        ("gdtr base", field::HOST_GDTR_BASE),
        ("idtr base", field::HOST_IDTR_BASE),
    ] {
        edges(lab, name, field);
    }
}

/// Each edge in a field.
fn edges(lab: &mut Lab, name: &str, field: Field) {
    for address in EDGES {
        lab.set(field, address);
        lab.run(format_args!("{name} {address:x}"));
    }
}

fn msrs(lab: &mut Lab) {
    edges(lab, "sysenter esp", field::HOST_IA32_SYSENTER_ESP);
    edges(lab, "sysenter eip", field::HOST_IA32_SYSENTER_EIP);
    for bit in 0..32 {
        lab.flip(field::HOST_IA32_SYSENTER_CS, bit);
        lab.run(format_args!("sysenter cs {bit}"));
    }
    for bit in 0..64 {
        lab.flip(field::HOST_IA32_EFER, bit);
        lab.run(format_args!("efer {bit}"));
    }
    lab.flip(field::HOST_IA32_EFER, 8);
    lab.flip(field::HOST_IA32_EFER, 10);
    lab.run(format_args!("efer 8 and 10"));
    let good = lab.get(field::HOST_IA32_PAT);
    for slot in 0..8 {
        for kind in (0..9).chain([0x10, 0x80, 0xff]) {
            lab.set(
                field::HOST_IA32_PAT,
                good & !(0xff << (8 * slot)) | kind << (8 * slot),
            );
            lab.run(format_args!("pat {slot} {kind:x}"));
        }
    }
    for (name, field) in [
        ("perf global", field::HOST_IA32_PERF_GLOBAL_CTRL),
        ("s_cet", field::HOST_IA32_S_CET),
        ("ssp", field::HOST_SSP),
        ("pkrs", field::HOST_IA32_PKRS),
    ] {
        for value in [0, 1, 1 << 32, 1 << 63] {
            lab.set(field, value);
            lab.run(format_args!("{name} {value:x}"));
        }
    }
}

/// The address-space size against CR4, EFER and RIP.
fn address_space(lab: &mut Lab) {
    let size = u64::from(Exit::HOST_ADDRESS_SPACE_SIZE.bits());
    for address in EDGES {
        if address == 0 {
            // L1's own memory starts there, and runs.
            continue;
        }
        lab.set(field::HOST_RIP, address);
        lab.vm.keeps_host_rip = true;
        lab.run(format_args!("rip {address:x}"));
    }
    for (name, cr4, efer) in [
        ("as it is", 0, 0),
        ("PCIDE", 1 << 17, 0),
        ("no PAE", 1 << 5, 0),
        ("no LMA", 0, 1 << 10),
        ("no LME", 0, 1 << 8),
        ("neither", 0, 5 << 8),
    ] {
        for bits in [0, size] {
            let value = lab.get(field::HOST_CR4);
            lab.set(field::HOST_CR4, value ^ cr4);
            let value = lab.get(field::HOST_IA32_EFER);
            lab.set(field::HOST_IA32_EFER, value ^ efer);
            let value = lab.get(field::PRIMARY_VM_EXIT_CONTROLS);
            lab.set(field::PRIMARY_VM_EXIT_CONTROLS, value ^ bits);
            lab.run(format_args!("{name} size^{bits:x}"));
        }
    }
}

//! L2's control registers, debug controls, MSRs, RIP and RFLAGS.
//!
//! SDM "Checks on Guest Control Registers, Debug Registers, and MSRs", "Checks on Guest RIP,
//! RFLAGS, and SSP".

use rt::vmx::vm::Mode;
use umbra_vmcs::controls::{Entry, Proc2};
use umbra_vmcs::field;

use crate::host::EDGES;
use crate::lab::Lab;

const BASES: [(Mode, bool); 5] = [
    (Mode::Long, true),
    (Mode::Prot32, true),
    (Mode::Prot32, false),
    (Mode::Flat32, true),
    (Mode::V86, false),
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (mode, with_ept) in BASES {
        if lab.begin("cr0 cr4", mode, with_ept) {
            control_registers(lab);
            lab.end();
        }
    }
    for (mode, with_ept) in [
        (Mode::Long, true),
        (Mode::Compat, true),
        (Mode::Prot32, true),
        (Mode::V86, false),
        (Mode::Real, true),
    ] {
        if lab.begin("rip rflags", mode, with_ept) {
            rip_rflags(lab);
            lab.end();
        }
    }
    for (mode, with_ept) in [(Mode::Long, true), (Mode::Prot32, false)] {
        if lab.begin("guest msrs", mode, with_ept) {
            msrs(lab);
            lab.end();
        }
    }
    for (mode, with_ept) in [
        (Mode::Long, true),
        (Mode::Prot32, true),
        (Mode::Flat32, true),
    ] {
        if lab.begin("ia-32e", mode, with_ept) {
            ia32e(lab);
            lab.end();
        }
    }
    if lab.begin("cr3", Mode::Long, true) {
        for bit in (0..12).chain(rt::cpu::maxphyaddr()..64) {
            lab.flip(field::GUEST_CR3, bit);
            lab.run(format_args!("{bit}"));
        }
        lab.end();
    }
}

fn control_registers(lab: &mut Lab) {
    for bit in 0..64 {
        lab.flip(field::GUEST_CR0, bit);
        lab.run(format_args!("cr0 {bit}"));
    }
    for bit in 0..64 {
        lab.flip(field::GUEST_CR4, bit);
        lab.run(format_args!("cr4 {bit}"));
    }
    let good = lab.get(field::GUEST_CR0);
    for (name, set, clear) in [
        ("PE and PG clear", 0, 1 << 31 | 1),
        ("PG set, PE clear", 1 << 31, 1),
        ("NW without CD", 1 << 29, 1 << 30),
        ("CD and NW", 3 << 29, 0),
    ] {
        for unrestricted in [0, u64::from(Proc2::UNRESTRICTED_GUEST.bits())] {
            lab.set(field::GUEST_CR0, (good | set) & !clear);
            lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, unrestricted);
            lab.run(format_args!("{name} {unrestricted:x}"));
        }
    }
}

fn rip_rflags(lab: &mut Lab) {
    for bit in 0..64 {
        lab.flip(field::GUEST_RFLAGS, bit);
        lab.run(format_args!("rflags {bit}"));
    }
    for (name, value) in [
        ("VM and IF", 0x2_0202),
        ("VM", 0x2_0002),
        ("all 1", u64::MAX),
        ("0", 0),
    ] {
        lab.set(field::GUEST_RFLAGS, value);
        lab.run(format_args!("rflags {name}"));
    }
    for bit in 0..64 {
        lab.flip(field::GUEST_RIP, bit);
        lab.run(format_args!("rip {bit}"));
    }
    for address in EDGES {
        lab.set(field::GUEST_RIP, address);
        lab.run(format_args!("rip {address:x}"));
    }
    for address in EDGES {
        lab.set(field::GUEST_RSP, address);
        lab.run(format_args!("rsp {address:x}"));
    }
}

fn msrs(lab: &mut Lab) {
    for bit in 0..64 {
        lab.flip(field::GUEST_DR7, bit);
        lab.run(format_args!("dr7 {bit}"));
    }
    lab.set(field::GUEST_DR7, 1 << 63);
    lab.remove(
        field::VM_ENTRY_CONTROLS,
        Entry::LOAD_DEBUG_CONTROLS.bits().into(),
    );
    lab.run(format_args!("dr7 not loaded"));
    // Bits 6 to 10 belong to the debug store, which Umbra hides in CPUID
    // (docs/nested.md): whether they are reserved is not the same question.
    for bit in (0..6).chain(11..64) {
        lab.flip(field::GUEST_IA32_DEBUGCTL, bit);
        lab.run(format_args!("debugctl {bit}"));
    }
    for bit in 0..64 {
        lab.flip(field::GUEST_IA32_EFER, bit);
        lab.run(format_args!("efer {bit}"));
    }
    for (name, field) in [
        ("sysenter esp", field::GUEST_IA32_SYSENTER_ESP),
        ("sysenter eip", field::GUEST_IA32_SYSENTER_EIP),
        ("gdtr base", field::GUEST_GDTR_BASE),
        ("idtr base", field::GUEST_IDTR_BASE),
    ] {
        for address in EDGES {
            lab.set(field, address);
            lab.run(format_args!("{name} {address:x}"));
        }
    }
    for (name, field) in [
        ("gdtr limit", field::GUEST_GDTR_LIMIT),
        ("idtr limit", field::GUEST_IDTR_LIMIT),
    ] {
        for bit in 0..32 {
            lab.flip(field, bit);
            lab.run(format_args!("{name} {bit}"));
        }
    }
    let good = lab.get(field::GUEST_IA32_PAT);
    for slot in 0..8 {
        for kind in (0..9).chain([0x10, 0x80, 0xff]) {
            lab.set(
                field::GUEST_IA32_PAT,
                good & !(0xff << (8 * slot)) | kind << (8 * slot),
            );
            lab.run(format_args!("pat {slot} {kind:x}"));
        }
    }
    for (name, field, control) in [
        ("bndcfgs", field::GUEST_IA32_BNDCFGS, Entry::LOAD_BNDCFGS),
        (
            "perf global",
            field::GUEST_IA32_PERF_GLOBAL_CTRL,
            Entry::LOAD_PERF_GLOBAL_CTRL,
        ),
        ("rtit", field::GUEST_IA32_RTIT_CTL, Entry::LOAD_RTIT_CTL),
        ("s_cet", field::GUEST_IA32_S_CET, Entry::LOAD_CET_STATE),
        ("pkrs", field::GUEST_IA32_PKRS, Entry::LOAD_PKRS),
    ] {
        for value in [0, 1, 4, 1 << 11, 1 << 32, 1 << 63] {
            lab.add(field::VM_ENTRY_CONTROLS, control.bits().into());
            lab.set(field, value);
            lab.run(format_args!("{name} {value:x}"));
        }
    }
}

/// "IA-32e mode guest" against CR0.PG, CR4.PAE, CR4.PCIDE, EFER.LME and EFER.LMA.
fn ia32e(lab: &mut Lab) {
    let control = u64::from(Entry::IA32E_MODE_GUEST.bits());
    let load = u64::from(Entry::LOAD_EFER.bits());
    for set in 0..64u64 {
        let bit = |n: u32| set >> n & 1;
        let value = lab.get(field::VM_ENTRY_CONTROLS) & !(control | load);
        lab.set(
            field::VM_ENTRY_CONTROLS,
            value | (bit(0) * control) | (bit(5) * load),
        );
        let cr0 = lab.get(field::GUEST_CR0) & !(1 << 31);
        lab.set(field::GUEST_CR0, cr0 | bit(1) << 31);
        let cr4 = lab.get(field::GUEST_CR4) & !(1 << 5);
        lab.set(field::GUEST_CR4, cr4 | bit(2) << 5);
        lab.set(field::GUEST_IA32_EFER, bit(3) << 8 | bit(4) << 10);
        lab.run(format_args!("{set:02x}"));
    }
    for set in 0..4u64 {
        let cr4 = lab.get(field::GUEST_CR4) & !(1 << 17 | 1 << 5);
        lab.set(field::GUEST_CR4, cr4 | (set & 1) << 17 | (set >> 1) << 5);
        lab.run(format_args!("PCIDE {} PAE {}", set & 1, set >> 1));
    }
}

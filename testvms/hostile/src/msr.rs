//! MSRs: values that a hypervisor has to refuse, or to keep to L1, or must not care about.

use rt::report;
use rt::vmx::VmxError;
use rt::vmx::insn::write;
use rt::{apic, cpu};
use umbra_vmcs::controls::{Exit, Proc};
use umbra_vmcs::field;

use crate::lab::{Lab, reason};

code64! {
    fn msr_code = "mov ecx, r8d", "mov eax, r9d", "mov rdx, r9", "shr rdx, 32", "wrmsr", "vmcall";
}

const APIC_BASE: u32 = 0x1b;
const PAT: u32 = 0x277;
const DEBUGCTL: u32 = 0x1d9;
const EFER: u32 = 0xc000_0080;
const MTRR_CAP: u32 = 0xfe;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_BASE0: u32 = 0x200;
/// The valid bit of a variable MTRR's mask, the enable bit of the default type.
const MTRR_ON: u64 = 1 << 11;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    each_bit(lab);
    mtrrs(lab);
    apic_base(lab);
    missing(lab);
    unlisted(lab);
    reserved(lab);
    by_l2(lab);
    x2apic(lab);
}

/// Writes an MSR; whether the CPU took it.
fn try_write(msr: u32, value: u64) -> bool {
    let result = rt::vmx_insn!("wrmsr", in("ecx") msr, in("eax") value as u32,
        in("edx") (value >> 32) as u32);
    !matches!(result, Err(VmxError::Fault(_)))
}

/// Reads an MSR, if there is one.
fn try_read(msr: u32) -> Option<u64> {
    let (mut low, mut high) = (0u32, 0u32);
    let result = rt::vmx_insn!("rdmsr", in("ecx") msr, inout("eax") low, inout("edx") high);
    (!matches!(result, Err(VmxError::Fault(_)))).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Every bit of the MSRs that a VMCS holds, inverted, refused or taken, and put back.
fn each_bit(lab: &mut Lab) {
    for msr in [PAT, DEBUGCTL, EFER, 0x174, 0x175, 0x176, 0x1a0, 0x3a, 0x3b] {
        let Some(old) = try_read(msr) else { continue };
        for bit in 0..64 {
            // Single steps on branches, and no way out of 64-bit mode.
            if msr == DEBUGCTL && bit < 2 || msr == EFER && matches!(bit, 8 | 10) {
                continue;
            }
            let is_taken = try_write(msr, old ^ 1 << bit);
            let found = try_read(msr);
            let put_back = try_write(msr, old);
            // IA32_FEATURE_CONTROL is locked; the others go back.
            let is_right =
                found.is_some() && (put_back || msr == 0x3a) && (is_taken || found == Some(old));
            report::check(format_args!("MSR {msr:#x} bit {bit}"), is_right);
        }
        for value in [
            u64::MAX,
            0x0202_0202_0202_0202,
            0x0300,
            0xff00_0000_0000_0000,
        ] {
            if msr != EFER && msr != DEBUGCTL && msr != 0x1a0 {
                let _ = try_write(msr, value);
                let _ = try_write(msr, old);
            }
            report::check(
                format_args!("MSR {msr:#x} {value:#x}"),
                try_read(msr).is_some(),
            );
        }
    }
    for value in [0x2, 0x3, 0x0200, u64::MAX] {
        let is_refused = !try_write(PAT, value);
        report::check(format_args!("PAT {value:#x}"), is_refused);
    }
    lab.sane(format_args!("after each bit"));
}

/// The memory that is hidden, and all memory, becomes uncacheable, by every means there is.
fn mtrrs(lab: &mut Lab) {
    let Some(cap) = try_read(MTRR_CAP) else {
        return;
    };
    let count = (cap & 0xff) as u32;
    let old_type = cpu::rdmsr(MTRR_DEF_TYPE);
    let width = cpu::maxphyaddr();
    let all = (1u64 << width) - 1;
    let ranges = [
        lab.hidden.clone().map_or(0x100_0000..0x200_0000, |h| h),
        0..1 << 31,
        0x10_0000..0x10_1000,
        0..all + 1,
    ];
    for range in ranges {
        for kind in [0u64, 1, 4, 5, 6, 2, 3, 7, 0xff] {
            for pair in 0..count.min(2) {
                let (base, mask) = (MTRR_BASE0 + 2 * pair, MTRR_BASE0 + 2 * pair + 1);
                let old = [cpu::rdmsr(base), cpu::rdmsr(mask)];
                let bytes = (range.end - range.start).next_power_of_two();
                let start = range.start & !(bytes - 1);
                let is_taken = try_write(base, start | kind);
                let is_legal = matches!(kind, 0 | 1 | 4..=6);
                report::check(format_args!("MTRR type {kind:#x}"), is_taken == is_legal);
                let is_on = try_write(mask, (all & !(bytes - 1)) | MTRR_ON);
                report::check(format_args!("MTRR mask {start:#x}"), is_on);
                lab.sane(format_args!("type {kind} from {start:#x}"));
                let is_back = try_write(mask, old[1]) && try_write(base, old[0]);
                report::check(format_args!("MTRR back"), is_back);
            }
        }
    }
    for value in [
        0,
        MTRR_ON,
        MTRR_ON | 1 << 10,
        MTRR_ON | 1 << 10 | 6,
        2,
        0xff,
        u64::MAX,
    ] {
        let _ = try_write(MTRR_DEF_TYPE, value);
        lab.sane(format_args!("default type {value:#x}"));
    }
    let is_back = try_write(MTRR_DEF_TYPE, old_type);
    every_other_page(lab, count, all);
    report::check(format_args!("default type back"), is_back);
    for msr in [0x250u32, 0x258, 0x268, 0x26f] {
        let Some(old) = try_read(msr) else { continue };
        for value in [0, u64::MAX, 0x0606_0606_0606_0606, 0x0602_0606_0606_0606] {
            let _ = try_write(msr, value);
            report::check(
                format_args!("fixed {msr:#x} {value:#x}"),
                try_read(msr).is_some(),
            );
        }
        let is_back = try_write(msr, old);
        report::check(format_args!("fixed {msr:#x} back"), is_back);
    }
    // Reserved bits of bases and masks, each alone.
    let old = [cpu::rdmsr(MTRR_BASE0), cpu::rdmsr(MTRR_BASE0 + 1)];
    for bit in 0..64 {
        for (n, old) in (0..).zip(old) {
            let _ = try_write(MTRR_BASE0 + n, 1 << bit);
            let is_back = try_write(MTRR_BASE0 + n, old);
            report::check(format_args!("MTRR {n} bit {bit}"), is_back);
        }
    }
    lab.sane(format_args!("after the MTRRs"));
}

/// Masks with holes: every other page, block or gibibyte has another type, more than any hypervisor has
/// tables for. What is hidden stays so.
fn every_other_page(lab: &mut Lab, count: u32, all: u64) {
    let masks = [
        1u64 << 12,
        1 << 13 | 1 << 20,
        1 << 20,
        1 << 21,
        1 << 30,
        all & !0xfff & !(1 << 20),
    ];
    for (n, mask) in masks.into_iter().enumerate() {
        let pair = MTRR_BASE0 + 2 * (n as u32 % count.max(1));
        let old = [cpu::rdmsr(pair), cpu::rdmsr(pair + 1)];
        // Uncacheable where the bits of the mask are those of hidden memory.
        let base = lab.hidden.as_ref().map_or(0, |h| h.start) & mask;
        let is_taken = try_write(pair, base) && try_write(pair + 1, mask | MTRR_ON);
        report::check(format_args!("MTRR mask {mask:#x}"), is_taken);
        lab.sane(format_args!("mask {mask:#x}"));
        for place in lab.places().filter(crate::place::Place::is_memory) {
            place.poke(0x140, mask);
            let is_kept = place.peek(0x140) == mask;
            report::check(format_args!("memory at {}", place.name), is_kept);
        }
        let hidden = lab.hidden.clone().unwrap_or(0..0);
        let is_one = crate::void::is_one_page(&hidden);
        report::check(format_args!("hidden under mask {mask:#x}"), is_one);
        let is_back = try_write(pair + 1, old[1]) && try_write(pair, old[0]);
        report::check(format_args!("MTRR back"), is_back);
    }
    lab.sane(format_args!("after the masks"));
}

/// The local APIC over hidden memory, over L2's virtual-APIC page, and back.
fn apic_base(lab: &mut Lab) {
    let old = cpu::rdmsr(APIC_BASE);
    let flags = old & 0xfff;
    let hidden = lab.hidden.clone();
    let virtual_page = rt::page::Page::alloc(1);
    let inside = hidden.clone().map(|h| [h.start, h.end - 4096]);
    for base in inside.into_iter().flatten() {
        let _ = try_write(APIC_BASE, base | flags);
        let is_kept = cpu::rdmsr(APIC_BASE) == old;
        report::check(format_args!("the APIC over hidden memory"), is_kept);
        lab.sane(format_args!("after that"));
    }
    for bit in [0, 1, 2, 3, 4, 5, 6, 7, 9, 52, 63] {
        let _ = try_write(APIC_BASE, old | 1 << bit);
        let _ = try_write(APIC_BASE, old);
        let is_back = cpu::rdmsr(APIC_BASE) == old;
        report::check(format_args!("APIC base bit {bit}"), is_back);
    }
    // On a page that a VMCS names as virtual-APIC page: whose register answers there is the CPU's to say.
    let _ = try_write(APIC_BASE, virtual_page.address() | flags);
    lab.prepare(&msr_code());
    lab.vm.proc(Proc::USE_TPR_SHADOW, Proc::empty());
    write(field::VIRTUAL_APIC_ADDRESS, virtual_page.address());
    write(field::TPR_THRESHOLD, 0);
    lab.vm.registers.r8 = 0x174;
    lab.run(format_args!("the APIC is the virtual-APIC page"));
    let is_back = try_write(APIC_BASE, old) && cpu::rdmsr(APIC_BASE) == old;
    report::check(format_args!("the APIC is back"), is_back);
    lab.sane(format_args!("after the APIC moved"));
}

/// MSRs that the CPU has not, or that no L1 is shown: #GP, or a value that it took and gives again.
fn missing(lab: &mut Lab) {
    for msr in (0x480..=0x4a0)
        .chain(0x560..0x570)
        .chain([
            0x79, 0x8b, 0x9b, 0x9e, 0x3f1, 0x600, 0xcf, 0xed, 0x17d0, 0x6e0,
        ])
        .chain([
            0x2000,
            0x1fff,
            0xc000_2000,
            0xbfff_ffff,
            0x4000_0000,
            0xffff_ffff,
        ])
    {
        let before = try_read(msr);
        for value in [u64::MAX, 1, lab.hidden.as_ref().map_or(4096, |h| h.start)] {
            // The TSC deadline, and the microcode that is not newer.
            let _ = try_write(msr, value);
        }
        if let Some(before) = before {
            let _ = try_write(msr, before);
        }
        let is_right = try_read(msr).is_some() == before.is_some();
        report::check(format_args!("MSR {msr:#x}"), is_right);
    }
    lab.sane(format_args!("after missing MSRs"));
}

/// What L1 is not shown, in each kind: SMRR, the debug store, Intel PT, remote action requests, hardware feedback,
/// last-branch records, microcode, HRESET, power limits, FRED, AMD's, those of hypervisors below, and numbers that mean nothing yet.
const UNLISTED: [u32; 28] = [
    0x11,
    0x12,
    0x4e,
    0x7b,
    0xed,
    0xf0,
    0x1f2,
    0x1f3,
    0x3f1,
    0x560,
    0x58f,
    0x600,
    0x606,
    0x610,
    0x700,
    0x1200,
    0x1406,
    0x14ce,
    0x17d0,
    0x1900,
    0x17da,
    0x1fff,
    0x2000,
    0x4000_0000,
    0x4b56_4d01,
    0xc000_01cc,
    0xc001_0114,
    0xffff_ffff,
];

/// #GP for each, to L1 and to an L2 that may reach every MSR. The bare machine answers as it likes.
fn unlisted(lab: &mut Lab) {
    if lab.hidden.is_none() {
        return;
    }
    for msr in UNLISTED {
        let is_hidden = try_read(msr).is_none() && !try_write(msr, 0);
        report::check(format_args!("MSR {msr:#x} is hidden"), is_hidden);
        lab.prepare(&msr_code());
        lab.vm.registers.r8 = msr.into();
        let what = format_args!("L2 writes {msr:#x}, which is hidden");
        lab.expect(what, &[reason::EXCEPTION, reason::WRMSR]);
    }
    lab.sane(format_args!("after unlisted MSRs"));
}

/// Bits that are reserved now, of MSRs that L1 has for the others. The bare machine answers as it likes.
fn reserved(lab: &mut Lab) {
    if lab.hidden.is_none() {
        return;
    }
    for (msr, bits) in [(0x33u32, 28..29u32), (0x1b01, 1..64)] {
        for bit in bits {
            let is_refused = !try_write(msr, 1 << bit);
            report::check(format_args!("MSR {msr:#x} bit {bit}"), is_refused);
        }
    }
    lab.sane(format_args!("after reserved bits"));
}

/// The same writes by an L2 that its hypervisor lets write every MSR.
fn by_l2(lab: &mut Lab) {
    let hidden = lab.hidden.as_ref().map_or(u64::MAX, |h| h.start);
    let base = cpu::rdmsr(APIC_BASE);
    for (msr, value) in [
        (PAT, 0x02),
        (PAT, u64::MAX),
        (DEBUGCTL, u64::MAX),
        (EFER, u64::MAX),
        (EFER, 0),
        (APIC_BASE, hidden | 0x900),
        (MTRR_BASE0, hidden),
        (MTRR_DEF_TYPE, 0xff),
        (0x79, hidden),
        (0x3a, 0),
        (0x480, u64::MAX),
        (0x560, hidden),
        (0x600, hidden),
        (0x17d0, hidden),
        (0x1a0, u64::MAX),
        (0xc000_0082, 1 << 47),
        (0xc000_0100, 1 << 47),
        (0x830, u64::MAX),
        (0xffff_ffff, 0),
        (0x2000, 0),
    ] {
        let old = try_read(msr);
        lab.prepare(&msr_code());
        lab.vm
            .exit_controls(Exit::SAVE_EFER | Exit::LOAD_EFER, Exit::empty());
        lab.vm.registers.r8 = msr.into();
        lab.vm.registers.r9 = value;
        let what = format_args!("L2 writes {value:#x} to {msr:#x}");
        let reasons = [
            reason::VMCALL,
            reason::EXCEPTION,
            reason::WRMSR,
            reason::TRIPLE_FAULT,
        ];
        lab.expect(what, &reasons);
        if let Some(old) = old.filter(|_| !matches!(msr, 0x79 | 0x830)) {
            let _ = try_write(msr, old);
        }
        let is_kept = cpu::rdmsr(APIC_BASE) == base;
        report::check(format_args!("the APIC stays"), is_kept);
    }
    lab.sane(format_args!("after L2's MSRs"));
}

/// The x2APIC's registers: reserved bits of every one, commands to nobody.
fn x2apic(lab: &mut Lab) {
    if cpu::cpuid(1, 0).ecx & 1 << 21 == 0 {
        return;
    }
    apic::enable();
    apic::enter_x2apic();
    let is_on = cpu::rdmsr(APIC_BASE) & apic::X2APIC != 0;
    report::check(format_args!("x2APIC mode"), is_on);
    for msr in 0x800..=0x83f {
        let old = try_read(msr);
        for bit in 12..64 {
            // Commands are sent by the next loop; SELF IPI has a vector alone.
            if msr != 0x830 {
                let _ = try_write(msr, 1 << bit);
            }
        }
        if let Some(old) = old.filter(|_| msr != 0x830) {
            let _ = try_write(msr, old);
        }
        report::check(
            format_args!("x2APIC {msr:#x}"),
            try_read(msr).is_some() == old.is_some(),
        );
    }
    // Reserved bits and modes, to an id that nobody has.
    for low in [
        1u64 << 13,
        1 << 16,
        1 << 17,
        1 << 20,
        1 << 31,
        0x300,
        0x700,
        0x4500,
        0x4600,
        0x8500,
    ] {
        let _ = try_write(0x830, 0x77 << 32 | low);
        report::check(format_args!("ICR {low:#x}"), try_read(0x830).is_some());
    }
    // INIT to itself by MSR; the next L2 exits for it.
    let id = cpu::rdmsr(0x802);
    let _ = try_write(0x830, id << 32 | 0x4500);
    lab.prepare(&msr_code());
    lab.vm.registers.r8 = 0x174;
    lab.expect(format_args!("INIT by MSR"), &[reason::INIT]);
    // Back to xAPIC mode without going through off, and off: refused, or not to be had again.
    let on = cpu::rdmsr(APIC_BASE);
    let is_refused = !try_write(APIC_BASE, on & !apic::X2APIC);
    report::check(format_args!("x2APIC to xAPIC"), is_refused);
    for hidden in lab
        .hidden
        .clone()
        .into_iter()
        .flat_map(|h| [h.start, h.end - 4096])
    {
        let _ = try_write(APIC_BASE, hidden | on & 0xfff);
        let is_kept = cpu::rdmsr(APIC_BASE) == on;
        report::check(
            format_args!("the x2APIC's page over hidden memory"),
            is_kept,
        );
    }
    lab.sane(format_args!("in x2APIC mode"));
}

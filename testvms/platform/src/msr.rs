//! MSRs: a scan of all numbers, then those that systems write, value by value.
//!
//! SDM "Model-Specific Registers (MSRs)".

use rt::case;
use rt::cpu::{self, maxphyaddr};

use crate::probe::{Shown, rdmsr, try_msr, wrmsr};

const TSC: u32 = 0x10;
const FEATURE_CONTROL: u32 = 0x3a;
const TSC_ADJUST: u32 = 0x3b;
const UPDATE_TRIGGER: u32 = 0x79;
const UPDATE_SIGNATURE: u32 = 0x8b;
const EFER: u32 = 0xc000_0080;

/// Not compared: time, what VMX offers (whose values are a test of their own), the APIC (also a test
/// of its own).
fn is_compared(msr: u32) -> bool {
    !matches!(
        msr,
        TSC | 0xe7 | 0xe8 | 0x480..=0x493 | 0x6e0 | 0x800..=0x8ff
    )
}

/// Every number of these ranges is read.
const RANGES: [(u32, u32); 6] = [
    (0, 0x2100),
    (0x4000_0000, 0x4000_0100),
    (0xbfff_ff00, 0xc000_0000),
    (0xc000_0000, 0xc000_2100),
    (0xc001_0000, 0xc001_0200),
    (0xffff_ff00, u32::MAX),
];

/// Numbers that every L1 is shown, whatever the CPU has: an MSR of these that faults does so on the bare machine
/// as well.
const SHOWN: [(u32, u32); 22] = [
    (0x10, 0x11),
    (0x1b, 0x1c),
    (0x3a, 0x3c),
    (0x48, 0x4a),
    (0x8b, 0x8c),
    (0xc1, 0xc5),
    (0xe7, 0xe9),
    (0xfe, 0xff),
    (0x10f, 0x110),
    (0x174, 0x177),
    (0x179, 0x17b),
    (0x198, 0x19d),
    (0x1f8, 0x1fb),
    (0x200, 0x210),
    (0x268, 0x270),
    (0x277, 0x278),
    (0x400, 0x480),
    (0x500, 0x501),
    (0x6a0, 0x6a3),
    (0x770, 0x778),
    (0x1b01, 0x1b02),
    (0xc000_0080, 0xc000_0085),
];

/// Bochs answers 0 for MSRs that it has not, and Umbra hides those that are not on its list: only the others'
/// faults are compared, and every value.
fn scan() {
    for (start, end) in RANGES {
        for msr in (start..end).filter(|msr| is_compared(*msr)) {
            match rdmsr(msr) {
                Ok(0) | Err(_) => {}
                Ok(value) => case!("msr {msr:x} holds {value:x}"),
            }
        }
    }
    for (start, end) in SHOWN {
        let faults = (start..end).filter(|msr| rdmsr(*msr).is_err()).count();
        case!("msr {start:x} to {end:x}: {faults} fault");
    }
}

fn attempt(name: &str, msr: u32, value: u64) {
    // SAFETY: see `run`: the MSRs tried mean nothing to the code that runs.
    let after = unsafe { try_msr(msr, value) };
    case!("{name} <- {value:x}: {}", Shown(after));
}

/// Tries all of them.
pub fn run() {
    scan();
    // What SYSENTER, SYSCALL and SWAPGS load; FS and GS base, which the code here does not use.
    for (name, msr) in [
        ("SYSENTER_CS", 0x174),
        ("SYSENTER_ESP", 0x175),
        ("SYSENTER_EIP", 0x176),
        ("STAR", 0xc000_0081),
        ("LSTAR", 0xc000_0082),
        ("CSTAR", 0xc000_0083),
        ("FMASK", 0xc000_0084),
        ("FS_BASE", 0xc000_0100),
        ("GS_BASE", 0xc000_0101),
        ("KERNEL_GS_BASE", 0xc000_0102),
        ("TSC_AUX", 0xc000_0103),
    ] {
        for value in [
            0x10,
            0x1234_5678,
            0xffff_8000_0000_0000,
            0x8000_0000_0000,
            0x1234_5678_9abc_def0,
            u64::MAX,
        ] {
            attempt(name, msr, value);
        }
    }
    for bit in 0..64 {
        // BTF (bit 1) and LBR (bit 0) do nothing without TF and branches that are looked at.
        attempt("DEBUGCTL", 0x1d9, 1 << bit);
    }
    for bit in 0..64 {
        attempt("XSS", 0xda0, 1 << bit);
    }
    attempt("XSS", 0xda0, u64::MAX);
    for (name, msr) in [
        ("SPEC_CTRL", 0x48),
        ("PRED_CMD", 0x49),
        ("FLUSH_CMD", 0x10b),
        ("TSX_CTRL", 0x122),
        ("UMWAIT_CONTROL", 0xe1),
        ("PKRS", 0x6e1),
        ("U_CET", 0x6a0),
        ("S_CET", 0x6a2),
        ("PL0_SSP", 0x6a4),
    ] {
        for value in [0, 1, 2, 4, 1 << 32, u64::MAX] {
            attempt(name, msr, value);
        }
    }
    efer();
    feature_control();
    microcode();
    time();
}

fn efer() {
    let before = cpu::rdmsr(EFER);
    case!("EFER holds {before:x}");
    for bit in 0..64 {
        // SAFETY: SCE and NXE change nothing here; the others fault or are ignored in long mode.
        let after = unsafe { try_msr(EFER, before ^ 1 << bit) };
        case!("EFER bit {bit}: {}", Shown(after));
    }
}

fn feature_control() {
    let before = rdmsr(FEATURE_CONTROL);
    case!("FEATURE_CONTROL holds {}", Shown(before));
    for value in [8, 1 << 32, 4, 5, 5, 4, 0, 1, 7] {
        // SAFETY: allows or forbids VMXON; locked with VMX on before VMXON is tried.
        let done = unsafe { wrmsr(FEATURE_CONTROL, value) };
        case!(
            "FEATURE_CONTROL <- {value:x}: {}, then {}",
            Shown(done.map(|()| 0)),
            Shown(rdmsr(FEATURE_CONTROL))
        );
    }
}

/// An update that the CPU would refuse anyway, were it to look at it.
fn microcode() {
    let page = rt::page::Page::alloc(1);
    let revision = || {
        // SAFETY: what the SDM has software do before CPUID stores the signature.
        let cleared = unsafe { wrmsr(UPDATE_SIGNATURE, 0) };
        let _ = cpu::cpuid(1, 0);
        (cleared, rdmsr(UPDATE_SIGNATURE))
    };
    let (cleared, before) = revision();
    case!(
        "microcode revision: {}, {}",
        Shown(cleared.map(|()| 0)),
        Shown(before)
    );
    // SAFETY: the data has no valid header.
    let done = unsafe { wrmsr(UPDATE_TRIGGER, page.address() + 48) };
    let (_, after) = revision();
    case!(
        "microcode update: {}, revision as before: {}",
        Shown(done.map(|()| 0)),
        before == after
    );
}

/// The time-stamp counter, by differences that hold on any machine.
fn time() {
    let (a, b) = (cpu::tsc(), cpu::tsc());
    case!("TSC moves: {}", b > a);
    let far = 1 << 50;
    // SAFETY: nothing here depends on the time.
    let done = unsafe { wrmsr(TSC, far) };
    let now = cpu::tsc();
    case!(
        "TSC <- {far:x}: {}, near it: {}",
        Shown(done.map(|()| 0)),
        now >= far && now < far + (1 << 32)
    );
    // SAFETY: as above.
    let done = unsafe { wrmsr(TSC, 0) };
    case!(
        "TSC <- 0: {}, near it: {}",
        Shown(done.map(|()| 0)),
        cpu::tsc() < 1 << 32
    );
    if cpu::cpuid(7, 0).ebx & 2 == 0 {
        case!("TSC_ADJUST: not offered");
        return;
    }
    // SAFETY: as above.
    let zeroed = unsafe { wrmsr(TSC_ADJUST, 0) };
    let before = cpu::tsc();
    // SAFETY: as above.
    let done = unsafe { wrmsr(TSC_ADJUST, far) };
    let moved = cpu::tsc().wrapping_sub(before);
    case!(
        "TSC_ADJUST: {} {} reads {}, TSC moved with it: {}",
        Shown(zeroed.map(|()| 0)),
        Shown(done.map(|()| 0)),
        Shown(rdmsr(TSC_ADJUST)),
        moved >= far && moved < far + (1 << 32)
    );
    // SAFETY: as above.
    let _ = unsafe { wrmsr(TSC_ADJUST, 0) };
    case!("physical-address bits: {}", maxphyaddr());
}

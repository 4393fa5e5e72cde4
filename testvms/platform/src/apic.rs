//! IA32_APIC_BASE: reserved bits, relocation, the x2APIC mode and its registers.
//!
//! SDM "Advanced Programmable Interrupt Controller (APIC)", "x2APIC State Transitions".

use rt::case;
use rt::cpu::{self, cpuid, maxphyaddr};

use crate::probe::{Shown, rdmsr, try_msr, wrmsr};

const BASE: u32 = 0x1b;
const ENABLED: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
/// Where nothing else answers.
const ELSEWHERE: u64 = 0xd000_0000;

fn register(base: u64, offset: u64) -> u32 {
    // SAFETY: the first 4 GiB are mapped, and reading these registers has no effect.
    unsafe { ((base + offset) as *const u32).read_volatile() }
}

fn set_register(base: u64, offset: u64, value: u32) {
    // SAFETY: as above; the task priority holds back interrupts, which are off anyway.
    unsafe { ((base + offset) as *mut u32).write_volatile(value) };
}

/// Tries them; the APIC is off afterwards.
pub fn run() {
    if cpuid(1, 0).edx & 1 << 9 == 0 {
        case!("apic: not offered");
        return;
    }
    let before = cpu::rdmsr(BASE);
    case!("apic base: {before:x}");
    for bit in (0..64).filter(|bit| !(10..32).contains(bit)) {
        // SAFETY: no interrupt is expected, so the APIC may be anywhere; it is put back.
        let after = unsafe { try_msr(BASE, before ^ 1 << bit) };
        // The width of physical addresses is the CPU's own.
        case!("apic base, bit {bit}: {}", Shown(after));
    }
    case!("apic base, address bits: {}", maxphyaddr());
    let here = before & 0xffff_f000;
    for offset in [
        0x20, 0x30, 0x80, 0xd0, 0xe0, 0xf0, 0x320, 0x350, 0x360, 0x370, 0x3e0,
    ] {
        case!("apic {offset:x}: {:x}", register(here, offset));
    }
    set_register(here, 0x80, 0x70);
    case!("apic priority by CR8: {:x}", cpu::cr8());
    // SAFETY: task priority 0.
    unsafe { cpu::set_cr8(0) };
    case!("apic priority: {:x}", register(here, 0x80));

    // SAFETY: as above.
    let moved = unsafe { wrmsr(BASE, ELSEWHERE | before & 0xfff) };
    case!(
        "apic moved: {}, base {}, version {:x}",
        Shown(moved.map(|()| 0)),
        Shown(rdmsr(BASE)),
        register(ELSEWHERE, 0x30)
    );
    set_register(ELSEWHERE, 0x80, 0x50);
    case!("apic moved, priority by CR8: {:x}", cpu::cr8());
    set_register(ELSEWHERE, 0x80, 0);
    // SAFETY: as above.
    let back = unsafe { wrmsr(BASE, before) };
    case!(
        "apic back: {}, base {}, version {:x}",
        Shown(back.map(|()| 0)),
        Shown(rdmsr(BASE)),
        register(here, 0x30)
    );
    if cpuid(1, 0).ecx & 1 << 21 == 0 {
        case!("x2apic: not offered");
        return;
    }
    x2apic(before);
}

fn transition(name: &str, value: u64) {
    // SAFETY: no interrupt is expected.
    let done = unsafe { wrmsr(BASE, value) };
    case!(
        "{name}: {}, then {}",
        Shown(done.map(|()| 0)),
        Shown(rdmsr(BASE))
    );
}

fn x2apic(base: u64) {
    case!("x2apic register in xAPIC mode: {}", Shown(rdmsr(0x802)));
    transition("x2APIC without enable", base & !ENABLED | X2APIC);
    transition("xAPIC to x2APIC", base | X2APIC);
    transition("x2APIC to xAPIC", base);
    transition("x2APIC to invalid", base & !ENABLED | X2APIC);
    for msr in (0x800..0x900).filter(|msr| *msr != 0x839) {
        match rdmsr(msr) {
            Ok(value) => case!("x2apic {msr:x}: {value:x}"),
            Err(fault) if msr < 0x840 => case!("x2apic {msr:x}: {fault}"),
            Err(_) => {}
        }
    }
    for (msr, value) in [
        (0x808, 0x70),
        (0x808, 0x100),
        (0x808, 1 << 32),
        (0x802, 0),
        (0x803, 0),
        (0x80d, 0),
        (0x80f, 0x1ff),
        (0x80f, 1 << 13),
        (0x828, 0),
        (0x828, 1),
        (0x83e, 0xb),
        (0x83e, 0x10),
    ] {
        // SAFETY: these hold no interrupt back that is expected.
        let done = unsafe { wrmsr(msr, value) };
        case!("x2apic {msr:x} <- {value:x}: {}", Shown(done.map(|()| 0)));
    }
    case!("x2apic priority by CR8: {:x}", cpu::cr8());
    // SAFETY: task priority 0.
    unsafe { cpu::set_cr8(0) };
    case!("x2apic priority: {}", Shown(rdmsr(0x808)));
    transition("x2APIC to off", base & !ENABLED);
    case!("cpuid APIC when off: {}", cpuid(1, 0).edx >> 9 & 1);
    // What a kernel does that puts its APIC into a known state. Bochs leaves it off.
    transition("off to x2APIC", base | X2APIC);
    transition("off to xAPIC", base);
    case!("cpuid APIC after it: {}", cpuid(1, 0).edx >> 9 & 1);
    let here = base & 0xffff_f000;
    for offset in [0x20, 0x30, 0xf0] {
        case!("apic {offset:x}: {:x}", register(here, offset));
    }
}

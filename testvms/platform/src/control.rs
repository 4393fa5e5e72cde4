//! CR0, CR3 and CR4 bit by bit, in 64-bit mode; LMSW, SMSW, CLTS.
//!
//! SDM "Control Registers", "MOV - Move to/from Control Registers", and for VMX operation
//! "Restrictions on VMX Operation".

use core::arch::asm;
use rt::case;

use rt::cpu::{self, maxphyaddr};
use rt::trap;

use crate::probe::{Shown, try_cr0, try_cr3, try_cr4};

/// CR4.SMXE: no guest can have it, and it is not compared.
const SMXE: u32 = 14;

/// Tries each bit of each register; `place` says where, in the transcript.
pub fn run(place: &str) {
    case!("cr0 {place}: {:x}", cpu::cr0());
    let before = cpu::cr0();
    for bit in 0..64 {
        // SAFETY: clearing PE or PG in 64-bit mode faults, and no other bit takes the mode away;
        // `try_cr0` restores the register before anything else runs.
        let after = unsafe { try_cr0(before ^ 1 << bit) };
        case!("cr0 {place}, bit {bit}: {}", Shown(after));
    }
    for change in [
        // CD and NW together; NW with CD and NE; MP, EM, TS together; NE, WP, AM together.
        0x6000_0000,
        0x6000_0020,
        0x0e,
        0x5_0020,
        0x8000_0001,
        0x8000_0021,
    ] {
        // SAFETY: as above.
        let after = unsafe { try_cr0(before ^ change) };
        case!("cr0 {place}, change {change:x}: {}", Shown(after));
    }
    for source in 0..16 {
        case!("lmsw {place} {source:x}: {:x}", lmsw(source));
    }
    case!("lmsw {place} fff0: {:x}", lmsw(0xfff0));
    let (ts, after) = clts();
    case!("clts {place}: TS {ts:x}, then {after:x}");
    let before = cpu::cr3();
    for change in [1, 8, 0x10, 0x18, 0xfe7] {
        // SAFETY: the low bits are caching bits of the root table or ignored.
        let after = unsafe { try_cr3(before | change) }.map(|after| after ^ before);
        case!("cr3 {place}, change {change:x}: {}", Shown(after));
    }
    for bit in [maxphyaddr(), 52, 61, 62, 63] {
        // SAFETY: reserved, so that it faults; 61 to 63 mean nothing without PCIDs and LAM.
        let after = unsafe { try_cr3(before | 1 << bit) }.map(|after| after ^ before);
        case!("cr3 {place}, bit {bit}: {}", Shown(after));
    }
    let before = cpu::cr4();
    case!("cr4 {place}: {before:x}");
    for bit in (0..64).filter(|bit| *bit != SMXE) {
        // SAFETY: clearing PAE and changing LA57 fault in 64-bit mode; no other bit takes the mode
        // or supervisor-mode pages away; restored before anything else runs.
        let after = unsafe { try_cr4(before ^ 1 << bit) };
        case!("cr4 {place}, bit {bit}: {}", Shown(after));
    }
    // SAFETY: as above.
    let after = unsafe { try_cr4(before ^ 0x2_0080) };
    case!("cr4 {place}, PGE and PCIDE: {}", Shown(after));
}

/// CR0 after LMSW; restored at once.
fn lmsw(source: u16) -> u64 {
    let (after, by_smsw): (u64, u64);
    // SAFETY: LMSW cannot clear PE; the register is restored before anything else runs.
    unsafe {
        asm!("mov {before}, cr0", "lmsw {source:x}", "mov {after}, cr0", "smsw {smsw}",
            "mov cr0, {before}",
            before = out(reg) _, source = in(reg) source, after = out(reg) after,
            smsw = out(reg) by_smsw, options(nostack));
    }
    assert!(
        trap::take().is_none() && by_smsw & 0xffff == after & 0xffff,
        "SMSW {by_smsw:#x} and CR0 {after:#x} differ"
    );
    after
}

/// TS after it was set, and after CLTS.
fn clts() -> (u64, u64) {
    let (set, cleared): (u64, u64);
    // SAFETY: the register is restored before anything else runs.
    unsafe {
        asm!("mov {before}, cr0", "mov {set}, {before}", "or {set}, 8", "mov cr0, {set}",
            "mov {set}, cr0", "clts", "mov {cleared}, cr0", "mov cr0, {before}",
            before = out(reg) _, set = out(reg) set, cleared = out(reg) cleared,
            options(nostack));
    }
    (set & 8, cleared & 8)
}

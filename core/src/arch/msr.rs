//! RDMSR and WRMSR, with and without a net.

use crate::fixup_row;
use core::arch::asm;

pub use umbra_arch::msr::*;

/// Reads an MSR that this CPU is known to have.
pub fn read(index: u32) -> u64 {
    match read_safe(index) {
        Some(value) => value,
        None => panic!("RDMSR {index:#x} raised #GP"),
    }
}

/// Writes an MSR that this CPU is known to have, a value that it takes.
///
/// # Safety
/// The new value must not pull the ground from under L0 (EFER, PAT and the
/// like).
pub unsafe fn write(index: u32, value: u64) {
    // SAFETY: handed on to the caller.
    if !unsafe { write_safe(index, value) } {
        panic!("WRMSR {index:#x} of {value:#x} raised #GP");
    }
}

/// Reads an MSR; `None` when the CPU answers with #GP.
pub fn read_safe(index: u32) -> Option<u64> {
    let (low, high, failed): (u32, u32, u32);
    // SAFETY: RDMSR touches no memory; its #GP lands at 3 with `failed` = 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: rdmsr",
            "mov {failed:e}, 0",
            "3:",
            fixup_row!(),
            failed = out(reg) failed,
            in("ecx") index,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    (failed == 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Writes an MSR; `false` when the CPU answers with #GP.
///
/// # Safety
/// As [`write`]: the caller vouches for what the value does to L0.
pub unsafe fn write_safe(index: u32, value: u64) -> bool {
    let failed: u32;
    // SAFETY: what the value does is the caller's promise; a #GP lands at 3
    // with `failed` = 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: wrmsr",
            "mov {failed:e}, 0",
            "3:",
            fixup_row!(),
            failed = out(reg) failed,
            in("ecx") index,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
    failed == 0
}

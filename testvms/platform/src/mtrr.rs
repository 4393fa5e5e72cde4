//! MTRRs and PAT: what can be written reads back, what is reserved causes #GP.
//!
//! SDM "Memory Type Range Registers (MTRRs)", "Page Attribute Table (PAT)".

use rt::case;
use rt::cpu::{self, maxphyaddr};

use crate::probe::{Shown, rdmsr, try_msr, wrmsr};

const CAPABILITY: u32 = 0xfe;
const DEFAULT_TYPE: u32 = 0x2ff;
const FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];
const PAT: u32 = 0x277;

fn attempt(name: &str, msr: u32, value: u64) {
    // SAFETY: memory types change no meaning of memory, and this is the only CPU that runs.
    let after = unsafe { try_msr(msr, value) };
    case!("{name} {msr:x} <- {value:x}: {}", Shown(after));
}

/// Tries all of them.
pub fn run() {
    if cpu::cpuid(1, 0).edx & 1 << 12 == 0 {
        case!("mtrr: not offered");
        return;
    }
    let capability = cpu::rdmsr(CAPABILITY);
    case!("mtrr capability: {capability:x}");
    // SAFETY: read-only, so it faults.
    let written = unsafe { wrmsr(CAPABILITY, capability) };
    case!("mtrr capability <-: {}", Shown(written.map(|()| 0)));
    let pairs = (capability & 0xff) as u32;
    let all = (0x200..0x200 + 2 * pairs)
        .chain(FIXED)
        .chain([DEFAULT_TYPE]);
    for msr in all.clone() {
        case!("mtrr {msr:x} holds {}", Shown(rdmsr(msr)));
    }
    for kind in 0..=8 {
        attempt("default type", DEFAULT_TYPE, kind);
        attempt("default type", DEFAULT_TYPE, 0xc00 | kind);
    }
    for bit in 8..64 {
        attempt("default type", DEFAULT_TYPE, 1 << bit | 6);
    }
    for msr in FIXED {
        for value in [0, 0x0606_0606_0606_0606, 0x0405_0601_0004_0506] {
            attempt("fixed", msr, value);
        }
        for position in 0..8 {
            for kind in [2, 3, 7, 8, 0xff] {
                attempt("fixed", msr, kind << (8 * position));
            }
        }
    }
    variable(pairs);
    let before = cpu::rdmsr(PAT);
    case!("pat holds {before:x}");
    for position in 0..8 {
        for kind in 0..=8u64 {
            let value = before & !(0xff << (8 * position)) | kind << (8 * position);
            attempt("pat", PAT, value);
        }
    }
    attempt("pat", PAT, u64::MAX);
    // All of them still hold what they held.
    let sum = all.fold(0u64, |sum, msr| {
        sum.rotate_left(7) ^ rdmsr(msr).unwrap_or(u64::MAX)
    });
    case!("mtrr after all that: {sum:x}");
}

fn variable(pairs: u32) {
    let width = maxphyaddr();
    for pair in 0..pairs {
        let (base, mask) = (0x200 + 2 * pair, 0x201 + 2 * pair);
        attempt("base", base, 0x8000_0006);
        attempt("mask", mask, 0x0f_8000_0800);
        if pair > 0 {
            continue;
        }
        for bit in 0..12 {
            attempt("base", base, 0x1000_0000 | 1 << bit);
            attempt("mask", mask, 0x0f_f000_0000 | 1 << bit);
        }
        for bit in [width - 1, width, 51, 52, 62, 63] {
            attempt("base", base, 1 << bit | 6);
            attempt("mask", mask, 1 << bit | 0x800);
        }
        for kind in 0..=8 {
            attempt("base", base, 0x4000_0000 | kind);
        }
    }
    for msr in [0x200 + 2 * pairs, 0x201 + 2 * pairs, 0x251, 0x26f + 1] {
        // Bochs answers 0 where a CPU faults.
        case!(
            "mtrr {msr:x} beyond holds nothing: {}",
            matches!(rdmsr(msr), Ok(0) | Err(_))
        );
    }
}

//! XSETBV: every value that it refuses, and those it takes.
//!
//! SDM "XSETBV - Set Extended Control Register", "The XSAVE-Managed Features".

use rt::case;
use rt::cpu;

use crate::probe::{Shown, xgetbv, xsetbv};

const OSXSAVE: u64 = 1 << 18;

/// Tries them; `place` says where, in the transcript.
pub fn run(place: &str) {
    if cpu::cpuid(1, 0).ecx & 1 << 26 == 0 {
        case!("xsetbv {place}: not offered");
        return;
    }
    let cr4 = cpu::cr4();
    // SAFETY: allows XSETBV and XGETBV, or not.
    unsafe { cpu::set_cr4(cr4 & !OSXSAVE) };
    // SAFETY: #UD.
    let without = unsafe { xsetbv(0, 1) };
    case!(
        "xsetbv {place} without OSXSAVE: {}, xgetbv {}",
        Shown(without.map(|()| 0)),
        Shown(xgetbv(0))
    );
    // SAFETY: as above.
    unsafe { cpu::set_cr4(cr4 | OSXSAVE) };
    let before = xgetbv(0);
    case!("xcr0 {place} holds {}", Shown(before));
    let singles = (0..64).map(|bit| 1 << bit);
    let with_x87 = (0..64).map(|bit| 1 | 1 << bit);
    let with_sse = (0..64).map(|bit| 7 | 1 << bit);
    let others = [
        0,
        3,
        5,
        6,
        7,
        0xe7,
        0xe6,
        0xe3,
        0x67,
        0xa7,
        0xc7,
        0x1f,
        0xff,
        u64::MAX,
    ];
    for value in singles.chain(with_x87).chain(with_sse).chain(others) {
        // SAFETY: XCR0 does not govern the SSE instructions that the compiler uses.
        let done = unsafe { xsetbv(0, value) };
        case!(
            "xsetbv {place} {value:x}: {}, then {}",
            Shown(done.map(|()| 0)),
            Shown(xgetbv(0))
        );
        // SAFETY: x87 state alone, as after reset.
        let _ = unsafe { xsetbv(0, 1) };
    }
    for index in [1, 2, 0x8000_0000, u32::MAX] {
        // SAFETY: no such register: #GP.
        let done = unsafe { xsetbv(index, 1) };
        case!(
            "xsetbv {place} register {index:x}: {}",
            Shown(done.map(|()| 0))
        );
    }
    if let Ok(before) = before {
        // SAFETY: as it was.
        let _ = unsafe { xsetbv(0, before) };
    }
    // SAFETY: as it was.
    unsafe { cpu::set_cr4(cr4) };
}

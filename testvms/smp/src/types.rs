//! MTRRs and PAT: each CPU has its own.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use rt::case;

use rt::cpu::{rdmsr, wrmsr};

use crate::Others;

const PAT: u32 = 0x277;
const DEFAULT_TYPE: u32 = 0x2ff;
const BASE_0: u32 = 0x200;

static SEEN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static BEFORE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
const REGISTERS: [u32; 3] = [PAT, DEFAULT_TYPE, BASE_0];
const OTHERS: [u64; 3] = [0x0007_0406_0007_0400, 0xc00, 0x5555_0006];

fn change(_: usize) {
    for ((before, register), value) in BEFORE.iter().zip(REGISTERS).zip(OTHERS) {
        before.store(rdmsr(register), SeqCst);
        // SAFETY: memory types change no meaning of memory; the values are valid.
        unsafe { wrmsr(register, value) };
    }
}

fn look(_: usize) {
    for (seen, register) in SEEN.iter().zip(REGISTERS) {
        seen.store(rdmsr(register), SeqCst);
    }
}

fn put_back(_: usize) {
    for (before, register) in BEFORE.iter().zip(REGISTERS) {
        // SAFETY: as they were.
        unsafe { wrmsr(register, before.load(SeqCst)) };
    }
}

/// One CPU changes its own, and nobody else's change.
pub fn run(others: &Others) {
    let own = REGISTERS.map(rdmsr);
    let first = others.first();
    case!("types changed on one: {}", first.run(change));
    case!("types as they were here: {}", own == REGISTERS.map(rdmsr));
    for cpu in others.iter() {
        let done = cpu.run(look);
        let seen: [u64; 3] = [0, 1, 2].map(|n: usize| SEEN[n].load(SeqCst));
        case!("types of cpu {}: {done} {seen:x?}", cpu.index);
    }
    case!("types put back: {}", first.run(put_back));
}

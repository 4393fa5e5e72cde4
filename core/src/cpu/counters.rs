//! The ledger: every VM exit counted, by CPU, level, reason and why.

use core::sync::atomic::{AtomicU64, Ordering};
use umbra_ept::ept02::Counters;

/// Who was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Level {
    /// L1.
    L1,
    /// L2.
    L2,
}

/// Why the exit happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Why {
    /// L1 asked for it: its own control bits, or an instruction of VMX.
    L1Asked,
    /// L0 needs it.
    L0Needs,
    /// ept01 or ept02 had no entry yet.
    CacheMiss,
}

const LEVELS: usize = 2;
const WHYS: usize = 3;
/// Reasons have numbers below this; the last row is for those that do not.
pub const REASONS: usize = 81;

/// One CPU's counters. Only that CPU writes them.
#[derive(Debug)]
pub struct Ledger {
    counts: [[[AtomicU64; WHYS]; REASONS]; LEVELS],
}

impl Ledger {
    /// Counts one exit.
    #[inline]
    pub fn count(&self, level: Level, reason: u16, why: Why) {
        let row = usize::from(reason).min(REASONS - 1);
        let counter = &self.counts[level as usize][row][why as usize];
        // One writer: no locked instruction is needed.
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    /// How many there were; `row` is below [`REASONS`].
    pub fn get(&self, level: Level, row: usize, why: Why) -> u64 {
        self.counts[level as usize][row][why as usize].load(Ordering::Relaxed)
    }
}

/// The counters of one CPU's ept02 caches, in the order of [`EPT02_NAMES`].
#[derive(Debug)]
pub struct Ept02Ledger([AtomicU64; EPT02_NAMES.len()]);

/// Their names in a report.
pub const EPT02_NAMES: [&str; 6] = [
    "ept02_hit",
    "ept02_miss",
    "ept02_evict",
    "ept02_full",
    "ept02_refill",
    "ept02_around",
];

impl Ept02Ledger {
    /// Takes the caches' own counters over.
    pub fn publish(&self, counters: &Counters) {
        let values = [
            counters.hit,
            counters.miss,
            counters.evict,
            counters.full,
            counters.refill,
            counters.around,
        ];
        for (to, value) in self.0.iter().zip(values) {
            to.store(value, Ordering::Relaxed);
        }
    }

    /// One of them, by its place in [`EPT02_NAMES`].
    pub fn get(&self, row: usize) -> u64 {
        self.0[row].load(Ordering::Relaxed)
    }
}

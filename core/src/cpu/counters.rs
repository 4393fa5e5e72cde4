//! The ledger: every VM exit counted and timed, by CPU, level, reason and why.
//!
//! Without the feature `ledger` nothing is counted; with `ledger-accesses`, the VMCS accesses of each exit are, too,
//! for an instruction each.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use umbra_core::ledger_leaf::{CELLS, Sums, cell_of};
pub use umbra_core::ledger_leaf::{Level, Why};
use umbra_ept::ept02::Counters;

/// What one kind of exit came to.
#[derive(Debug)]
struct Cell {
    count: AtomicU64,
    /// From the first instruction of the handler to its last, in ticks of the TSC.
    ticks: AtomicU64,
    #[cfg(feature = "ledger-accesses")]
    accesses: [AtomicU64; Access::COUNT],
}

/// A way to the VMCS.
#[cfg(feature = "ledger-accesses")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Access {
    /// VMREAD.
    Read,
    /// VMWRITE.
    Write,
    /// VMPTRLD.
    Load,
}

#[cfg(feature = "ledger-accesses")]
impl Access {
    const COUNT: usize = 3;
}

/// One CPU's counters. Only that CPU writes them.
#[derive(Debug)]
pub struct Ledger {
    cells: [Cell; CELLS],
    /// Since the start; `percpu::count_access` adds to them.
    #[cfg(feature = "ledger-accesses")]
    pub accesses: [AtomicU64; Access::COUNT],
    #[cfg(feature = "ledger-accesses")]
    accesses_before: [AtomicU64; Access::COUNT],
}

/// When the handler of an exit began: the low half of the TSC.
#[derive(Clone, Copy, Debug)]
pub struct Began(u32);

impl Began {
    /// An exit begins.
    #[inline(always)]
    pub fn now() -> Self {
        Self(if cfg!(feature = "ledger") { ticks() } else { 0 })
    }
}

/// Where an exit that has been handled is counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Who ran.
    pub level: Level,
    /// The basic reason.
    pub reason: u16,
    /// Why it exited.
    pub why: Why,
}

/// One writer: no locked instruction is needed.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

/// The low half of the TSC: an exit that takes longer than it counts is shown too short.
#[inline]
fn ticks() -> u32 {
    crate::arch::cr::tsc_low()
}

impl Ledger {
    /// Counts an exit that has been handled.
    #[inline(always)]
    pub fn count(&self, began: Began, exit: Counted) {
        if cfg!(feature = "ledger") {
            let cell = &self.cells[cell_of(exit.level, exit.reason, exit.why)];
            add(&cell.count, 1);
            add(&cell.ticks, u64::from(ticks().wrapping_sub(began.0)));
            #[cfg(feature = "ledger-accesses")]
            for n in 0..Access::COUNT {
                let now = self.accesses[n].load(Relaxed);
                let before = self.accesses_before[n].load(Relaxed);
                add(&cell.accesses[n], now.wrapping_sub(before));
                self.accesses_before[n].store(now, Relaxed);
            }
        }
    }

    /// What a cell came to; `cell` is below [`CELLS`].
    pub fn get(&self, cell: usize) -> Sums {
        let cell = &self.cells[cell];
        Sums {
            count: cell.count.load(Relaxed),
            ticks: cell.ticks.load(Relaxed),
            #[cfg(feature = "ledger-accesses")]
            accesses: cell
                .accesses
                .each_ref()
                .map(|accesses| accesses.load(Relaxed)),
            #[cfg(not(feature = "ledger-accesses"))]
            accesses: [0; 3],
        }
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
            to.store(value, Relaxed);
        }
    }

    /// One of them, by its place in [`EPT02_NAMES`].
    pub fn get(&self, row: usize) -> u64 {
        self.0[row].load(Relaxed)
    }
}

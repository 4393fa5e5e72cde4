//! How this crate reaches memory.

use crate::addr::{ENTRIES, Level, PAGE_BYTES};
use crate::memtype::MemType;
use crate::rights::Rights;

/// How many leaves side by side, and aligned, are dealt with together.
pub const BLOCK: usize = 16;

/// Tables that Umbra owns (ept01 and ept02), by machine address.
///
/// A write must be one aligned store of 64 bits, and the stores must become
/// visible in order: a table is complete before the entry that names it.
pub trait TableMemory {
    /// Reads entry `index` (below 512) of the table at `table_hpa`.
    fn read(&self, table_hpa: u64, index: usize) -> u64;

    /// Writes entry `index` (below 512) of the table at `table_hpa`.
    fn write(&mut self, table_hpa: u64, index: usize, value: u64);

    /// Writes `value` into all 512 entries of the table at `table_hpa`.
    fn fill(&mut self, table_hpa: u64, value: u64) {
        for index in 0..ENTRIES {
            self.write(table_hpa, index, value);
        }
    }
}

/// What ept01 says of one address of L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf01 {
    /// Machine address of the first byte of the page, aligned to its size.
    pub page_hpa: u64,
    /// Size of the page: `Pt`, `Pd` or `Pdpt`.
    pub level: Level,
    /// What L1 may do there.
    pub rights: Rights,
    /// The machine's type, by the MTRRs.
    pub mem_type: MemType,
}

/// L1's physical memory as L1 itself sees it. Addresses are L1's physical
/// ones; one that is Umbra's own or that nothing answers is the implementor's
/// to redirect, it is never an error here.
pub trait L1Memory {
    /// Reads 8 bytes at `gpa1`, which is 8-byte aligned, in one access.
    /// `None` where L1 itself would find nothing: taken as all ones.
    fn read_u64(&mut self, gpa1: u64) -> Option<u64>;

    /// Reads the [`BLOCK`] entries of a table from `gpa1` on, which is aligned to their
    /// size, each in one access. Where L1 would find nothing an entry reads as 0, which
    /// is an empty one.
    fn read_block(&mut self, gpa1: u64) -> [u64; BLOCK] {
        core::array::from_fn(|n| self.read_u64(gpa1 + 8 * n as u64).unwrap_or(0))
    }

    /// Stores `new` at `gpa1` if it holds `old`, in one locked access. Returns
    /// whether it did. Where nothing answers, a store is lost and `true` is
    /// returned.
    fn compare_exchange_u64(&mut self, gpa1: u64, old: u64, new: u64) -> bool;

    /// What ept01 says of `gpa1`. `None` if ept01 maps nothing there, now or
    /// on demand.
    fn lookup01(&mut self, gpa1: u64) -> Option<Leaf01>;
}

/// A run of 4 KiB pages reserved for tables, by machine address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablePages {
    base_hpa: u64,
    count: u32,
}

impl TablePages {
    /// `count` pages from `base_hpa`, which must be 4 KiB aligned (low bits are
    /// cut) .
    #[must_use]
    pub const fn new(base_hpa: u64, count: u32) -> Self {
        Self {
            base_hpa: base_hpa & !(PAGE_BYTES - 1),
            count,
        }
    }

    /// Machine address of the first page.
    #[must_use]
    pub const fn base_hpa(&self) -> u64 {
        self.base_hpa
    }

    /// Number of pages.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Machine address of page `index`; `None` past the end.
    #[inline]
    #[must_use]
    pub const fn get(&self, index: u32) -> Option<u64> {
        if index < self.count {
            Some(self.base_hpa + index as u64 * PAGE_BYTES)
        } else {
            None
        }
    }

    /// The pages from `first` on, at most `count` of them.
    #[must_use]
    pub const fn part(&self, first: u32, count: u32) -> Self {
        let first = if first > self.count {
            self.count
        } else {
            first
        };
        let rest = self.count - first;
        Self {
            base_hpa: self.base_hpa + first as u64 * PAGE_BYTES,
            count: if count < rest { count } else { rest },
        }
    }
}

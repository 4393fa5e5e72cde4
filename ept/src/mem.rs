//! How this crate reaches memory.

use umbra_arch::hpa::{OwnEntry, TablePage};
use umbra_arch::{Gpa1, Hpa};

use crate::addr::{ENTRIES, Level};
use crate::memtype::MemType;
use crate::rights::Rights;

/// How many leaves side by side, and aligned, are dealt with together.
pub const BLOCK: usize = 16;

/// Tables that Umbra owns (ept01 and ept02).
///
/// A write must be one aligned store of 64 bits, and the stores must become
/// visible in order: a table is complete before the entry that names it.
pub trait TableMemory {
    /// Reads entry `index` (below 512) of a table.
    fn read(&self, table: TablePage, index: usize) -> OwnEntry;

    /// Writes entry `index` (below 512) of a table.
    fn write(&mut self, table: TablePage, index: usize, value: OwnEntry);

    /// Writes `value` into all 512 entries of a table.
    fn fill(&mut self, table: TablePage, value: OwnEntry) {
        for index in 0..ENTRIES {
            self.write(table, index, value);
        }
    }
}

/// What ept01 says of one address of L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf01 {
    /// First byte of the page, aligned to its size.
    pub page: Hpa,
    /// Size of the page: `Pt`, `Pd` or `Pdpt`.
    pub level: Level,
    /// What L1 may do there.
    pub rights: Rights,
    /// The machine's type, by the MTRRs.
    pub mem_type: MemType,
}

impl Leaf01 {
    /// Where on the machine `gpa1` is, which lies in the page.
    #[inline]
    #[must_use]
    pub const fn at(&self, gpa1: Gpa1) -> Hpa {
        self.page.beside(gpa1, self.level.span_bytes())
    }
}

/// L1's physical memory as L1 itself sees it. An address that is Umbra's own or that
/// nothing answers is the implementor's to redirect, it is never an error here.
pub trait L1Memory {
    /// Reads 8 bytes at `gpa1`, which is 8-byte aligned, in one access.
    /// `None` where L1 itself would find nothing: taken as all ones.
    fn read_u64(&mut self, gpa1: Gpa1) -> Option<u64>;

    /// Reads the [`BLOCK`] entries of a table from `gpa1` on, which is aligned to their
    /// size, each in one access. Where L1 would find nothing an entry reads as 0, which
    /// is an empty one.
    fn read_block(&mut self, gpa1: Gpa1) -> [u64; BLOCK] {
        core::array::from_fn(|n| self.read_u64(gpa1.plus(8 * n as u64)).unwrap_or(0))
    }

    /// Stores `new` at `gpa1` if it holds `old`, in one locked access. Returns
    /// whether it did. Where nothing answers, a store is lost and `true` is
    /// returned.
    fn compare_exchange_u64(&mut self, gpa1: Gpa1, old: u64, new: u64) -> bool;

    /// What ept01 says of `gpa1`. `None` if ept01 maps nothing there, now or
    /// on demand.
    fn lookup01(&mut self, gpa1: Gpa1) -> Option<Leaf01>;
}

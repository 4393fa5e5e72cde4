//! Levels of a table walk and the arithmetic of addresses.

pub use umbra_arch::paging::{ADDRESS_BITS, PAGE_BYTES};

/// Entries in every table.
pub const ENTRIES: usize = 512;

/// The level of a table, and of an entry in it. A leaf at `Pt` maps 4 KiB, at
/// `Pd` 2 MiB, at `Pdpt` 1 GiB; the two upper levels hold no leaf.
///
/// SDM "EPT Translation Mechanism".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// EPT page table: its entries map 4 KiB.
    Pt = 1,
    /// EPT page directory: its entries map 2 MiB or name an EPT page table.
    Pd = 2,
    /// EPT page-directory-pointer table: 1 GiB or an EPT page directory.
    Pdpt = 3,
    /// EPT PML4 table.
    Pml4 = 4,
    /// EPT PML5 table, the root of a 5-level walk.
    Pml5 = 5,
}

impl Level {
    /// Position of the lowest address bit that an index at this level covers.
    #[inline]
    #[must_use]
    pub const fn shift(self) -> u32 {
        3 + 9 * self as u32
    }

    /// Bytes that one entry at this level spans.
    #[inline]
    #[must_use]
    pub const fn span_bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Which entry of a table at this level `address` selects, below 512.
    #[inline]
    #[must_use]
    pub const fn index(self, address: u64) -> usize {
        ((address >> self.shift()) & 511) as usize
    }

    /// The next level towards the leaf; `None` at [`Level::Pt`].
    #[inline]
    #[must_use]
    pub const fn below(self) -> Option<Level> {
        match self {
            Level::Pt => None,
            Level::Pd => Some(Level::Pt),
            Level::Pdpt => Some(Level::Pd),
            Level::Pml4 => Some(Level::Pdpt),
            Level::Pml5 => Some(Level::Pml4),
        }
    }

    /// The first address of the block at this level that holds `address`.
    #[inline]
    #[must_use]
    pub const fn base(self, address: u64) -> u64 {
        address & !(self.span_bytes() - 1)
    }

    /// The offset of `address` in its block at this level, in bytes.
    #[inline]
    #[must_use]
    pub const fn offset(self, address: u64) -> u64 {
        address & (self.span_bytes() - 1)
    }
}

//! Machine addresses, and what L0 lets be done with them.
//!
//! Whoever can put any number into a table that the CPU walks can have it read and
//! write L0's memory, without a line of unsafe code. So these types are made of numbers
//! by unsafe functions alone, which crates that forbid unsafe code cannot call: an
//! address comes from `core`, or from a [`Identity`] that `core` made.
//!
//! What the types do not hold is how large a page a leaf maps from an address on, and
//! which of the addresses it was given a library uses: that is what its tests are for.

use crate::address::common;
use crate::paging::ADDRESS_BITS;
use crate::{Gpa1, paging::PAGE_BYTES};

/// A machine address which the CPU may be given on L1's or L2's behalf: in a leaf of
/// ept01 or ept02, or in a field of a VMCS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Hpa(u64);

common!(Hpa);

impl Hpa {
    /// The address that a number is.
    ///
    /// # Safety
    /// The page around it is not L0's own, or it is one that L0 keeps for the CPU to
    /// read and write in the place where this address is going to be put.
    #[inline]
    #[must_use]
    #[expect(unsafe_code)]
    pub const unsafe fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// No address: a leaf for it is not legal on any CPU.
    pub const NOWHERE: Self = Self(u64::MAX);

    /// The byte which lies in the aligned block of `bytes`, a power of two, around this
    /// address where `gpa1` lies in its own. This one is the block's first.
    #[inline]
    #[must_use]
    pub const fn beside(self, gpa1: Gpa1, bytes: u64) -> Self {
        Self(self.0 | gpa1.raw() & (bytes - 1))
    }
}

/// A range of physical addresses in bytes, 4 KiB aligned at both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte after the range.
    pub end: u64,
}

impl Range {
    /// Whether any byte of `start..end` is in the range.
    #[must_use]
    pub const fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
}

/// Most ranges that can be hidden.
pub const MAX_HIDDEN: usize = 16;

/// The machine's memory as L1 has it: each address is its own, but for what is hidden,
/// where L1 finds one scratch page everywhere, the void.
#[derive(Clone, Debug)]
pub struct Identity {
    hidden: [Range; MAX_HIDDEN],
    count: usize,
    void: Hpa,
}

impl Identity {
    /// A machine of which these ranges are hidden. `None` if they are more than [`MAX_HIDDEN`].
    ///
    /// # Safety
    /// All of L0's memory is in `hidden`, but for the page of the void.
    #[must_use]
    #[expect(unsafe_code)]
    pub unsafe fn new(hidden: &[Range], void: Hpa) -> Option<Self> {
        let mut this = Self {
            hidden: [Range::default(); MAX_HIDDEN],
            count: hidden.len(),
            void,
        };
        this.hidden.get_mut(..hidden.len())?.copy_from_slice(hidden);
        Some(this)
    }

    /// What is hidden.
    #[inline]
    pub fn hidden(&self) -> impl Iterator<Item = &Range> {
        self.hidden.iter().take(self.count)
    }

    /// The scratch page.
    #[must_use]
    pub const fn void(&self) -> Hpa {
        self.void
    }

    /// Where L1's address is on the machine.
    #[inline]
    #[must_use]
    pub fn at(&self, gpa1: Gpa1) -> Hpa {
        for range in self.hidden() {
            if range.start <= gpa1.raw() && gpa1.raw() < range.end {
                return self.void.beside(gpa1, PAGE_BYTES);
            }
        }
        Hpa(gpa1.raw())
    }

    /// The first byte of the aligned block of `bytes`, a power of two, around `gpa1`.
    /// `None` if any of the block is hidden.
    #[must_use]
    pub fn block(&self, gpa1: Gpa1, bytes: u64) -> Option<Hpa> {
        let start = gpa1.block(bytes).raw();
        (!self.hides(start, bytes)).then_some(Hpa(start))
    }

    /// Whether any of the `bytes` bytes from `start` on is hidden.
    #[must_use]
    pub fn hides(&self, start: u64, bytes: u64) -> bool {
        let end = start.saturating_add(bytes);
        self.hidden().any(|range| range.overlaps(start, end))
    }
}

/// A page that L0 keeps for a table of its own, or [`NOWHERE`](Self::NOWHERE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct TablePage(u64);

impl TablePage {
    /// No page, where there is none yet: beyond any physical-address width.
    pub const NOWHERE: Self = Self(!(PAGE_BYTES - 1));

    /// Its machine address in bytes.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// A run of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablePages {
    base: u64,
    count: u32,
}

impl TablePages {
    /// No page.
    pub const NONE: Self = Self {
        base: TablePage::NOWHERE.0,
        count: 0,
    };

    /// `count` pages from the machine address `base` on.
    ///
    /// # Safety
    /// They are RAM of L0's, 4 KiB aligned, below the physical-address width, and
    /// nothing but tables of EPT is ever in them from now on.
    #[must_use]
    #[expect(unsafe_code)]
    pub const unsafe fn new(base: u64, count: u32) -> Self {
        Self { base, count }.part(0, count)
    }

    /// The first page; of none, nowhere.
    #[inline]
    #[must_use]
    pub const fn first(&self) -> TablePage {
        TablePage(self.base)
    }

    /// Number of pages.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Page `index`; `None` past the end.
    #[inline]
    #[must_use]
    pub const fn get(&self, index: u32) -> Option<TablePage> {
        if index < self.count {
            Some(TablePage(self.base + index as u64 * PAGE_BYTES))
        } else {
            None
        }
    }

    /// Which of the pages `page` is, if it is one of them.
    #[inline]
    #[must_use]
    pub const fn index_of(&self, page: TablePage) -> u64 {
        page.0.wrapping_sub(self.base) / PAGE_BYTES
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
        let count = if count < rest { count } else { rest };
        if count == 0 {
            return Self::NONE;
        }
        Self {
            base: self.base + first as u64 * PAGE_BYTES,
            count,
        }
    }
}

/// An entry of a table of L0's own, as it is in memory.
///
/// A leaf has its accessed and dirty flags, an entry that names a table its accessed
/// flag, so that the CPU has nothing to write back. Bit 11, which the CPU ignores, marks
/// what names a table, and the dirty flag, which it ignores there, what does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct OwnEntry(u64);

impl OwnEntry {
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    const TABLE: u64 = 1 << 11;
    const SUPPRESS_VE: u64 = 1 << 63;

    /// Nothing is there. Bit 63 keeps the CPU from making a #VE of the violation.
    pub const EMPTY: Self = Self(Self::SUPPRESS_VE);

    /// The end of a chain of pages that are free.
    pub const CHAIN_END: Self = Self(0);

    /// A leaf, with these ones of the bits 10:0. As for [`EMPTY`](Self::EMPTY), nothing
    /// makes a #VE.
    #[inline]
    #[must_use]
    pub const fn leaf(address: Hpa, bits: u64) -> Self {
        let flags = Self::ACCESSED | Self::DIRTY | Self::SUPPRESS_VE;
        Self(address.0 & ADDRESS_BITS | bits & (Self::TABLE - 1) | flags)
    }

    /// An entry that names a table, with these ones of the bits 10:0.
    #[inline]
    #[must_use]
    pub const fn table(page: TablePage, bits: u64) -> Self {
        let bits = bits & (Self::TABLE - 1) & !Self::DIRTY;
        Self(page.0 | bits | Self::ACCESSED | Self::TABLE)
    }

    /// What a page that is free begins with, if `next` is the next one.
    #[must_use]
    pub const fn chain(next: TablePage) -> Self {
        Self(next.0)
    }

    /// The next page of the chain.
    #[must_use]
    pub const fn next(self) -> Option<TablePage> {
        if self.0 & !ADDRESS_BITS == 0 && self.0 != 0 {
            Some(TablePage(self.0))
        } else {
            None
        }
    }

    /// The leaf which lies in the aligned block of `bytes`, a power of two, around this
    /// one's address where `gpa1` lies in its own. This one is the block's first.
    #[inline]
    #[must_use]
    pub const fn beside(self, gpa1: Gpa1, bytes: u64) -> Self {
        Self(self.0 | gpa1.raw() & (bytes - 1) & ADDRESS_BITS)
    }

    /// Whether it names anything.
    #[inline]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & Self::ACCESSED != 0
    }

    /// Whether it is a leaf.
    #[inline]
    #[must_use]
    pub const fn is_leaf(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    /// Where the page is that it maps, if it is a leaf.
    #[inline]
    #[must_use]
    pub const fn page(self) -> Option<Hpa> {
        if self.is_leaf() {
            Some(Hpa(self.0 & ADDRESS_BITS))
        } else {
            None
        }
    }

    /// The table that it names, if it does.
    #[inline]
    #[must_use]
    pub const fn below(self) -> Option<TablePage> {
        if self.0 & Self::TABLE != 0 {
            Some(TablePage(self.0 & ADDRESS_BITS))
        } else {
            None
        }
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

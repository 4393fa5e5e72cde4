//! What each block of ept01 is to be, and the pages that its tables take.

use super::range::Range;
use crate::addr::Level;
use crate::caps::Caps;
use crate::entry::{Entry, Leaf};
use crate::mem::{TableMemory, TablePages};
use crate::memtype::MemType;
use crate::mtrr::Mtrrs;
use crate::rights::Rights;

/// Table pages in use and free. Free pages are chained through their first
/// entry, whose value is the address of the next one.
#[derive(Debug)]
pub(super) struct Pages {
    pages: TablePages,
    pub(super) next: u32,
    pub(super) free: u64,
}

impl Pages {
    pub(super) const fn new(pages: TablePages) -> Self {
        Self {
            pages,
            next: 0,
            free: 0,
        }
    }

    pub(super) fn take(&mut self, mem: &impl TableMemory) -> Option<u64> {
        if self.free != 0 {
            let page = self.free;
            self.free = mem.read(page, 0);
            return Some(page);
        }
        let page = self.pages.get(self.next)?;
        self.next += 1;
        Some(page)
    }

    /// How many [`take`](Self::take) can give, up to `enough`.
    pub(super) fn left(&self, mem: &impl TableMemory, enough: u32) -> u32 {
        let mut left = self.pages.count().saturating_sub(self.next);
        let mut page = self.free;
        while left < enough && page != 0 {
            left += 1;
            page = mem.read(page, 0);
        }
        left
    }

    pub(super) fn give(&mut self, mem: &mut impl TableMemory, page: u64) {
        mem.write(page, 0, self.free);
        self.free = page;
    }
}

/// What a block of ept01 should be.
pub(super) enum Plan {
    Void,
    Leaf(MemType),
    Split,
}

/// Validated inputs, and what follows from them for each block.
pub(super) struct Planner<'a> {
    pub(super) hidden: &'a [Range],
    /// Pages that must have a 4 KiB leaf of their own.
    pub(super) small: &'a [u64],
    pub(super) mtrrs: &'a Mtrrs,
    pub(super) caps: &'a Caps,
}

impl Planner<'_> {
    /// `level` is `Pt`, `Pd` or `Pdpt`, `base` aligned to it.
    pub(super) fn plan(&self, base: u64, level: Level) -> Plan {
        let end = base + level.span_bytes();
        let mut touched = false;
        for range in self.hidden {
            if range.start <= base && end <= range.end {
                return Plan::Void;
            }
            touched |= range.overlaps(base, end);
        }
        let wants_small = self.has_small(base, level);
        if touched || wants_small || (level == Level::Pdpt && !self.caps.page_1g) {
            return Plan::Split;
        }
        match self.mtrrs.uniform(base, level) {
            Some(found) => Plan::Leaf(found),
            None if level == Level::Pt => Plan::Leaf(MemType::Uncacheable),
            None => Plan::Split,
        }
    }

    /// Whether a larger page than one of 4 KiB would cover a page that must have
    /// a leaf of its own.
    pub(super) fn has_small(&self, gpa1: u64, level: Level) -> bool {
        let base = level.base(gpa1);
        level != Level::Pt && self.small.iter().any(|&page| level.base(page) == base)
    }

    /// Whether any of the block is hidden.
    pub(super) fn touches_hidden(&self, base: u64, level: Level) -> bool {
        let end = base + level.span_bytes();
        self.hidden.iter().any(|r| r.overlaps(base, end))
    }
}

pub(super) fn leaf(level: Level, hpa: u64, mem_type: MemType) -> u64 {
    Entry::leaf(
        level,
        &Leaf {
            address: hpa,
            rights: Rights::all(),
            mem_type,
            ignore_pat: false,
            suppress_ve: true,
        },
    )
    .0
}

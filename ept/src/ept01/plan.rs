//! What each block of ept01 is to be, and the pages that its tables take.

use super::config::Range;
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
        if touched || (level == Level::Pdpt && !self.caps.page_1g) {
            return Plan::Split;
        }
        match self.mtrrs.uniform(base, level) {
            Some(found) => Plan::Leaf(found),
            None if level == Level::Pt => Plan::Leaf(MemType::Uncacheable),
            None => Plan::Split,
        }
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

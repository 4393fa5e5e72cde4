//! What each block of ept01 is to be, and the pages that its tables take.

use umbra_arch::hpa::{Identity, OwnEntry, TablePage, TablePages};
use umbra_arch::{Gpa1, Hpa};

use crate::addr::Level;
use crate::caps::Caps;
use crate::entry::{Leaf, own_leaf};
use crate::mem::TableMemory;
use crate::memtype::MemType;
use crate::mtrr::Mtrrs;
use crate::rights::Rights;

/// Table pages in use and free. Free pages are chained through their first
/// entry.
#[derive(Debug)]
pub(super) struct Pages {
    pages: TablePages,
    pub(super) next: u32,
    pub(super) free: Option<TablePage>,
}

impl Pages {
    pub(super) const fn new(pages: TablePages) -> Self {
        Self {
            pages,
            next: 0,
            free: None,
        }
    }

    pub(super) fn take(&mut self, mem: &impl TableMemory) -> Option<TablePage> {
        if let Some(page) = self.free {
            self.free = mem.read(page, 0).next();
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
        while let Some(free) = page.filter(|_| left < enough) {
            left += 1;
            page = mem.read(free, 0).next();
        }
        left
    }

    pub(super) fn give(&mut self, mem: &mut impl TableMemory, page: TablePage) {
        let link = self.free.map_or(OwnEntry::CHAIN_END, OwnEntry::chain);
        mem.write(page, 0, link);
        self.free = Some(page);
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
    pub(super) identity: &'a Identity,
    /// Pages that must have a 4 KiB leaf of their own.
    pub(super) small: &'a [Gpa1],
    pub(super) mtrrs: &'a Mtrrs,
    pub(super) caps: &'a Caps,
}

impl Planner<'_> {
    /// `level` is `Pt`, `Pd` or `Pdpt`, `base` aligned to it.
    pub(super) fn plan(&self, base: Gpa1, level: Level) -> Plan {
        let start = base.raw();
        let end = start + level.span_bytes();
        let mut touched = false;
        for range in self.identity.hidden() {
            if range.start <= start && end <= range.end {
                return Plan::Void;
            }
            touched |= range.overlaps(start, end);
        }
        let wants_small = self.has_small(base, level);
        if touched || wants_small || (level == Level::Pdpt && !self.caps.page_1g) {
            return Plan::Split;
        }
        match self.mtrrs.uniform(start, level) {
            Some(found) => Plan::Leaf(found),
            None if level == Level::Pt => Plan::Leaf(MemType::Uncacheable),
            None => Plan::Split,
        }
    }

    /// Whether a larger page than one of 4 KiB would cover a page that must have
    /// a leaf of its own.
    pub(super) fn has_small(&self, gpa1: Gpa1, level: Level) -> bool {
        let bytes = level.span_bytes();
        let base = gpa1.block(bytes);
        level != Level::Pt && self.small.iter().any(|page| page.block(bytes) == base)
    }

    /// Whether any of the block is hidden.
    pub(super) fn touches_hidden(&self, base: Gpa1, level: Level) -> bool {
        self.identity.hides(base.raw(), level.span_bytes())
    }
}

pub(super) fn leaf(level: Level, address: Hpa, mem_type: MemType) -> OwnEntry {
    own_leaf(
        level,
        &Leaf {
            address,
            rights: Rights::all(),
            mem_type,
            ignore_pat: false,
            suppress_ve: true,
        },
    )
}

//! ept01: the machine as L1 sees it.
//!
//! The identity with everything allowed, in the largest pages that the memory
//! types permit, except for Umbra's own memory: every hidden page maps to one
//! scratch page, the void, so that L1's accesses there work and find nothing.
//!
//! Addresses up to a limit are mapped when the table is built. What lies above
//! (PCI windows, mostly) is mapped by the gibibyte when L1 first touches it,
//! with table pages kept apart for that; when they run out, all of those
//! mappings are dropped and come back on demand.

mod config;
mod on_demand;
mod plan;
mod retype;
mod small;
mod tables;

use heapless::Vec;
use umbra_arch::hpa::{Identity, OwnEntry, TablePage, TablePages};
use umbra_arch::{Gpa1, Hpa};

use crate::addr::Level;
use crate::caps::Caps;
use crate::entry::own_table;
use crate::eptp::OwnEptp;
use crate::mem::{Leaf01, TableMemory};
use crate::memtype::MemType;
use crate::mtrr::Mtrrs;
use crate::rights::Rights;
use config::GIB;
use plan::Pages;

pub use config::{BuildError, Config, MIN_ON_DEMAND, pages_needed};
pub use on_demand::OnDemand;
pub use small::MAX_SMALL;

/// Most tables that one retyping may take out of use.
const MAX_PENDING: usize = 64;

/// ept01 of one CPU, or of all of them.
///
/// If CPUs share it, whoever changes it must keep the others from changing it
/// too, and an [`Invalidate`](crate::invalidate::Invalidate) is owed on each of them.
#[derive(Debug)]
pub struct Ept01 {
    root: TablePage,
    void_pt: TablePage,
    void_pd: TablePage,
    limit: u64,
    identity: Identity,
    /// Pages with a 4 KiB leaf of their own, the latest last.
    small: Vec<Gpa1, MAX_SMALL>,
    mtrrs: Mtrrs,
    caps: Caps,
    /// Pages for what is mapped from the start, and for splits of it.
    pages: Pages,
    /// Pages for what is mapped on demand.
    spare: Pages,
    /// Something is mapped on demand, with table pages of its own or without.
    has_on_demand: bool,
    /// Tables out of use, which a CPU may still be walking.
    pending: Vec<TablePage, MAX_PENDING>,
    /// Blocks that were given UC for want of a table page to split them.
    coarse: u64,
    /// Times that the mappings on demand were dropped.
    dropped: u64,
}

impl Ept01 {
    /// Builds ept01 in `pages`, which should be [`pages_needed`] many.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong with the configuration.
    pub fn build(
        mem: &mut impl TableMemory,
        pages: TablePages,
        config: &Config<'_>,
    ) -> Result<Self, BuildError> {
        let limit = config::check(config)?;
        let needed = pages_needed(config)?;
        if pages.count() < needed {
            return Err(BuildError::Pages { needed });
        }
        let kept = config.on_demand_pages.max(MIN_ON_DEMAND);
        let first = pages.count() - kept;
        let short = BuildError::Pages { needed };
        let mut own = Pages::new(pages.part(0, first));
        let mut this = Self {
            root: own.take(mem).ok_or(short)?,
            void_pt: own.take(mem).ok_or(short)?,
            void_pd: own.take(mem).ok_or(short)?,
            limit,
            identity: config.identity.clone(),
            small: Vec::new(),
            mtrrs: config.mtrrs.clone(),
            caps: config.caps,
            pages: own,
            spare: Pages::new(pages.part(first, kept)),
            has_on_demand: false,
            pending: Vec::new(),
            coarse: 0,
            dropped: 0,
        };
        mem.fill(this.root, OwnEntry::EMPTY);
        mem.fill(this.void_pt, this.void_leaf());
        mem.fill(this.void_pd, own_table(this.void_pt));
        let mut base = Gpa1::new(0);
        while base.raw() < limit {
            let pdpt = this.pdpt(mem, base, false).ok_or(short)?;
            let value = this.block(mem, base, Level::Pdpt, false).ok_or(short)?;
            mem.write(pdpt, Level::Pdpt.index(base.raw()), value);
            base = base.plus(GIB);
        }
        Ok(this)
    }

    /// The EPT pointer for vmcs01.
    #[must_use]
    pub const fn eptp(&self) -> OwnEptp {
        OwnEptp::new(self.root, false)
    }

    /// First address that is mapped on demand only, in bytes.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How often a block got UC because no table page was left to split it,
    /// and how often the mappings on demand were dropped.
    #[must_use]
    pub const fn shortages(&self) -> (u64, u64) {
        (self.coarse, self.dropped)
    }

    /// Table pages in use.
    #[must_use]
    pub const fn pages_used(&self) -> u32 {
        self.pages.next + self.spare.next
    }

    /// The machine address behind L1's address `gpa1`: in the void if it is
    /// hidden, else itself. Cheaper than [`Ept01::lookup`].
    #[inline]
    #[must_use]
    pub fn redirect(&self, gpa1: Gpa1) -> Hpa {
        self.identity.at(gpa1)
    }

    /// Whether any byte of `start..start + length` is Umbra's.
    #[must_use]
    pub fn is_hidden(&self, start: Gpa1, length: u64) -> bool {
        self.identity.hides(start.raw(), length)
    }

    /// Walks ept01 down to the entry that names no table, which comes as the error.
    #[inline(always)]
    fn walk(&self, mem: &impl TableMemory, gpa1: Gpa1) -> Result<TablePage, (OwnEntry, Level)> {
        let step = |table, level: Level| {
            let entry = mem.read(table, level.index(gpa1.raw()));
            entry.below().ok_or((entry, level))
        };
        let pdpt = step(self.root, Level::Pml4)?;
        let pd = step(pdpt, Level::Pdpt)?;
        let pt = step(pd, Level::Pd)?;
        step(pt, Level::Pt)
    }

    /// What ept01 says of `gpa1`, or will say once it is mapped on demand.
    /// `None` beyond the physical-address width.
    #[inline]
    #[must_use]
    pub fn lookup(&self, mem: &impl TableMemory, gpa1: Gpa1) -> Option<Leaf01> {
        if gpa1.raw() >> self.caps.maxphyaddr.min(52) != 0 {
            return None;
        }
        if gpa1.raw() < self.limit {
            let (entry, level) = match self.walk(mem, gpa1) {
                Ok(_) => return None,
                Err(end) => end,
            };
            return Some(Leaf01 {
                page: entry.page()?,
                level,
                rights: Rights::of_entry(entry.raw(), true),
                mem_type: MemType::from_bits(((entry.raw() >> 3) & 7) as u8)?,
            });
        }
        // Above the limit nothing is hidden, whether it is mapped or not.
        let (mut level, mem_type) = self.mtrrs.largest_uniform(gpa1.raw());
        if level == Level::Pdpt && !self.caps.page_1g {
            level = Level::Pd;
        }
        while self.planner().has_small(gpa1, level) {
            level = level.below()?;
        }
        Some(Leaf01 {
            page: self.identity.block(gpa1, level.span_bytes())?,
            level,
            rights: Rights::all(),
            mem_type,
        })
    }
}

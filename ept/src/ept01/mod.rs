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
mod range;
mod retype;
mod small;
mod tables;

use heapless::Vec;

use crate::addr::{ADDRESS_BITS, Level, PAGE_BYTES};
use crate::caps::Caps;
use crate::entry::{Entry, bit};
use crate::eptp::Eptp;
use crate::mem::{Leaf01, TableMemory, TablePages};
use crate::memtype::MemType;
use crate::mtrr::Mtrrs;
use crate::rights::Rights;
use config::GIB;
use plan::{Pages, leaf};

pub use config::{BuildError, Config, MAX_HIDDEN, MIN_ON_DEMAND, pages_needed};
pub use on_demand::OnDemand;
pub use range::Range;
pub use small::MAX_SMALL;

/// Most tables that one retyping may take out of use.
const MAX_PENDING: usize = 64;

/// An entry that is not present. Its bit 63 keeps a violation of ept01 from
/// ever becoming a #VE of L1, should that control be on.
const EMPTY: u64 = bit::SUPPRESS_VE;

/// ept01 of one CPU, or of all of them.
///
/// If CPUs share it, whoever changes it must keep the others from changing it
/// too, and an [`Invalidate`](crate::invalidate::Invalidate) is owed on each of them.
#[derive(Debug)]
pub struct Ept01 {
    root: u64,
    void_pt: u64,
    void_pd: u64,
    void_hpa: u64,
    limit: u64,
    hidden: Vec<Range, MAX_HIDDEN>,
    /// Pages with a 4 KiB leaf of their own, the latest last.
    small: Vec<u64, MAX_SMALL>,
    mtrrs: Mtrrs,
    caps: Caps,
    /// Pages for what is mapped from the start, and for splits of it.
    pages: Pages,
    /// Pages for what is mapped on demand.
    spare: Pages,
    /// Something is mapped on demand, with table pages of its own or without.
    has_on_demand: bool,
    /// Tables out of use, which a CPU may still be walking.
    pending: Vec<u64, MAX_PENDING>,
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
        let mut this = Self {
            root: 0,
            void_pt: 0,
            void_pd: 0,
            void_hpa: config.void_hpa,
            limit,
            hidden: config.hidden.iter().copied().collect(),
            small: Vec::new(),
            mtrrs: config.mtrrs.clone(),
            caps: config.caps,
            pages: Pages::new(pages.part(0, first)),
            spare: Pages::new(pages.part(first, kept)),
            has_on_demand: false,
            pending: Vec::new(),
            coarse: 0,
            dropped: 0,
        };
        let short = BuildError::Pages { needed };
        this.root = this.pages.take(mem).ok_or(short)?;
        this.void_pt = this.pages.take(mem).ok_or(short)?;
        this.void_pd = this.pages.take(mem).ok_or(short)?;
        mem.fill(this.root, EMPTY);
        mem.fill(
            this.void_pt,
            leaf(Level::Pt, this.void_hpa, MemType::WriteBack),
        );
        mem.fill(this.void_pd, Entry::table(this.void_pt).0);
        let mut base = 0;
        while base < limit {
            let pdpt = this.pdpt(mem, base, false).ok_or(short)?;
            let value = this.block(mem, base, Level::Pdpt, false).ok_or(short)?;
            mem.write(pdpt, Level::Pdpt.index(base), value);
            base += GIB;
        }
        Ok(this)
    }

    /// The EPT pointer for vmcs01.
    #[must_use]
    pub const fn eptp(&self) -> Eptp {
        Eptp::own(self.root, false)
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

    /// The machine address behind L1's address `gpa1`: the void page if it is
    /// hidden, else itself. Cheaper than [`Ept01::lookup`].
    #[inline]
    #[must_use]
    pub fn redirect(&self, gpa1: u64) -> u64 {
        for range in &self.hidden {
            if range.start <= gpa1 && gpa1 < range.end {
                return self.void_hpa | (gpa1 & (PAGE_BYTES - 1));
            }
        }
        gpa1
    }

    /// Whether any byte of `start..start + length` is Umbra's.
    #[must_use]
    pub fn is_hidden(&self, start: u64, length: u64) -> bool {
        let end = start.saturating_add(length);
        self.hidden.iter().any(|r| r.overlaps(start, end))
    }

    /// What ept01 says of `gpa1`, or will say once it is mapped on demand.
    /// `None` beyond the physical-address width.
    #[inline]
    #[must_use]
    pub fn lookup(&self, mem: &impl TableMemory, gpa1: u64) -> Option<Leaf01> {
        if gpa1 >> self.caps.maxphyaddr.min(52) != 0 {
            return None;
        }
        if gpa1 < self.limit {
            let mut table = self.root;
            let mut level = Level::Pml4;
            loop {
                let raw = mem.read(table, level.index(gpa1));
                let entry = Entry(raw);
                if entry.is_own_leaf(level) {
                    return Some(Leaf01 {
                        page_hpa: raw & ADDRESS_BITS,
                        level,
                        rights: Rights::of_entry(raw, true),
                        mem_type: MemType::from_bits(((raw >> 3) & 7) as u8)?,
                    });
                }
                table = entry.own_table(level)?;
                level = level.below()?;
            }
        }
        // Above the limit nothing is hidden, whether it is mapped or not.
        let (mut level, mem_type) = self.mtrrs.largest_uniform(gpa1);
        if level == Level::Pdpt && !self.caps.page_1g {
            level = Level::Pd;
        }
        while self.planner().has_small(gpa1, level) {
            level = level.below()?;
        }
        Some(Leaf01 {
            page_hpa: level.base(gpa1),
            level,
            rights: Rights::all(),
            mem_type,
        })
    }
}

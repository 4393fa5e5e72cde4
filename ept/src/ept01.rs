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

use heapless::Vec;

use crate::addr::{ENTRIES, Level, PAGE_BYTES};
use crate::caps::Caps;
use crate::entry::{Entry, Leaf, bit};
use crate::eptp::Eptp;
use crate::invalidate::Invalidate;
use crate::mem::{Leaf01, TableMemory, TablePages};
use crate::memtype::MemType;
use crate::mtrr::Mtrrs;
use crate::rights::Rights;

/// Most ranges that can be hidden.
pub const MAX_HIDDEN: usize = 16;
/// Most tables that one retyping may take out of use.
const MAX_PENDING: usize = 64;
const GIB: u64 = 1 << 30;

/// A range of physical addresses in bytes, 4 KiB aligned at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte after the range.
    pub end: u64,
}

impl Range {
    const fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Map everything below this address from the start. Rounded up to 1 GiB.
    pub limit: u64,
    /// Umbra's own memory, below `limit`: at most [`MAX_HIDDEN`] ranges.
    pub hidden: &'a [Range],
    /// The scratch page, which must itself be hidden.
    pub void_hpa: u64,
    /// The machine's memory types.
    pub mtrrs: &'a Mtrrs,
    /// What the CPU can do.
    pub caps: Caps,
    /// Pages kept for mappings above `limit`, at least [`MIN_ON_DEMAND`].
    pub on_demand_pages: u32,
    /// Pages kept for large pages that a change of MTRRs splits.
    pub retype_pages: u32,
}

/// Least that [`Config::on_demand_pages`] may be: one gibibyte needs an EPT
/// page-directory-pointer table and an EPT page directory.
pub const MIN_ON_DEMAND: u32 = 2;

/// Why ept01 cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The CPU lacks 2 MiB EPT pages, 4-level walks or write-back tables.
    Unsupported,
    /// `limit` is 0 or beyond the physical-address width or beyond 2^48.
    Limit,
    /// A hidden range is empty, unaligned or not below the limit.
    Hidden(Range),
    /// More than [`MAX_HIDDEN`] ranges.
    TooManyHidden,
    /// The void page is not inside a hidden range.
    Void,
    /// Fewer pages than needed, which is this many.
    Pages {
        /// What [`pages_needed`] says.
        needed: u32,
    },
}

/// ept01 of one CPU, or of all of them.
///
/// If CPUs share it, whoever changes it must keep the others from changing it
/// too, and an [`Invalidate`] is owed on each of them.
#[derive(Debug)]
pub struct Ept01 {
    root: u64,
    void_pt: u64,
    void_pd: u64,
    void_hpa: u64,
    limit: u64,
    hidden: Vec<Range, MAX_HIDDEN>,
    mtrrs: Mtrrs,
    caps: Caps,
    /// Pages for what is mapped from the start, and for splits of it.
    pages: Pages,
    /// Pages for what is mapped on demand.
    spare: Pages,
    /// Tables out of use, which a CPU may still be walking.
    pending: Vec<u64, MAX_PENDING>,
    /// Blocks that were given UC for want of a table page to split them.
    coarse: u64,
    /// Times that the mappings on demand were dropped.
    dropped: u64,
}

/// Table pages in use and free. Free pages are chained through their first
/// entry, whose value is the address of the next one.
#[derive(Debug)]
struct Pages {
    pages: TablePages,
    next: u32,
    free: u64,
}

impl Pages {
    const fn new(pages: TablePages) -> Self {
        Self {
            pages,
            next: 0,
            free: 0,
        }
    }

    fn take(&mut self, mem: &impl TableMemory) -> Option<u64> {
        if self.free != 0 {
            let page = self.free;
            self.free = mem.read(page, 0);
            return Some(page);
        }
        let page = self.pages.get(self.next)?;
        self.next += 1;
        Some(page)
    }

    fn give(&mut self, mem: &mut impl TableMemory, page: u64) {
        mem.write(page, 0, self.free);
        self.free = page;
    }
}

/// What a block of ept01 should be.
enum Plan {
    Void,
    Leaf(MemType),
    Split,
}

/// Validated inputs, and what follows from them for each block.
struct Planner<'a> {
    hidden: &'a [Range],
    mtrrs: &'a Mtrrs,
    caps: &'a Caps,
}

impl Planner<'_> {
    /// `level` is `Pt`, `Pd` or `Pdpt`, `base` aligned to it.
    fn plan(&self, base: u64, level: Level) -> Plan {
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
    fn touches_hidden(&self, base: u64, level: Level) -> bool {
        let end = base + level.span_bytes();
        self.hidden.iter().any(|r| r.overlaps(base, end))
    }
}

fn leaf(level: Level, hpa: u64, mem_type: MemType) -> u64 {
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

/// An entry that is not present. Its bit 63 keeps a violation of ept01 from
/// ever becoming a #VE of L1, should that control be on.
const EMPTY: u64 = bit::SUPPRESS_VE;

fn check(config: &Config<'_>) -> Result<u64, BuildError> {
    let caps = &config.caps;
    if !caps.page_2m || !caps.walk_4 || !caps.tables_wb {
        return Err(BuildError::Unsupported);
    }
    let most = (1u64 << caps.maxphyaddr.min(48)).max(GIB);
    if config.limit == 0 || config.limit > most {
        return Err(BuildError::Limit);
    }
    let limit = config.limit.next_multiple_of(GIB);
    if config.hidden.len() > MAX_HIDDEN {
        return Err(BuildError::TooManyHidden);
    }
    for range in config.hidden {
        let aligned = (range.start | range.end) & (PAGE_BYTES - 1) == 0;
        if !aligned || range.start >= range.end || range.end > limit {
            return Err(BuildError::Hidden(*range));
        }
    }
    let void_end = config.void_hpa.saturating_add(PAGE_BYTES);
    if config.void_hpa & (PAGE_BYTES - 1) != 0
        || !config
            .hidden
            .iter()
            .any(|r| r.start <= config.void_hpa && void_end <= r.end)
    {
        return Err(BuildError::Void);
    }
    Ok(limit)
}

/// How many table pages [`Ept01::build`] needs for `config`, with those kept
/// for later included.
///
/// # Errors
/// As [`Ept01::build`].
pub fn pages_needed(config: &Config<'_>) -> Result<u32, BuildError> {
    let limit = check(config)?;
    let planner = Planner {
        hidden: config.hidden,
        mtrrs: config.mtrrs,
        caps: &config.caps,
    };
    // The root, the void's two tables, and one table for each 512 GiB.
    let mut count = 3 + limit.div_ceil(Level::Pml4.span_bytes()) as u32;
    let mut base = 0;
    while base < limit {
        if matches!(planner.plan(base, Level::Pdpt), Plan::Split) {
            count += 1;
            let mut block = base;
            while block < base + GIB {
                if matches!(planner.plan(block, Level::Pd), Plan::Split) {
                    count += 1;
                }
                block += Level::Pd.span_bytes();
            }
        }
        base += GIB;
    }
    Ok(count
        .saturating_add(config.on_demand_pages.max(MIN_ON_DEMAND))
        .saturating_add(config.retype_pages))
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
        let limit = check(config)?;
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
            mtrrs: config.mtrrs.clone(),
            caps: config.caps,
            pages: Pages::new(pages.part(0, first)),
            spare: Pages::new(pages.part(first, kept)),
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
                        page_hpa: raw & crate::addr::ADDRESS_BITS,
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
        Some(Leaf01 {
            page_hpa: level.base(gpa1),
            level,
            rights: Rights::all(),
            mem_type,
        })
    }

    /// After an EPT violation of L1 at `gpa1`: maps the gibibyte around it.
    ///
    /// # Errors
    /// `NoPages`: all mappings on demand were dropped to make room. Do the
    /// INVEPT on each CPU that uses this table, call [`Ept01::invalidated`], and
    /// try again: it will do. `Never`: no such address.
    pub fn map_on_demand(&mut self, mem: &mut impl TableMemory, gpa1: u64) -> Result<(), OnDemand> {
        if gpa1 >> self.caps.maxphyaddr.min(48) != 0 {
            return Err(OnDemand::Never);
        }
        if gpa1 < self.limit {
            // Always mapped: the violation was a stale one.
            return Ok(());
        }
        let base = Level::Pdpt.base(gpa1);
        let mapped = match self.pdpt(mem, base, true) {
            None => None,
            Some(pdpt) => {
                let index = Level::Pdpt.index(base);
                if Entry(mem.read(pdpt, index)).is_present() {
                    return Ok(());
                }
                self.block(mem, base, Level::Pdpt, true).map(|value| {
                    mem.write(pdpt, index, value);
                })
            }
        };
        mapped.ok_or_else(|| OnDemand::NoPages(self.drop_on_demand(mem)))
    }

    /// Drops everything that was mapped on demand. Its table pages are used
    /// again only after [`Ept01::invalidated`].
    fn drop_on_demand(&mut self, mem: &mut impl TableMemory) -> Invalidate {
        if self.limit >> 48 != 0 {
            return Invalidate::None;
        }
        self.dropped += 1;
        let shared = Level::Pml4.index(self.limit);
        let begins = self.limit & (Level::Pml4.span_bytes() - 1) == 0;
        for index in shared..ENTRIES {
            if index == shared && !begins {
                // This table also holds what is mapped from the start.
                if let Some(pdpt) = Entry(mem.read(self.root, index)).own_table(Level::Pml4) {
                    for slot in Level::Pdpt.index(self.limit)..ENTRIES {
                        mem.write(pdpt, slot, EMPTY);
                    }
                }
            } else {
                mem.write(self.root, index, EMPTY);
            }
        }
        Invalidate::Single(self.eptp())
    }

    /// The caller did the INVEPT of the [`Invalidate`] last handed out, on each
    /// CPU that uses this table: tables taken out of use may be used again.
    pub fn invalidated(&mut self, mem: &mut impl TableMemory) {
        while let Some(page) = self.pending.pop() {
            self.pages.give(mem, page);
        }
        if self.limit >> 48 != 0 {
            return;
        }
        let shared = Level::Pml4.index(self.limit);
        let first = Level::Pdpt.index(self.limit);
        let begins = self.limit & (Level::Pml4.span_bytes() - 1) == 0;
        // Only if nothing is mapped on demand are its pages free, all of them.
        for index in shared..ENTRIES {
            let table = Entry(mem.read(self.root, index)).own_table(Level::Pml4);
            match table {
                None => {}
                Some(pdpt)
                    if index == shared
                        && !begins
                        && (first..ENTRIES).all(|slot| mem.read(pdpt, slot) == EMPTY) => {}
                Some(_) => return,
            }
        }
        self.spare.next = 0;
        self.spare.free = 0;
    }

    /// Takes over new MTRRs. Pages whose type changes are rewritten where they
    /// are; large ones that become mixed are split, and tables that became
    /// uniform are joined. No entry is ever not present in between, so other
    /// CPUs need not stop; each address keeps its translation throughout.
    ///
    /// Mappings on demand are dropped. Without a table page left for a split
    /// the block becomes UC, which is slow and never wrong.
    pub fn retype(&mut self, mem: &mut impl TableMemory, mtrrs: &Mtrrs) -> Invalidate {
        self.mtrrs = mtrrs.clone();
        let mut changed = false;
        let mut base = 0;
        while base < self.limit {
            if let Some(pdpt) =
                Entry(mem.read(self.root, Level::Pml4.index(base))).own_table(Level::Pml4)
            {
                changed |= self.retype_gib(mem, pdpt, base);
            }
            base += GIB;
        }
        if self.spare.next != 0 {
            return self.drop_on_demand(mem);
        }
        if changed {
            Invalidate::Single(self.eptp())
        } else {
            Invalidate::None
        }
    }

    fn planner(&self) -> Planner<'_> {
        Planner {
            hidden: &self.hidden,
            mtrrs: &self.mtrrs,
            caps: &self.caps,
        }
    }

    /// Writes an entry if that changes it; returns whether it did.
    fn put(mem: &mut impl TableMemory, table: u64, index: usize, value: u64) -> bool {
        if mem.read(table, index) == value {
            return false;
        }
        mem.write(table, index, value);
        true
    }

    fn retype_gib(&mut self, mem: &mut impl TableMemory, pdpt: u64, base: u64) -> bool {
        let index = Level::Pdpt.index(base);
        let plan = self.planner().plan(base, Level::Pdpt);
        let old = Entry(mem.read(pdpt, index));
        match (plan, old.own_table(Level::Pdpt)) {
            (Plan::Void, _) => false,
            (Plan::Leaf(t), None) => Self::put(mem, pdpt, index, leaf(Level::Pdpt, base, t)),
            (Plan::Leaf(t), Some(pd)) => {
                let tables = (0..ENTRIES)
                    .filter(|&i| Entry(mem.read(pd, i)).own_table(Level::Pd).is_some())
                    .count();
                if self.pending.len() + tables + 1 > MAX_PENDING {
                    return self.retype_directory(mem, pd, base);
                }
                mem.write(pdpt, index, leaf(Level::Pdpt, base, t));
                for i in 0..ENTRIES {
                    if let Some(pt) = Entry(mem.read(pd, i)).own_table(Level::Pd) {
                        self.retire(pt);
                    }
                }
                self.retire(pd);
                true
            }
            (Plan::Split, Some(pd)) => self.retype_directory(mem, pd, base),
            (Plan::Split, None) => {
                let value = match self.block(mem, base, Level::Pdpt, false) {
                    Some(value) => value,
                    None => {
                        self.coarse += 1;
                        leaf(Level::Pdpt, base, MemType::Uncacheable)
                    }
                };
                Self::put(mem, pdpt, index, value)
            }
        }
    }

    fn retype_directory(&mut self, mem: &mut impl TableMemory, pd: u64, base: u64) -> bool {
        let mut changed = false;
        for index in 0..ENTRIES {
            let block = base + index as u64 * Level::Pd.span_bytes();
            let plan = self.planner().plan(block, Level::Pd);
            let old = Entry(mem.read(pd, index));
            changed |= match (plan, old.own_table(Level::Pd)) {
                (Plan::Void, _) => false,
                (Plan::Leaf(t), None) => Self::put(mem, pd, index, leaf(Level::Pd, block, t)),
                (Plan::Leaf(t), Some(pt)) if self.pending.len() < MAX_PENDING => {
                    mem.write(pd, index, leaf(Level::Pd, block, t));
                    self.retire(pt);
                    true
                }
                (Plan::Leaf(_) | Plan::Split, Some(pt)) => self.retype_table(mem, pt, block),
                (Plan::Split, None) => {
                    let value = match self.block(mem, block, Level::Pd, false) {
                        Some(value) => value,
                        None => {
                            self.coarse += 1;
                            leaf(Level::Pd, block, MemType::Uncacheable)
                        }
                    };
                    Self::put(mem, pd, index, value)
                }
            };
        }
        changed
    }

    fn retype_table(&mut self, mem: &mut impl TableMemory, pt: u64, base: u64) -> bool {
        let mut changed = false;
        for index in 0..ENTRIES {
            let page = base + index as u64 * PAGE_BYTES;
            let value = self.page(page);
            changed |= Self::put(mem, pt, index, value);
        }
        changed
    }

    fn retire(&mut self, table: u64) {
        if table != self.void_pt && table != self.void_pd {
            // Room was checked; a page that finds none is merely lost.
            let _ = self.pending.push(table);
        }
    }

    /// The 4 KiB leaf for `page`.
    fn page(&self, page: u64) -> u64 {
        match self.planner().plan(page, Level::Pt) {
            Plan::Leaf(t) => leaf(Level::Pt, page, t),
            Plan::Void | Plan::Split => leaf(Level::Pt, self.void_hpa, MemType::WriteBack),
        }
    }

    /// The EPT page-directory-pointer table for `base`, made if need be.
    fn pdpt(&mut self, mem: &mut impl TableMemory, base: u64, on_demand: bool) -> Option<u64> {
        let index = Level::Pml4.index(base);
        if let Some(table) = Entry(mem.read(self.root, index)).own_table(Level::Pml4) {
            return Some(table);
        }
        let table = self.take(mem, on_demand)?;
        mem.fill(table, EMPTY);
        mem.write(self.root, index, Entry::table(table).0);
        Some(table)
    }

    fn take(&mut self, mem: &impl TableMemory, on_demand: bool) -> Option<u64> {
        if on_demand {
            self.spare.take(mem)
        } else {
            self.pages.take(mem)
        }
    }

    /// Composes the entry for the block of `level` (`Pdpt` or `Pd`) at `base`,
    /// with the tables below it complete. `None` if there is no page for the
    /// first of them; below that, blocks that hold nothing hidden make do with
    /// UC.
    fn block(
        &mut self,
        mem: &mut impl TableMemory,
        base: u64,
        level: Level,
        on_demand: bool,
    ) -> Option<u64> {
        match (self.planner().plan(base, level), level) {
            (Plan::Void, Level::Pdpt) => Some(Entry::table(self.void_pd).0),
            (Plan::Void, _) => Some(Entry::table(self.void_pt).0),
            (Plan::Leaf(t), _) => Some(leaf(level, base, t)),
            (Plan::Split, Level::Pdpt) => {
                let pd = self.take(mem, on_demand)?;
                for index in 0..ENTRIES {
                    let block = base + index as u64 * Level::Pd.span_bytes();
                    let value = self.directory_entry(mem, block, on_demand);
                    mem.write(pd, index, value);
                }
                Some(Entry::table(pd).0)
            }
            (Plan::Split, _) => self.table(mem, base, on_demand),
        }
    }

    fn directory_entry(&mut self, mem: &mut impl TableMemory, base: u64, on_demand: bool) -> u64 {
        match self.planner().plan(base, Level::Pd) {
            Plan::Void => Entry::table(self.void_pt).0,
            Plan::Leaf(t) => leaf(Level::Pd, base, t),
            Plan::Split => match self.table(mem, base, on_demand) {
                Some(value) => value,
                // Never show what is hidden: rather hide too much.
                None if self.planner().touches_hidden(base, Level::Pd) => {
                    self.coarse += 1;
                    Entry::table(self.void_pt).0
                }
                None => {
                    self.coarse += 1;
                    leaf(Level::Pd, base, MemType::Uncacheable)
                }
            },
        }
    }

    fn table(&mut self, mem: &mut impl TableMemory, base: u64, on_demand: bool) -> Option<u64> {
        let pt = self.take(mem, on_demand)?;
        for index in 0..ENTRIES {
            let value = self.page(base + index as u64 * PAGE_BYTES);
            mem.write(pt, index, value);
        }
        Some(Entry::table(pt).0)
    }
}

/// Why an address could not be mapped on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDemand {
    /// Room was made: do this, call [`Ept01::invalidated`], and try again.
    NoPages(Invalidate),
    /// L1 has no such address.
    Never,
}

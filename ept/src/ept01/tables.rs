//! Composes the entries of ept01 and the tables below them.

use super::EMPTY;
use super::Ept01;
use super::plan::{Plan, Planner, leaf};
use crate::addr::{ENTRIES, Level, PAGE_BYTES};
use crate::entry::Entry;
use crate::mem::TableMemory;
use crate::memtype::MemType;

impl Ept01 {
    pub(super) fn planner(&self) -> Planner<'_> {
        Planner {
            hidden: &self.hidden,
            small: &self.small,
            mtrrs: &self.mtrrs,
            caps: &self.caps,
        }
    }

    /// The 4 KiB leaf for `page`.
    pub(super) fn page(&self, page: u64) -> u64 {
        match self.planner().plan(page, Level::Pt) {
            Plan::Leaf(t) => leaf(Level::Pt, page, t),
            Plan::Void | Plan::Split => leaf(Level::Pt, self.void_hpa, MemType::WriteBack),
        }
    }

    /// The EPT page-directory-pointer table for `base`, made if need be.
    pub(super) fn pdpt(
        &mut self,
        mem: &mut impl TableMemory,
        base: u64,
        on_demand: bool,
    ) -> Option<u64> {
        let index = Level::Pml4.index(base);
        if let Some(table) = Entry(mem.read(self.root, index)).own_table(Level::Pml4) {
            return Some(table);
        }
        let table = self.take(mem, on_demand)?;
        mem.fill(table, EMPTY);
        mem.write(self.root, index, Entry::table(table).0);
        Some(table)
    }

    pub(super) fn take(&mut self, mem: &impl TableMemory, on_demand: bool) -> Option<u64> {
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
    pub(super) fn block(
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

    pub(super) fn directory_entry(
        &mut self,
        mem: &mut impl TableMemory,
        base: u64,
        on_demand: bool,
    ) -> u64 {
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

    pub(super) fn table(
        &mut self,
        mem: &mut impl TableMemory,
        base: u64,
        on_demand: bool,
    ) -> Option<u64> {
        let pt = self.take(mem, on_demand)?;
        for index in 0..ENTRIES {
            let value = self.page(base + index as u64 * PAGE_BYTES);
            mem.write(pt, index, value);
        }
        Some(Entry::table(pt).0)
    }
}

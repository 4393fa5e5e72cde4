//! Composes the entries of ept01 and the tables below them.

use umbra_arch::Gpa1;
use umbra_arch::hpa::{OwnEntry, TablePage};

use super::Ept01;
use super::plan::{Plan, Planner, leaf};
use crate::addr::{ENTRIES, Level, PAGE_BYTES};
use crate::entry::own_table;
use crate::mem::TableMemory;
use crate::memtype::MemType;

impl Ept01 {
    pub(super) fn planner(&self) -> Planner<'_> {
        Planner {
            identity: &self.identity,
            small: &self.small,
            mtrrs: &self.mtrrs,
            caps: &self.caps,
        }
    }

    /// The leaf that shows the void.
    pub(super) fn void_leaf(&self) -> OwnEntry {
        leaf(Level::Pt, self.identity.void(), MemType::WriteBack)
    }

    /// An entry for the block of `level` at `base` that shows the void everywhere.
    fn void(&self, level: Level) -> OwnEntry {
        match level {
            Level::Pt => self.void_leaf(),
            Level::Pd => own_table(self.void_pt),
            _ => own_table(self.void_pd),
        }
    }

    /// The leaf of `level` that shows what is at `base`: where any of that is hidden,
    /// the void.
    pub(super) fn leaf(&self, level: Level, base: Gpa1, mem_type: MemType) -> OwnEntry {
        match self.identity.block(base, level.span_bytes()) {
            Some(address) => leaf(level, address, mem_type),
            None => self.void(level),
        }
    }

    /// The 4 KiB leaf for `page`.
    pub(super) fn page(&self, page: Gpa1) -> OwnEntry {
        match self.planner().plan(page, Level::Pt) {
            Plan::Leaf(t) => self.leaf(Level::Pt, page, t),
            Plan::Void | Plan::Split => self.void_leaf(),
        }
    }

    /// The EPT page-directory-pointer table for `base`, made if need be.
    pub(super) fn pdpt(
        &mut self,
        mem: &mut impl TableMemory,
        base: Gpa1,
        on_demand: bool,
    ) -> Option<TablePage> {
        let index = Level::Pml4.index(base.raw());
        if let Some(table) = mem.read(self.root, index).below() {
            return Some(table);
        }
        let table = self.take(mem, on_demand)?;
        mem.fill(table, OwnEntry::EMPTY);
        mem.write(self.root, index, own_table(table));
        Some(table)
    }

    pub(super) fn take(&mut self, mem: &impl TableMemory, on_demand: bool) -> Option<TablePage> {
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
        base: Gpa1,
        level: Level,
        on_demand: bool,
    ) -> Option<OwnEntry> {
        match (self.planner().plan(base, level), level) {
            (Plan::Void, _) => Some(self.void(level)),
            (Plan::Leaf(t), _) => Some(self.leaf(level, base, t)),
            (Plan::Split, Level::Pdpt) => {
                let pd = self.take(mem, on_demand)?;
                for index in 0..ENTRIES {
                    let block = base.plus(index as u64 * Level::Pd.span_bytes());
                    let value = self.directory_entry(mem, block, on_demand);
                    mem.write(pd, index, value);
                }
                Some(own_table(pd))
            }
            (Plan::Split, _) => self.table(mem, base, on_demand),
        }
    }

    pub(super) fn directory_entry(
        &mut self,
        mem: &mut impl TableMemory,
        base: Gpa1,
        on_demand: bool,
    ) -> OwnEntry {
        match self.planner().plan(base, Level::Pd) {
            Plan::Void => self.void(Level::Pd),
            Plan::Leaf(t) => self.leaf(Level::Pd, base, t),
            Plan::Split => match self.table(mem, base, on_demand) {
                Some(value) => value,
                // Never show what is hidden: rather hide too much.
                None if self.planner().touches_hidden(base, Level::Pd) => {
                    self.coarse += 1;
                    self.void(Level::Pd)
                }
                None => {
                    self.coarse += 1;
                    self.leaf(Level::Pd, base, MemType::Uncacheable)
                }
            },
        }
    }

    pub(super) fn table(
        &mut self,
        mem: &mut impl TableMemory,
        base: Gpa1,
        on_demand: bool,
    ) -> Option<OwnEntry> {
        let pt = self.take(mem, on_demand)?;
        for index in 0..ENTRIES {
            let value = self.page(base.plus(index as u64 * PAGE_BYTES));
            mem.write(pt, index, value);
        }
        Some(own_table(pt))
    }
}

//! Takes over new memory types in place.

use umbra_arch::Gpa1;
use umbra_arch::hpa::{OwnEntry, TablePage};

use super::config::GIB;
use super::plan::Plan;
use super::{Ept01, MAX_PENDING};
use crate::addr::{ENTRIES, Level, PAGE_BYTES};
use crate::invalidate::Invalidate;
use crate::mem::TableMemory;
use crate::memtype::MemType;
use crate::mtrr::Mtrrs;

impl Ept01 {
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
        let mut base = Gpa1::new(0);
        while base.raw() < self.limit {
            if let Some(pdpt) = mem.read(self.root, Level::Pml4.index(base.raw())).below() {
                changed |= self.retype_gib(mem, pdpt, base);
            }
            base = base.plus(GIB);
        }
        if self.has_on_demand {
            return self.drop_on_demand(mem);
        }
        if changed {
            Invalidate::Single(self.eptp())
        } else {
            Invalidate::None
        }
    }

    /// Writes an entry if that changes it; returns whether it did.
    fn put(mem: &mut impl TableMemory, table: TablePage, index: usize, value: OwnEntry) -> bool {
        if mem.read(table, index) == value {
            return false;
        }
        mem.write(table, index, value);
        true
    }

    pub(super) fn retype_gib(
        &mut self,
        mem: &mut impl TableMemory,
        pdpt: TablePage,
        base: Gpa1,
    ) -> bool {
        let index = Level::Pdpt.index(base.raw());
        let plan = self.planner().plan(base, Level::Pdpt);
        let old = mem.read(pdpt, index);
        match (plan, old.below()) {
            (Plan::Void, _) => false,
            (Plan::Leaf(t), None) => Self::put(mem, pdpt, index, self.leaf(Level::Pdpt, base, t)),
            (Plan::Leaf(t), Some(pd)) => {
                let tables = (0..ENTRIES)
                    .filter(|&i| mem.read(pd, i).below().is_some())
                    .count();
                if self.pending.len() + tables + 1 > MAX_PENDING {
                    return self.retype_directory(mem, pd, base);
                }
                mem.write(pdpt, index, self.leaf(Level::Pdpt, base, t));
                for i in 0..ENTRIES {
                    if let Some(pt) = mem.read(pd, i).below() {
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
                        self.leaf(Level::Pdpt, base, MemType::Uncacheable)
                    }
                };
                Self::put(mem, pdpt, index, value)
            }
        }
    }

    fn retype_directory(&mut self, mem: &mut impl TableMemory, pd: TablePage, base: Gpa1) -> bool {
        let mut changed = false;
        for index in 0..ENTRIES {
            let block = base.plus(index as u64 * Level::Pd.span_bytes());
            let plan = self.planner().plan(block, Level::Pd);
            let old = mem.read(pd, index);
            changed |= match (plan, old.below()) {
                (Plan::Void, _) => false,
                (Plan::Leaf(t), None) => Self::put(mem, pd, index, self.leaf(Level::Pd, block, t)),
                (Plan::Leaf(t), Some(pt)) if self.pending.len() < MAX_PENDING => {
                    mem.write(pd, index, self.leaf(Level::Pd, block, t));
                    self.retire(pt);
                    true
                }
                (Plan::Leaf(_) | Plan::Split, Some(pt)) => self.retype_table(mem, pt, block),
                (Plan::Split, None) => {
                    let value = match self.block(mem, block, Level::Pd, false) {
                        Some(value) => value,
                        None => {
                            self.coarse += 1;
                            self.leaf(Level::Pd, block, MemType::Uncacheable)
                        }
                    };
                    Self::put(mem, pd, index, value)
                }
            };
        }
        changed
    }

    fn retype_table(&mut self, mem: &mut impl TableMemory, pt: TablePage, base: Gpa1) -> bool {
        let mut changed = false;
        for index in 0..ENTRIES {
            let page = base.plus(index as u64 * PAGE_BYTES);
            let value = self.page(page);
            changed |= Self::put(mem, pt, index, value);
        }
        changed
    }

    fn retire(&mut self, table: TablePage) {
        if table != self.void_pt && table != self.void_pd {
            // Room was checked; a page that finds none is merely lost.
            let _ = self.pending.push(table);
        }
    }
}

//! Pages that have to be mapped by a 4 KiB leaf, whatever lies around them.
//!
//! The CPU treats accesses to the APIC-access page specially only where 4 KiB
//! pages lead to it; through a larger one it may act as if the control were 0.
//! SDM "Virtualizing Memory-Mapped APIC Accesses".

use umbra_arch::Gpa1;

use super::Ept01;
use super::config::GIB;
use crate::addr::Level;
use crate::invalidate::Invalidate;
use crate::mem::TableMemory;

/// Most pages with a leaf of their own; of more, the earliest goes.
pub const MAX_SMALL: usize = 4;
/// Most table pages that one of them takes: of a 1 GiB page and a 2 MiB page.
const TABLES: u32 = 2;

impl Ept01 {
    /// Maps the page around `gpa1` by a 4 KiB leaf, from now on. Each address
    /// keeps its translation throughout. What becomes a large page again does so
    /// after [`Ept01::invalidated`].
    ///
    /// Without table pages left, everything stays as it is.
    pub fn keep_small(&mut self, mem: &mut impl TableMemory, gpa1: Gpa1) -> Invalidate {
        let page = gpa1.page();
        if self.small.contains(&page) || page.raw() >> self.caps.maxphyaddr.min(48) != 0 {
            return Invalidate::None;
        }
        if page.raw() < self.limit && self.pages.left(mem, TABLES) < TABLES {
            return Invalidate::None;
        }
        let mut owed = Invalidate::None;
        if self.small.is_full() {
            let earliest = self.small.remove(0);
            owed = owed.and(self.plan_again(mem, earliest));
        }
        if self.small.push(page).is_ok() {
            owed = owed.and(self.plan_again(mem, page));
        }
        owed
    }

    /// Lets the gibibyte around `page` follow a changed plan.
    fn plan_again(&mut self, mem: &mut impl TableMemory, page: Gpa1) -> Invalidate {
        if page.raw() >= self.limit {
            // It comes back on demand.
            return match self.has_on_demand {
                true => self.drop_on_demand(mem),
                false => Invalidate::None,
            };
        }
        let root = mem.read(self.root, Level::Pml4.index(page.raw()));
        let changed = match root.below() {
            Some(pdpt) => self.retype_gib(mem, pdpt, page.block(GIB)),
            None => false,
        };
        match changed {
            true => Invalidate::Single(self.eptp()),
            false => Invalidate::None,
        }
    }
}

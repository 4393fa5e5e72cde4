//! Addresses above the limit, by the gibibyte, when L1 first touches them.

use umbra_arch::Gpa1;
use umbra_arch::hpa::OwnEntry;

use super::Ept01;
use crate::addr::{ENTRIES, Level};
use crate::invalidate::Invalidate;
use crate::mem::TableMemory;

/// Why an address could not be mapped on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDemand {
    /// Room was made: do this, call [`Ept01::invalidated`], and try again.
    NoPages(Invalidate),
    /// L1 has no such address.
    Never,
}

impl Ept01 {
    /// After an EPT violation of L1 at `gpa1`: maps the gibibyte around it.
    ///
    /// # Errors
    /// `NoPages`: all mappings on demand were dropped to make room. Do the
    /// INVEPT on each CPU that uses this table, call [`Ept01::invalidated`], and
    /// try again: it will do. `Never`: no such address.
    pub fn map_on_demand(
        &mut self,
        mem: &mut impl TableMemory,
        gpa1: Gpa1,
    ) -> Result<(), OnDemand> {
        if gpa1.raw() >> self.caps.maxphyaddr.min(48) != 0 {
            return Err(OnDemand::Never);
        }
        if gpa1.raw() < self.limit {
            // Always mapped: the violation was a stale one.
            return Ok(());
        }
        let base = gpa1.block(Level::Pdpt.span_bytes());
        let mapped = match self.pdpt(mem, base, true) {
            None => None,
            Some(pdpt) => {
                let index = Level::Pdpt.index(base.raw());
                if mem.read(pdpt, index).is_present() {
                    return Ok(());
                }
                self.block(mem, base, Level::Pdpt, true).map(|value| {
                    mem.write(pdpt, index, value);
                })
            }
        };
        self.has_on_demand |= mapped.is_some();
        mapped.ok_or_else(|| OnDemand::NoPages(self.drop_on_demand(mem)))
    }

    /// Drops everything that was mapped on demand. Its table pages are used
    /// again only after [`Ept01::invalidated`].
    pub(super) fn drop_on_demand(&mut self, mem: &mut impl TableMemory) -> Invalidate {
        if self.limit >> 48 != 0 {
            return Invalidate::None;
        }
        self.dropped += 1;
        self.has_on_demand = false;
        let shared = Level::Pml4.index(self.limit);
        let begins = self.limit & (Level::Pml4.span_bytes() - 1) == 0;
        for index in shared..ENTRIES {
            if index == shared && !begins {
                // This table also holds what is mapped from the start.
                if let Some(pdpt) = mem.read(self.root, index).below() {
                    for slot in Level::Pdpt.index(self.limit)..ENTRIES {
                        mem.write(pdpt, slot, OwnEntry::EMPTY);
                    }
                }
            } else {
                mem.write(self.root, index, OwnEntry::EMPTY);
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
            let table = mem.read(self.root, index).below();
            match table {
                None => {}
                Some(pdpt)
                    if index == shared
                        && !begins
                        && (first..ENTRIES).all(|slot| mem.read(pdpt, slot) == OwnEntry::EMPTY) => {
                }
                Some(_) => return,
            }
        }
        self.spare.next = 0;
        self.spare.free = None;
    }
}

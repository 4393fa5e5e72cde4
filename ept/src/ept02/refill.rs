//! After an INVEPT of L1: leaves out, and the ones used last read anew.

use super::{Context12, EMPTY, Pool};
use crate::entry::Entry;
use crate::ept12;
use crate::invalidate::Invalidate;
use crate::mem::{L1Memory, TableMemory};
use crate::rights::Access;

impl<const CACHES: usize, const RECENT: usize> Pool<CACHES, RECENT> {
    /// Takes the leaves of the current cache out and puts the ones used last
    /// back, read anew.
    pub(super) fn renew(
        &mut self,
        context: &Context12,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Invalidate {
        let Some(cache) = self.caches.get_mut(self.current) else {
            return Invalidate::None;
        };
        cache.stale = false;
        let owed = Invalidate::Single(cache.eptp02());
        let old = cache.recent;
        let len = cache.len;
        let first = if len < RECENT { 0 } else { cache.at };
        if cache.forgot {
            cache.reset(tables);
        } else {
            // All leaves are known: the tables above them can stay.
            for recent in old.iter().take(len) {
                let index = recent.index as usize;
                if let Some(table) = cache.pages.get(u32::from(recent.table))
                    && Entry(tables.read(table, index)).is_own_leaf(recent.level)
                {
                    tables.write(table, index, EMPTY);
                }
            }
            cache.len = 0;
            cache.at = 0;
        }
        let skip = len - len.min(self.refill);
        for n in skip..len {
            let Some(recent) = old.get((first + n) % RECENT.max(1)) else {
                continue;
            };
            self.refill_one(context, recent.gpa2, tables, l1);
        }
        owed
    }

    /// Puts one leaf back if ept12 still translates its address. Accessed and
    /// dirty flags are not set for an access that did not happen.
    fn refill_one(
        &mut self,
        context: &Context12,
        gpa2: u64,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) {
        let access = Access::empty();
        let Ok(found) = ept12::translate(context.eptp, gpa2, access, &context.caps, l1) else {
            return;
        };
        if context.eptp.accessed_dirty() && !found.is_accessed() {
            return;
        }
        let Some(wanted) = self.wanted(context, gpa2, &found, l1) else {
            return;
        };
        if wanted.rights.is_empty() {
            return;
        }
        let Some(cache) = self.caches.get_mut(self.current) else {
            return;
        };
        // Out of pages: the rest comes back when L2 touches it.
        if let Ok(installed) = cache.install(tables, gpa2, wanted.level, wanted.value) {
            self.counters.refill += u64::from(!installed.same);
        }
    }
}

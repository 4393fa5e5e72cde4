//! After an INVEPT of L1: leaves out, and the ones used last read anew.

use umbra_arch::Gpa2;

use super::cache::Recent;
use super::fill::{ALL, From12};
use super::{Context12, Pool};
use crate::ept12;
use crate::invalidate::Invalidate;
use crate::mem::BLOCK;
use crate::mem::{L1Memory, TableMemory};
use crate::rights::Access;

/// Leaves of a block that are walked from the root before it is given up.
const MAX_WALKS: usize = 2;

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
        cache.take_out(tables);
        // From the newest back, as many as come to the wanted number of leaves.
        let at = |n: usize| old.get((first + n) % RECENT.max(1));
        let mut left = self.refill;
        let mut from = len;
        let mut of_oldest = 0;
        while from > 0 && left > 0 {
            from -= 1;
            of_oldest = left;
            let leaves = at(from).map_or(0, |r| match r.credit {
                0 => 0,
                _ => r.mask.count_ones() as usize,
            });
            left = left.saturating_sub(leaves);
        }
        // In the old order, so that the newest are still the newest.
        for (n, recent) in (from..len).filter_map(at).enumerate() {
            if recent.credit == 0 {
                continue;
            }
            let mut mask = recent.mask;
            while n == 0 && mask.count_ones() as usize > of_oldest {
                mask &= mask.wrapping_sub(1);
            }
            self.refill_block(context, recent, mask, tables, l1);
        }
        owed
    }

    /// Puts those of one block's leaves back that `mask` has: one of them by a
    /// walk from the root, the others from the same table of ept12.
    fn refill_block(
        &mut self,
        context: &Context12,
        recent: &Recent,
        mask: u16,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) {
        let leaves = (0..BLOCK).filter(|n| mask >> n & 1 != 0);
        for n in leaves.take(MAX_WALKS) {
            let gpa2 = recent.gpa2.plus(n as u64 * recent.level.span_bytes());
            let Some(put) = self.refill_one(context, gpa2, recent, mask, tables, l1) else {
                continue;
            };
            self.counters.refill += put;
            if put != 0
                && let Some(cache) = self.caches.get_mut(self.current)
            {
                cache.was_put_back(recent.credit);
            }
            return;
        }
    }

    /// Puts the leaf for `gpa2` in, if ept12 translates it by now: L1 was told of a
    /// violation there, and L2 is about to touch it again. For the context entered by
    /// [`activate`](Self::activate). Gives the INVEPT that has to follow.
    pub fn prefill(
        &mut self,
        context: &Context12,
        gpa2: Gpa2,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Invalidate {
        let access = Access::empty();
        let Ok(found) = ept12::translate(context.eptp, gpa2, access, &context.caps, l1) else {
            return Invalidate::None;
        };
        // No flag is set for an access that did not happen yet.
        if context.eptp.accessed_dirty() && !found.is_accessed() {
            return Invalidate::None;
        }
        let Some(wanted) = self.wanted(context, gpa2, &From12::of(&found), l1) else {
            return Invalidate::None;
        };
        let Some(cache) = self.caches.get_mut(self.current) else {
            return Invalidate::None;
        };
        if wanted.rights.is_empty() {
            return Invalidate::None;
        }
        let eptp = cache.eptp02();
        // Out of pages: the violation that comes then makes room.
        let Ok(installed) = cache.install(tables, gpa2, wanted.level, wanted.value) else {
            return Invalidate::None;
        };
        self.counters.refill += u64::from(!installed.same);
        if self.neighbours
            && let Some(table) = installed.table
        {
            let leaf = (wanted.level, wanted.value);
            let put = self.around(context, gpa2, &found, leaf, table, ALL, tables, l1);
            self.counters.around += put;
        }
        match installed.resized {
            true => Invalidate::Single(eptp),
            false => Invalidate::None,
        }
    }

    /// Puts one leaf and the rest of its block back if ept12 still translates
    /// its address. Accessed and dirty flags are not set for an access that did
    /// not happen.
    fn refill_one(
        &mut self,
        context: &Context12,
        gpa2: Gpa2,
        recent: &Recent,
        mask: u16,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Option<u64> {
        let access = Access::empty();
        let found = ept12::translate(context.eptp, gpa2, access, &context.caps, l1).ok()?;
        if context.eptp.accessed_dirty() && !found.is_accessed() {
            return None;
        }
        let wanted = self.wanted(context, gpa2, &From12::of(&found), l1)?;
        if wanted.rights.is_empty() {
            return None;
        }
        let level = wanted.level;
        let cache = self.caches.get_mut(self.current)?;
        // Out of pages: the rest comes back when L2 touches it.
        let installed = cache.install(tables, gpa2, level, wanted.value).ok()?;
        let mut put = u64::from(!installed.same);
        if level == recent.level
            && let Some(table) = installed.table
        {
            put += self.around(
                context,
                gpa2,
                &found,
                (level, wanted.value),
                table,
                mask,
                tables,
                l1,
            );
        }
        Some(put)
    }
}

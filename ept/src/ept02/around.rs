//! Leaves next to the one that L2 asked for, put in without being asked.
//!
//! A CPU may walk its tables ahead of any access and keep what it finds, as
//! long as it sets no dirty flag and no more accessed flags than it must (SDM
//! "Information That May Be Cached"). So may ept02: the leaves side by side
//! with the one that was missed are read from the same table of ept12, which
//! costs a read each and saves an exit each. An entry that is not present, not
//! legal, not accessed (where the flags are on) or of another size is left out.

use super::cache::BLOCK;
use super::fill::From12;
use super::{Context12, Pool};
use crate::addr::Level;
use crate::entry::{Decoded, Entry, bit};
use crate::ept12::Translation;
use crate::mem::{L1Memory, TableMemory};

/// Every leaf of a block.
pub(super) const ALL: u16 = u16::MAX;

impl<const CACHES: usize, const RECENT: usize> Pool<CACHES, RECENT> {
    /// Puts in what is absent of the block of [`BLOCK`] leaves around `gpa2`,
    /// as far as `mask` has them. `found` is ept12's answer for `gpa2`, whose
    /// leaf of `level` was just put into `table`. Returns how many were put in.
    #[expect(clippy::too_many_arguments)]
    pub(super) fn around(
        &mut self,
        context: &Context12,
        gpa2: u64,
        found: &Translation,
        level: Level,
        table: u64,
        mask: u16,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> u64 {
        if !matches!(level, Level::Pt | Level::Pd) {
            return 0;
        }
        let flags = if context.eptp.accessed_dirty() {
            bit::ACCESSED
        } else {
            0
        };
        let upper = found.upper_rights(context.caps.mode_based_execute);
        let here = level.index(gpa2);
        let first = here - here % BLOCK;
        let base = gpa2 & !(level.span_bytes() * BLOCK as u64 - 1);
        let table12 = Level::Pt.base(found.leaf().gpa1);
        let one_each = found.level == level;
        let mut from = From12::of(found);
        let mut put = 0u16;
        for n in 0..BLOCK {
            let index = first + n;
            if index == here || mask >> n & 1 == 0 {
                continue;
            }
            if Entry(tables.read(table, index)).is_present() {
                continue;
            }
            let next = base | (n as u64 * level.span_bytes());
            if one_each {
                let Some(raw) = l1.read_u64(table12 | (index as u64) << 3) else {
                    continue;
                };
                let Decoded::Leaf(leaf) = Entry(raw).decode(level, &context.caps) else {
                    continue;
                };
                if raw & flags != flags {
                    continue;
                }
                from.gpa1 = leaf.address;
                from.rights = upper & leaf.rights;
                from.mem_type = leaf.mem_type;
                from.ignore_pat = leaf.ignore_pat;
                from.dirty = raw & bit::DIRTY != 0;
            } else {
                // A larger leaf of ept12 holds the whole block.
                from.gpa1 = found.level.base(found.gpa1) | found.level.offset(next);
            }
            let Some(wanted) = self.wanted(context, next, &from, l1) else {
                continue;
            };
            if wanted.level != level || wanted.rights.is_empty() {
                continue;
            }
            tables.write(table, index, wanted.value);
            put |= 1 << n;
        }
        if put != 0
            && let Some(cache) = self.caches.get_mut(self.current)
        {
            cache.remember(table, level, gpa2, put);
        }
        u64::from(put.count_ones())
    }
}

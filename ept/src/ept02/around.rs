//! Leaves next to the one that L2 asked for, put in without being asked.
//!
//! A CPU may walk its tables ahead of any access and keep what it finds, as
//! long as it sets no dirty flag and no more accessed flags than it must (SDM
//! "Information That May Be Cached"). So may ept02: the leaves side by side
//! with the one that was missed are read from the same table of ept12, which
//! costs a read each and saves an exit each. An entry that is not present, not
//! legal, not accessed (where the flags are on) or of another size is left out.

use umbra_arch::hpa::{OwnEntry, TablePage};
use umbra_arch::{Gpa1, Gpa2};

use super::fill::From12;
use super::{Context12, Pool};
use crate::addr::{ADDRESS_BITS, Level};
use crate::entry::{Decoded, Entry, bit};
use crate::ept12::Translation;
use crate::mem::{BLOCK, L1Memory, Leaf01, TableMemory};

/// What makes a leaf of ept12 like the one that was asked for, so that ept02's
/// is too, but for the address: nearly all that stand side by side are.
struct Pattern {
    /// The leaf of ept12 that was asked for.
    raw12: u64,
    /// Bits in which another may differ.
    free: u64,
    /// Bits that an address must not have.
    reserved: u64,
    /// A leaf of ept02 like the one that came of it, at the first byte of the page of
    /// ept01 that it was found in.
    first02: OwnEntry,
    /// That page, by its first L1 address.
    near01: (Gpa1, Leaf01),
}

impl Pattern {
    /// The leaf of ept02 for another leaf of ept12. `None` if it takes a closer
    /// look.
    #[inline(always)]
    fn apply(&self, raw: u64) -> Option<OwnEntry> {
        let (base, machine) = self.near01;
        let gpa1 = Gpa1::in_entry(raw);
        let bytes = machine.level.span_bytes();
        let is_alike = (raw ^ self.raw12) & !self.free == 0 && raw & self.reserved == 0;
        if !is_alike || gpa1.block(bytes) != base {
            return None;
        }
        Some(self.first02.beside(gpa1, bytes))
    }
}

/// From how many on the entries of a block are read together, which costs as much as
/// three by themselves.
const WHOLE_BLOCK: u32 = 4;

/// Which of the entries of a block that `mask` has are absent from ept02's `table`,
/// where the block begins at `first`.
#[inline]
fn absent_of(table: TablePage, first: usize, mask: u16, tables: &impl TableMemory) -> u16 {
    (0..BLOCK)
        .filter(|n| mask >> n & 1 != 0 && !tables.read(table, first + n).is_present())
        .fold(0, |absent, n| absent | 1 << n)
}

impl<const CACHES: usize, const RECENT: usize> Pool<CACHES, RECENT> {
    /// Puts in what is absent of the block of [`BLOCK`] leaves around `gpa2`,
    /// as far as `mask` has them. `found` is ept12's answer for `gpa2`, whose
    /// leaf, `value` at `level`, was just put into `table`. Returns how many were put in.
    #[expect(clippy::too_many_arguments)]
    pub(super) fn around(
        &mut self,
        context: &Context12,
        gpa2: Gpa2,
        found: &Translation,
        (level, value): (Level, OwnEntry),
        table: TablePage,
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
        let here = level.index(gpa2.raw());
        let first = here - here % BLOCK;
        let base = gpa2.block(level.span_bytes() * BLOCK as u64);
        let table12 = found.leaf().gpa1.page();
        let one_each = found.level == level;
        let mut from = From12::of(found);
        let pattern = self.pattern(context, found, level, value);
        let mut put = 0u16;
        let absent = absent_of(table, first, mask & !(1 << (here - first)), tables);
        // Few are read one by one.
        let block = match one_each && absent.count_ones() >= WHOLE_BLOCK {
            true => Some(l1.read_block(table12.plus((first as u64) << 3))),
            false => None,
        };
        for n in (0..BLOCK).filter(|n| absent >> n & 1 != 0) {
            let index = first + n;
            let raw = match &block {
                Some(block) => block.get(n).copied(),
                None if one_each => l1.read_u64(table12.plus((index as u64) << 3)),
                None => None,
            };
            let raw = raw.unwrap_or(0);
            // Most that are left out are empty: no closer look at those.
            if one_each && (raw & !bit::SUPPRESS_VE == 0 || raw & flags != flags) {
                continue;
            }
            let next = base.plus(n as u64 * level.span_bytes());
            if one_each {
                if let Some(value) = pattern.as_ref().and_then(|p| p.apply(raw)) {
                    tables.write(table, index, value);
                    put |= 1 << n;
                    continue;
                }
                let Decoded::Leaf(leaf) = Entry(raw).decode(level, &context.caps) else {
                    continue;
                };
                from.gpa1 = leaf.address;
                from.rights = upper & leaf.rights;
                from.mem_type = leaf.mem_type;
                from.ignore_pat = leaf.ignore_pat;
                from.dirty = raw & bit::DIRTY != 0;
            } else {
                // A larger leaf of ept12 holds the whole block.
                let page = found.gpa1.block(found.level.span_bytes());
                from.gpa1 = page.plus(found.level.offset(next.raw()));
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

    /// What the leaf just put in says of those beside it. `None` if it does not
    /// lie in the page of ept01 that was used last.
    #[inline]
    fn pattern(
        &self,
        context: &Context12,
        found: &Translation,
        level: Level,
        value: OwnEntry,
    ) -> Option<Pattern> {
        let (base, machine) = self.near01;
        // The page is at least as large as any leaf that has neighbours.
        if found.gpa1.block(machine.level.span_bytes()) != base {
            return None;
        }
        let below = (level.span_bytes() - 1) & ADDRESS_BITS;
        Some(Pattern {
            raw12: found.leaf().value,
            free: ADDRESS_BITS | bit::ACCESSED,
            reserved: context.caps.beyond_width() | below,
            first02: OwnEntry::leaf(machine.page, value.raw()),
            near01: self.near01,
        })
    }
}

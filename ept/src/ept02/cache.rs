//! One cache: its table pages and the leaves put in last.

use umbra_arch::hpa::{OwnEntry, TablePage, TablePages};
use umbra_arch::{Gpa1, Gpa2};

use super::Context12;
use crate::addr::Level;
use crate::entry::own_table;
use crate::eptp::{self, OwnEptp};
use crate::mem::{BLOCK, TableMemory};

/// What makes two contexts share a cache: the address of the tables, the walk
/// length, accessed and dirty flags, and mode-based execute control. The memory
/// type of the tables makes no difference.
///
/// The number is the EPT pointer without its memory type, and mode-based
/// execute control in bit 11, which is 0 in every pointer; 0 is no context,
/// since no walk has length 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    pub(super) const NONE: Self = Self(0);

    #[inline]
    pub(super) fn of(context: &Context12) -> Self {
        const TYPE: u64 = 7;
        Self((context.eptp.raw() & !TYPE) | u64::from(context.caps.mode_based_execute) << 11)
    }

    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Where L1's root table is.
    pub(super) fn root(self) -> Gpa1 {
        Gpa1::in_entry(self.0)
    }

    fn accessed_dirty(self) -> bool {
        self.0 & eptp::ACCESSED_DIRTY != 0
    }
}

/// How often a block is put back after an INVEPT without L2 having missed it.
///
/// Nothing tells whether L2 used what was put back, so a block goes out of use
/// by this count. One that L2 does use costs a miss each time the count is
/// through; one that it does not would cost a block of leaves at every INVEPT.
pub(super) const CREDIT: u8 = 8;

/// Leaves that were put in, and where they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// The block's first byte.
    pub(super) gpa2: Gpa2,
    /// Number of their table among the cache's pages.
    pub(super) table: u16,
    /// Index of the block's first leaf there, a multiple of [`BLOCK`].
    pub(super) index: u16,
    /// Which of the block's leaves were put in.
    pub(super) mask: u16,
    /// How often it may still be put back: see [`CREDIT`].
    pub(super) credit: u8,
    pub(super) level: Level,
}

impl Recent {
    pub(super) const NONE: Self = Self {
        gpa2: Gpa2::new(0),
        table: 0,
        index: 0,
        mask: 0,
        credit: 0,
        level: Level::Pt,
    };
}

/// No block of L2 has this number.
const NOWHERE: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub(super) struct Cache<const RECENT: usize> {
    pub(super) key: Key,
    pub(super) pages: TablePages,
    /// Pages in use; page 0 is the root and always is.
    pub(super) used: u32,
    /// L1 did an INVEPT since the leaves were filled in.
    pub(super) stale: bool,
    /// When this cache was last entered.
    pub(super) last: u64,
    /// The leaves put in last, as a ring: `at` is where the next one goes.
    pub(super) recent: [Recent; RECENT],
    pub(super) len: usize,
    pub(super) at: usize,
    /// Some leaf is in the tables and no longer in the ring.
    pub(super) forgot: bool,
    /// The page table used last, and the 2 MiB of L2 that it is for.
    near: TablePage,
    near_block: u64,
}

/// No table page is left.
pub(super) struct OutOfPages;

/// What putting a leaf in came to.
pub(super) struct Installed {
    /// The entry was as wanted before.
    pub(super) same: bool,
    /// A table or a leaf of another size gave way: the CPU must not see both.
    pub(super) resized: bool,
    /// The table that it is in; `None` if the cache had to start over.
    pub(super) table: Option<TablePage>,
}

impl<const RECENT: usize> Cache<RECENT> {
    /// An empty cache, without pages so far.
    pub(super) const NEW: Self = Self {
        key: Key::NONE,
        pages: TablePages::NONE,
        used: 1,
        stale: false,
        last: 0,
        recent: [Recent::NONE; RECENT],
        len: 0,
        at: 0,
        forgot: false,
        near: TablePage::NOWHERE,
        near_block: NOWHERE,
    };

    pub(super) fn eptp02(&self) -> OwnEptp {
        OwnEptp::new(self.pages.first(), self.key.accessed_dirty())
    }

    /// Empties the tables. The root goes first, so that nothing is reachable
    /// when the other pages are used again.
    pub(super) fn reset(&mut self, tables: &mut impl TableMemory) {
        tables.fill(self.pages.first(), OwnEntry::EMPTY);
        self.used = 1;
        self.len = 0;
        self.at = 0;
        self.forgot = false;
        self.near_block = NOWHERE;
    }

    /// Writes down that leaves of `level` were put into `table`: those of
    /// `mask` in the block around `gpa2`.
    pub(super) fn remember(&mut self, table: TablePage, level: Level, gpa2: Gpa2, mask: u16) {
        let index = level.index(gpa2.raw());
        let table = self.pages.index_of(table) as u16;
        let first = (index - index % BLOCK) as u16;
        if let Some(recent) = self.newest()
            && (recent.table, recent.index, recent.level) == (table, first, level)
        {
            recent.mask |= mask;
            recent.credit = CREDIT;
            return;
        }
        if self.len == RECENT {
            self.forgot = true;
        } else {
            self.len += 1;
        }
        if let Some(slot) = self.recent.get_mut(self.at) {
            *slot = Recent {
                gpa2: gpa2.block(level.span_bytes() * BLOCK as u64),
                table,
                index: first,
                mask,
                credit: CREDIT,
                level,
            };
        }
        self.at += 1;
        if self.at >= RECENT {
            self.at = 0;
        }
    }

    fn newest(&mut self) -> Option<&mut Recent> {
        if self.len == 0 {
            return None;
        }
        let last = if self.at == 0 { RECENT } else { self.at }.wrapping_sub(1);
        self.recent.get_mut(last)
    }

    /// The block written down last was put back, not missed.
    pub(super) fn was_put_back(&mut self, credit: u8) {
        if let Some(recent) = self.newest() {
            recent.credit = credit.saturating_sub(1);
        }
    }

    /// Takes out all leaves. Where each one is known, the tables stay.
    pub(super) fn take_out(&mut self, tables: &mut impl TableMemory) {
        if self.forgot {
            self.reset(tables);
            return;
        }
        for recent in self.recent.iter().take(self.len) {
            let Some(table) = self.pages.get(u32::from(recent.table)) else {
                continue;
            };
            for n in (0..BLOCK).filter(|n| recent.mask >> n & 1 != 0) {
                let index = recent.index as usize + n;
                // A table may have taken the leaf's place.
                if tables.read(table, index).is_leaf() {
                    tables.write(table, index, OwnEntry::EMPTY);
                }
            }
        }
        self.len = 0;
        self.at = 0;
    }

    /// Finds the table of `level` for `gpa2`, making those above it as needed.
    /// Returns it, and whether a leaf gave way to a table.
    fn descend(
        &mut self,
        tables: &mut impl TableMemory,
        gpa2: Gpa2,
        level: Level,
    ) -> Result<(TablePage, bool), OutOfPages> {
        let mut at = Level::Pml4;
        let mut table = self.pages.first();
        let mut resized = false;
        while at != level {
            // Never below the last level: `level` is met before.
            let Some(below) = at.below() else { break };
            let index = at.index(gpa2.raw());
            let entry = tables.read(table, index);
            table = match entry.below() {
                Some(next) => next,
                None => {
                    let next = self.pages.get(self.used).ok_or(OutOfPages)?;
                    self.used += 1;
                    tables.fill(next, OwnEntry::EMPTY);
                    tables.write(table, index, own_table(next));
                    resized |= entry.is_present();
                    next
                }
            };
            at = below;
        }
        Ok((table, resized))
    }

    /// Puts `value` in at `level` for `gpa2`.
    #[inline]
    pub(super) fn install(
        &mut self,
        tables: &mut impl TableMemory,
        gpa2: Gpa2,
        level: Level,
        value: OwnEntry,
    ) -> Result<Installed, OutOfPages> {
        let block = gpa2.raw() >> Level::Pd.shift();
        let is_near = level == Level::Pt && block == self.near_block;
        let (table, mut resized) = if is_near {
            (self.near, false)
        } else {
            self.descend(tables, gpa2, level)?
        };
        let index = level.index(gpa2.raw());
        let old = tables.read(table, index);
        let same = old == value;
        if !same {
            tables.write(table, index, value);
            if !old.is_leaf() {
                resized |= old.is_present();
                self.remember(table, level, gpa2, 1 << (index % BLOCK));
            }
        }
        if level == Level::Pt {
            self.near = table;
            self.near_block = block;
        } else if resized {
            // The table that was near may be the one that gave way.
            self.near_block = NOWHERE;
        }
        Ok(Installed {
            same,
            resized,
            table: Some(table),
        })
    }
}

//! Answers an EPT violation of ept02: both walks, the flags of ept12, a leaf.

use umbra_arch::hpa::OwnEntry;
use umbra_arch::{Gpa1, Gpa2};

use super::cache::{Installed, OutOfPages};
use super::{Context12, NO_DOUBT, Outcome, Pml, Pool};
use crate::addr::Level;
use crate::entry::{Leaf, bit, own_leaf};
use crate::ept12::{self, Fault, Translation};
use crate::invalidate::Invalidate;
use crate::mem::{L1Memory, Leaf01, TableMemory};
use crate::memtype::MemType;
use crate::rights::{Access, Permits, Rights};

/// How often a fill starts over because ept12 changed under it.
const MAX_TRIES: u32 = 4;

/// Every leaf of a block.
pub(super) const ALL: u16 = u16::MAX;

/// What ept12 says of one address.
pub(super) struct From12 {
    pub(super) gpa1: Gpa1,
    pub(super) level: Level,
    pub(super) rights: Rights,
    pub(super) mem_type: MemType,
    pub(super) ignore_pat: bool,
    pub(super) dirty: bool,
}

impl From12 {
    #[inline]
    pub(super) fn of(found: &Translation) -> Self {
        Self {
            gpa1: found.gpa1,
            level: found.level,
            rights: found.rights,
            mem_type: found.mem_type,
            ignore_pat: found.ignore_pat,
            dirty: found.is_dirty(),
        }
    }
}

/// What a leaf of ept02 is to be for one address.
pub(super) struct Wanted {
    pub(super) level: Level,
    pub(super) value: OwnEntry,
    pub(super) rights: Rights,
}

/// The level of the smaller page.
fn smaller(a: Level, b: Level) -> Level {
    if (a as u8) < b as u8 { a } else { b }
}

impl<const CACHES: usize, const RECENT: usize> Pool<CACHES, RECENT> {
    /// Answers an EPT violation (or misconfiguration) that the hardware found
    /// in ept02 for `gpa2`.
    ///
    /// With accessed and dirty flags on in `context`, sets them in ept12 as the
    /// CPU does. The walk is repeated from memory each time, so rights that L1
    /// added are seen without INVEPT.
    pub fn fill(
        &mut self,
        context: &Context12,
        gpa2: Gpa2,
        access: Access,
        pml: Pml,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Outcome {
        // Done already if the caller entered L2 by `activate`.
        let Some(ready) = self.ready(context, tables, l1) else {
            return Outcome::Retry;
        };
        let mut invalidate = ready.invalidate;
        let mut log = None;
        for _ in 0..MAX_TRIES {
            let mut found = match ept12::translate(context.eptp, gpa2, access, &context.caps, l1) {
                Ok(found) => found,
                Err(Fault::Violation(v)) => return Outcome::Violation12(v),
                Err(Fault::Misconfiguration(m)) => return Outcome::Misconfig12(m),
            };
            let permits = access.permitted_by(found.rights);
            if permits == Permits::No {
                return Outcome::Violation12(found.violation(access, &context.caps));
            }
            if context.eptp.accessed_dirty() {
                let write = access.contains(Access::WRITE);
                let set = needed_flags(&found, write);
                if set.any {
                    if pml == (Pml::On { full: true }) {
                        return Outcome::PmlFull;
                    }
                    if !set_flags(&mut found, write, l1) {
                        continue;
                    }
                    if set.dirty && pml != Pml::Off {
                        log = Some(gpa2.page());
                    }
                }
            }
            let Some(wanted) = self.wanted(context, gpa2, &From12::of(&found), l1) else {
                return Outcome::Denied01 { gpa1: found.gpa1 };
            };
            if access.permitted_by(wanted.rights) == Permits::No {
                return Outcome::Denied01 { gpa1: found.gpa1 };
            }
            let (installed, more) = self.install(tables, gpa2, &wanted);
            invalidate = invalidate.and(more);
            if installed.same && log.is_none() && invalidate == Invalidate::None {
                // The hardware saw this very leaf and still refused: if the
                // mode of a fetch is in doubt, it was the one not allowed.
                if permits == Permits::Yes {
                    return Outcome::AlreadyThere;
                }
                if self.doubt == gpa2 {
                    self.doubt = NO_DOUBT;
                    return Outcome::Violation12(found.violation(access, &context.caps));
                }
                // Or the CPU used an older leaf: only after an INVEPT is it sure.
                invalidate = self.owed();
            }
            if permits == Permits::Unknown {
                self.doubt = gpa2;
            }
            self.counters.miss += 1;
            if self.neighbours
                && let Some(table) = installed.table
            {
                let put = self.around(
                    context,
                    gpa2,
                    &found,
                    (wanted.level, wanted.value),
                    table,
                    ALL,
                    tables,
                    l1,
                );
                self.counters.around += put;
            }
            return Outcome::Filled {
                level: wanted.level,
                log,
                invalidate,
            };
        }
        Outcome::Retry
    }

    /// Composes the leaf for an address from both walks. `None` if ept01 has
    /// nothing there.
    #[inline(always)]
    pub(super) fn wanted(
        &mut self,
        context: &Context12,
        gpa2: Gpa2,
        from: &From12,
        l1: &mut impl L1Memory,
    ) -> Option<Wanted> {
        if gpa2.raw() >> 48 != 0 {
            // ept02 has 4 levels; a longer walk of L1 must not alias in it.
            return None;
        }
        let machine = self.lookup01(from.gpa1, l1)?;
        let mut level = smaller(from.level, machine.level);
        if level == Level::Pdpt && !self.hardware.page_1g {
            level = Level::Pd;
        }
        let mut rights = from.rights & machine.rights;
        if context.eptp.accessed_dirty() && !from.dirty {
            // The first write has to come here, for the dirty flag.
            rights -= Rights::WRITE;
        }
        let leaf = Leaf {
            address: machine.at(from.gpa1),
            rights,
            mem_type: self.merge.merge(from.mem_type, machine.mem_type),
            ignore_pat: from.ignore_pat,
            // Every violation comes to L0, which looks at ept12 as it is now.
            suppress_ve: true,
        };
        Some(Wanted {
            level,
            value: own_leaf(level, &leaf),
            rights,
        })
    }

    /// What ept01 says of `gpa1`, remembering the last large page.
    #[inline(always)]
    fn lookup01(&mut self, gpa1: Gpa1, l1: &mut impl L1Memory) -> Option<Leaf01> {
        let (base, leaf) = self.near01;
        if gpa1.block(leaf.level.span_bytes()) == base {
            return Some(leaf);
        }
        self.lookup01_anew(gpa1, l1)
    }

    #[inline(never)]
    fn lookup01_anew(&mut self, gpa1: Gpa1, l1: &mut impl L1Memory) -> Option<Leaf01> {
        let leaf = l1.lookup01(gpa1)?;
        if leaf.level != Level::Pt {
            self.near01 = (gpa1.block(leaf.level.span_bytes()), leaf);
        }
        Some(leaf)
    }

    /// An INVEPT of the current cache.
    fn owed(&self) -> Invalidate {
        match self.caches.get(self.current) {
            Some(cache) => Invalidate::Single(cache.eptp02()),
            None => Invalidate::All,
        }
    }

    /// Puts a leaf in, emptying the cache first if it is full.
    fn install(
        &mut self,
        tables: &mut impl TableMemory,
        gpa2: Gpa2,
        wanted: &Wanted,
    ) -> (Installed, Invalidate) {
        let none = Installed {
            same: false,
            resized: false,
            table: None,
        };
        let Some(cache) = self.caches.get_mut(self.current) else {
            return (none, Invalidate::None);
        };
        let installed = cache.install(tables, gpa2, wanted.level, wanted.value);
        match installed {
            Ok(installed) => {
                let owed = if installed.resized {
                    Invalidate::Single(cache.eptp02())
                } else {
                    Invalidate::None
                };
                (installed, owed)
            }
            Err(OutOfPages) => {
                self.counters.full += 1;
                cache.reset(tables);
                // Cannot fail: a cache has a page for each level.
                let _ = cache.install(tables, gpa2, wanted.level, wanted.value);
                (none, Invalidate::Single(cache.eptp02()))
            }
        }
    }
}

struct Needed {
    any: bool,
    dirty: bool,
}

/// Which flags the CPU would have to set in ept12 for this access.
fn needed_flags(found: &Translation, write: bool) -> Needed {
    let dirty = write && !found.is_dirty();
    Needed {
        any: dirty || !found.is_accessed(),
        dirty,
    }
}

/// Sets the flags, root first, each by a locked access that only succeeds if
/// the entry is still what the walk saw. `false` if it is not.
fn set_flags(found: &mut Translation, write: bool, l1: &mut impl L1Memory) -> bool {
    found.set_flags(|used, is_leaf| {
        let mut new = used.value | bit::ACCESSED;
        if is_leaf && write {
            new |= bit::DIRTY;
        }
        if new == used.value {
            return Some(new);
        }
        l1.compare_exchange_u64(used.gpa1, used.value, new)
            .then_some(new)
    })
}

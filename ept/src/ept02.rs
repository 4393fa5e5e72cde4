//! ept02: what the CPU walks while L2 runs.
//!
//! A [`Pool`] belongs to one CPU. It holds a few caches, one for each EPT
//! pointer that L1 used lately, and each cache has table pages of its own.
//! A cache starts empty; [`Pool::fill`] answers an EPT violation of the
//! hardware by walking ept12 and ept01 and putting in one leaf, or by saying
//! what L1 is to be told. Entries above the leaves allow everything; a leaf
//! allows the AND of all entries of both walks.
//!
//! Nothing is taken out until L1 asks for it (INVEPT), a cache runs out of
//! pages, or another cache needs the place: the CPU's own caches of ept12
//! would be no different.

use crate::addr::Level;
use crate::caps::Caps;
use crate::entry::{Entry, Leaf, bit};
use crate::ept12::{self, Fault, Misconfiguration, Translation, Violation};
use crate::eptp::Eptp;
use crate::invalidate::{Invalidate, InveptScope};
use crate::mem::{L1Memory, TableMemory, TablePages};
use crate::memtype::Merge;
use crate::rights::{Access, Permits, Rights};

/// An entry with nothing behind it. Bit 63 keeps the CPU from turning the
/// violation into a #VE: only ept12 can say whether it is one.
pub const EMPTY: u64 = bit::SUPPRESS_VE;

/// Fewest table pages a cache can work with: one for each level.
pub const MIN_PAGES: u32 = 4;

/// How often a fill starts over because ept12 changed under it.
const MAX_TRIES: u32 = 4;

/// How a pool is laid out and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Caches to use, at least 1.
    pub caches: usize,
    /// Table pages of each cache, [`MIN_PAGES`] to 65535.
    pub pages_per_cache: u32,
    /// Leaves to read anew after an INVEPT; 0 turns refilling off. More than
    /// the pool remembers counts as all.
    pub refill: usize,
    /// How memory types merge.
    pub merge: Merge,
    /// What the CPU itself can do.
    pub hardware: Caps,
}

/// Why a pool cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `caches` is 0 or more than the pool has room for, which is this many.
    Caches {
        /// Most caches.
        most: usize,
    },
    /// `pages_per_cache` is out of range.
    PagesPerCache {
        /// Fewest pages.
        least: u32,
        /// Most pages.
        most: u32,
    },
    /// Fewer pages were handed over than `caches * pages_per_cache`.
    Memory {
        /// Pages needed.
        needed: u64,
    },
}

/// What was done, since the pool was set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// L1 entered an L2 whose EPT pointer had a cache.
    pub hit: u64,
    /// Leaves filled in because L2 ran into a page without one.
    pub miss: u64,
    /// Caches given to another EPT pointer.
    pub evict: u64,
    /// Times a cache ran out of pages and was emptied.
    pub full: u64,
    /// Leaves put back after an INVEPT.
    pub refill: u64,
}

/// What an L2 runs under, by its vmcs12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context12 {
    /// L1's EPT pointer.
    pub eptp: Eptp,
    /// What L1 was offered, with vmcs12's mode-based execute control.
    pub caps: Caps,
}

/// Page-modification logging of L1, by vmcs12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pml {
    /// vmcs12 does not enable it.
    Off,
    /// It is on; `full` if the PML index is not in 0..=511.
    On {
        /// No entry can be logged.
        full: bool,
    },
}

/// The ept02 to enter L2 with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "vmcs02 needs the EPT pointer"]
pub struct Active {
    /// For vmcs02's EPT pointer field.
    pub eptp: Eptp,
    /// Owed before the entry.
    pub invalidate: Invalidate,
}

/// What became of an EPT violation of ept02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a violation may have to be reflected"]
pub enum Outcome {
    /// The leaf is in: resume L2.
    Filled {
        /// Size of the leaf.
        level: Level,
        /// Log this L2-physical address (4 KiB aligned) in L1's PML buffer.
        log: Option<u64>,
        /// Owed before L2 resumes.
        invalidate: Invalidate,
    },
    /// The leaf was there and allowed the access: resume L2.
    AlreadyThere,
    /// L1 is to get an EPT violation, or L2 a #VE.
    Violation12(Violation),
    /// L1 is to get an EPT misconfiguration.
    Misconfig12(Misconfiguration),
    /// L1 is to get a page-modification log-full exit. Nothing was changed.
    PmlFull,
    /// ept01 does not allow the access, or `gpa2` has more than 48 bits. Umbra's
    /// own ept01 allows everything below the physical-address width, and it
    /// offers walks of 4 levels, so this is a bug of L0.
    Denied01 {
        /// The L1-physical address.
        gpa1: u64,
    },
    /// L1 kept changing ept12 meanwhile: resume L2, it will come back.
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    eptp: Eptp,
    mode_based_execute: bool,
}

impl Key {
    /// What makes two contexts share a cache: the address of the tables, the
    /// walk length, accessed and dirty flags, and mode-based execute control.
    /// The memory type of the tables makes no difference.
    fn of(context: &Context12) -> Self {
        Self {
            eptp: context.eptp,
            mode_based_execute: context.caps.mode_based_execute,
        }
    }

    fn matches(&self, other: &Self) -> bool {
        const TYPE: u64 = 7;
        self.eptp.raw() & !TYPE == other.eptp.raw() & !TYPE
            && self.mode_based_execute == other.mode_based_execute
    }
}

/// A leaf that was put in, and where it is.
#[derive(Clone, Copy, Debug)]
struct Recent {
    /// L2-physical address, aligned to the leaf's size.
    gpa2: u64,
    /// Number of its table among the cache's pages.
    table: u16,
    /// Its index there.
    index: u16,
    level: Level,
}

impl Recent {
    const NONE: Self = Self {
        gpa2: 0,
        table: 0,
        index: 0,
        level: Level::Pt,
    };
}

#[derive(Clone, Debug)]
struct Cache<const RECENT: usize> {
    key: Option<Key>,
    pages: TablePages,
    /// Pages in use; page 0 is the root and always is.
    used: u32,
    /// L1 did an INVEPT since the leaves were filled in.
    stale: bool,
    /// When this cache was last entered.
    last: u64,
    /// The leaves put in last, as a ring: `at` is where the next one goes.
    recent: [Recent; RECENT],
    len: usize,
    at: usize,
    /// Some leaf is in the tables and no longer in the ring.
    forgot: bool,
}

/// Per-CPU caches of ept02: at most `CACHES`, each remembering the `RECENT`
/// leaves that it filled in last.
#[derive(Clone, Debug)]
pub struct Pool<const CACHES: usize = 8, const RECENT: usize = 64> {
    caches: [Cache<RECENT>; CACHES],
    count: usize,
    current: usize,
    clock: u64,
    refill: usize,
    merge: Merge,
    hardware: Caps,
    counters: Counters,
}

/// No table page is left.
struct OutOfPages;

/// What putting a leaf in came to.
struct Installed {
    /// The entry was as wanted before.
    same: bool,
    /// A table or a leaf of another size gave way: the CPU must not see both.
    resized: bool,
}

impl<const RECENT: usize> Cache<RECENT> {
    const NEW: Self = Self {
        key: None,
        pages: TablePages::new(0, 0),
        used: 1,
        stale: false,
        last: 0,
        recent: [Recent::NONE; RECENT],
        len: 0,
        at: 0,
        forgot: false,
    };

    fn root(&self) -> u64 {
        self.pages.base_hpa()
    }

    fn eptp02(&self) -> Eptp {
        let accessed_dirty = self.key.is_some_and(|k| k.eptp.accessed_dirty());
        Eptp::own(self.root(), accessed_dirty)
    }

    /// Empties the tables. The root goes first, so that nothing is reachable
    /// when the other pages are used again.
    fn reset(&mut self, tables: &mut impl TableMemory) {
        tables.fill(self.root(), EMPTY);
        self.used = 1;
        self.len = 0;
        self.at = 0;
        self.forgot = false;
    }

    fn remember(&mut self, recent: Recent) {
        if self.len == RECENT {
            self.forgot = true;
        } else {
            self.len += 1;
        }
        if let Some(slot) = self.recent.get_mut(self.at) {
            *slot = recent;
        }
        self.at += 1;
        if self.at >= RECENT {
            self.at = 0;
        }
    }

    /// Puts `value` in at `level` for `gpa2`.
    fn install(
        &mut self,
        tables: &mut impl TableMemory,
        gpa2: u64,
        level: Level,
        value: u64,
    ) -> Result<Installed, OutOfPages> {
        let mut at = Level::Pml4;
        let mut table = self.root();
        let mut resized = false;
        while let Some(below) = at.below() {
            if at <= level {
                break;
            }
            let index = at.index(gpa2);
            let entry = Entry(tables.read(table, index));
            table = match entry.own_table(at) {
                Some(next) => next,
                None => {
                    let next = self.pages.get(self.used).ok_or(OutOfPages)?;
                    self.used += 1;
                    tables.fill(next, EMPTY);
                    tables.write(table, index, Entry::table(next).0);
                    resized |= entry.is_present();
                    next
                }
            };
            at = below;
        }
        let index = level.index(gpa2);
        let old = Entry(tables.read(table, index));
        if old.0 == value {
            return Ok(Installed {
                same: true,
                resized,
            });
        }
        tables.write(table, index, value);
        if !old.is_own_leaf(level) {
            resized |= old.is_present();
            self.remember(Recent {
                gpa2: level.base(gpa2),
                table: ((table - self.root()) / crate::addr::PAGE_BYTES) as u16,
                index: index as u16,
                level,
            });
        }
        Ok(Installed {
            same: false,
            resized,
        })
    }
}

/// What a leaf of ept02 is to be for one address.
struct Wanted {
    level: Level,
    value: u64,
    rights: Rights,
}

/// The level of the smaller page.
fn smaller(a: Level, b: Level) -> Level {
    if (a as u8) < b as u8 { a } else { b }
}

impl<const CACHES: usize, const RECENT: usize> Default for Pool<CACHES, RECENT> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const CACHES: usize, const RECENT: usize> Pool<CACHES, RECENT> {
    /// A pool without memory; [`Pool::configure`] must follow. Made to be put
    /// in place at compile time, since it is large.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            caches: [const { Cache::NEW }; CACHES],
            count: 0,
            current: 0,
            clock: 0,
            refill: 0,
            merge: Merge::Ept12Only,
            hardware: Caps::from_msr(0, 0),
            counters: Counters {
                hit: 0,
                miss: 0,
                evict: 0,
                full: 0,
                refill: 0,
            },
        }
    }

    /// Hands over the table pages and sets the limits. Whatever was in the
    /// pool is gone; an all-context INVEPT is owed if L2 ran before.
    ///
    /// # Errors
    /// [`ConfigError`]; the pool is as it was.
    pub fn configure(&mut self, pages: TablePages, config: &Config) -> Result<(), ConfigError> {
        if config.caches == 0 || config.caches > CACHES {
            return Err(ConfigError::Caches { most: CACHES });
        }
        let each = config.pages_per_cache;
        if !(MIN_PAGES..=0xffff).contains(&each) {
            return Err(ConfigError::PagesPerCache {
                least: MIN_PAGES,
                most: 0xffff,
            });
        }
        let needed = config.caches as u64 * u64::from(each);
        if u64::from(pages.count()) < needed {
            return Err(ConfigError::Memory { needed });
        }
        let mut first = 0;
        for cache in self.caches.iter_mut().take(config.caches) {
            *cache = Cache::NEW;
            cache.pages = pages.part(first, each);
            first += each;
        }
        self.count = config.caches;
        self.current = 0;
        self.refill = config.refill.min(RECENT);
        self.merge = config.merge;
        self.hardware = config.hardware;
        Ok(())
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Table pages that hold something, over all caches.
    #[must_use]
    pub fn pages_used(&self) -> u64 {
        self.in_use().map(|c| u64::from(c.used)).sum()
    }

    fn in_use(&self) -> impl Iterator<Item = &Cache<RECENT>> {
        self.caches
            .iter()
            .take(self.count)
            .filter(|c| c.key.is_some())
    }

    /// For each entry of L2 and each switch of its EPT pointer: finds the
    /// cache of L1's EPT pointer, or makes one, and refills it if L1 did an
    /// INVEPT. Short if nothing changed since the last call.
    ///
    /// `None` only for a pool that was not configured.
    #[inline]
    pub fn activate(
        &mut self,
        context: &Context12,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Option<Active> {
        let invalidate = self.select(context, tables)?;
        self.counters.hit += u64::from(invalidate == Invalidate::None);
        self.finish(context, invalidate, tables, l1)
    }

    fn finish(
        &mut self,
        context: &Context12,
        mut invalidate: Invalidate,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Option<Active> {
        let stale = self.caches.get(self.current)?.stale;
        if stale {
            invalidate = invalidate.and(self.renew(context, tables, l1));
        }
        let cache = self.caches.get_mut(self.current)?;
        self.clock += 1;
        cache.last = self.clock;
        Some(Active {
            eptp: cache.eptp02(),
            invalidate,
        })
    }

    /// Makes the context's cache the current one.
    fn select(&mut self, context: &Context12, tables: &mut impl TableMemory) -> Option<Invalidate> {
        let key = Key::of(context);
        let is_it = |c: &Cache<RECENT>| c.key.is_some_and(|k| k.matches(&key));
        if self.caches.get(self.current).is_some_and(is_it) {
            return Some(Invalidate::None);
        }
        let caches = self.caches.get_mut(..self.count)?;
        if let Some(found) = caches.iter().position(is_it) {
            self.current = found;
            return Some(Invalidate::None);
        }
        // An unused one has never been entered, so it is the oldest too.
        let (oldest, cache) = caches
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, c)| if c.key.is_some() { c.last } else { 0 })?;
        self.counters.evict += u64::from(cache.key.is_some());
        cache.reset(tables);
        cache.key = Some(key);
        cache.stale = false;
        self.current = oldest;
        Some(Invalidate::Single(cache.eptp02()))
    }

    /// Answers an EPT violation (or misconfiguration) that the hardware found
    /// in ept02 for the L2-physical address `gpa2`.
    ///
    /// With accessed and dirty flags on in `context`, sets them in ept12 as the
    /// CPU does. The walk is repeated from memory each time, so rights that L1
    /// added are seen without INVEPT.
    pub fn fill(
        &mut self,
        context: &Context12,
        gpa2: u64,
        access: Access,
        pml: Pml,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Outcome {
        // Both are done already if the caller entered L2 by `activate`.
        let Some(mut invalidate) = self
            .select(context, tables)
            .and_then(|owed| self.finish(context, owed, tables, l1))
            .map(|active| active.invalidate)
        else {
            return Outcome::Retry;
        };
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
                        log = Some(Level::Pt.base(gpa2));
                    }
                }
            }
            let Some(wanted) = self.wanted(context, gpa2, &found, l1) else {
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
                return if permits == Permits::Unknown {
                    Outcome::Violation12(found.violation(access, &context.caps))
                } else {
                    Outcome::AlreadyThere
                };
            }
            self.counters.miss += 1;
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
    #[inline]
    fn wanted(
        &self,
        context: &Context12,
        gpa2: u64,
        found: &Translation,
        l1: &mut impl L1Memory,
    ) -> Option<Wanted> {
        if gpa2 >> 48 != 0 {
            // ept02 has 4 levels; a longer walk of L1 must not alias in it.
            return None;
        }
        let machine = l1.lookup01(found.gpa1)?;
        let mut level = smaller(found.level, machine.level);
        if level == Level::Pdpt && !self.hardware.page_1g {
            level = Level::Pd;
        }
        let hpa = machine.page_hpa + machine.level.offset(found.gpa1);
        let mut rights = found.rights & machine.rights;
        if context.eptp.accessed_dirty() && !found.is_dirty() {
            // The first write has to come here, for the dirty flag.
            rights -= Rights::WRITE;
        }
        let leaf = Leaf {
            address: level.base(hpa),
            rights,
            mem_type: self.merge.merge(found.mem_type, machine.mem_type),
            ignore_pat: found.ignore_pat,
            // Every violation comes to L0, which looks at ept12 as it is now.
            suppress_ve: true,
        };
        Some(Wanted {
            level,
            value: Entry::leaf(level, &leaf).0,
            rights,
        })
    }

    /// Puts a leaf in, emptying the cache first if it is full.
    fn install(
        &mut self,
        tables: &mut impl TableMemory,
        gpa2: u64,
        wanted: &Wanted,
    ) -> (Installed, Invalidate) {
        let none = Installed {
            same: false,
            resized: false,
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

    /// L1 executed INVEPT with valid operands. What it covers is read anew
    /// from ept12 before L2 can use it; that happens at the next
    /// [`Pool::activate`], which also says which INVEPT the hardware needs.
    pub fn invept(&mut self, scope: InveptScope) {
        for cache in self.caches.iter_mut().take(self.count) {
            let Some(key) = cache.key else { continue };
            cache.stale |= match scope {
                InveptScope::All => true,
                InveptScope::Single(eptp) => key.eptp.root() == eptp.root(),
            };
        }
    }

    /// Forgets everything, for when ept01 changed (its types matter under
    /// [`Merge::MtrrPrecedence`]) or L1 left VMX operation.
    pub fn drop_all(&mut self) -> Invalidate {
        for cache in self.caches.iter_mut().take(self.count) {
            cache.key = None;
        }
        Invalidate::All
    }

    /// Takes the leaves of the current cache out and puts the ones used last
    /// back, read anew.
    fn renew(
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

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

mod around;
mod cache;
mod fill;
mod refill;

use umbra_arch::hpa::TablePages;
use umbra_arch::{Gpa1, Gpa2, Hpa};

use crate::addr::Level;
use crate::caps::Caps;
use crate::ept12::{Misconfiguration, Violation};
use crate::eptp::{Eptp, OwnEptp};
use crate::invalidate::{Invalidate, InveptScope};
use crate::mem::{L1Memory, Leaf01, TableMemory};
use crate::memtype::{MemType, Merge};
use crate::rights::Rights;
use cache::{Cache, Key};

/// Fewest table pages a cache can work with: one for each level.
pub const MIN_PAGES: u32 = 4;

/// Fewest table pages of a cache with which L2 gets on, whatever it executes: all
/// that one instruction touches has to be mapped at once.
///
/// No instruction that makes no progress by itself touches more than ten pages of
/// linear memory: INT in 64-bit mode lies on two, and so do the gate, the
/// descriptor of its code segment, the stack pointer in the TSS, and what is
/// pushed. Each page comes with an entry of each of four levels of L2's own tables
/// below the one that CR3 names (five-level paging); each of all these pages may
/// need three tables of ept02 of its own below the first.
pub const SCATTERED_PAGES: u32 = {
    let linear_pages = 10;
    let l2_pages = 1 + linear_pages * (4 + 1);
    1 + 3 * l2_pages
};

/// How a pool is laid out and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Caches to use, at least 1.
    pub caches: usize,
    /// Table pages of each cache, [`MIN_PAGES`] to 65535.
    pub pages_per_cache: u32,
    /// Leaves to read anew after an INVEPT, at most; 0 turns refilling off.
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
    /// Entries into an L2 whose EPT pointer had a cache.
    pub hit: u64,
    /// Leaves filled in because L2 ran into a page without one.
    pub miss: u64,
    /// Caches given to another EPT pointer.
    pub evict: u64,
    /// Times a cache ran out of pages and was emptied.
    pub full: u64,
    /// Leaves put back after an INVEPT.
    pub refill: u64,
    /// Leaves filled in beside one that L2 ran into.
    pub around: u64,
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
    pub eptp: OwnEptp,
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
        /// Log this page in L1's PML buffer.
        log: Option<Gpa2>,
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
        /// The address.
        gpa1: Gpa1,
    },
    /// L1 kept changing ept12 meanwhile: resume L2, it will come back.
    Retry,
}

/// Per-CPU caches of ept02: at most `CACHES`, each remembering the
/// `RECENT` blocks of leaves that it filled in last.
#[derive(Clone, Debug)]
pub struct Pool<const CACHES: usize = 8, const RECENT: usize = 64> {
    caches: [Cache<RECENT>; CACHES],
    count: usize,
    current: usize,
    clock: u64,
    refill: usize,
    neighbours: bool,
    merge: Merge,
    hardware: Caps,
    counters: Counters,
    /// The large page of ept01 used last, by its first L1 address.
    near01: (Gpa1, Leaf01),
    /// Where a fetch of unknown mode was last let through on trial.
    doubt: Gpa2,
}

/// No page of ept01: its first address is not that of a page.
const FAR: (Gpa1, Leaf01) = (
    Gpa1::new(1),
    Leaf01 {
        page: Hpa::NOWHERE,
        level: Level::Pd,
        rights: Rights::empty(),
        mem_type: MemType::Uncacheable,
    },
);

/// No address of L2.
const NO_DOUBT: Gpa2 = Gpa2::new(u64::MAX);

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
            neighbours: true,
            merge: Merge::Ept12Only,
            hardware: Caps::from_msr(0, 0),
            counters: Counters {
                hit: 0,
                miss: 0,
                evict: 0,
                full: 0,
                refill: 0,
                around: 0,
            },
            near01: FAR,
            doubt: NO_DOUBT,
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
        self.refill = config.refill;
        self.merge = config.merge;
        self.hardware = config.hardware;
        self.near01 = FAR;
        self.doubt = NO_DOUBT;
        Ok(())
    }

    /// Whether a fill also puts in the leaves beside it, up to 16 of them, as
    /// far as ept12 has them. On to begin with.
    pub const fn set_neighbours(&mut self, on: bool) {
        self.neighbours = on;
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
        self.caches.iter().filter(|c| c.key.is_some())
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
        let owed = self.ready(context, tables, l1)?;
        self.counters.hit = self.counters.hit.wrapping_add(u64::from(!owed.made));
        let cache = self.caches.get(self.current)?;
        Some(Active {
            eptp: cache.eptp02(),
            invalidate: owed.invalidate,
        })
    }

    /// Makes the context's cache the current one and carries out INVEPTs.
    #[inline]
    fn ready(
        &mut self,
        context: &Context12,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Option<Ready> {
        let cache = self.caches.get(self.current)?;
        if cache.key == Key::of(context) && !cache.stale {
            return Some(Ready {
                invalidate: Invalidate::None,
                made: false,
            });
        }
        self.change(context, tables, l1)
    }

    #[cold]
    fn change(
        &mut self,
        context: &Context12,
        tables: &mut impl TableMemory,
        l1: &mut impl L1Memory,
    ) -> Option<Ready> {
        let key = Key::of(context);
        let caches = self.caches.get_mut(..self.count)?;
        // The current cache was in use until now.
        self.clock += 1;
        caches.get_mut(self.current)?.last = self.clock;
        let mut invalidate = Invalidate::None;
        let mut made = false;
        self.current = match caches.iter().position(|c| c.key == key) {
            Some(found) => found,
            None => {
                // One without a context is older than any other.
                let (oldest, cache) = caches
                    .iter_mut()
                    .enumerate()
                    .min_by_key(|(_, c)| if c.key.is_some() { c.last } else { 0 })?;
                self.counters.evict += u64::from(cache.key.is_some());
                cache.reset(tables);
                cache.key = key;
                cache.stale = false;
                invalidate = Invalidate::Single(cache.eptp02());
                made = true;
                oldest
            }
        };
        if self.caches.get(self.current)?.stale {
            invalidate = invalidate.and(self.renew(context, tables, l1));
        }
        Some(Ready { invalidate, made })
    }

    /// L1 executed INVEPT with valid operands. What it covers is read anew
    /// from ept12 before L2 can use it; that happens at the next
    /// [`Pool::activate`], which also says which INVEPT the hardware needs.
    pub fn invept(&mut self, scope: InveptScope) {
        for cache in self.caches.iter_mut().take(self.count) {
            cache.stale |= match scope {
                InveptScope::All => true,
                InveptScope::Single(eptp) => cache.key.root() == eptp.root(),
            };
        }
    }

    /// Forgets everything, what it knows of ept01 included. Needed when ept01
    /// was retyped under [`Merge::MtrrPrecedence`]; allowed at any time.
    pub fn drop_all(&mut self) -> Invalidate {
        self.near01 = FAR;
        for cache in self.caches.iter_mut().take(self.count) {
            cache.key = Key::NONE;
        }
        Invalidate::All
    }
}

/// What making a cache ready came to.
struct Ready {
    invalidate: Invalidate,
    /// The cache is new to its context.
    made: bool,
}

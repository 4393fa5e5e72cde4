//! What ept01 is built from, and the checks of it.

use umbra_arch::Gpa1;
use umbra_arch::hpa::{Identity, Range};

use super::plan::{Plan, Planner};
use crate::addr::{Level, PAGE_BYTES};
use crate::caps::Caps;
use crate::mtrr::Mtrrs;

pub(super) const GIB: u64 = 1 << 30;

/// What to build.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Map everything below this address from the start. Rounded up to 1 GiB.
    pub limit: u64,
    /// Where L1's addresses are on the machine. What it hides is below `limit`, and
    /// the void is hidden itself.
    pub identity: &'a Identity,
    /// The machine's memory types.
    pub mtrrs: &'a Mtrrs,
    /// What the CPU can do.
    pub caps: Caps,
    /// Pages kept for mappings above `limit`, at least [`MIN_ON_DEMAND`].
    pub on_demand_pages: u32,
    /// Pages kept for large pages that a change of MTRRs, or
    /// [`Ept01::keep_small`](super::Ept01::keep_small), splits.
    pub retype_pages: u32,
}

/// Least that [`Config::on_demand_pages`] may be: one gibibyte needs an EPT
/// page-directory-pointer table and an EPT page directory.
pub const MIN_ON_DEMAND: u32 = 2;

/// Why ept01 cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The CPU lacks 2 MiB EPT pages, 4-level walks or write-back tables.
    Unsupported,
    /// `limit` is 0 or beyond the physical-address width or beyond 2^48.
    Limit,
    /// A hidden range is empty, unaligned or not below the limit.
    Hidden(Range),
    /// The void page is not inside a hidden range.
    Void,
    /// Fewer pages than needed, which is this many.
    Pages {
        /// What [`pages_needed`] says.
        needed: u32,
    },
}

pub(super) fn check(config: &Config<'_>) -> Result<u64, BuildError> {
    let caps = &config.caps;
    if !caps.page_2m || !caps.walk_4 || !caps.tables_wb {
        return Err(BuildError::Unsupported);
    }
    let most = (1u64 << caps.maxphyaddr.min(48)).max(GIB);
    if config.limit == 0 || config.limit > most {
        return Err(BuildError::Limit);
    }
    let limit = config.limit.next_multiple_of(GIB);
    for range in config.identity.hidden() {
        let aligned = (range.start | range.end) & (PAGE_BYTES - 1) == 0;
        if !aligned || range.start >= range.end || range.end > limit {
            return Err(BuildError::Hidden(*range));
        }
    }
    let void = config.identity.void();
    let void_end = void.raw().saturating_add(PAGE_BYTES);
    if !void.is_aligned(PAGE_BYTES)
        || !config
            .identity
            .hidden()
            .any(|r| r.start <= void.raw() && void_end <= r.end)
    {
        return Err(BuildError::Void);
    }
    Ok(limit)
}

/// How many table pages [`Ept01::build`](super::Ept01::build) needs for `config`, with those kept
/// for later included.
///
/// # Errors
/// As [`Ept01::build`](super::Ept01::build).
pub fn pages_needed(config: &Config<'_>) -> Result<u32, BuildError> {
    let limit = check(config)?;
    let planner = Planner {
        identity: config.identity,
        small: &[],
        mtrrs: config.mtrrs,
        caps: &config.caps,
    };
    // The root, the void's two tables, and one table for each 512 GiB.
    let mut count = 3 + limit.div_ceil(Level::Pml4.span_bytes()) as u32;
    let mut base = Gpa1::new(0);
    while base.raw() < limit {
        if matches!(planner.plan(base, Level::Pdpt), Plan::Split) {
            count += 1;
            let mut block = base;
            while block < base.plus(GIB) {
                if matches!(planner.plan(block, Level::Pd), Plan::Split) {
                    count += 1;
                }
                block = block.plus(Level::Pd.span_bytes());
            }
        }
        base = base.plus(GIB);
    }
    Ok(count
        .saturating_add(config.on_demand_pages.max(MIN_ON_DEMAND))
        .saturating_add(config.retype_pages))
}

//! Which of L1's RAM is still free while it is being set up.

use heapless::Vec;

use crate::error::Error;
use crate::memmap::MemoryMap;
use crate::module::MAX_MODULES;
use crate::phys::Region;

/// Load segments a kernel may have.
pub(crate) const MAX_SEGMENTS: usize = 32;
/// Segments, modules, the kernel file, the information block and a few more.
const MAX_TAKEN: usize = MAX_SEGMENTS + MAX_MODULES + 8;

/// Room is not looked for below this: the vectors of the BIOS and its data.
pub(crate) const LOW_FIRST: u64 = 0x1000;
/// What boot protocols hand over lies below this where possible: every kernel
/// has it mapped, and no extended BIOS data area reaches down to it.
pub(crate) const LOW_LAST: u64 = 0x8_ffff;
/// The last address that a 32-bit kernel reaches.
pub(crate) const LAST_32BIT: u64 = 0xffff_ffff;
/// Where memory above the first MiB begins.
pub(crate) const ONE_MIB: u64 = 0x10_0000;

/// L1's memory map and what of it is taken.
pub(crate) struct Space<'a> {
    map: &'a MemoryMap,
    taken: Vec<Region, MAX_TAKEN>,
}

impl<'a> Space<'a> {
    /// All of L1's RAM, nothing of it taken.
    pub(crate) fn new(map: &'a MemoryMap) -> Self {
        Self {
            map,
            taken: Vec::new(),
        }
    }

    /// The map alone.
    pub(crate) fn map(&self) -> &'a MemoryMap {
        self.map
    }

    /// What is taken.
    pub(crate) fn taken(&self) -> &[Region] {
        &self.taken
    }

    /// Whether `region` is usable RAM and not taken.
    pub(crate) fn is_free(&self, region: Region) -> bool {
        self.map.usable_around(region).is_some() && !self.taken.iter().any(|t| t.overlaps(region))
    }

    /// Takes `region` out of what may be given away. An empty one takes
    /// nothing.
    pub(crate) fn take(&mut self, region: Region) -> Result<(), Error> {
        if region.len == 0 {
            return Ok(());
        }
        // Cannot fail for what this crate takes; an error all the same, so
        // that a later change cannot make it a silent overlap.
        self.taken.push(region).map_err(|_| Error::TooManyModules {
            count: MAX_TAKEN + 1,
            limit: MAX_TAKEN,
        })
    }

    /// Takes `region` for `what`, which cannot lie anywhere else.
    pub(crate) fn take_fixed(&mut self, region: Region, what: &'static str) -> Result<(), Error> {
        if region.len == 0 {
            return Ok(());
        }
        if !self.is_free(region) {
            return Err(Error::NotFree {
                what,
                start: region.start,
                last: region.start.saturating_add(region.len - 1),
            });
        }
        self.take(region)
    }

    /// The highest free place for `what`, not taken yet.
    pub(crate) fn highest(&self, want: &Want) -> Option<u64> {
        self.map
            .highest_free(want.len, want.align, want.first, want.last, &self.taken)
    }

    /// The lowest free place for `what`, not taken yet.
    pub(crate) fn lowest(&self, want: &Want) -> Option<u64> {
        self.map
            .lowest_free(want.len, want.align, want.first, want.last, &self.taken)
    }

    /// Takes a place for what a boot protocol hands over: low if possible,
    /// anywhere below 4 GiB if not.
    pub(crate) fn take_info(&mut self, len: u64, what: &'static str) -> Result<u64, Error> {
        let low = Want {
            len,
            align: 4096,
            first: LOW_FIRST,
            last: LOW_LAST,
        };
        let any = Want {
            last: LAST_32BIT,
            ..low
        };
        let start = self
            .highest(&low)
            .or_else(|| self.highest(&any))
            .ok_or_else(|| any.does_not_fit(what))?;
        self.take(Region::new(start, len))?;
        Ok(start)
    }
}

/// A place that is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    /// Length in bytes.
    pub(crate) len: u64,
    /// Alignment in bytes.
    pub(crate) align: u64,
    /// Lowest address allowed.
    pub(crate) first: u64,
    /// Highest address allowed, inclusive.
    pub(crate) last: u64,
}

impl Want {
    /// That there is no such place.
    pub(crate) fn does_not_fit(&self, what: &'static str) -> Error {
        Error::DoesNotFit {
            what,
            len: self.len,
            align: self.align,
            first: self.first,
            last: self.last,
        }
    }
}

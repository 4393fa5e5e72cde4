//! The memory map: bounded, sorted, without overlaps.

use core::fmt;

use heapless::Vec;

use crate::bytes::{align_down, align_up};
use crate::phys::Region;

/// How many entries a [`MemoryMap`] holds. Linux keeps 128 in its first table;
/// the largest maps seen on real machines have about 100 before merging.
pub const MAX_ENTRIES: usize = 256;

/// What a run of memory is for: the type number of the BIOS interface
/// INT 15h, AX=E820h (ACPI Specification, "Address Range Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(u32);

impl Kind {
    /// RAM that the operating system may use.
    pub const USABLE: Kind = Kind(1);
    /// Not to be used.
    pub const RESERVED: Kind = Kind(2);
    /// ACPI tables: usable once they were read.
    pub const ACPI: Kind = Kind(3);
    /// ACPI non-volatile storage: kept over sleep.
    pub const ACPI_NVS: Kind = Kind(4);
    /// RAM in which errors were found.
    pub const UNUSABLE: Kind = Kind(5);

    /// The kind with this type number. 0 names no type: it is taken as
    /// reserved.
    pub const fn new(number: u32) -> Self {
        if number == 0 {
            Self::RESERVED
        } else {
            Self(number)
        }
    }

    /// Its type number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// One run of memory of one kind. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// First physical address.
    pub start: u64,
    /// Last physical address, inclusive.
    pub last: u64,
    /// What it is for.
    pub kind: Kind,
}

impl Entry {
    /// Length in bytes; an entry over the whole 64-bit space says
    /// `u64::MAX`, one too few, because its length has no 64-bit number.
    // An entry is never empty, so there is no `is_empty` to go with it.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        (self.last - self.start).saturating_add(1)
    }
}

/// The map would need more than [`MAX_ENTRIES`] entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyEntries;

impl fmt::Display for TooManyEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the memory map has too many entries: more than the {MAX_ENTRIES} that Umbra keeps"
        )
    }
}

impl core::error::Error for TooManyEntries {}

/// A memory map: sorted by address, no two entries overlap, neighbours of the
/// same kind are one.
///
/// About 6 KiB; each change works on a copy of the same size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryMap {
    entries: Vec<Entry, MAX_ENTRIES>,
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryMap {
    /// A map without entries.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Adds one entry as a boot loader or BIOS reports it, in any order.
    ///
    /// Where it overlaps what is there already, the kind with the higher
    /// number wins: a byte that any entry calls reserved is reserved. An empty
    /// entry changes nothing; one that would run past the end of the 64-bit
    /// space ends there.
    ///
    /// # Errors
    /// [`TooManyEntries`]; the map is then unchanged.
    pub fn add(&mut self, start: u64, len_bytes: u64, kind: Kind) -> Result<(), TooManyEntries> {
        let Some(more) = len_bytes.checked_sub(1) else {
            return Ok(());
        };
        self.overlay(start, start.saturating_add(more), |old| match old {
            Some(old) => old.max(kind),
            None => kind,
        })
    }

    /// Makes every usable byte and every hole of `region` reserved; what is
    /// something else already (ACPI tables, say) stays what it is.
    ///
    /// # Errors
    /// [`TooManyEntries`]; the map is then unchanged.
    pub fn reserve(&mut self, region: Region) -> Result<(), TooManyEntries> {
        let Some(more) = region.len.checked_sub(1) else {
            return Ok(());
        };
        self.overlay(
            region.start,
            region.start.saturating_add(more),
            |old| match old {
                Some(Kind::USABLE) | None => Kind::RESERVED,
                Some(old) => old,
            },
        )
    }

    /// The entries, lowest address first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The usable entry that holds all of `region`. An empty region is in none.
    pub fn usable_around(&self, region: Region) -> Option<Entry> {
        let last = region.last()?;
        self.entries
            .iter()
            .find(|e| e.kind == Kind::USABLE && e.start <= region.start && last <= e.last)
            .copied()
    }

    /// How many bytes from `start` on are usable without a gap.
    pub fn usable_from(&self, start: u64) -> u64 {
        self.usable_around(Region::new(start, 1))
            .map_or(0, |e| (e.last - start).saturating_add(1))
    }

    /// The highest run of `len` usable bytes that starts at a multiple of
    /// `align` and lies wholly below `below` (an exclusive end).
    pub fn find_top(&self, len: u64, align: u64, below: u64) -> Option<u64> {
        self.highest_free(len, align, 0, below.checked_sub(1)?, &[])
    }

    /// The highest run of `len` usable bytes at a multiple of `align` between
    /// `first` and `last` (inclusive) that touches none of `taken`.
    pub(crate) fn highest_free(
        &self,
        len: u64,
        align: u64,
        first: u64,
        last: u64,
        taken: &[Region],
    ) -> Option<u64> {
        let more = len.checked_sub(1)?;
        for entry in self.usable_within(first, last).rev() {
            let mut top = entry.last;
            // Each turn moves `top` below one of `taken`, so there are at most
            // as many turns as there are regions.
            while let Some(start) = top
                .checked_sub(more)
                .map(|s| align_down(s, align))
                .filter(|&s| s >= entry.start)
            {
                match first_overlap(Region::new(start, len), taken) {
                    None => return Some(start),
                    Some(hit) => match hit.start.checked_sub(1) {
                        Some(t) => top = t,
                        None => break,
                    },
                }
            }
        }
        None
    }

    /// The lowest run of `len` usable bytes at a multiple of `align` between
    /// `first` and `last` (inclusive) that touches none of `taken`.
    pub(crate) fn lowest_free(
        &self,
        len: u64,
        align: u64,
        first: u64,
        last: u64,
        taken: &[Region],
    ) -> Option<u64> {
        let more = len.checked_sub(1)?;
        for entry in self.usable_within(first, last) {
            let mut bottom = entry.start;
            while let Some(start) = align_up(bottom, align)
                .filter(|&s| s.checked_add(more).is_some_and(|end| end <= entry.last))
            {
                match first_overlap(Region::new(start, len), taken).map(Region::last) {
                    None => return Some(start),
                    Some(Some(hit_last)) if hit_last < u64::MAX => bottom = hit_last + 1,
                    Some(_) => break,
                }
            }
        }
        None
    }

    /// The usable entries, cut to `first..=last`.
    fn usable_within(&self, first: u64, last: u64) -> impl DoubleEndedIterator<Item = Entry> + '_ {
        self.entries
            .iter()
            .filter(move |e| e.kind == Kind::USABLE && e.start <= last && e.last >= first)
            .map(move |e| Entry {
                start: e.start.max(first),
                last: e.last.min(last),
                kind: e.kind,
            })
            .filter(|e| e.start <= e.last)
    }

    /// Gives every byte of `start..=last` the kind that `kind_for` makes of the
    /// one it had (`None`: it was in no entry).
    fn overlay(
        &mut self,
        start: u64,
        last: u64,
        kind_for: impl Fn(Option<Kind>) -> Kind,
    ) -> Result<(), TooManyEntries> {
        let mut out = MemoryMap::new();
        // The first byte of the range that no entry has covered yet.
        let mut uncovered = Some(start);
        for &e in &self.entries {
            if e.last < start {
                out.append(e)?;
                continue;
            }
            if e.start > last {
                if let Some(from) = uncovered.take() {
                    out.append_run(from, last, kind_for(None))?;
                }
                out.append(e)?;
                continue;
            }
            if e.start < start {
                out.append_run(e.start, start - 1, e.kind)?;
            }
            if let Some(from) = uncovered
                && from < e.start
            {
                out.append_run(from, e.start - 1, kind_for(None))?;
            }
            let to = e.last.min(last);
            out.append_run(e.start.max(start), to, kind_for(Some(e.kind)))?;
            uncovered = if to < last { Some(to + 1) } else { None };
            if e.last > last {
                out.append_run(last + 1, e.last, e.kind)?;
            }
        }
        if let Some(from) = uncovered {
            out.append_run(from, last, kind_for(None))?;
        }
        *self = out;
        Ok(())
    }

    fn append_run(&mut self, start: u64, last: u64, kind: Kind) -> Result<(), TooManyEntries> {
        self.append(Entry { start, last, kind })
    }

    /// Adds an entry above all others, as part of the one below it where the
    /// two meet and are of one kind.
    fn append(&mut self, e: Entry) -> Result<(), TooManyEntries> {
        if let Some(below) = self.entries.last_mut()
            && below.kind == e.kind
            && below.last.checked_add(1) == Some(e.start)
        {
            below.last = e.last;
            return Ok(());
        }
        self.entries.push(e).map_err(|_| TooManyEntries)
    }
}

fn first_overlap(region: Region, taken: &[Region]) -> Option<Region> {
    taken.iter().copied().find(|t| t.overlaps(region))
}

//! Second-level tables: what a device's address becomes. VT-d "Second-Stage
//! Translation", "Second-Stage Paging Entries".

use umbra_arch::paging::ADDRESS_BITS;

use crate::caps::{Caps, Levels};
use crate::mem::{PAGE_BYTES, Tables, WORDS};
use crate::ranges::{Range, Ranges};

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;

/// There were not enough pages for the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// How the tables of a domain are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Levels of a walk.
    pub levels: Levels,
    /// The bits of an address that a unit lets through.
    pub address_bits: u32,
    /// A leaf may map 2 MiB.
    pub has_2m: bool,
    /// A leaf may map 1 GiB. Used only together with 2 MiB, which a leaf taken
    /// apart needs.
    pub has_1g: bool,
    /// Walks look into the caches.
    pub is_coherent: bool,
}

impl Format {
    /// What a unit wants; `None` if it has no levels that are known.
    #[must_use]
    pub fn of(caps: &Caps) -> Option<Self> {
        Some(Self {
            levels: caps.levels()?,
            address_bits: caps.address_bits(),
            has_2m: caps.has_2m(),
            has_1g: caps.has_1g(),
            is_coherent: caps.ecap.coherent(),
        })
    }

    /// What is right for both, so that two units can share tables; `None` if
    /// they differ in their levels.
    #[must_use]
    pub fn shared_with(self, other: Self) -> Option<Self> {
        if self.levels != other.levels {
            return None;
        }
        Some(Self {
            levels: self.levels,
            address_bits: self.address_bits.max(other.address_bits),
            has_2m: self.has_2m && other.has_2m,
            has_1g: self.has_1g && other.has_1g,
            is_coherent: self.is_coherent && other.is_coherent,
        })
    }

    /// How many pages [`SecondLevel::identity`] takes at most for ranges that end below
    /// `end_hpa`, `count` of them.
    #[must_use]
    pub fn pages_at_most(&self, end_hpa: u64, count: u64) -> u64 {
        let end = match self.address_bits {
            bits @ 0..64 => end_hpa.min(1 << bits),
            _ => end_hpa,
        };
        let levels = self.levels.count();
        (0..levels)
            .map(|level| {
                let above = level + 1;
                let all = if above < levels {
                    end.div_ceil(span_bytes(above)).max(1)
                } else {
                    1
                };
                // Where a leaf could stand in its place, a table is there only because a
                // range begins or ends below it.
                match self.has_leaf_at(above) {
                    true => all.min(2 * count),
                    false => all,
                }
            })
            .sum()
    }

    /// Whether a leaf may stand at a level: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
    const fn has_leaf_at(&self, level: u32) -> bool {
        match level {
            0 => true,
            1 => self.has_2m,
            2 => self.has_1g && self.has_2m,
            _ => false,
        }
    }
}

const fn span_bytes(level: u32) -> u64 {
    PAGE_BYTES << (9 * level)
}

const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize % WORDS
}

/// The tables of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondLevel {
    root_hpa: u64,
    format: Format,
}

impl SecondLevel {
    /// Maps `ranges` onto themselves, for reading and writing, by the largest
    /// pages that fit. What lies beyond [`Format::address_bits`] is left out:
    /// no device has such an address.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn identity<const N: usize>(
        tables: &mut impl Tables,
        format: Format,
        ranges: &Ranges<N>,
    ) -> Result<Self, NoRoom> {
        let root_hpa = tables.take().ok_or(NoRoom)?;
        let this = Self { root_hpa, format };
        for range in ranges.iter() {
            let end_hpa = range.end_hpa.min(this.end_hpa());
            if range.start_hpa < end_hpa {
                this.map(
                    tables,
                    Range {
                        start_hpa: range.start_hpa,
                        end_hpa,
                    },
                )?;
            }
        }
        if !format.is_coherent {
            this.write_back(tables, root_hpa, format.levels.count() - 1);
        }
        Ok(this)
    }

    /// The root table, for context entries.
    #[must_use]
    pub const fn root_hpa(&self) -> u64 {
        self.root_hpa
    }

    /// How it is built.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Ranges do not overlap, so that no leaf stands where a table should go.
    fn map(&self, tables: &mut impl Tables, range: Range) -> Result<(), NoRoom> {
        let mut at = range.start_hpa;
        while at < range.end_hpa {
            let fits = |l| at.is_multiple_of(span_bytes(l)) && range.end_hpa - at >= span_bytes(l);
            let level = (0..=2)
                .rev()
                .find(|&l| self.format.has_leaf_at(l) && fits(l))
                .unwrap_or(0);
            let mut table = self.root_hpa;
            for above in (level + 1..self.format.levels.count()).rev() {
                table = descend(tables, table, index(at, above))?;
            }
            let size = if level > 0 { PAGE_SIZE } else { 0 };
            tables.write(table, index(at, level), at | size | READ | WRITE);
            at += span_bytes(level);
        }
        Ok(())
    }

    /// Takes pages away from devices; larger pages around them are split. The
    /// units may still know them: see [`crate::unit::Unit::invalidate`].
    ///
    /// # Errors
    /// [`NoRoom`]: pages up to some point have been taken.
    pub fn take_away(&self, tables: &mut impl Tables, range: Range) -> Result<(), NoRoom> {
        self.for_each_page(range, |page| {
            let (table, entry) = self.last_entry(tables, page, false)?;
            if let Some(table) = table {
                self.store(tables, table, entry, 0);
            }
            Ok(())
        })
    }

    /// Gives pages back, each mapped onto itself.
    ///
    /// # Errors
    /// [`NoRoom`]: pages up to some point have been given.
    pub fn give_back(&self, tables: &mut impl Tables, range: Range) -> Result<(), NoRoom> {
        self.for_each_page(range, |page| {
            let (table, entry) = self.last_entry(tables, page, true)?;
            if let Some(table) = table {
                self.store(tables, table, entry, page | READ | WRITE);
            }
            Ok(())
        })
    }

    fn for_each_page(
        &self,
        range: Range,
        mut what: impl FnMut(u64) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let end_hpa = range.end_hpa.min(self.end_hpa());
        let mut page = range.start_hpa;
        while page < end_hpa {
            what(page)?;
            page += PAGE_BYTES;
        }
        Ok(())
    }

    /// The table whose entry maps the 4 KiB page, and the entry's number;
    /// leaves on the way are split, missing tables made if `make` says so.
    fn last_entry(
        &self,
        tables: &mut impl Tables,
        page: u64,
        make: bool,
    ) -> Result<(Option<u64>, usize), NoRoom> {
        let mut table = self.root_hpa;
        for level in (1..self.format.levels.count()).rev() {
            let at = index(page, level);
            let entry = tables.read(table, at);
            if entry & (READ | WRITE) == 0 && !make {
                return Ok((None, 0));
            }
            if entry & PAGE_SIZE != 0 {
                let new = tables.take().ok_or(NoRoom)?;
                let size = if level > 1 { PAGE_SIZE } else { 0 };
                for part in 0..WORDS {
                    let start = (entry & ADDRESS_BITS) + part as u64 * span_bytes(level - 1);
                    tables.write(new, part, start | size | READ | WRITE);
                }
                self.settle(tables, new);
                self.store(tables, table, at, new | READ | WRITE);
                table = new;
            } else if entry & (READ | WRITE) == 0 {
                let new = descend(tables, table, at)?;
                self.settle(tables, new);
                self.settle(tables, table);
                table = new;
            } else {
                table = entry & ADDRESS_BITS;
            }
        }
        Ok((Some(table), index(page, 0)))
    }

    fn store(&self, tables: &mut impl Tables, table: u64, index: usize, entry: u64) {
        tables.write(table, index, entry);
        self.settle(tables, table);
    }

    fn settle(&self, tables: &mut impl Tables, table: u64) {
        if !self.format.is_coherent {
            tables.write_back(table);
        }
    }

    /// The first address that no device has.
    fn end_hpa(&self) -> u64 {
        1 << self
            .format
            .address_bits
            .min(self.format.levels.address_bits())
    }

    fn write_back(&self, tables: &mut impl Tables, table: u64, level: u32) {
        tables.write_back(table);
        if level == 0 {
            return;
        }
        for index in 0..WORDS {
            let entry = tables.read(table, index);
            if entry & (READ | WRITE) != 0 && entry & PAGE_SIZE == 0 {
                self.write_back(tables, entry & ADDRESS_BITS, level - 1);
            }
        }
    }

    /// Walks the tables as a unit does: the machine address that a device
    /// reaches at `address`, and how many bytes its leaf maps.
    #[must_use]
    pub fn translate(&self, tables: &impl Tables, address: u64) -> Option<(u64, u64)> {
        if address >> self.format.levels.address_bits() != 0 {
            return None;
        }
        let mut table = self.root_hpa;
        for level in (0..self.format.levels.count()).rev() {
            let entry = tables.read(table, index(address, level));
            if entry & (READ | WRITE) == 0 {
                return None;
            }
            if level == 0 || entry & PAGE_SIZE != 0 {
                let bytes = span_bytes(level);
                return Some(((entry & ADDRESS_BITS) + address % bytes, bytes));
            }
            table = entry & ADDRESS_BITS;
        }
        None
    }
}

/// The table that the entry names; a new one where there is none.
fn descend(tables: &mut impl Tables, table: u64, index: usize) -> Result<u64, NoRoom> {
    let entry = tables.read(table, index);
    if entry & (READ | WRITE) != 0 {
        return Ok(entry & ADDRESS_BITS);
    }
    let new = tables.take().ok_or(NoRoom)?;
    tables.write(table, index, new | READ | WRITE);
    Ok(new)
}

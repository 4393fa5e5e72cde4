//! The way through ept12 to one page, in tables of its own: any entry on it can be broken without
//! taking the rest of L2's memory away.

use rt::page::Page;
use rt::vmx::ept::{ALL, Ept, LARGE, WRITE_BACK};

/// Bits of an entry that hold an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The way to one page.
#[derive(Clone, Copy)]
pub struct Path {
    /// Directory pointers, directory, page table: levels 3 to 1.
    tables: [Page; 3],
    /// The level of the leaf: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub leaf: u32,
    /// The guest-physical address of the page.
    pub gpa: u64,
    /// The page's address in L1's memory.
    pub page: u64,
}

impl Path {
    /// The way to `page` by a leaf of level `leaf`. The guest-physical address is in the upper half
    /// of 40 bits, in a region of its own for each level of leaf.
    pub fn new(page: u64, leaf: u32) -> Self {
        Self {
            tables: [Page::alloc(1), Page::alloc(1), Page::alloc(1)],
            leaf,
            gpa: 1 << 39 | u64::from(leaf) << 32 | page & Self::mask(leaf) & !0xfff,
            page,
        }
    }

    /// The offset bits of a leaf of a level.
    pub fn mask(level: u32) -> u64 {
        (1 << (12 + 9 * (level - 1))) - 1
    }

    /// The word for the leaf's size.
    pub fn size(&self) -> &'static str {
        ["4k", "2m", "1g"][self.leaf as usize - 1]
    }

    fn slot(&self, level: u32) -> u64 {
        8 * (self.gpa >> (12 + 9 * (level - 1)) & 0x1ff)
    }

    /// The entry of a level.
    pub fn get(&self, ept: &Ept, level: u32) -> u64 {
        match level {
            4 => ept.entry(self.gpa, 4),
            _ => self.tables[3 - level as usize].read(self.slot(level)),
        }
    }

    /// Writes the entry of a level.
    pub fn set(&self, ept: &Ept, level: u32, value: u64) {
        match level {
            4 => ept.set_entry(self.gpa, 4, value),
            _ => self.tables[3 - level as usize].write(self.slot(level), value),
        }
    }

    /// A leaf for the page with these low bits; no rights are added.
    pub fn leaf_entry(&self, bits: u64) -> u64 {
        let large = if self.leaf > 1 { LARGE } else { 0 };
        self.page & !Self::mask(self.leaf) & ADDRESS | large | bits
    }

    /// An entry of `level`, above the leaf, with these low bits; no rights are added.
    pub fn table_entry(&self, level: u32, bits: u64) -> u64 {
        self.tables[4 - level as usize].address() | bits
    }

    /// Makes the way good: all rights at each level, a leaf of type write-back.
    pub fn mend(&self, ept: &Ept) {
        for level in self.leaf + 1..=4 {
            self.set(ept, level, self.table_entry(level, ALL));
        }
        self.set(ept, self.leaf, self.leaf_entry(WRITE_BACK | ALL));
    }
}

//! EPT structures as a test builds them. SDM "EPT Translation Mechanism".

use crate::page::Page;

/// Bit 0: reads.
pub const READ: u64 = 1;
/// Bit 1: writes.
pub const WRITE: u64 = 2;
/// Bit 2: instruction fetches (supervisor-mode ones under mode-based execute control).
pub const EXECUTE: u64 = 4;
/// Reads, writes and fetches.
pub const ALL: u64 = READ | WRITE | EXECUTE;
/// Memory type write-back, in bits 5:3 of a leaf.
pub const WRITE_BACK: u64 = 6 << 3;
/// Bit 7 of a level-2 or level-3 entry: it is a leaf.
pub const LARGE: u64 = 1 << 7;

/// A 4-level EPT hierarchy.
pub struct Ept {
    root: Page,
}

impl Default for Ept {
    fn default() -> Self {
        Self::new()
    }
}

impl Ept {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            root: Page::alloc(1),
        }
    }

    /// The EPT pointer: write-back, 4 levels, no accessed and dirty flags.
    pub fn pointer(&self) -> u64 {
        self.root.address() | 3 << 3 | 6
    }

    /// The physical address of the entry of `level` (1 to 4) that translates `gpa`; tables on the
    /// way are made where they are missing.
    pub fn entry_address(&self, gpa: u64, level: u32) -> u64 {
        let mut table = self.root.address();
        let mut at = 4;
        loop {
            let slot = table + 8 * (gpa >> (12 + 9 * (at - 1)) & 0x1ff);
            if at == level {
                return slot;
            }
            let pointer = slot as *mut u64;
            // SAFETY: `table` is a page of the pool, identity-mapped, that only this builder and
            // the CPU use; the index is below 512.
            unsafe {
                if pointer.read_volatile() & ALL == 0 {
                    pointer.write_volatile(Page::alloc(1).address() | ALL);
                }
                table = pointer.read_volatile() & 0x000f_ffff_ffff_f000;
            }
            at -= 1;
        }
    }

    /// The entry of `level` that translates `gpa`.
    pub fn entry(&self, gpa: u64, level: u32) -> u64 {
        // SAFETY: `entry_address` gives the address of an entry inside a table of the pool.
        unsafe { (self.entry_address(gpa, level) as *const u64).read_volatile() }
    }

    /// Writes the entry of `level` that translates `gpa`.
    pub fn set_entry(&self, gpa: u64, level: u32, value: u64) {
        // SAFETY: as for `entry`; a wrong entry harms L2 alone.
        unsafe { (self.entry_address(gpa, level) as *mut u64).write_volatile(value) }
    }

    /// Maps one 4 KiB page, write-back.
    pub fn map(&self, gpa: u64, hpa: u64, rights: u64) {
        self.set_entry(gpa, 1, hpa | WRITE_BACK | rights);
    }
}

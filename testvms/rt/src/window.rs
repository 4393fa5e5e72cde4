//! A window of 2 MiB at linear 3 GiB whose 512 pages a test maps as it likes.
//!
//! Everything else of the first 4 GiB is mapped one to one for privilege level 0. The window may be
//! for level 3, not present, or read-only.

use core::arch::asm;

use crate::page::Page;

/// The linear address of the window.
pub const BASE: u64 = 0xc000_0000;
/// Entry bit: the page is present.
pub const PRESENT: u64 = 1;
/// Entry bit: the page may be written.
pub const WRITE: u64 = 2;
/// Entry bit: the page is for privilege level 3.
pub const USER: u64 = 4;

unsafe extern "C" {
    static mut boot_pml4: [u64; 512];
}

/// The window's page table.
pub struct Window(Page);

impl Window {
    /// Puts the window in place. Its pages are not present at first.
    pub fn open() -> Self {
        let table = Page::alloc(1);
        // SAFETY: the tables are those of the boot code: the PML4, after it the PDPT, after that
        // four directories. Opening them to level 3 changes nothing for the large pages below them,
        // which stay at level 0; the only entry replaced is that of the window.
        unsafe {
            let pml4 = (&raw mut boot_pml4).cast::<u64>();
            let pdpt = pml4.add(512);
            let last_directory = pml4.add(512 * 5);
            pml4.write_volatile(pml4.read_volatile() | USER);
            pdpt.add(3)
                .write_volatile(pdpt.add(3).read_volatile() | USER);
            last_directory.write_volatile(table.address() | PRESENT | WRITE | USER);
        }
        Self(table)
    }

    /// Changes the entry of page `index` and leaves what the CPU has cached of it.
    pub fn change(&self, index: u64, physical: u64, bits: u64) {
        self.0.write(index * 8, physical | bits);
    }

    /// Maps page `index` of the window with the entry bits given; returns its linear address.
    pub fn map(&self, index: u64, physical: u64, bits: u64) -> u64 {
        let linear = BASE + index * 4096;
        self.0.write(index * 8, physical | bits);
        // SAFETY: drops a translation.
        unsafe { asm!("invlpg [{}]", in(reg) linear, options(nostack, preserves_flags)) };
        linear
    }
}

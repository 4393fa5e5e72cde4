//! Registers of devices and of IOMMUs, and pages for their tables.

use rt::page::Page;
use umbra_iommu::mem::{Tables, WORDS};
use umbra_iommu::regs::Registers;

/// A device's registers below 4 GiB, where this program has mapped everything one to one.
#[derive(Clone, Copy, Debug)]
pub struct Mmio(u64);

impl Mmio {
    /// Registers from this address on.
    pub fn new(base: u64) -> Self {
        assert!(base != 0 && base < 1 << 32, "registers at {base:#x}");
        Self(base)
    }

    fn at(self, offset: u32) -> *mut u8 {
        (self.0 + u64::from(offset)) as *mut u8
    }

    /// Reads 32 bits.
    pub fn read32(self, offset: u32) -> u32 {
        // SAFETY: registers of a device, mapped; Rust keeps nothing there.
        unsafe { self.at(offset).cast::<u32>().read_volatile() }
    }

    /// Writes 32 bits.
    pub fn write32(self, offset: u32, value: u32) {
        // SAFETY: as for `read32`; what the device then does to memory is what is tested, on pages
        // that are read by volatile reads.
        unsafe { self.at(offset).cast::<u32>().write_volatile(value) }
    }

    /// Reads 64 bits.
    pub fn read64(self, offset: u32) -> u64 {
        // SAFETY: as for `read32`.
        unsafe { self.at(offset).cast::<u64>().read_volatile() }
    }

    /// Writes 64 bits.
    pub fn write64(self, offset: u32, value: u64) {
        // SAFETY: as for `write32`.
        unsafe { self.at(offset).cast::<u64>().write_volatile(value) }
    }
}

impl Registers for Mmio {
    fn read32(&mut self, offset: u32) -> u32 {
        Mmio::read32(*self, offset)
    }

    fn write32(&mut self, offset: u32, value: u32) {
        Mmio::write32(*self, offset, value);
    }

    fn read64(&mut self, offset: u32) -> u64 {
        Mmio::read64(*self, offset)
    }

    fn write64(&mut self, offset: u32, value: u64) {
        Mmio::write64(*self, offset, value);
    }

    fn pause(&mut self) {
        core::hint::spin_loop();
    }
}

/// The program's own pages as tables.
#[derive(Default)]
pub struct Pool {
    taken: heapless::Vec<Page, 256>,
}

impl Pool {
    fn page(&self, page_hpa: u64) -> &Page {
        let found = self.taken.iter().find(|page| page.address() == page_hpa);
        found.expect("a page that was given out")
    }
}

impl Tables for Pool {
    fn take(&mut self) -> Option<u64> {
        let page = Page::alloc(1);
        self.taken.push(page).ok()?;
        Some(page.address())
    }

    fn read(&self, page_hpa: u64, index: usize) -> u64 {
        assert!(index < WORDS);
        self.page(page_hpa).read(8 * index as u64)
    }

    fn write(&mut self, page_hpa: u64, index: usize, value: u64) {
        assert!(index < WORDS);
        self.page(page_hpa).write(8 * index as u64, value);
    }

    fn write_back(&mut self, page_hpa: u64) {
        for line in (page_hpa..page_hpa + 4096).step_by(64) {
            // SAFETY: CLFLUSH changes no data.
            unsafe { core::arch::x86_64::_mm_clflush(line as *const u8) };
        }
    }
}

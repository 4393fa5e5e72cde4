//! L0's own page tables. SDM "4-Level Paging and 5-Level Paging".

use super::{PAGE_BYTES, PagePool, pointer};
use umbra_arch::Linear;
use umbra_arch::paging::{ADDRESS_BITS, Pte};

const PRESENT: u64 = Pte::P.bits();
const WRITABLE: u64 = Pte::RW.bits();
const LARGE: u64 = Pte::PS.bits();
const NO_EXECUTE: u64 = Pte::XD.bits();

/// What L0 may do with a page, besides reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Read,
    /// Write.
    Write,
    /// Execute.
    Execute,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Read => NO_EXECUTE,
            Self::Write => WRITABLE | NO_EXECUTE,
            Self::Execute => 0,
        }
    }
}

/// The size of one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageSize {
    /// 4 KiB.
    Small = 1,
    /// 2 MiB.
    Medium = 2,
    /// 1 GiB.
    Large = 3,
}

impl PageSize {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        1 << (3 + 9 * self as u32)
    }
}

/// One set of page tables under construction or in use.
#[derive(Debug)]
pub struct AddressSpace {
    root: u64,
}

impl AddressSpace {
    /// An empty one.
    pub fn new(pool: &mut PagePool) -> Self {
        Self {
            root: pool.take(1).base().raw(),
        }
    }

    /// Another one with the same upper half of linear addresses and nothing in
    /// the lower one. What either maps above later may show up in both.
    pub fn with_shared_upper_half(&self, pool: &mut PagePool) -> Self {
        let other = Self::new(pool);
        let from: *const u64 = pointer(self.root).cast();
        let to: *mut u64 = pointer(other.root).cast();
        // SAFETY: both are root tables of 512 entries, L0's own and apart.
        unsafe {
            core::ptr::copy_nonoverlapping(from.wrapping_add(256), to.wrapping_add(256), 256);
        }
        other
    }

    /// The value for CR3.
    pub fn cr3(&self) -> u64 {
        self.root
    }

    /// Maps `bytes` bytes from `linear` to `physical` on; all three are
    /// multiples of the page size. Tables come from `pool`.
    ///
    /// # Safety
    /// Where these tables are in CR3, or will be, no Rust object is at the linear addresses,
    /// nor a second one, by way of them, at the physical addresses.
    pub unsafe fn map(
        &mut self,
        pool: &mut PagePool,
        linear: Linear,
        physical: u64,
        bytes: u64,
        size: PageSize,
        access: Access,
    ) {
        let step = size.bytes();
        assert!(
            (linear.raw() | physical | bytes) & (step - 1) == 0,
            "{linear:#x}, {physical:#x}, {bytes:#x} are not multiples of the page size"
        );
        let large = if matches!(size, PageSize::Small) {
            0
        } else {
            LARGE
        };
        let mut done = 0;
        while done < bytes {
            let entry = self.entry(pool, linear.plus(done), size as u32);
            // SAFETY: `entry` points into one of this object's tables.
            unsafe { entry.write((physical + done) | PRESENT | large | access.bits()) };
            done += step;
        }
    }

    /// The entry for `linear` at `level` (1: 4 KiB), making tables on the way.
    fn entry(&mut self, pool: &mut PagePool, linear: Linear, level: u32) -> *mut u64 {
        let mut table = self.root;
        let mut at = 4;
        loop {
            let index = linear.raw() >> (3 + 9 * at) & 511;
            let entry: *mut u64 = pointer(table + index * 8).cast();
            if at == level {
                return entry;
            }
            // SAFETY: `table` is one of this object's tables, `index` below 512.
            let value = unsafe { entry.read() };
            table = if value & PRESENT != 0 {
                assert!(value & LARGE == 0, "{linear:#x} is mapped by a large page");
                value & ADDRESS_BITS
            } else {
                let new = pool.take(1).base().raw();
                // SAFETY: as above.
                unsafe { entry.write(new | PRESENT | WRITABLE) };
                new
            };
            at -= 1;
        }
    }
}

/// How many pages of tables it takes to map `bytes` bytes in one run that
/// crosses as few table borders as it can, counting two more for the borders.
pub const fn tables_for(bytes: u64, size: PageSize) -> u64 {
    let mut pages = 0;
    let mut span = size.bytes();
    let mut level = size as u32;
    while level < 4 {
        span *= 512;
        pages += bytes.div_ceil(span) + 1;
        level += 1;
    }
    pages
}

/// `bytes` in whole pages.
pub const fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES)
}

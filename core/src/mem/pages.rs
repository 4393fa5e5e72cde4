//! L0's own pages: handed out at boot, never given back.

use super::{PAGE_BYTES, pointer};
use core::sync::atomic::AtomicU64;
use umbra_arch::Hpa;

/// A run of pages that belongs to whoever holds this.
#[derive(Debug)]
pub struct OwnedPages {
    base: u64,
    count: u64,
}

impl OwnedPages {
    /// Where the first page is.
    #[inline(always)]
    pub fn base(&self) -> Hpa {
        // SAFETY: L0's own page, which whoever holds `self` decides on.
        unsafe { Hpa::new(self.base) }
    }

    /// How many pages there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Where page `index` is.
    #[inline(always)]
    pub fn page(&self, index: u64) -> Hpa {
        assert!(index < self.count, "page {index} of {}", self.count);
        // SAFETY: as `base`.
        unsafe { Hpa::new(self.base + index * PAGE_BYTES) }
    }

    /// The pages as 64-bit words.
    pub fn words_mut(&mut self) -> &mut [u64] {
        let words = (self.count * PAGE_BYTES / 8) as usize;
        // SAFETY: the pages are mapped, aligned, initialised (the pool zeroes
        // them), belong to `self` alone, and `self` is borrowed uniquely.
        unsafe { core::slice::from_raw_parts_mut(pointer(self.base).cast(), words) }
    }

    /// The pages as 64-bit words that any CPU may use from now on.
    pub fn into_shared_words(self) -> &'static [AtomicU64] {
        let words = (self.count * PAGE_BYTES / 8) as usize;
        // SAFETY: as `words_mut`, and the pages are never given back; `self`
        // ends here, so that nothing but the atomics refers to them.
        unsafe { core::slice::from_raw_parts(pointer(self.base).cast(), words) }
    }

    /// The pages as bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = (self.count * PAGE_BYTES) as usize;
        // SAFETY: as `words_mut`.
        unsafe { core::slice::from_raw_parts_mut(pointer(self.base), bytes) }
    }
}

/// Hands out pages from one contiguous run, from the bottom upwards.
pub struct PagePool {
    next: u64,
    end: u64,
}

impl PagePool {
    /// A pool over `start..end`, both page aligned.
    ///
    /// # Safety
    /// The range must be RAM that is mapped at `PHYSMAP` and used by nobody.
    pub const unsafe fn new(start: u64, end: u64) -> Self {
        Self { next: start, end }
    }

    /// Takes `count` zeroed pages. The reservation was computed from the same
    /// numbers, so running out is a bug of L0's.
    pub fn take(&mut self, count: u64) -> OwnedPages {
        let bytes = count * PAGE_BYTES;
        assert!(
            bytes <= self.end - self.next,
            "the reservation is {} bytes short",
            bytes - (self.end - self.next)
        );
        let base = self.next;
        self.next += bytes;
        // SAFETY: the range is the pool's own, mapped, and handed out once.
        unsafe { core::ptr::write_bytes(pointer(base), 0, bytes as usize) };
        OwnedPages { base, count }
    }
}

//! Pages of the program's own, given out once and never taken back.
//!
//! Physical and linear addresses are the same here. Access goes by volatile reads and writes: the
//! CPU reads and writes these pages behind the compiler's back.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes in a page.
pub const SIZE: u64 = 4096;
const COUNT: usize = 1024;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u8; 4096]; COUNT]>);

// SAFETY: each page is given out once; `Page` accesses it by volatile operations only.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([[0; 4096]; COUNT]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A run of pages that belongs to its holder.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    address: u64,
    bytes: u64,
}

impl Page {
    /// Takes `count` pages, zeroed, one after another in physical memory.
    pub fn alloc(count: usize) -> Self {
        let first = NEXT.fetch_add(count, Relaxed);
        assert!(
            first + count <= COUNT,
            "the page pool of {COUNT} is too small"
        );
        let bytes = count as u64 * SIZE;
        Self {
            address: POOL.0.get() as u64 + first as u64 * SIZE,
            bytes,
        }
    }

    /// The physical, and linear, address.
    pub fn address(&self) -> u64 {
        self.address
    }

    fn slot<T>(&self, offset: u64) -> *mut T {
        assert!(
            offset + size_of::<T>() as u64 <= self.bytes,
            "offset {offset:#x} is outside"
        );
        (self.address + offset) as *mut T
    }

    /// Reads a value at a byte offset.
    pub fn read<T: Plain>(&self, offset: u64) -> T {
        // SAFETY: `slot` checked the range, the pages are mapped, and every bit pattern is a T.
        unsafe { self.slot::<Unaligned<T>>(offset).read_volatile().0 }
    }

    /// Writes a value at a byte offset.
    pub fn write<T: Plain>(&self, offset: u64, value: T) {
        // SAFETY: as for `read`; the pages belong to the holder.
        unsafe {
            self.slot::<Unaligned<T>>(offset)
                .write_volatile(Unaligned(value))
        }
    }

    /// Reads 8 bytes of any page that was given out; `None` elsewhere.
    pub fn read_foreign(address: u64) -> Option<u64> {
        let start = POOL.0.get() as u64;
        let end = start + COUNT as u64 * SIZE;
        let is_inside = address >= start && address <= end - 8;
        // SAFETY: the range lies within the pool, which is mapped for ever.
        is_inside.then(|| unsafe { (address as *const Unaligned<u64>).read_volatile().0 })
    }

    /// Copies bytes in.
    pub fn write_bytes(&self, offset: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.write(offset + i as u64, *byte);
        }
    }

    /// Makes every byte `byte`.
    pub fn fill(&self, byte: u8) {
        // SAFETY: the whole range belongs to the holder.
        unsafe { core::ptr::write_bytes(self.address as *mut u8, byte, self.bytes as usize) };
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

/// A type for which every bit pattern is a value.
///
/// # Safety
/// That must be true of it.
pub unsafe trait Plain: Copy {}

// SAFETY: true of integers.
unsafe impl Plain for u8 {}
// SAFETY: true of integers.
unsafe impl Plain for u16 {}
// SAFETY: true of integers.
unsafe impl Plain for u32 {}
// SAFETY: true of integers.
unsafe impl Plain for u64 {}

//! L1's physical memory. L1 sees the machine's, except that every page of
//! Umbra's own is one and the same scratch page to it, the void.

use super::{LOW_BYTES, Layout, PAGE_BYTES, Registers, layout, pointer};
use umbra_arch::{Gpa1, Hpa};
use umbra_guests::{PhysMemory, Unreachable};

/// L1's physical memory.
#[derive(Clone, Copy, Debug)]
pub struct L1Physical(&'static Layout);

/// Before the move: the early tables show the low 4 GiB, and nothing is
/// hidden.
static EARLY: Layout = Layout {
    hidden_start: 0,
    hidden_bytes: 0,
    registers: Registers::NONE,
    plain_bytes: LOW_BYTES,
    mapped_bytes: LOW_BYTES,
    void_page: Hpa::NOWHERE,
};

/// Whether `bytes` bytes at `address` are mapped.
fn check(layout: &Layout, address: Gpa1, bytes: u64) -> Result<(), Unreachable> {
    match layout.maps(address.raw(), bytes) {
        true => Ok(()),
        false => Err(unreachable_at(address)),
    }
}

const fn unreachable_at(address: Gpa1) -> Unreachable {
    Unreachable {
        address: address.raw(),
    }
}

/// Where L0 sees L1's address: L1's own memory where it is, Umbra's as the one
/// void page that ept01 shows instead.
fn seen_at(layout: &Layout, address: Gpa1) -> *mut u8 {
    if address.raw() >= layout.plain_bytes && layout.touches_hidden(address, 1) {
        return pointer(layout.void_page.raw() + address.page_offset());
    }
    pointer(address.raw())
}

/// Splits `bytes` bytes at `address` at the borders of pages: calls `each`
/// with where L0 sees the piece, its offset in the whole and its length.
fn pieces(
    layout: &Layout,
    address: Gpa1,
    bytes: usize,
    mut each: impl FnMut(*mut u8, usize, usize),
) {
    let mut done = 0;
    while done < bytes {
        let at = address.plus(done as u64);
        let to_border = (PAGE_BYTES - at.page_offset()) as usize;
        let length = to_border.min(bytes - done);
        each(seen_at(layout, at), done, length);
        done += length;
    }
}

impl L1Physical {
    /// The machine's memory before Umbra has moved: for reading what firmware
    /// and boot loader left.
    pub fn early() -> Self {
        Self(&EARLY)
    }

    /// L1's memory, once the layout is settled.
    pub fn new() -> Self {
        Self(layout())
    }

    /// Fills `bytes` from physical address `address` on.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte is beyond what L0 maps.
    pub fn read_bytes(self, address: Gpa1, bytes: &mut [u8]) -> Result<(), Unreachable> {
        let layout = self.0;
        check(layout, address, bytes.len() as u64)?;
        let to = bytes.as_mut_ptr();
        pieces(layout, address, bytes.len(), |at, offset, length| {
            // SAFETY: the source is mapped and no Rust object of L0's; the
            // destination is inside `bytes`. What L1 changes meanwhile is read
            // either way, which is what L1 asked for.
            unsafe { core::ptr::copy_nonoverlapping(at, to.wrapping_add(offset), length) };
        });
        Ok(())
    }

    /// Writes `bytes` at physical address `address`.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte is beyond what L0 maps.
    pub fn write_bytes(self, address: Gpa1, bytes: &[u8]) -> Result<(), Unreachable> {
        let layout = self.0;
        check(layout, address, bytes.len() as u64)?;
        pieces(layout, address, bytes.len(), |at, offset, length| {
            // SAFETY: the destination is mapped, and L1's or the void; the source is
            // inside `bytes`.
            unsafe {
                core::ptr::copy_nonoverlapping(bytes.as_ptr().wrapping_add(offset), at, length)
            };
        });
        Ok(())
    }

    /// Reads 64 bits at an 8-byte aligned address, in one access.
    ///
    /// # Errors
    /// [`Unreachable`] for an address beyond what L0 maps, or a misaligned one.
    #[inline(always)]
    pub fn read_u64(self, address: Gpa1) -> Result<u64, Unreachable> {
        if address.is_aligned(8) && address.raw() < self.0.plain_bytes {
            // SAFETY: mapped, as is what follows up to the next page, aligned, and L1's.
            return Ok(unsafe { pointer(address.raw()).cast::<u64>().read_volatile() });
        }
        self.read_u64_anywhere(address)
    }

    #[inline(never)]
    fn read_u64_anywhere(self, address: Gpa1) -> Result<u64, Unreachable> {
        let layout = self.0;
        check(layout, address, 8)?;
        if !address.is_aligned(8) {
            return Err(unreachable_at(address));
        }
        // SAFETY: mapped, aligned, L1's or the void.
        Ok(unsafe { seen_at(layout, address).cast::<u64>().read_volatile() })
    }

    /// Writes 64 bits at an 8-byte aligned address below which nothing is hidden; whether it is
    /// one.
    #[inline(always)]
    pub fn write_plain_u64(self, address: Gpa1, value: u64) -> bool {
        let is_plain = address.is_aligned(8) && address.raw() < self.0.plain_bytes;
        if is_plain {
            // SAFETY: mapped, as is what follows up to the next page, aligned, and L1's.
            unsafe { pointer(address.raw()).cast::<u64>().write_volatile(value) };
        }
        is_plain
    }

    /// Whether the 64-bit words at these addresses have these values.
    #[inline]
    pub fn holds(self, words: &[(Gpa1, u64)]) -> bool {
        words
            .iter()
            .all(|&(address, value)| self.read_u64(address) == Ok(value))
    }

    /// Reads 32 bits at a 4-byte aligned address, in one access.
    ///
    /// # Errors
    /// [`Unreachable`] for an address beyond what L0 maps, or a misaligned one.
    #[inline]
    pub fn read_u32(self, address: Gpa1) -> Result<u32, Unreachable> {
        let layout = self.0;
        check(layout, address, 4)?;
        if !address.is_aligned(4) {
            return Err(unreachable_at(address));
        }
        // SAFETY: mapped, aligned, L1's or the void.
        Ok(unsafe { seen_at(layout, address).cast::<u32>().read_volatile() })
    }

    /// Reads `N` words of 64 bits at an address aligned to their size, each in one
    /// access. `N` is a power of two, so that they lie in one page.
    ///
    /// # Errors
    /// [`Unreachable`] for an address beyond what L0 maps, or a misaligned one.
    #[inline]
    pub fn read_words<const N: usize>(self, address: Gpa1) -> Result<[u64; N], Unreachable> {
        const { assert!(N.is_power_of_two() && 8 * N as u64 <= PAGE_BYTES) };
        let layout = self.0;
        check(layout, address, 8 * N as u64)?;
        if !address.is_aligned(8 * N as u64) {
            return Err(unreachable_at(address));
        }
        let first = seen_at(layout, address).cast::<u64>();
        Ok(core::array::from_fn(|n| {
            // SAFETY: mapped, aligned, L1's or the void, and in the same page as the
            // first; L1 may be writing it, and it is read once.
            unsafe { first.wrapping_add(n).read_volatile() }
        }))
    }

    /// Stores `new` at an 8-byte aligned address if it holds `old`, in one
    /// locked access; says whether it did.
    ///
    /// # Errors
    /// [`Unreachable`] for an address beyond what L0 maps, or a misaligned one.
    pub fn compare_exchange_u64(
        self,
        address: Gpa1,
        old: u64,
        new: u64,
    ) -> Result<bool, Unreachable> {
        use core::sync::atomic::{AtomicU64, Ordering};
        let layout = self.0;
        check(layout, address, 8)?;
        if !address.is_aligned(8) {
            return Err(unreachable_at(address));
        }
        // SAFETY: mapped, aligned, L1's or the void; L1 may access it at the same
        // time, through the same kind of locked access or plainly.
        let word = unsafe { AtomicU64::from_ptr(seen_at(layout, address).cast()) };
        Ok(word
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok())
    }
}

impl Default for L1Physical {
    fn default() -> Self {
        Self::new()
    }
}

impl PhysMemory for L1Physical {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable> {
        self.read_bytes(Gpa1::new(address), bytes)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        self.write_bytes(Gpa1::new(address), bytes)
    }

    fn zero(&mut self, address: u64, len_bytes: u64) -> Result<(), Unreachable> {
        let layout = self.0;
        check(layout, Gpa1::new(address), len_bytes)?;
        if layout.touches_hidden(Gpa1::new(address), len_bytes) {
            return Err(Unreachable { address });
        }
        // SAFETY: mapped and wholly L1's.
        unsafe { core::ptr::write_bytes(pointer(address), 0, len_bytes as usize) };
        Ok(())
    }

    fn copy_within(
        &mut self,
        destination: u64,
        source: u64,
        len_bytes: u64,
    ) -> Result<(), Unreachable> {
        let layout = self.0;
        for address in [destination, source] {
            check(layout, Gpa1::new(address), len_bytes)?;
            if layout.touches_hidden(Gpa1::new(address), len_bytes) {
                return Err(Unreachable { address });
            }
        }
        // SAFETY: both ranges are mapped and wholly L1's; `copy` allows them
        // to overlap.
        unsafe { core::ptr::copy(pointer(source), pointer(destination), len_bytes as usize) };
        Ok(())
    }
}

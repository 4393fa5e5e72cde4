//! Physical memory: where L0 sees it, which of it is L0's, and how L1's is
//! read and written.

pub mod l1;
pub mod pages;
pub mod paging;
pub mod tables;

use umbra_arch::hpa::{MAX_HIDDEN, Range};
use umbra_arch::{Gpa1, Hpa};

pub use l1::L1Physical;
pub use pages::{OwnedPages, PagePool};
pub use tables::Tables;
pub use umbra_arch::paging::PAGE_BYTES;

/// Where physical address 0 is mapped. All RAM and the low 4 GiB follow.
pub const PHYSMAP: u64 = 0xffff_8000_0000_0000;

/// The low 4 GiB, mapped whatever the memory map says: the local APICs and
/// most devices are there.
pub const LOW_BYTES: u64 = 1 << 32;

/// Where L0 sees the physical address given. Only addresses below
/// [`Layout::mapped_bytes`] are mapped.
pub fn pointer(physical: u64) -> *mut u8 {
    PHYSMAP.wrapping_add(physical) as *mut u8
}

/// Most ranges of device registers that L1 is kept from: ept01 hides these and L0's block.
pub const MAX_REGISTERS: usize = MAX_HIDDEN - 1;

/// Registers of devices that L0 drives.
#[derive(Clone, Debug)]
pub struct Registers(heapless::Vec<Range, MAX_REGISTERS>);

impl Registers {
    /// None.
    pub const NONE: Self = Self(heapless::Vec::new());

    /// These, of which those beyond [`MAX_REGISTERS`] are left out.
    pub fn new(ranges: impl Iterator<Item = Range>) -> Self {
        Self(ranges.take(MAX_REGISTERS).collect())
    }

    /// Where the first of them is.
    pub fn first(&self) -> Option<u64> {
        self.iter().map(|range| range.start).min()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }

    fn touch(&self, physical: u64, bytes: u64) -> bool {
        self.iter()
            .any(|range| physical < range.end && range.start < physical.saturating_add(bytes))
    }
}

/// Where things are in physical memory, once Umbra has moved.
#[derive(Clone, Debug)]
pub struct Layout {
    /// First byte of L0's one block of memory.
    pub hidden_start: u64,
    /// Its length in bytes.
    pub hidden_bytes: u64,
    /// What else L1 is kept from.
    pub registers: Registers,
    /// Nothing is hidden below, and all of it is mapped: most of L1's RAM, since L0's block
    /// is as high as it can be.
    pub plain_bytes: u64,
    /// How much of physical memory [`PHYSMAP`] shows, in bytes from 0.
    pub mapped_bytes: u64,
    /// The one page that L1 finds wherever L0's memory or such registers are.
    pub void_page: Hpa,
}

impl Layout {
    /// Whether L0 sees all of the `bytes` bytes at `physical`.
    pub fn maps(&self, physical: u64, bytes: u64) -> bool {
        physical
            .checked_add(bytes)
            .is_some_and(|end| end <= self.mapped_bytes)
    }

    /// Whether any of the `bytes` bytes that L1 has at `gpa1` is L0's.
    #[inline]
    pub fn touches_hidden(&self, gpa1: Gpa1, bytes: u64) -> bool {
        let physical = gpa1.raw();
        if physical.saturating_add(bytes) <= self.plain_bytes {
            return false;
        }
        physical < self.hidden_start.saturating_add(self.hidden_bytes)
            && self.hidden_start < physical.saturating_add(bytes)
            || self.registers.touch(physical, bytes)
    }
}

static LAYOUT: crate::sync::BootCell<Layout> = crate::sync::BootCell::new();

/// Settles the layout; once, after the move.
pub fn set_layout(layout: Layout) {
    LAYOUT.set(layout);
}

/// The layout.
pub fn layout() -> &'static Layout {
    LAYOUT.get()
}

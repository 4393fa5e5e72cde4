//! Physical memory: where L0 sees it, which of it is L0's, and how L1's is
//! read and written.

pub mod l1;
pub mod pages;
pub mod paging;
pub mod tables;

use umbra_ept::ept01::{MAX_HIDDEN, Range};

pub use l1::L1Physical;
pub use pages::{OwnedPages, PagePool};
pub use tables::Tables;

/// Bytes of the smallest page.
pub const PAGE_BYTES: u64 = 4096;

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
pub struct Registers {
    ranges: heapless::Vec<Range, MAX_REGISTERS>,
    /// From the first of them to behind the last.
    start: u64,
    end: u64,
}

impl Registers {
    /// None.
    pub const NONE: Self = Self {
        ranges: heapless::Vec::new(),
        start: 0,
        end: 0,
    };

    /// These, of which those beyond [`MAX_REGISTERS`] are left out.
    pub fn new(ranges: impl Iterator<Item = Range>) -> Self {
        let ranges: heapless::Vec<Range, MAX_REGISTERS> = ranges.take(MAX_REGISTERS).collect();
        Self {
            start: ranges.iter().map(|range| range.start).min().unwrap_or(0),
            end: ranges.iter().map(|range| range.end).max().unwrap_or(0),
            ranges,
        }
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter()
    }

    /// Whether any of the `bytes` bytes at `physical` may be one: a quick look.
    #[inline]
    fn are_near(&self, physical: u64, bytes: u64) -> bool {
        physical < self.end && self.start < physical.saturating_add(bytes)
    }

    #[inline]
    fn touch(&self, physical: u64, bytes: u64) -> bool {
        self.are_near(physical, bytes)
            && self
                .iter()
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
    /// How much of physical memory [`PHYSMAP`] shows, in bytes from 0.
    pub mapped_bytes: u64,
    /// The one page that L1 finds wherever L0's memory or such registers are.
    pub void_page: u64,
}

impl Layout {
    /// Whether L0 sees all of the `bytes` bytes at `physical`.
    pub fn maps(&self, physical: u64, bytes: u64) -> bool {
        physical
            .checked_add(bytes)
            .is_some_and(|end| end <= self.mapped_bytes)
    }

    /// Whether any of the `bytes` bytes at `physical` is L0's.
    #[inline]
    pub fn touches_hidden(&self, physical: u64, bytes: u64) -> bool {
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

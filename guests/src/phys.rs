//! L1's physical memory, as this crate sees it.

use core::fmt;

/// Physical memory of L1, identity-mapped to the machine's.
///
/// The one who implements it decides which addresses it reaches; this crate
/// only ever writes where the memory map says that there is usable RAM.
pub trait PhysMemory {
    /// Fills `bytes` from physical address `address` on.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte of the range is out of reach.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable>;

    /// Writes `bytes` at physical address `address`.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte of the range is out of reach.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreachable>;

    /// Sets `len_bytes` bytes from `address` on to zero.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte of the range is out of reach.
    fn zero(&mut self, address: u64, len_bytes: u64) -> Result<(), Unreachable>;

    /// Copies `len_bytes` bytes from `source` to `destination`; the two ranges
    /// may overlap, and the destination then holds what the source held.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte of either range is out of reach.
    fn copy_within(
        &mut self,
        destination: u64,
        source: u64,
        len_bytes: u64,
    ) -> Result<(), Unreachable>;
}

/// A physical address that a [`PhysMemory`] does not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    /// The first address of the access.
    pub address: u64,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "physical address {:#x} is out of reach", self.address)
    }
}

impl core::error::Error for Unreachable {}

/// A run of physical memory: where it begins and how long it is.
///
/// It may end exactly at the end of the 64-bit space, so there is no
/// "one past the end" here; [`Region::last`] is inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Region {
    /// First physical address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Region {
    /// The region of `len` bytes that begins at `start`.
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// Its last address; `None` for an empty region and for one that runs past
    /// the end of the 64-bit space.
    pub fn last(self) -> Option<u64> {
        self.start.checked_add(self.len.checked_sub(1)?)
    }

    /// Whether the two share a byte. An empty region shares none.
    pub fn overlaps(self, other: Region) -> bool {
        match (self.last(), other.last()) {
            (Some(a), Some(b)) => self.start <= b && other.start <= a,
            _ => false,
        }
    }
}

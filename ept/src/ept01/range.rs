//! Ranges of physical memory.

/// A range of physical addresses in bytes, 4 KiB aligned at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte after the range.
    pub end: u64,
}

impl Range {
    pub(super) const fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
}

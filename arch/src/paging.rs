//! Paging. SDM "Paging", "Page-Fault Exceptions".

use crate::flags::on_raw_values;
use bitflags::bitflags;

/// Bytes in the smallest page and in every table.
pub const PAGE_BYTES: u64 = 4096;
/// Bits 51:12, where an entry of a table, and CR3, keep an address.
pub const ADDRESS_BITS: u64 = 0x000f_ffff_ffff_f000;

bitflags! {
    /// An entry of a paging structure.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Pte: u64 {
        /// Present.
        const P = 1 << 0;
        /// Writable.
        const RW = 1 << 1;
        /// For user mode.
        const US = 1 << 2;
        /// Page-level write-through.
        const PWT = 1 << 3;
        /// Page-level cache disable.
        const PCD = 1 << 4;
        /// Accessed.
        const A = 1 << 5;
        /// Dirty.
        const D = 1 << 6;
        /// Maps a page instead of naming a table.
        const PS = 1 << 7;
        /// Global.
        const G = 1 << 8;
        /// No execution.
        const XD = 1 << 63;
    }

    /// The error code of a page fault.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PageFaultCode: u32 {
        /// The page is present.
        const P = 1 << 0;
        /// A write.
        const W = 1 << 1;
        /// A user-mode access.
        const U = 1 << 2;
        /// A reserved bit is set in a paging-structure entry.
        const RSVD = 1 << 3;
        /// An instruction fetch.
        const I = 1 << 4;
        /// A protection key.
        const PK = 1 << 5;
        /// A shadow-stack access.
        const SS = 1 << 6;
    }
}

on_raw_values!(Pte: u64, PageFaultCode: u32);

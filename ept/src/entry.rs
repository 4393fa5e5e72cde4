//! One entry of an EPT paging structure and what a CPU makes of it.

use crate::addr::{ADDRESS_BITS, Level};
use crate::caps::Caps;
use crate::memtype::MemType;
use crate::rights::Rights;

/// Bits of an entry other than its rights and its address.
pub mod bit {
    /// Leaf at a level above the last (bit 7).
    pub const LARGE: u64 = 1 << 7;
    /// Ignore PAT (bit 6), in leaves.
    pub const IGNORE_PAT: u64 = 1 << 6;
    /// Accessed (bit 8), if EPTP turns the flags on.
    pub const ACCESSED: u64 = 1 << 8;
    /// Dirty (bit 9), in leaves, if EPTP turns the flags on.
    pub const DIRTY: u64 = 1 << 9;
    /// Suppress #VE (bit 63), in leaves and in entries that are not present.
    pub const SUPPRESS_VE: u64 = 1 << 63;
    /// Bits 7:3, reserved in an entry that names a table.
    pub const TABLE_RESERVED: u64 = 0xf8;
}

/// An entry as it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Entry(pub u64);

/// Why an entry is an EPT misconfiguration (SDM "EPT Misconfigurations").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Writable but not readable.
    WriteWithoutRead,
    /// Executable but not readable, on a CPU without execute-only translations.
    ExecuteOnly,
    /// A leaf of a size that the CPU does not support.
    PageSize,
    /// A bit of 51:12 beyond the physical-address width.
    AddressWidth,
    /// Another reserved bit.
    Reserved,
    /// A leaf with memory type 2, 3 or 7.
    MemoryType,
}

/// What a CPU makes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// No access is allowed and nothing else in the entry is looked at, save
    /// bit 63.
    NotPresent {
        /// The EPT violation is not turned into a virtualization exception.
        suppress_ve: bool,
    },
    /// The entry is illegal.
    Misconfigured(Why),
    /// The entry names the table of the next level.
    Table {
        /// Address of the table in bytes, 4 KiB aligned.
        address: u64,
        /// What the entry allows.
        rights: Rights,
    },
    /// The entry maps a page of its level's size.
    Leaf(Leaf),
}

/// A leaf entry, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First byte of the page, aligned to its size.
    pub address: u64,
    /// What the entry allows.
    pub rights: Rights,
    /// EPT memory type.
    pub mem_type: MemType,
    /// The PAT of the accessing guest has no say.
    pub ignore_pat: bool,
    /// EPT violations of this page are not turned into #VE.
    pub suppress_ve: bool,
}

impl Entry {
    /// Decodes the entry as a CPU with `caps` does at `level`.
    ///
    /// SDM "EPT Translation Mechanism" and "EPT Misconfigurations". The
    /// accessed and dirty flags make no difference here: where EPTP leaves
    /// them off their bits are ignored.
    #[inline]
    #[must_use]
    pub const fn decode(self, level: Level, caps: &Caps) -> Decoded {
        let raw = self.0;
        let rights = Rights::of_entry(raw, caps.mode_based_execute);
        if rights.is_empty() {
            return Decoded::NotPresent {
                suppress_ve: raw & bit::SUPPRESS_VE != 0,
            };
        }
        if !rights.contains(Rights::READ) {
            if rights.contains(Rights::WRITE) {
                return Decoded::Misconfigured(Why::WriteWithoutRead);
            }
            if !caps.execute_only {
                return Decoded::Misconfigured(Why::ExecuteOnly);
            }
        }
        if raw & caps.beyond_width() != 0 {
            return Decoded::Misconfigured(Why::AddressWidth);
        }
        let large = raw & bit::LARGE != 0;
        let leaf = match level {
            Level::Pt => true,
            Level::Pd if large && !caps.page_2m => {
                return Decoded::Misconfigured(Why::PageSize);
            }
            Level::Pdpt if large && !caps.page_1g => {
                return Decoded::Misconfigured(Why::PageSize);
            }
            Level::Pd | Level::Pdpt => large,
            Level::Pml4 | Level::Pml5 => false,
        };
        if !leaf {
            if raw & bit::TABLE_RESERVED != 0 {
                return Decoded::Misconfigured(Why::Reserved);
            }
            return Decoded::Table {
                address: raw & ADDRESS_BITS,
                rights,
            };
        }
        if raw & ADDRESS_BITS & (level.span_bytes() - 1) != 0 {
            return Decoded::Misconfigured(Why::Reserved);
        }
        let Some(mem_type) = MemType::from_bits(((raw >> 3) & 7) as u8) else {
            return Decoded::Misconfigured(Why::MemoryType);
        };
        Decoded::Leaf(Leaf {
            address: raw & ADDRESS_BITS,
            rights,
            mem_type,
            ignore_pat: raw & bit::IGNORE_PAT != 0,
            suppress_ve: raw & bit::SUPPRESS_VE != 0,
        })
    }

    /// Composes a leaf of `level`. Accessed and dirty are set, so that the CPU
    /// has nothing to write back. The address is cut to the page size.
    #[inline]
    #[must_use]
    pub const fn leaf(level: Level, leaf: &Leaf) -> Self {
        let mut raw = (leaf.address & ADDRESS_BITS & !(level.span_bytes() - 1))
            | leaf.rights.bits()
            | (leaf.mem_type as u64) << 3
            | bit::ACCESSED
            | bit::DIRTY;
        if !matches!(level, Level::Pt) {
            raw |= bit::LARGE;
        }
        if leaf.ignore_pat {
            raw |= bit::IGNORE_PAT;
        }
        if leaf.suppress_ve {
            raw |= bit::SUPPRESS_VE;
        }
        Self(raw)
    }

    /// Composes an entry that names the table at `address` and allows
    /// everything: what limits an access is the leaf.
    #[inline]
    #[must_use]
    pub const fn table(address: u64) -> Self {
        Self((address & ADDRESS_BITS) | Rights::all().bits() | bit::ACCESSED)
    }

    /// For entries that Umbra wrote itself: the address of the table that the
    /// entry names, `None` for a leaf or an entry that is not present.
    #[inline]
    #[must_use]
    pub const fn own_table(self, level: Level) -> Option<u64> {
        if self.is_present() && !self.is_own_leaf(level) {
            Some(self.0 & ADDRESS_BITS)
        } else {
            None
        }
    }

    /// For entries that Umbra wrote itself: whether this is a leaf.
    #[inline]
    #[must_use]
    pub const fn is_own_leaf(self, level: Level) -> bool {
        self.is_present() && (matches!(level, Level::Pt) || self.0 & bit::LARGE != 0)
    }

    /// Any right at all, counting `EXECUTE_USER`.
    #[inline]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & Rights::all().bits() != 0
    }
}

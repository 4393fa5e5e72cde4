//! One entry of an EPT paging structure and what a CPU makes of it.

use umbra_arch::hpa::{OwnEntry, TablePage};
use umbra_arch::{Gpa1, Hpa};

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

/// An entry of ept12 as it is in memory. Those of L0's own tables are [`OwnEntry`].
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
        /// Where the table is, 4 KiB aligned.
        address: Gpa1,
        /// What the entry allows.
        rights: Rights,
    },
    /// The entry maps a page of its level's size.
    Leaf(Leaf<Gpa1>),
}

/// What a leaf says: of L1's memory in ept12, of the machine's in ept01 and ept02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<Address> {
    /// First byte of the page, aligned to its size.
    pub address: Address,
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
                address: Gpa1::in_entry(raw),
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
            address: Gpa1::in_entry(raw),
            rights,
            mem_type,
            ignore_pat: raw & bit::IGNORE_PAT != 0,
            suppress_ve: raw & bit::SUPPRESS_VE != 0,
        })
    }
}

/// Composes a leaf of `level`. The address is cut to the page size, and #VE suppressed:
/// every violation comes to L0, which looks at ept12 as it is now.
#[inline]
#[must_use]
pub const fn own_leaf(level: Level, leaf: &Leaf<Hpa>) -> OwnEntry {
    let mut bits = leaf.rights.bits() | (leaf.mem_type as u64) << 3;
    if !matches!(level, Level::Pt) {
        bits |= bit::LARGE;
    }
    if leaf.ignore_pat {
        bits |= bit::IGNORE_PAT;
    }
    OwnEntry::leaf(leaf.address.block(level.span_bytes()), bits)
}

/// Composes an entry that names a table and allows everything: what limits an access
/// is the leaf.
#[inline]
#[must_use]
pub const fn own_table(page: TablePage) -> OwnEntry {
    OwnEntry::table(page, Rights::all().bits())
}

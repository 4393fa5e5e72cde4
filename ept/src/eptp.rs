//! The EPT pointer.

use umbra_arch::Gpa1;
use umbra_arch::hpa::TablePage;

use crate::addr::{ADDRESS_BITS, Level};
use crate::caps::Caps;
use crate::memtype::MemType;

/// EPTP bit 6: accessed and dirty flags on.
pub const ACCESSED_DIRTY: u64 = 1 << 6;
/// EPTP bit 7: access rights of supervisor shadow-stack pages enforced.
pub const SUPERVISOR_SHADOW_STACK: u64 = 1 << 7;

/// An EPT pointer of L1's that passed the checks of VM entry.
///
/// SDM "Extended-Page-Table Pointer (EPTP)".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Eptp(u64);

/// Why an EPT pointer fails VM entry, VMFUNC or single-context INVEPT
/// (SDM "VM-Execution Control Fields").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEptp {
    /// Bits 2:0 name a memory type that is not supported for the tables.
    MemoryType,
    /// Bits 5:3 name a walk length that is not supported.
    WalkLength,
    /// Bit 6 is set and accessed and dirty flags are not supported.
    AccessedDirty,
    /// A reserved bit is set.
    Reserved,
    /// An address bit is beyond the physical-address width.
    AddressWidth,
}

impl Eptp {
    /// Checks a raw EPT pointer against what the CPU, or the CPU that L1 is
    /// shown, supports.
    ///
    /// # Errors
    /// The first check that fails, in the order of the SDM's list.
    pub const fn new(raw: u64, caps: &Caps) -> Result<Self, BadEptp> {
        match raw & 7 {
            0 if caps.tables_uc => {}
            6 if caps.tables_wb => {}
            _ => return Err(BadEptp::MemoryType),
        }
        match (raw >> 3) & 7 {
            3 if caps.walk_4 => {}
            4 if caps.walk_5 => {}
            _ => return Err(BadEptp::WalkLength),
        }
        if raw & ACCESSED_DIRTY != 0 && !caps.accessed_dirty {
            return Err(BadEptp::AccessedDirty);
        }
        if raw & SUPERVISOR_SHADOW_STACK != 0 && !caps.supervisor_shadow_stack {
            return Err(BadEptp::Reserved);
        }
        if raw & 0xf00 != 0 || raw >> 52 != 0 {
            return Err(BadEptp::Reserved);
        }
        if raw & caps.beyond_width() != 0 {
            return Err(BadEptp::AddressWidth);
        }
        Ok(Self(raw))
    }

    /// As it is in vmcs12 or in an INVEPT descriptor.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Where the root table is.
    #[must_use]
    pub const fn root(self) -> Gpa1 {
        Gpa1::in_entry(self.0)
    }

    /// Accessed and dirty flags are on.
    #[must_use]
    pub const fn accessed_dirty(self) -> bool {
        self.0 & ACCESSED_DIRTY != 0
    }

    /// The level of the root table.
    #[must_use]
    pub const fn root_level(self) -> Level {
        if (self.0 >> 3) & 7 == 4 {
            Level::Pml5
        } else {
            Level::Pml4
        }
    }
}

/// The EPT pointer of a table of Umbra's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct OwnEptp(u64);

impl OwnEptp {
    /// Composes it: write-back, 4 levels.
    #[must_use]
    pub const fn new(root: TablePage, accessed_dirty: bool) -> Self {
        let flag = if accessed_dirty { ACCESSED_DIRTY } else { 0 };
        Self(root.raw() | flag | 3 << 3 | MemType::WriteBack as u64)
    }

    /// The value to put into the VMCS or into an INVEPT descriptor.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether both are of the same tables.
    #[must_use]
    pub const fn has_root_of(self, other: Self) -> bool {
        (self.0 ^ other.0) & ADDRESS_BITS == 0
    }
}

//! Rights that an entry grants and accesses that need them.

use bitflags::bitflags;
use umbra_arch::qualification::EptViolation;

bitflags! {
    /// What an entry, or a walk over several, allows. The bits are where an
    /// entry has them. With mode-based execute control off, `EXECUTE_USER`
    /// follows `EXECUTE`, so that the AND of rights means the same either way.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u64 {
        /// Data reads.
        const READ = 1 << 0;
        /// Data writes.
        const WRITE = 1 << 1;
        /// Instruction fetches (from supervisor-mode linear addresses if
        /// mode-based execute control is on).
        const EXECUTE = 1 << 2;
        /// Instruction fetches from user-mode linear addresses.
        const EXECUTE_USER = 1 << 10;
    }
}

impl Rights {
    /// The rights bits of a raw entry, read with mode-based execute control
    /// on or off.
    #[inline]
    #[must_use]
    pub const fn of_entry(raw: u64, mode_based_execute: bool) -> Self {
        let bits = raw & Self::all().bits();
        if mode_based_execute {
            Self::from_bits_truncate(bits)
        } else {
            let low = bits & 7;
            Self::from_bits_truncate(low | ((low >> 2) & 1) << 10)
        }
    }

    /// Bits 3 to 6 of an EPT violation's exit qualification for a walk that
    /// ended with these rights (SDM "Exit Qualification for EPT Violations").
    /// Bit 6 is undefined without mode-based execute control and stays 0.
    #[inline]
    #[must_use]
    pub const fn qualification_bits(self, mode_based_execute: bool) -> u64 {
        let low = (self.bits() & 7) << 3;
        if mode_based_execute {
            low | ((self.bits() >> 10) & 1) << 6
        } else {
            low
        }
    }
}

/// Whether rights permit an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permits {
    /// The access is allowed.
    Yes,
    /// The access is not allowed.
    No,
    /// It is a fetch from a linear address whose mode is not known, and the
    /// rights allow one mode only.
    Unknown,
}

bitflags! {
    /// One access of L2 to a guest-physical address. Bits 0 to 2 are those of
    /// the exit qualification of an EPT violation: with accessed and dirty
    /// flags on, an access to a guest paging structure has both `READ` and
    /// `WRITE`. A load of PDPTEs by MOV to CR is a plain `READ`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// A data read.
        const READ = 1 << 0;
        /// A data write, or what is treated as one.
        const WRITE = 1 << 1;
        /// An instruction fetch.
        const FETCH = 1 << 2;
        /// With `FETCH`: from a user-mode linear address.
        const USER = 1 << 3;
        /// With `FETCH`: the mode of the linear address is not known.
        const MODE_UNKNOWN = 1 << 4;
    }
}

impl Access {
    /// From the exit qualification of an EPT violation of ept02.
    /// `advanced_info` says that the CPU defines bits 9 to 11 (bit 22 of
    /// IA32_VMX_EPT_VPID_CAP); without it, or without a linear address, the
    /// mode of a fetch is not known.
    #[inline]
    #[must_use]
    pub const fn from_qualification(qualification: u64, advanced_info: bool) -> Self {
        let mut bits = (qualification & 7) as u8;
        if bits & Self::FETCH.bits() != 0 {
            let known = advanced_info
                && EptViolation::LINEAR_VALID
                    .union(EptViolation::TO_TRANSLATION)
                    .is_in(qualification);
            if !known {
                bits |= Self::MODE_UNKNOWN.bits();
            } else if EptViolation::USER.is_in(qualification) {
                bits |= Self::USER.bits();
            }
        }
        Self::from_bits_truncate(bits)
    }

    /// Bits 0 to 2 of the exit qualification.
    #[inline]
    #[must_use]
    pub const fn qualification_bits(self) -> u64 {
        (self.bits() & 7) as u64
    }

    /// Whether `rights` permit this access (SDM "EPT Violations").
    #[inline]
    #[must_use]
    pub const fn permitted_by(self, rights: Rights) -> Permits {
        let data = (self.bits() & 3) as u64;
        if data & !rights.bits() != 0 {
            return Permits::No;
        }
        if !self.contains(Self::FETCH) {
            return Permits::Yes;
        }
        let supervisor = rights.contains(Rights::EXECUTE);
        let user = rights.contains(Rights::EXECUTE_USER);
        if supervisor == user {
            return if user { Permits::Yes } else { Permits::No };
        }
        if self.contains(Self::MODE_UNKNOWN) {
            Permits::Unknown
        } else if self.contains(Self::USER) == user {
            Permits::Yes
        } else {
            Permits::No
        }
    }
}

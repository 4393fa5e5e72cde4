//! What has to follow a change, and what L1 may ask for.

use umbra_arch::{EptVpidCap, Linear};

use crate::eptp::{Eptp, OwnEptp};

/// The INVEPT that the caller owes the CPU before L1 or L2 runs on it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the CPU may go on using what was changed until the INVEPT is done"]
pub enum Invalidate {
    /// Nothing to do.
    #[default]
    None,
    /// Single-context INVEPT with this EPT pointer.
    Single(OwnEptp),
    /// All-context INVEPT.
    All,
}

impl Invalidate {
    /// What covers both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, x) | (x, Self::None) => x,
            (Self::Single(a), Self::Single(b)) if a.has_root_of(b) => self,
            _ => Self::All,
        }
    }
}

/// What an INVEPT of L1 is to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InveptScope {
    /// Everything that goes by bits 51:12 of this EPT pointer of L1.
    Single(Eptp),
    /// Everything.
    All,
}

/// The instruction ends in VMfail with error 28, "invalid operand to
/// INVEPT/INVVPID".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOperand;

/// Checks the operands of L1's INVEPT (SDM "INVEPT - Invalidate Translations
/// Derived from EPT"). `ept_vpid_cap` is the capability MSR that L1 is shown.
///
/// # Errors
/// [`InvalidOperand`] for a type that is not offered, and for a single-context
/// descriptor whose EPT pointer would fail VM entry.
pub fn check_invept(
    kind: u64,
    descriptor: [u64; 2],
    ept_vpid_cap: u64,
    caps: &crate::caps::Caps,
) -> Result<InveptScope, InvalidOperand> {
    match kind {
        1 if EptVpidCap::INVEPT_SINGLE.is_in(ept_vpid_cap) => {
            // The operation that the SDM gives for the instruction looks at the
            // EPT pointer alone; the reserved half is not checked.
            Eptp::new(descriptor[0], caps)
                .map(InveptScope::Single)
                .map_err(|_| InvalidOperand)
        }
        2 if EptVpidCap::INVEPT_ALL.is_in(ept_vpid_cap) => Ok(InveptScope::All),
        _ => Err(InvalidOperand),
    }
}

/// What an INVVPID of L1 is to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvvpidScope {
    /// One linear address of one VPID.
    Address {
        /// L1's VPID, not 0.
        vpid: u16,
        /// The linear address, canonical.
        linear: Linear,
    },
    /// One VPID.
    Single {
        /// L1's VPID, not 0.
        vpid: u16,
    },
    /// Every VPID but 0.
    All,
    /// One VPID, global translations excepted.
    RetainGlobals {
        /// L1's VPID, not 0.
        vpid: u16,
    },
}

/// Checks the operands of L1's INVVPID (SDM "INVVPID - Invalidate Translations
/// Based on VPID"). `linear_bits` is 48, or 57 where the CPU has 5-level paging.
///
/// # Errors
/// [`InvalidOperand`] for a type that is not offered, a reserved bit in the
/// descriptor (bits 63:16), VPID 0 where one is needed, and a linear address
/// that is not canonical.
pub fn check_invvpid(
    kind: u64,
    descriptor: [u64; 2],
    ept_vpid_cap: u64,
    linear_bits: u32,
) -> Result<InvvpidScope, InvalidOperand> {
    let offered = match kind {
        0 => EptVpidCap::INVVPID_ADDRESS,
        1 => EptVpidCap::INVVPID_SINGLE,
        2 => EptVpidCap::INVVPID_ALL,
        3 => EptVpidCap::INVVPID_RETAIN_GLOBALS,
        _ => return Err(InvalidOperand),
    };
    if !offered.is_in(ept_vpid_cap) || descriptor[0] >> 16 != 0 {
        return Err(InvalidOperand);
    }
    if kind == 2 {
        return Ok(InvvpidScope::All);
    }
    let vpid = descriptor[0] as u16;
    if vpid == 0 {
        return Err(InvalidOperand);
    }
    match kind {
        0 => {
            let unused = 64 - linear_bits.clamp(32, 64);
            let linear = descriptor[1];
            if ((linear << unused) as i64 >> unused) as u64 != linear {
                return Err(InvalidOperand);
            }
            Ok(InvvpidScope::Address {
                vpid,
                linear: Linear::new(linear),
            })
        }
        1 => Ok(InvvpidScope::Single { vpid }),
        _ => Ok(InvvpidScope::RetainGlobals { vpid }),
    }
}

//! INVEPT and INVVPID.

use umbra_ept::invalidate::{InvvpidScope, check_invept, check_invvpid};
use umbra_ept::vpid::Invvpid;
use umbra_vmcs::InsnError;
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use super::{FailValid, Outcome, Succeed};
use crate::bits::EFER_LMA;
use crate::fault::Fault;
use crate::hw::Hardware;
use crate::operand::{InsnInfo, gpr};
use crate::state::Nested;

/// IA32_VMX_EPT_VPID_CAP: INVEPT, and its types; INVVPID, and its types.
const CAP_INVEPT: u64 = 1 << 20;
const CAP_INVEPT_TYPES: [u64; 3] = [0, 1 << 25, 1 << 26];
const CAP_INVVPID: u64 = 1 << 32;
const CAP_INVVPID_TYPES: [u64; 4] = [1 << 40, 1 << 41, 1 << 42, 1 << 43];

const BAD_OPERAND: Outcome = FailValid(InsnError::InvalidInvalidationOperand);

impl Nested {
    /// The type operand and, if the type is one that `types` says is offered,
    /// the descriptor. The type is looked at before the descriptor is read.
    fn invalidation_operands(
        &self,
        hw: &mut impl Hardware,
        types: &[u64],
    ) -> Result<Option<(u64, [u64; 2])>, Fault> {
        let info = InsnInfo(hw.read(field::VM_EXIT_INSTRUCTION_INFORMATION) as u32);
        let is_wide = hw.read(field::GUEST_IA32_EFER) & EFER_LMA != 0;
        let mask = if is_wide { u64::MAX } else { 0xffff_ffff };
        let kind = gpr(hw, info.reg2()) & mask;
        let bit = usize::try_from(kind)
            .ok()
            .and_then(|k| types.get(k))
            .copied()
            .unwrap_or(0);
        if self.caps.ept_vpid & bit == 0 {
            return Ok(None);
        }
        let mut bytes = [0; 16];
        self.memory_operand(hw, info, 16, false)?
            .read(hw, &mut bytes)?;
        let descriptor = u128::from_le_bytes(bytes);
        Ok(Some((kind, [descriptor as u64, (descriptor >> 64) as u64])))
    }

    pub(super) fn invept(&mut self, hw: &mut impl Hardware) -> Result<Outcome, Fault> {
        if !self.caps.offers_proc2(Proc2::ENABLE_EPT) || self.caps.ept_vpid & CAP_INVEPT == 0 {
            return Err(Fault::UD);
        }
        self.require_root(hw)?;
        let Some((kind, descriptor)) = self.invalidation_operands(hw, &CAP_INVEPT_TYPES)? else {
            return Ok(BAD_OPERAND);
        };
        let checked = check_invept(kind, descriptor, self.caps.ept_vpid, &self.ept_caps);
        let Ok(scope) = checked else {
            return Ok(BAD_OPERAND);
        };
        // The pool reads ept12 anew, and names the hardware's INVEPT, when the
        // context is entered next.
        self.pool.invept(scope);
        Ok(Succeed)
    }

    pub(super) fn invvpid(&mut self, hw: &mut impl Hardware) -> Result<Outcome, Fault> {
        if !self.caps.offers_proc2(Proc2::ENABLE_VPID) || self.caps.ept_vpid & CAP_INVVPID == 0 {
            return Err(Fault::UD);
        }
        self.require_root(hw)?;
        let Some((kind, descriptor)) = self.invalidation_operands(hw, &CAP_INVVPID_TYPES)? else {
            return Ok(BAD_OPERAND);
        };
        let bits = u32::from(self.cpu.linear_address_bits);
        let checked = check_invvpid(kind, descriptor, self.caps.ept_vpid, bits);
        let Ok(scope) = checked else {
            return Ok(BAD_OPERAND);
        };
        match scope {
            InvvpidScope::All => hw.invvpid_all(),
            InvvpidScope::Single { vpid } => {
                if let Invvpid::One(vpid) = self.vpids.invalidate_one(vpid) {
                    hw.invvpid_single(vpid);
                }
            }
            InvvpidScope::Address { vpid, linear } => {
                if let Invvpid::One(vpid) = self.vpids.invalidate_one(vpid) {
                    hw.invvpid_address(vpid, linear);
                }
            }
            InvvpidScope::RetainGlobals { vpid } => {
                if let Invvpid::One(vpid) = self.vpids.invalidate_one(vpid) {
                    hw.invvpid_single_retaining_globals(vpid);
                }
            }
        }
        Ok(Succeed)
    }
}

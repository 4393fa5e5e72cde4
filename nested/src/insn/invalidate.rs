//! INVEPT and INVVPID.

use umbra_arch::{Efer, Exception};
use umbra_ept::invalidate::{InvvpidScope, check_invept, check_invvpid};
use umbra_ept::vpid::Invvpid;
use umbra_vmcs::VmxCaps;
use umbra_vmcs::field;
use umbra_vmcs::rules::instructions::{
    INVEPT_EPTP, INVEPT_TYPE, INVVPID_TYPE, INVVPID_ZERO, invept_type_ok, invvpid_type_ok,
    offers_invept, offers_invvpid,
};

use super::{Outcome, Succeed, broken};
use crate::fault::Refusal;
use crate::hw::{Hardware, Memory, Msrs, Registers, VmcsAccess};
use crate::operand::{gpr, vmx_operand};
use crate::state::Nested;

impl Nested {
    /// The type operand and, if the type is one that `is_offered`, the
    /// descriptor. The type is looked at before the descriptor is read.
    fn invalidation_operands(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        is_offered: impl FnOnce(u64, &VmxCaps) -> bool,
    ) -> Result<Option<(u64, [u64; 2])>, Refusal> {
        let info = vmx_operand(hw);
        let is_wide = Efer::LMA.is_in(hw.read(field::GUEST_IA32_EFER));
        let mask = if is_wide { u64::MAX } else { 0xffff_ffff };
        let kind = gpr(hw, info.reg2().into()) & mask;
        if !is_offered(kind, &self.caps) {
            return Ok(None);
        }
        let mut bytes = [0; 16];
        self.memory_operand(hw, info, 16, false)?
            .read(hw, &mut self.walked, &mut bytes)?;
        let descriptor = u128::from_le_bytes(bytes);
        Ok(Some((kind, [descriptor as u64, (descriptor >> 64) as u64])))
    }

    pub(super) fn invept(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        if !offers_invept(&self.caps) {
            return Err(Exception::UD.into());
        }
        self.require_root(hw)?;
        let Some((kind, descriptor)) = self.invalidation_operands(hw, invept_type_ok)? else {
            return Ok(broken(&INVEPT_TYPE));
        };
        let checked = check_invept(kind, descriptor, self.caps.ept_vpid, &self.ept_caps);
        let Ok(scope) = checked else {
            return Ok(broken(&INVEPT_EPTP));
        };
        // The pool reads ept12 anew, and names the hardware's INVEPT, when the
        // context is entered next.
        self.pool.invept(scope);
        Ok(Succeed)
    }

    pub(super) fn invvpid(&mut self, hw: &mut impl Hardware) -> Result<Outcome, Refusal> {
        if !offers_invvpid(&self.caps) {
            return Err(Exception::UD.into());
        }
        self.require_root(hw)?;
        let Some((kind, descriptor)) = self.invalidation_operands(hw, invvpid_type_ok)? else {
            return Ok(broken(&INVVPID_TYPE));
        };
        let bits = u32::from(self.cpu.linear_address_bits);
        let checked = check_invvpid(kind, descriptor, self.caps.ept_vpid, bits);
        let Ok(scope) = checked else {
            return Ok(broken(&INVVPID_ZERO));
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

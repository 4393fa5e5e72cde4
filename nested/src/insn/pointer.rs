//! VMCLEAR, VMPTRLD and VMPTRST.

use umbra_arch::vmx_cap::SHADOW_VMCS_INDICATOR;
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::rules::instructions::{
    VMCLEAR_ADDRESS, VMCLEAR_VMXON, VMPTRLD_ADDRESS, VMPTRLD_REVISION, VMPTRLD_VMXON,
};

use super::{Outcome, Succeed, broken};
use crate::fault::Refusal;
use crate::hw::{Memory, Msrs, Registers, VmcsAccess};
use crate::operand::vmx_operand;
use crate::state::Nested;

impl Nested {
    pub(super) fn vmclear(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        self.require_root(hw)?;
        let pointer = self.pointer_operand(hw)?;
        if !self.is_page_address(pointer) {
            return Ok(broken(&VMCLEAR_ADDRESS));
        }
        if self.vmxon_pointer() == Some(pointer) {
            return Ok(broken(&VMCLEAR_VMXON));
        }
        let is_current = self.current_pointer() == pointer.raw();
        self.release_shadow_at(hw, pointer);
        self.slots.clear(hw, pointer, &self.cpu);
        if is_current {
            self.root().current = None;
            self.follow_current(hw);
        }
        Ok(Succeed)
    }

    pub(super) fn vmptrld(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        self.require_root(hw)?;
        let pointer = self.pointer_operand(hw)?;
        if !self.is_page_address(pointer) {
            return Ok(broken(&VMPTRLD_ADDRESS));
        }
        if self.vmxon_pointer() == Some(pointer) {
            return Ok(broken(&VMPTRLD_VMXON));
        }
        let word = self.revision_at(hw, pointer);
        let is_shadow = word & SHADOW_VMCS_INDICATOR != 0;
        if word & !SHADOW_VMCS_INDICATOR != self.caps.revision()
            || is_shadow && !self.caps.offers_proc2(Proc2::VMCS_SHADOWING)
        {
            return Ok(broken(&VMPTRLD_REVISION));
        }
        self.release_shadow_at(hw, pointer);
        let id = self.slots.load(hw, pointer);
        self.slots.get(id).set_shadow(is_shadow);
        self.root().current = Some(id);
        self.lend_again(hw, id);
        self.follow_current(hw);
        Ok(Succeed)
    }

    pub(super) fn vmptrst(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        self.require_root(hw)?;
        let info = vmx_operand(hw);
        let operand = self.memory_operand(hw, info, 8, true)?;
        let pointer = self.current_pointer();
        operand.write(hw, &mut self.walked, &pointer.to_le_bytes())?;
        Ok(Succeed)
    }
}

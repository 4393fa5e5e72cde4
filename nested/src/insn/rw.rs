//! VMREAD and VMWRITE.

use umbra_arch::Efer;
use umbra_vmcs::field::{self, Field};
use umbra_vmcs::rules::instructions::{
    VMREAD_FIELD, VMREAD_POINTER, VMWRITE_FIELD, VMWRITE_POINTER, VMWRITE_READ_ONLY,
};

use super::{Outcome, Succeed, broken};
use crate::fault::Refusal;
use crate::hw::{Memory, Msrs, Registers, VmcsAccess};
use crate::operand::{gpr, set_gpr, vmx_operand};
use crate::state::Nested;

impl Nested {
    /// The field an encoding names on the CPU that L1 is shown, and whether
    /// its upper half is meant.
    fn field_of(&self, encoding: u64) -> Option<(Field, bool)> {
        let (field, high) = Field::from_encoding(encoding)?;
        self.fields.contains(field).then_some((field, high))
    }

    pub(super) fn vmread(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        self.require_root(hw)?;
        let Some(current) = self.root().current else {
            return Ok(broken(&VMREAD_POINTER));
        };
        let info = vmx_operand(hw);
        let (width_mask, bytes) = operand_size(hw);
        let encoding = gpr(hw, info.reg2().into()) & width_mask;
        let Some((field, high)) = self.field_of(encoding) else {
            return Ok(broken(&VMREAD_FIELD));
        };
        self.note_use(current, field);
        let mut value = self.slots.field(hw, current, field);
        if high {
            value >>= 32;
        }
        // Outside 64-bit mode the upper half of a wider field is left out.
        value &= width_mask;
        if info.is_register() {
            set_gpr(hw, info.reg1().into(), value);
        } else {
            let operand = self.memory_operand(hw, info, bytes as u64, true)?;
            #[expect(clippy::indexing_slicing, reason = "an operand has 4 or 8 bytes")]
            operand.write(hw, &mut self.walked, &value.to_le_bytes()[..bytes])?;
        }
        Ok(Succeed)
    }

    pub(super) fn vmwrite(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        self.require_root(hw)?;
        let Some(current) = self.root().current else {
            return Ok(broken(&VMWRITE_POINTER));
        };
        let info = vmx_operand(hw);
        let (width_mask, bytes) = operand_size(hw);
        let mut value = if info.is_register() {
            gpr(hw, info.reg1().into()) & width_mask
        } else {
            let operand = self.memory_operand(hw, info, bytes as u64, false)?;
            let mut buffer = [0; 8];
            #[expect(clippy::indexing_slicing, reason = "an operand has 4 or 8 bytes")]
            operand.read(hw, &mut self.walked, &mut buffer[..bytes])?;
            u64::from_le_bytes(buffer)
        };
        let encoding = gpr(hw, info.reg2().into()) & width_mask;
        let Some((field, high)) = self.field_of(encoding) else {
            return Ok(broken(&VMWRITE_FIELD));
        };
        if field.is_read_only() && !self.caps.vmwrite_any_field() {
            return Ok(broken(&VMWRITE_READ_ONLY));
        }
        if high {
            let low = self.slots.field(hw, current, field) & 0xffff_ffff;
            value = value << 32 | low;
        }
        self.note_use(current, field);
        let slot = self.slots.get(current);
        slot.note_write(field);
        slot.l1_writes(field, value);
        if slot.is_lent() && slot.how_lent().read().contains(field) {
            slot.write_through(hw, current, field);
        }
        Ok(Succeed)
    }
}

/// VMREAD and VMWRITE take 64-bit operands in 64-bit mode and 32-bit ones
/// elsewhere: the mask and the size in bytes.
fn operand_size(hw: &mut impl VmcsAccess) -> (u64, usize) {
    if Efer::LMA.is_in(hw.read(field::GUEST_IA32_EFER)) {
        (u64::MAX, 8)
    } else {
        (0xffff_ffff, 4)
    }
}

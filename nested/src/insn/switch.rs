//! VMXON and VMXOFF.

use umbra_arch::instruction::VmxOperand;
use umbra_arch::msr;
use umbra_arch::msr::FeatureControl;
use umbra_arch::{Cr4, Efer, Exception, Gpa1};
use umbra_vmcs::field;
use umbra_vmcs::rules::instructions::{VMXON_ADDRESS, VMXON_IN_ROOT, VMXON_REVISION};

use super::{Done, Outcome, Succeed, broken, require_cpl0};
use crate::entry::invalidate;
use crate::fault::Refusal;
use crate::hw::{Memory, Msrs, Registers, Translations, VmcsAccess};
use crate::operand::{MemoryOperand, vmx_operand};
use crate::state::{Nested, Root, Vmx};

impl Nested {
    pub(super) fn vmxon(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Outcome, Refusal> {
        // CR4.VMXE of L1 is what L1 reads, not what the CPU runs with.
        let has_vmxe = Cr4::VMXE.is_in(hw.read(field::CR4_READ_SHADOW));
        if !has_vmxe {
            return Err(Exception::UD.into());
        }
        require_cpl0(hw)?;
        if self.in_vmx_operation() {
            return Ok(broken(&VMXON_IN_ROOT));
        }
        let cr0 = self.l1_cr0(hw);
        let cr4 = self.l1_cr4(hw);
        let fixed = cr0 & self.caps.cr0_fixed0 == self.caps.cr0_fixed0
            && cr0 & !self.caps.cr0_fixed1 == 0
            && cr4 & self.caps.cr4_fixed0 == self.caps.cr4_fixed0
            && cr4 & !self.caps.cr4_fixed1 == 0;
        let feature = hw.rdmsr_l1(msr::IA32_FEATURE_CONTROL).unwrap_or(0);
        let wanted = FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX;
        if !fixed || !wanted.is_in(feature) {
            return Err(Exception::GP.into());
        }
        let pointer = self.pointer_operand(hw)?;
        if !self.is_page_address(pointer) {
            return Ok(broken(&VMXON_ADDRESS));
        }
        // The identifier's bit 31 must be 0 in a VMXON region.
        if self.revision_at(hw, pointer) != self.caps.revision() {
            return Ok(broken(&VMXON_REVISION));
        }
        self.in_ia32e_mode = Efer::LMA.is_in(hw.read(field::GUEST_IA32_EFER));
        self.vmx = Vmx::Root(Root {
            vmxon: pointer,
            current: None,
            init_latched: false,
        });
        Ok(Succeed)
    }

    pub(super) fn vmxoff(&mut self, hw: &mut (impl VmcsAccess + Memory + Translations)) -> Done {
        if let Err(fault) = self.require_root(hw) {
            return Done::Fault(fault);
        }
        self.release_shadow(hw);
        self.slots.flush(hw);
        // What a later VMX operation of L1 does is not bound to what this one
        // composed.
        let owed = self.pool.drop_all();
        invalidate(hw, owed);
        let init_latched = self.root().init_latched;
        self.vmx = Vmx::Off;
        self.follow_current(hw);
        let done = self.finish(hw, Ok(Succeed));
        if init_latched { Done::Init } else { done }
    }

    /// CR0 as L1 reads it.
    pub(crate) fn l1_cr0(&self, hw: &mut impl VmcsAccess) -> u64 {
        shadowed(
            hw,
            field::GUEST_CR0,
            field::CR0_GUEST_HOST_MASK,
            field::CR0_READ_SHADOW,
        )
    }

    /// CR4 as L1 reads it.
    pub(crate) fn l1_cr4(&self, hw: &mut impl VmcsAccess) -> u64 {
        shadowed(
            hw,
            field::GUEST_CR4,
            field::CR4_GUEST_HOST_MASK,
            field::CR4_READ_SHADOW,
        )
    }

    /// The 64-bit memory operand of VMXON, VMCLEAR and VMPTRLD.
    pub(crate) fn pointer_operand(
        &mut self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
    ) -> Result<Gpa1, Refusal> {
        let info = vmx_operand(hw);
        let operand = self.memory_operand(hw, info, 8, false)?;
        let mut bytes = [0; 8];
        operand.read(hw, &mut self.walked, &mut bytes)?;
        Ok(Gpa1::new(u64::from_le_bytes(bytes)))
    }

    pub(crate) fn memory_operand(
        &self,
        hw: &mut (impl VmcsAccess + Registers),
        info: VmxOperand,
        length_bytes: u64,
        write: bool,
    ) -> Result<MemoryOperand, Exception> {
        let bits = u32::from(self.cpu.physical_address_bits);
        MemoryOperand::decode(hw, info, length_bytes, write, bits, self.gib_pages)
    }

    /// The revision identifier in a VMXON or VMCS region, bit 31 included.
    pub(crate) fn revision_at(&self, hw: &mut impl Memory, gpa: Gpa1) -> u32 {
        let mut bytes = [0; 4];
        hw.read_l1(gpa, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

fn shadowed(
    hw: &mut impl VmcsAccess,
    register: umbra_vmcs::Field,
    mask: umbra_vmcs::Field,
    shadow: umbra_vmcs::Field,
) -> u64 {
    let mask = hw.read(mask);
    hw.read(register) & !mask | hw.read(shadow) & mask
}

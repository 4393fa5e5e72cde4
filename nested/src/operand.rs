//! The memory and register operands of L1's VMX instructions.
//!
//! SDM "VM-Exit Instruction-Information Field" gives the layout, "Memory
//! Operands"/"Segment Limit Checking" the checks before the access.

use umbra_arch::instruction::VmxOperand;
use umbra_arch::{AccessRights, Efer, Exception, Linear, SegmentName};
use umbra_vmcs::field::{self, Field, SegmentFields};

use crate::fault::Refusal;
use crate::hw::{Memory, Msrs, Registers, VmcsAccess};
use crate::paging::{Access, Paging, Walked};
use crate::segmentation::Segment;

/// The operand information of a VMX instruction that L1 exited with.
pub fn vmx_operand(hw: &mut impl VmcsAccess) -> VmxOperand {
    VmxOperand::from_bits(hw.read(field::VM_EXIT_INSTRUCTION_INFORMATION) as u32)
}

/// A general register of L1, RSP included.
pub fn gpr(hw: &mut (impl VmcsAccess + Registers), number: usize) -> u64 {
    if number == 4 {
        hw.read(field::GUEST_RSP)
    } else {
        hw.gpr(number)
    }
}

/// Sets a general register of L1, RSP included.
pub fn set_gpr(hw: &mut (impl VmcsAccess + Registers), number: usize, value: u64) {
    if number == 4 {
        hw.write(field::GUEST_RSP, value)
    } else {
        hw.set_gpr(number, value)
    }
}

/// The access rights in a field of the current VMCS.
pub(crate) fn rights_in(hw: &mut impl VmcsAccess, field: Field) -> AccessRights {
    AccessRights::from_bits(hw.read(field) as u32)
}

/// A memory operand whose address is known and whose segment permits it.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOperand {
    linear: Linear,
    paging: Paging,
    is_64_bit: bool,
}

impl MemoryOperand {
    /// Forms the linear address of the operand of the instruction that L1
    /// just exited with, and checks the segment.
    ///
    /// # Errors
    /// #GP(0), or #SS(0) for the stack segment.
    #[inline(always)]
    pub fn decode(
        hw: &mut (impl VmcsAccess + Registers),
        info: VmxOperand,
        length_bytes: u64,
        write: bool,
        physical_bits: u32,
        gib_pages: bool,
    ) -> Result<Self, Exception> {
        let paging = Paging::of_l1(hw, physical_bits, gib_pages);
        let mut offset = hw.read(field::EXIT_QUALIFICATION);
        if !info.no_base() {
            offset = offset.wrapping_add(gpr(hw, info.base().into()));
        }
        if !info.no_index() {
            let index = gpr(hw, info.index().into());
            offset = offset.wrapping_add(index << info.scaling());
        }
        offset &= info.address_size().mask();
        let Some(segment) = info.segment() else {
            return Err(Exception::GP);
        };
        let segment_fault = match segment {
            SegmentName::Ss => Exception::SS,
            _ => Exception::GP,
        };
        let fields = SegmentFields::of(segment);

        let cs_rights = rights_in(hw, field::GUEST_CS_ACCESS_RIGHTS);
        let is_64_bit = Efer::LMA.is_in(hw.read(field::GUEST_IA32_EFER)) && cs_rights.long();
        if is_64_bit {
            let base = match segment.has_base_in_64_bit_mode() {
                true => hw.read(fields.base),
                false => 0,
            };
            return match paging.resolve(base.wrapping_add(offset), length_bytes) {
                Some(linear) => Ok(Self {
                    linear,
                    paging,
                    is_64_bit,
                }),
                None => Err(segment_fault),
            };
        }

        let segment = Segment {
            base: hw.read(fields.base),
            limit: hw.read(fields.limit),
            rights: rights_in(hw, fields.rights),
        };
        match segment.linear(offset, length_bytes, write) {
            Some(linear) => Ok(Self {
                linear,
                paging,
                is_64_bit,
            }),
            None => Err(segment_fault),
        }
    }

    /// The linear address of the byte at `offset` of the operand.
    fn at(&self, offset: u64) -> Linear {
        let linear = self.linear.plus(offset);
        if self.is_64_bit {
            linear
        } else {
            linear.in_32_bits()
        }
    }

    /// Reads the operand.
    ///
    /// # Errors
    /// The page fault that L1 would take, or [`Refusal::Again`].
    #[inline]
    pub fn read(
        &self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        walked: &mut Walked,
        bytes: &mut [u8],
    ) -> Result<(), Refusal> {
        let split = self.split(bytes.len());
        let first = self
            .paging
            .translate(hw, walked, self.linear, Access::READ)?;
        let (head, tail) = bytes.split_at_mut(split);
        let second = match tail.is_empty() {
            true => None,
            false => Some(self.paging.translate(
                hw,
                &mut Walked::new(),
                self.at(split as u64),
                Access::READ,
            )?),
        };
        hw.read_l1(first, head);
        if let Some(second) = second {
            hw.read_l1(second, tail);
        }
        hw.note_access(self.linear, bytes.len() as u64, false);
        Ok(())
    }

    /// Writes the operand: nothing of it unless all of it can be written.
    ///
    /// # Errors
    /// The page fault that L1 would take, or [`Refusal::Again`].
    pub fn write(
        &self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        walked: &mut Walked,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let split = self.split(bytes.len());
        let first = self
            .paging
            .translate(hw, walked, self.linear, Access::WRITE)?;
        let (head, tail) = bytes.split_at(split);
        let second = match tail.is_empty() {
            true => None,
            false => Some(self.paging.translate(
                hw,
                &mut Walked::new(),
                self.at(split as u64),
                Access::WRITE,
            )?),
        };
        hw.write_l1(first, head);
        if let Some(second) = second {
            hw.write_l1(second, tail);
        }
        hw.note_access(self.linear, bytes.len() as u64, true);
        Ok(())
    }

    /// How many of the operand's bytes lie in its first page.
    fn split(&self, length: usize) -> usize {
        length.min(0x1000 - self.linear.page_offset() as usize)
    }
}

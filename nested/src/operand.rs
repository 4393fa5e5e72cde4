//! The memory and register operands of L1's VMX instructions.
//!
//! SDM "VM-Exit Instruction-Information Field" gives the layout, "Memory
//! Operands"/"Segment Limit Checking" the checks before the access.

use umbra_vmcs::field::{self, Field};

use crate::bits::*;
use crate::fault::{Fault, Refusal};
use crate::hw::{Memory, Msrs, Registers, VmcsAccess};
use crate::paging::{Access, Paging, Walked};

/// The VM-exit instruction-information field of the VMX instructions.
#[derive(Clone, Copy, Debug)]
pub struct InsnInfo(pub u32);

impl InsnInfo {
    /// Whether the primary operand is a register (VMREAD and VMWRITE).
    pub const fn is_register(self) -> bool {
        self.0 & 1 << 10 != 0
    }

    /// The register of the primary operand.
    pub const fn reg1(self) -> usize {
        (self.0 >> 3 & 0xf) as usize
    }

    /// The register of the secondary operand.
    pub const fn reg2(self) -> usize {
        (self.0 >> 28) as usize
    }
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

const SEGMENTS: [(Field, Field, Field); 6] = [
    (
        field::GUEST_ES_BASE,
        field::GUEST_ES_LIMIT,
        field::GUEST_ES_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_CS_BASE,
        field::GUEST_CS_LIMIT,
        field::GUEST_CS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_SS_BASE,
        field::GUEST_SS_LIMIT,
        field::GUEST_SS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_DS_BASE,
        field::GUEST_DS_LIMIT,
        field::GUEST_DS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_FS_BASE,
        field::GUEST_FS_LIMIT,
        field::GUEST_FS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_GS_BASE,
        field::GUEST_GS_LIMIT,
        field::GUEST_GS_ACCESS_RIGHTS,
    ),
];
const SS: usize = 2;
const FS: usize = 4;

/// A memory operand whose address is known and whose segment permits it.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOperand {
    linear: u64,
    paging: Paging,
    is_64_bit: bool,
}

impl MemoryOperand {
    /// Forms the linear address of the operand of the instruction that L1
    /// just exited with, and checks the segment.
    ///
    /// # Errors
    /// #GP(0), or #SS(0) for the stack segment.
    pub fn decode(
        hw: &mut (impl VmcsAccess + Registers),
        info: InsnInfo,
        length_bytes: u64,
        write: bool,
        physical_bits: u32,
        gib_pages: bool,
    ) -> Result<Self, Fault> {
        let paging = Paging::of_l1(hw, physical_bits, gib_pages);
        let info = info.0;
        let mut offset = hw.read(field::EXIT_QUALIFICATION);
        if info & 1 << 27 == 0 {
            offset = offset.wrapping_add(gpr(hw, (info >> 23 & 0xf) as usize));
        }
        if info & 1 << 22 == 0 {
            let index = gpr(hw, (info >> 18 & 0xf) as usize);
            offset = offset.wrapping_add(index << (info & 3));
        }
        offset &= match info >> 7 & 7 {
            0 => 0xffff,
            1 => 0xffff_ffff,
            _ => u64::MAX,
        };
        let segment = (info >> 15 & 7) as usize;
        let Some(&(base, limit, rights)) = SEGMENTS.get(segment) else {
            return Err(Fault::GP);
        };
        let segment_fault = if segment == SS { Fault::SS } else { Fault::GP };

        let cs_rights = hw.read(field::GUEST_CS_ACCESS_RIGHTS);
        let is_64_bit = hw.read(field::GUEST_IA32_EFER) & EFER_LMA != 0 && cs_rights & 1 << 13 != 0;
        if is_64_bit {
            let base = if segment >= FS { hw.read(base) } else { 0 };
            let linear = base.wrapping_add(offset);
            let form = paging.linear_form();
            return match form.resolve(linear, length_bytes) {
                Some(linear) => Ok(Self {
                    linear,
                    paging,
                    is_64_bit,
                }),
                None => Err(segment_fault),
            };
        }

        let rights = hw.read(rights);
        let limit = hw.read(limit);
        if rights & AR_UNUSABLE != 0 || !segment_permits(rights, write) {
            return Err(segment_fault);
        }
        let last = offset + (length_bytes - 1);
        let expand_down = rights & 0xc == 0x4;
        let within = if expand_down {
            let top = if rights & 1 << 14 != 0 {
                0xffff_ffff
            } else {
                0xffff
            };
            offset > limit && last <= top
        } else {
            last <= limit
        };
        if !within {
            return Err(segment_fault);
        }
        let linear = hw.read(base).wrapping_add(offset) & 0xffff_ffff;
        Ok(Self {
            linear,
            paging,
            is_64_bit,
        })
    }

    /// The linear address of the byte at `offset` of the operand.
    fn at(&self, offset: u64) -> u64 {
        let linear = self.linear.wrapping_add(offset);
        if self.is_64_bit {
            linear
        } else {
            linear & 0xffff_ffff
        }
    }

    /// Reads the operand.
    ///
    /// # Errors
    /// The page fault that L1 would take, or [`Refusal::Again`].
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
        length.min(0x1000 - (self.linear & 0xfff) as usize)
    }
}

/// Whether a segment's type permits the access. SDM "Type Checking".
const fn segment_permits(rights: u64, write: bool) -> bool {
    let is_code = rights & 0x8 != 0;
    let second = rights & 0x2 != 0;
    match (is_code, write) {
        (true, true) => false,
        (true, false) => second,
        (false, true) => second,
        (false, false) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_never_written_and_read_only_if_readable() {
        assert!(!segment_permits(0xb, true));
        assert!(segment_permits(0xb, false));
        assert!(!segment_permits(0x9, false));
        assert!(segment_permits(0x3, true));
        assert!(!segment_permits(0x1, true));
    }
}

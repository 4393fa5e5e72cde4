//! The VM-exit instruction-information field. SDM "Information for VM Exits Due to
//! Instruction Execution".

use bitfield_struct::bitfield;

use crate::segment::SegmentName;

/// The width of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AddressSize {
    /// 16 bits.
    Bits16 = 0,
    /// 32 bits.
    Bits32 = 1,
    /// 64 bits.
    Bits64 = 2,
}

impl AddressSize {
    /// From bits 9:7 of the field. The numbers above 2 are not used.
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Bits16,
            1 => Self::Bits32,
            _ => Self::Bits64,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }

    /// The bits of a register that count.
    #[inline]
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 => u64::MAX,
        }
    }

    /// `register` with the part that counts moved by `by`: 16-bit writes leave
    /// the rest, 32-bit writes clear the upper half.
    #[inline]
    #[must_use]
    pub const fn moved(self, register: u64, by: u64) -> u64 {
        let part = register.wrapping_add(by) & self.mask();
        match self {
            Self::Bits16 => register & !0xffff | part,
            Self::Bits32 | Self::Bits64 => part,
        }
    }
}

/// For the VMX instructions with a memory operand, and VMREAD and VMWRITE.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VmxOperand {
    /// The index register is multiplied by two to the power of this.
    #[bits(2)]
    pub scaling: u8,
    __: bool,
    /// VMREAD, VMWRITE: the register of the primary operand, if it is one.
    #[bits(4)]
    pub reg1: u8,
    /// The width of addresses.
    #[bits(3, default = AddressSize::Bits16)]
    pub address_size: AddressSize,
    /// VMREAD, VMWRITE: the primary operand is a register.
    pub is_register: bool,
    #[bits(4)]
    __: u8,
    /// The number of the segment register.
    #[bits(3)]
    pub segment_number: u8,
    /// The index register.
    #[bits(4)]
    pub index: u8,
    /// There is no index register.
    pub no_index: bool,
    /// The base register.
    #[bits(4)]
    pub base: u8,
    /// There is no base register.
    pub no_base: bool,
    /// The register of the secondary operand.
    #[bits(4)]
    pub reg2: u8,
}

impl VmxOperand {
    /// The segment register; 6 and 7 name none.
    #[inline]
    #[must_use]
    pub const fn segment(self) -> Option<SegmentName> {
        SegmentName::from_number(self.segment_number())
    }
}

/// For INS and OUTS, on CPUs that say so in bit 54 of IA32_VMX_BASIC.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StringIoOperand {
    #[bits(7)]
    __: u8,
    /// The width of addresses.
    #[bits(3, default = AddressSize::Bits16)]
    pub address_size: AddressSize,
    #[bits(5)]
    __: u8,
    /// OUTS: the number of the segment register. INS has ES.
    #[bits(3)]
    pub segment_number: u8,
    #[bits(14)]
    __: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_move_in_their_part() {
        let down = 0u64.wrapping_sub(2);
        assert_eq!(AddressSize::Bits16.moved(0xabcd_0000, down), 0xabcd_fffe);
        assert_eq!(AddressSize::Bits32.moved(0x1_0000_0000, down), 0xffff_fffe);
        assert_eq!(AddressSize::Bits64.moved(0, down), down);
    }

    #[test]
    fn operands_lie_where_the_sdm_has_them() {
        let info = VmxOperand::from_bits(
            9 << 28
                | 1 << 27
                | 5 << 23
                | 1 << 22
                | 6 << 18
                | 4 << 15
                | 1 << 10
                | 1 << 7
                | 7 << 3
                | 3,
        );
        assert_eq!((info.scaling(), info.reg1(), info.reg2()), (3, 7, 9));
        assert_eq!(info.address_size(), AddressSize::Bits32);
        assert!(info.is_register() && info.no_index() && info.no_base());
        assert_eq!((info.index(), info.base()), (6, 5));
        assert_eq!(info.segment(), Some(SegmentName::Fs));
        let info = StringIoOperand::from_bits(2 << 15 | 2 << 7);
        assert_eq!(info.address_size(), AddressSize::Bits64);
        assert_eq!(info.segment_number(), 2);
    }
}

//! Segments. SDM "Guest Register State", "Segment Descriptors".

use bitfield_struct::bitfield;

/// The segment registers, numbered as instructions and the VM-exit
/// instruction-information field number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum SegmentName {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

impl SegmentName {
    /// All six, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs];

    /// The register of a number; 6 and 7 are none.
    #[inline]
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Es),
            1 => Some(Self::Cs),
            2 => Some(Self::Ss),
            3 => Some(Self::Ds),
            4 => Some(Self::Fs),
            5 => Some(Self::Gs),
            _ => None,
        }
    }

    /// FS and GS keep their base in 64-bit mode.
    #[inline]
    #[must_use]
    pub const fn has_base_in_64_bit_mode(self) -> bool {
        matches!(self, Self::Fs | Self::Gs)
    }
}

/// Access rights, as the VMCS has them: bits 55:40 of the descriptor, without
/// the limit, and whether the register is unusable.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AccessRights {
    /// Segment type.
    #[bits(4)]
    pub kind: u8,
    /// S: 1 for code and data, 0 for system segments.
    pub is_code_or_data: bool,
    /// Descriptor privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// P.
    pub present: bool,
    /// Bits 11:8.
    #[bits(4)]
    reserved_low: u8,
    /// AVL.
    pub available: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// D/B: operands, or the stack, are 32 bits wide.
    pub big: bool,
    /// G: the limit counts pages.
    pub granular: bool,
    /// The register is unusable.
    pub unusable: bool,
    /// Bits 31:17.
    #[bits(15)]
    reserved_high: u16,
}

impl AccessRights {
    /// Bits 11:8 and 31:17.
    pub const RESERVED: u32 = 0xfffe_0f00;
    /// 64-bit code at privilege level 0, accessed, as VM exit loads it.
    pub const CODE_64: Self = Self::from_bits(0xa09b);
    /// The same for 32-bit code.
    pub const CODE_32: Self = Self::from_bits(0xc09b);
    /// Read/write data at privilege level 0, accessed, 4 GiB.
    pub const DATA_32: Self = Self::from_bits(0xc093);
    /// Code of 16 bits, as after INIT.
    pub const CODE_16: Self = Self::from_bits(0x9b);
    /// Data of 16 bits, as after INIT.
    pub const DATA_16: Self = Self::from_bits(0x93);
    /// Any segment in virtual-8086 mode: present, DPL 3, read/write data, accessed.
    pub const V8086: Self = Self::from_bits(0xf3);
    /// A busy 32- or 64-bit TSS.
    pub const TSS_BUSY: Self = Self::from_bits(0x8b);
    /// An LDT.
    pub const LDT: Self = Self::from_bits(0x82);
    /// Unusable, with nothing else set.
    pub const UNUSABLE: Self = Self::from_bits(1 << 16);

    /// Whether the type is code, for code and data segments.
    #[inline]
    #[must_use]
    pub const fn is_code(self) -> bool {
        self.kind() & 8 != 0
    }

    /// Data that grows downwards, for code and data segments.
    #[inline]
    #[must_use]
    pub const fn is_expand_down(self) -> bool {
        self.kind() & 0b1100 == 0b0100
    }

    /// The segment was accessed, for code and data segments.
    #[inline]
    #[must_use]
    pub const fn accessed(self) -> bool {
        self.kind() & 1 != 0
    }

    /// Data, or code that may be read.
    #[inline]
    #[must_use]
    pub const fn readable(self) -> bool {
        !self.is_code() || self.kind() & 2 != 0
    }

    /// Data that may be written.
    #[inline]
    #[must_use]
    pub const fn writable(self) -> bool {
        !self.is_code() && self.kind() & 2 != 0
    }

    /// Whether the reserved bits are 0.
    #[inline]
    #[must_use]
    pub const fn reserved_clear(self) -> bool {
        self.into_bits() & Self::RESERVED == 0
    }
}

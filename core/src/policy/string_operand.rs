//! The memory operand of a string I/O instruction: whether the segment permits
//! it, and how the registers move on. SDM "INS", "OUTS", "Segment Limit
//! Checking", "Type Checking".

use umbra_nested::linear::LinearForm;

/// A segment, with what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Offset in the segment, cut to the address size.
    pub offset: u64,
    /// Length of one element in bytes, 1 to 4.
    pub bytes: u64,
    /// Memory is written (INS).
    pub is_write: bool,
    /// 64-bit mode.
    pub is_64_bit: bool,
    /// What addresses look like in 64-bit mode.
    pub form: LinearForm,
    /// The segment's base, as it counts: in 64-bit mode 0 but for FS and GS.
    pub base: u64,
    /// The segment's limit in bytes.
    pub limit: u64,
    /// The segment's access rights in the VMCS format.
    pub rights: u64,
}

/// The access causes #GP(0), or #SS(0) where the segment is SS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFault;

impl Operand {
    /// The linear address of the element.
    ///
    /// # Errors
    /// [`SegmentFault`] where the CPU raises it.
    pub fn linear(&self) -> Result<u64, SegmentFault> {
        if self.is_64_bit {
            let address = self.base.wrapping_add(self.offset);
            return self.form.resolve(address, self.bytes).ok_or(SegmentFault);
        }
        const UNUSABLE: u64 = 1 << 16;
        const BIG: u64 = 1 << 14;
        let is_code = self.rights & 8 != 0;
        // Writable for data, readable for code.
        let second = self.rights & 2 != 0;
        let is_permitted = match (is_code, self.is_write) {
            (true, true) => false,
            (true, false) | (false, true) => second,
            (false, false) => true,
        };
        let last = self.offset + (self.bytes - 1);
        let grows_down = self.rights & 0xc == 4;
        let is_inside = if grows_down {
            let top = if self.rights & BIG != 0 {
                0xffff_ffff
            } else {
                0xffff
            };
            self.offset > self.limit && last <= top
        } else {
            last <= self.limit
        };
        if self.rights & UNUSABLE != 0 || !is_permitted || !is_inside {
            return Err(SegmentFault);
        }
        Ok(self.base.wrapping_add(self.offset) & 0xffff_ffff)
    }
}

/// The width of addresses, from the instruction information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSize {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl AddressSize {
    /// From bits 9:7 of the VM-exit instruction-information field.
    pub const fn from_information(information: u64) -> Self {
        match information >> 7 & 7 {
            0 => Self::Bits16,
            1 => Self::Bits32,
            _ => Self::Bits64,
        }
    }

    /// The bits of a register that count.
    pub const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 => u64::MAX,
        }
    }

    /// `register` with the part that counts moved by `by`: 16-bit writes leave
    /// the rest, 32-bit writes clear the upper half.
    pub const fn moved(self, register: u64, by: u64) -> u64 {
        let part = register.wrapping_add(by) & self.mask();
        match self {
            Self::Bits16 => register & !0xffff | part,
            Self::Bits32 | Self::Bits64 => part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: Operand = Operand {
        offset: 0x1000,
        bytes: 4,
        is_write: true,
        is_64_bit: false,
        form: LinearForm::new(0, 0),
        base: 0,
        limit: 0xffff_ffff,
        rights: 0xc093,
    };

    #[test]
    fn limits_hold_to_the_byte() {
        let small = Operand {
            limit: 0x1003,
            ..FLAT
        };
        assert_eq!(small.linear(), Ok(0x1000));
        assert_eq!(
            Operand {
                limit: 0x1002,
                ..FLAT
            }
            .linear(),
            Err(SegmentFault)
        );
        let down = Operand {
            rights: 0xc097,
            limit: 0xfff,
            ..FLAT
        };
        assert_eq!(down.linear(), Ok(0x1000));
        assert_eq!(
            Operand {
                limit: 0x1000,
                ..down
            }
            .linear(),
            Err(SegmentFault)
        );
        let down_16 = Operand {
            rights: 0x97,
            offset: 0xfffd,
            limit: 0,
            ..FLAT
        };
        assert_eq!(down_16.linear(), Err(SegmentFault));
    }

    #[test]
    fn types_hold() {
        for (rights, is_write, is_allowed) in [
            (0xc091, false, true),
            (0xc091, true, false),
            (0xc09b, false, true),
            (0xc09b, true, false),
            (0xc099, false, false),
            (0x1c093, false, false),
        ] {
            let operand = Operand {
                rights,
                is_write,
                ..FLAT
            };
            assert_eq!(operand.linear().is_ok(), is_allowed, "{rights:#x}");
        }
    }

    #[test]
    fn long_mode_asks_only_for_canonical_addresses() {
        let long = Operand {
            is_64_bit: true,
            limit: 0,
            rights: 0x10000,
            ..FLAT
        };
        assert_eq!(long.linear(), Ok(0x1000));
        let last = Operand {
            offset: 0x7fff_ffff_fffc,
            ..long
        };
        assert!(last.linear().is_ok());
        let across = Operand {
            offset: 0x7fff_ffff_fffd,
            ..long
        };
        assert_eq!(across.linear(), Err(SegmentFault));
        assert!(
            Operand {
                form: LinearForm::new(0, 1 << 12),
                ..across
            }
            .linear()
            .is_ok()
        );
    }

    #[test]
    fn a_32_bit_address_wraps() {
        let high = Operand {
            base: 0xffff_f000,
            offset: 0x2000,
            ..FLAT
        };
        assert_eq!(high.linear(), Ok(0x1000));
    }

    #[test]
    fn registers_move_in_their_part() {
        let down = 0u64.wrapping_sub(2);
        assert_eq!(AddressSize::Bits16.moved(0xabcd_0000, down), 0xabcd_fffe);
        assert_eq!(AddressSize::Bits32.moved(0x1_0000_0000, down), 0xffff_fffe);
        assert_eq!(AddressSize::Bits64.moved(0, down), down);
        assert_eq!(AddressSize::from_information(0x80), AddressSize::Bits32);
    }
}

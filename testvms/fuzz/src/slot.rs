//! One slot of an L2 program: the bytes of a few instructions, in the form that L2's mode wants.

use rt::random::Random;
use rt::vmx::vm::Mode;

/// Bytes of a slot.
pub const BYTES: usize = 32;

/// Linear addresses that operands lie at, or near: plain data, the end of a page, the APIC-access
/// page, pages whose translation a case may have made strange, and addresses that lead nowhere.
const ADDRESSES: [u32; 20] = [
    0x9000, 0x9008, 0x9010, 0x9100, 0x9800, 0x9ff8, 0x9ffc, 0x9fff, 0xa000, 0xb000, 0xb080, 0xb0b0,
    0xb300, 0xc000, 0xcff8, 0xd000, 0xdffc, 0xe010, 0xf000, 0xfffc,
];

/// What a ModRM byte may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Memory alone.
    Memory,
    /// A register alone.
    Register,
    /// Either.
    Either,
}

/// A slot while it is filled.
pub struct Slot<'a> {
    /// The case's numbers.
    pub random: &'a mut Random,
    mode: Mode,
    bytes: [u8; BYTES],
    len: usize,
}

impl<'a> Slot<'a> {
    /// An empty slot of a program in `mode`.
    pub fn new(mode: Mode, random: &'a mut Random) -> Self {
        Self {
            random,
            mode,
            // What is left of a slot does nothing.
            bytes: [0x90; BYTES],
            len: 0,
        }
    }

    /// The slot's bytes. What does not fit is cut off.
    pub fn finish(self) -> [u8; BYTES] {
        self.bytes
    }

    /// Whether the program runs in 64-bit mode.
    pub fn is_64_bit(&self) -> bool {
        self.mode == Mode::Long
    }

    fn is_16_bit(&self) -> bool {
        self.mode.is_16_bit()
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    /// An operand-size prefix where 32 bits are not the default.
    pub fn wide(&mut self) {
        if self.is_16_bit() {
            self.raw(&[0x66]);
        }
    }

    /// MOV of 32 bits to one of the first eight registers.
    pub fn load(&mut self, register: u8, value: u32) {
        self.wide();
        self.raw(&[0xb8 + register]);
        self.raw(&value.to_le_bytes());
    }

    /// An address for an operand.
    pub fn address(&mut self) -> u32 {
        let address = self.random.of(&ADDRESSES);
        if self.random.chance(1, 12) {
            return self.random.of(&[0, 0x4_0000, 0x7fff_ffff, 0xffff_fff8]);
        }
        address
    }

    /// An instruction with a ModRM byte. `prefix` stands before REX, `extension` is the register
    /// field, drawn if `None`.
    pub fn modrm(&mut self, prefix: &[u8], opcode: &[u8], extension: Option<u8>, form: Form) {
        let is_register = match form {
            Form::Register => true,
            Form::Memory => false,
            Form::Either => self.random.chance(1, 2),
        };
        let high = self.is_64_bit() && extension.is_none() && self.random.chance(1, 2);
        let reg = extension.unwrap_or_else(|| self.register());
        let uses_16_bit = self.is_16_bit() && !is_register && self.random.chance(1, 4);
        if !is_register {
            if self.is_16_bit() && !uses_16_bit {
                self.raw(&[0x67]);
            }
            if self.random.chance(1, 6) {
                let segment = self.random.of(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]);
                self.raw(&[segment]);
            }
        }
        self.raw(prefix);
        let has_base_r8 = self.is_64_bit() && self.random.chance(1, 6);
        let is_wide = self.is_64_bit() && self.random.chance(1, 3);
        if high || has_base_r8 || is_wide {
            let rex = 0x40
                | u8::from(is_wide) << 3
                | u8::from(high) << 2
                | u8::from(has_base_r8 && !is_register);
            self.raw(&[rex]);
        }
        self.raw(opcode);
        if is_register {
            let rm = self.register();
            self.raw(&[0xc0 | reg << 3 | rm]);
        } else if uses_16_bit {
            self.memory16(reg << 3);
        } else if has_base_r8 {
            self.raw(&[0x40 | reg << 3, 0x10]);
        } else {
            self.memory(reg << 3);
        }
    }

    /// One of the first eight registers, but not the stack pointer.
    fn register(&mut self) -> u8 {
        self.random.of(&[0, 1, 2, 3, 5, 6, 7])
    }

    fn memory(&mut self, reg: u8) {
        let displacement = self.random.of(&[0u8, 8, 0x7c, 0xf8]);
        match self.random.below(if self.is_64_bit() { 8 } else { 7 }) {
            0..=2 => {
                let address = self.address();
                self.raw(&[reg | 4, 0x25]);
                self.raw(&address.to_le_bytes());
            }
            3 => self.raw(&[0x40 | reg | 3, displacement]),
            4 => {
                let far = self.random.of(&[0x10u32, 0xffff_ff00]);
                self.raw(&[0x80 | reg | 6]);
                self.raw(&far.to_le_bytes());
            }
            5 => {
                let scale = self.random.below(4) as u8;
                self.raw(&[0x40 | reg | 4, scale << 6 | 0x0f, displacement]);
            }
            6 => self.raw(&[0x40 | reg | 4, 0x24, displacement]),
            _ => {
                let ahead = self.random.of(&[0x100u32, 0xf00, 0x1000, 0x2fe0]);
                self.raw(&[reg | 5]);
                self.raw(&ahead.to_le_bytes());
            }
        }
    }

    fn memory16(&mut self, reg: u8) {
        match self.random.below(4) {
            0 => {
                let address = self.address() as u16;
                self.raw(&[reg | 6]);
                self.raw(&address.to_le_bytes());
            }
            1 => self.raw(&[0x40 | reg | 7, 8]),
            2 => self.raw(&[reg | 4]),
            _ => self.raw(&[0x80 | reg | 6, 0x10, 0]),
        }
    }
}

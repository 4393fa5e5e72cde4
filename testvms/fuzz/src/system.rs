//! Instructions that VMX is about: those that may exit.

use crate::slot::{Form, Slot};

/// The VMX instructions, and INVPCID, which is encoded as INVEPT and INVVPID are.
pub fn vmx(slot: &mut Slot<'_>) {
    match slot.random.below(16) {
        0 => slot.modrm(&[0xf3], &[0x0f, 0xc7], Some(6), Form::Memory),
        1 => slot.modrm(&[0x66], &[0x0f, 0xc7], Some(6), Form::Memory),
        2 => slot.modrm(&[], &[0x0f, 0xc7], Some(6), Form::Memory),
        3 => slot.modrm(&[], &[0x0f, 0xc7], Some(7), Form::Memory),
        4 | 5 => slot.modrm(&[], &[0x0f, 0x78], None, Form::Either),
        6 | 7 => slot.modrm(&[], &[0x0f, 0x79], None, Form::Either),
        8 => slot.modrm(&[0x66], &[0x0f, 0x38, 0x80], None, Form::Memory),
        9 => slot.modrm(&[0x66], &[0x0f, 0x38, 0x81], None, Form::Memory),
        10 | 11 => slot.modrm(&[0x66], &[0x0f, 0x38, 0x82], None, Form::Memory),
        12 | 13 => {
            let function = slot.random.of(&[0, 0, 0, 1, 63, 64]);
            let index = slot.random.of(&[0, 0, 1, 511, 512]);
            slot.load(0, function);
            slot.load(1, index);
            slot.raw(&[0x0f, 0x01, 0xd4]);
        }
        _ => {
            let last = slot.random.of(&[0xc1, 0xc2, 0xc3, 0xc4]);
            slot.raw(&[0x0f, 0x01, last]);
        }
    }
}

/// Control registers: a bit flipped by way of a register, and LMSW, SMSW, CLTS.
pub fn control(slot: &mut Slot<'_>) {
    match slot.random.below(10) {
        0 | 1 => flip(slot, 0, &[1, 2, 4, 8, 1 << 5, 1 << 16, 1 << 18, 1 << 30]),
        2 => flip(slot, 0, &[0, 0, 1 << 31, 3 << 29, 1 << 29, 1 << 28]),
        3 => flip(slot, 3, &[0, 0, 8, 0x18, 0x1000, 1 << 31]),
        4 | 5 => flip(
            slot,
            4,
            &[
                0,
                1,
                2,
                4,
                8,
                1 << 4,
                1 << 7,
                1 << 9,
                1 << 11,
                1 << 16,
                1 << 18,
                1 << 20,
            ],
        ),
        6 => flip(
            slot,
            4,
            &[1 << 5, 1 << 13, 1 << 14, 1 << 17, 1 << 21, 1 << 31],
        ),
        7 if slot.is_64_bit() => {
            let value = slot.random.of(&[0, 1, 8, 15, 16]);
            slot.load(1, value);
            let read = slot.random.of(&[0x20, 0x22]);
            slot.raw(&[0x44, 0x0f, read, 0xc1]);
        }
        7 => slot.modrm(&[], &[0x0f, 0x01], Some(6), Form::Either),
        8 => slot.modrm(&[], &[0x0f, 0x01], Some(4), Form::Either),
        _ => slot.raw(&[0x0f, 0x06]),
    }
}

/// MOV from the register, XOR, MOV to it.
fn flip(slot: &mut Slot<'_>, register: u8, bits: &[u32]) {
    let bits = slot.random.of(bits);
    let modrm = 0xc0 | register << 3;
    slot.raw(&[0x0f, 0x20, modrm]);
    slot.wide();
    slot.raw(&[0x35]);
    slot.raw(&bits.to_le_bytes());
    slot.raw(&[0x0f, 0x22, modrm]);
}

/// Debug registers.
pub fn debug(slot: &mut Slot<'_>) {
    let register = slot.random.below(8) as u8;
    if slot.random.chance(1, 2) {
        slot.raw(&[0x0f, 0x21, 0xc1 | register << 3]);
        return;
    }
    let value = match register {
        7 => slot
            .random
            .of(&[0x400, 0x2400, 0x401, 0x402, 0xd_0402, 0x600, 0x155]),
        6 => slot.random.of(&[0, 0xffff_0ff0, 0x4001]),
        _ => slot.random.of(&[0x8040, 0x8060, 0x9000, 0x9008, 0xa000]),
    };
    slot.load(1, value);
    slot.raw(&[0x0f, 0x23, 0xc1 | register << 3]);
}

/// Ports where nothing is, at the edges of the bitmaps.
pub fn ports(slot: &mut Slot<'_>) {
    let port = slot
        .random
        .of(&[0xe0u32, 0xe3, 0xef, 0x7ffc, 0x7fff, 0x8000, 0xfffe, 0xffff]);
    match slot.random.below(3) {
        0 => {
            let opcode = slot.random.of(&[0xe4, 0xe5, 0xe6, 0xe7]);
            slot.raw(&[opcode, 0xe1]);
        }
        1 => {
            slot.load(2, port);
            size(slot);
            let opcode = slot.random.of(&[0xec, 0xed, 0xee, 0xef]);
            slot.raw(&[opcode]);
        }
        _ => {
            slot.load(2, port);
            size(slot);
            if slot.random.chance(1, 4) {
                slot.raw(&[0x67]);
            }
            if slot.random.chance(1, 2) {
                let count = slot.random.of(&[0, 1, 3]);
                slot.load(1, count);
                slot.raw(&[0xf3]);
            }
            if slot.random.chance(1, 4) {
                let segment = slot.random.of(&[0x26, 0x2e, 0x36, 0x64]);
                slot.raw(&[segment]);
            }
            let opcode = slot.random.of(&[0x6c, 0x6d, 0x6e, 0x6f]);
            slot.raw(&[opcode]);
        }
    }
}

fn size(slot: &mut Slot<'_>) {
    if slot.random.chance(1, 3) {
        slot.raw(&[0x66]);
    }
}

/// MSRs that are L2's own by VM entry and exit, that are harmless to L1, or that do not exist.
pub const MSRS: [u32; 19] = [
    0x174,
    0x175,
    0x176,
    0x277,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc000_0103,
    0x802,
    0x808,
    0x80b,
    0x83f,
    0x2000,
    0xbfff_ffff,
    0xc000_2000,
];

/// RDMSR and WRMSR of these.
pub fn msrs(slot: &mut Slot<'_>) {
    let msr = slot.random.of(&MSRS);
    slot.load(1, msr);
    if slot.random.chance(1, 2) {
        slot.raw(&[0x0f, 0x32]);
        return;
    }
    let low = slot
        .random
        .of(&[0, 1, 8, 0x500, 0x501, 0xd01, 0x0007_0406, 0x8000]);
    let high = slot.random.of(&[0, 0, 0, 0x0007_0406, 0x8000, 0xffff_8000]);
    slot.load(0, low);
    slot.load(2, high);
    slot.raw(&[0x0f, 0x30]);
}

/// What waits, what asks for the time or for random numbers, which always exits, and what tends the
/// caches.
pub fn idle(slot: &mut Slot<'_>) {
    match slot.random.below(14) {
        0 => slot.raw(&[0xf4]),
        1 => slot.raw(&[0xf3, 0x90]),
        2 => slot.raw(&[0x0f, 0x01, 0xc8]),
        3 => slot.raw(&[0x0f, 0x08]),
        4 => slot.raw(&[0x0f, 0x09]),
        5 | 6 => slot.modrm(&[], &[0x0f, 0x01], Some(7), Form::Memory),
        7 => slot.raw(&[0x0f, 0x31]),
        8 => slot.raw(&[0x0f, 0x01, 0xf9]),
        9 => slot.raw(&[0x0f, 0x33]),
        10 => slot.raw(&[0x0f, 0xc7, 0xf1]),
        11 => slot.raw(&[0x0f, 0xc7, 0xf9]),
        12 => slot.modrm(&[], &[0x0f, 0xae], Some(7), Form::Memory),
        _ => slot.raw(&[0x0f, 0xa2]),
    }
}

/// GDTR, IDTR, LDTR, TR, and what looks at descriptors.
pub fn tables(slot: &mut Slot<'_>) {
    match slot.random.below(8) {
        0..=3 => {
            let extension = slot.random.below(4) as u8;
            slot.modrm(&[], &[0x0f, 0x01], Some(extension), Form::Memory);
        }
        4..=6 => {
            let selector = slot.random.of(&[0, 0x10, 0x18, 0x38, 0x48, 0x104]);
            slot.load(0, selector);
            let extension = slot.random.below(6) as u8;
            slot.modrm(&[], &[0x0f, 0x00], Some(extension), Form::Either);
        }
        _ => {
            let opcode = slot.random.of(&[0x02, 0x03]);
            slot.modrm(&[], &[0x0f, opcode], None, Form::Either);
        }
    }
}

/// Extended state, user-mode bases, and instructions that other modes of the CPU own.
pub fn state(slot: &mut Slot<'_>) {
    match slot.random.below(12) {
        0 => slot.raw(&[0x0f, 0x01, 0xd1]),
        1 => slot.raw(&[0x31, 0xc9, 0x0f, 0x01, 0xd0]),
        2 => slot.modrm(&[], &[0x0f, 0xc7], Some(5), Form::Memory),
        3 => slot.modrm(&[], &[0x0f, 0xc7], Some(3), Form::Memory),
        4 => slot.raw(&[0x0f, 0x37]),
        5 => slot.raw(&[0x0f, 0xaa]),
        6 => slot.raw(&[0x0f, 0x01, 0xcf]),
        7 => slot.raw(&[0x0f, 0x01, 0xf8]),
        8 => slot.modrm(&[0xf3], &[0x0f, 0xae], Some(0), Form::Register),
        9 => slot.modrm(&[0xf3], &[0x0f, 0xae], Some(3), Form::Register),
        10 => slot.raw(&[0xd9, 0xd0]),
        _ => slot.raw(&[0x0f, 0x28, 0xc1]),
    }
}

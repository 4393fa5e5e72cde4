//! Instructions that only touch memory and segments: what they meet there may exit.

use crate::slot::{Form, Slot};

/// Segment registers.
pub fn segments(slot: &mut Slot<'_>) {
    let selector = slot
        .random
        .of(&[0, 3, 0x08, 0x10, 0x18, 0x30, 0x33, 0x38, 0x50, 0x400, 0x14]);
    slot.load(0, selector);
    match slot.random.below(6) {
        0 | 1 => {
            let register = slot.random.of(&[0u8, 2, 3, 4, 5]);
            slot.raw(&[0x8e, 0xc0 | register << 3]);
        }
        2 => slot.modrm(&[], &[0x8c], Some(3), Form::Either),
        3 => slot.modrm(&[], &[0x0f, 0xb2], None, Form::Memory),
        4 => slot.raw(&[0x0f, 0xa0, 0x0f, 0xa9]),
        _ => slot.modrm(&[], &[0x8e], Some(0), Form::Memory),
    }
}

/// Reads, writes and both, of several widths.
pub fn memory(slot: &mut Slot<'_>) {
    match slot.random.below(14) {
        0 | 1 => slot.modrm(&[], &[0x89], None, Form::Memory),
        2 | 3 => slot.modrm(&[], &[0x8b], None, Form::Memory),
        4 => slot.modrm(&[], &[0x01], None, Form::Memory),
        5 => slot.modrm(&[0xf0], &[0x0f, 0xc1], None, Form::Memory),
        6 => slot.modrm(&[], &[0x87], None, Form::Memory),
        7 => slot.modrm(&[], &[0xff], Some(6), Form::Memory),
        8 => slot.modrm(&[], &[0x8f], Some(0), Form::Memory),
        9 => slot.modrm(&[], &[0x0f, 0xc7], Some(1), Form::Memory),
        10 => slot.modrm(&[], &[0x88], None, Form::Memory),
        11 => slot.modrm(&[], &[0xf6], Some(2), Form::Memory),
        12 => slot.raw(&[0xc8, 0x10, 0x00, 0x02]),
        _ => slot.modrm(&[0x66], &[0x0f, 0x7f], None, Form::Memory),
    }
}

/// String instructions, with a count that stays small.
pub fn strings(slot: &mut Slot<'_>) {
    let count = slot.random.of(&[0, 1, 3, 16]);
    let target = slot.address();
    let source = slot.address();
    slot.load(1, count);
    slot.load(7, target);
    slot.load(6, source);
    match slot.random.below(3) {
        0 => slot.raw(&[0xf3]),
        1 => slot.raw(&[0xf2]),
        _ => {}
    }
    let opcode = slot
        .random
        .of(&[0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xa6, 0xa7, 0xae, 0xaf]);
    slot.raw(&[opcode]);
}

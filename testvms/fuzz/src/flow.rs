//! Instructions that go elsewhere: exceptions, flags that make them, far transfers, system calls.

use rt::vmx::vm::layout;

use crate::slot::{Form, Slot};

/// Exceptions and software interrupts.
pub fn exceptions(slot: &mut Slot<'_>) {
    match slot.random.below(10) {
        0 => slot.raw(&[0x0f, 0x0b]),
        1 => slot.raw(&[0xcc]),
        2 => slot.raw(&[0xf1]),
        3 | 4 => {
            let vector = slot
                .random
                .of(&[0x00, 0x03, 0x04, 0x08, 0x0e, 0x21, 0x30, 0x80, 0xff]);
            slot.raw(&[0xcd, vector]);
        }
        // Sets OF first.
        5 => slot.raw(&[0xb0, 0x7f, 0x04, 0x01, 0xce]),
        6 => slot.raw(&[0x31, 0xc9, 0xf7, 0xf1]),
        7 => slot.modrm(&[], &[0x8b], None, Form::Memory),
        8 => slot.raw(&[0x0f, 0xff, 0xc0]),
        _ => slot.raw(&[0xea, 0, 0, 0, 0, 0x73, 0x01]),
    }
}

/// RFLAGS, and what blocks events for an instruction.
pub fn flags(slot: &mut Slot<'_>) {
    match slot.random.below(8) {
        0..=2 => {
            let flags = slot.random.of(&[
                0x002u32, 0x102, 0x202, 0x302, 0x3202, 0x4002, 0x1_0002, 0x1_0102, 0x4_0002,
                0x20_0002,
            ]);
            slot.wide();
            slot.raw(&[0x68]);
            slot.raw(&flags.to_le_bytes());
            slot.wide();
            slot.raw(&[0x9d]);
        }
        3 => slot.raw(&[0xfb]),
        4 => slot.raw(&[0xfa]),
        5 => {
            slot.load(0, 0x10);
            slot.raw(&[0x8e, 0xd0]);
            let next = slot.random.of(&[0x90, 0xcc, 0xf4, 0x9c]);
            slot.raw(&[next]);
        }
        6 => slot.raw(&[0xfb, 0xf4]),
        _ => slot.raw(&[0x9c]),
    }
}

/// Jumps, calls and returns between segments, tasks among them.
pub fn far(slot: &mut Slot<'_>) {
    let selector = slot.random.of(&[
        0x08u16, 0x10, 0x18, 0x28, 0x33, 0x38, 0x40, 0x48, 0x50, 0x400,
    ]);
    match slot.random.below(4) {
        0 | 1 => {
            let opcode = slot.random.of(&[0xea, 0x9a]);
            slot.wide();
            slot.raw(&[opcode]);
            slot.raw(&(layout::CODE as u32 + 0xe0).to_le_bytes());
            slot.raw(&selector.to_le_bytes());
        }
        2 => {
            let extension = slot.random.of(&[3, 5]);
            slot.modrm(&[], &[0xff], Some(extension), Form::Memory);
        }
        _ => {
            slot.wide();
            slot.raw(&[0x68]);
            slot.raw(&u32::from(selector).to_le_bytes());
            slot.wide();
            slot.raw(&[0x68]);
            slot.raw(&(layout::CODE as u32 + 0xe0).to_le_bytes());
            let end = slot.random.of(&[0xcb, 0xcf]);
            slot.raw(&[end]);
        }
    }
}

/// System calls of both kinds, and their returns.
pub fn calls(slot: &mut Slot<'_>) {
    let code = layout::CODE as u32 + 0xc0;
    slot.load(1, code);
    slot.load(2, code);
    let opcode = slot.random.of(&[0x34, 0x35, 0x05, 0x07]);
    if slot.is_64_bit() && slot.random.chance(1, 2) {
        slot.raw(&[0x48]);
    }
    slot.raw(&[0x0f, opcode]);
}

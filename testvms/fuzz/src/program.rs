//! What the slots of an L2 program hold: families of instructions, each with its own weights.

use rt::page::Page;
use rt::random::Random;
use rt::vmx::vm::{Mode, layout};

use crate::data;
use crate::flow;
use crate::slot::{BYTES, Slot};
use crate::system;

/// Slots of a program. Behind the last one VMCALL ends it.
pub const SLOTS: u64 = 8;
/// The bytes of VMCALL.
pub const VMCALL: [u8; 3] = [0x0f, 0x01, 0xc1];

type Family = fn(&mut Slot<'_>);

/// The families; one that stands here twice is drawn twice as often.
const FAMILIES: [Family; 22] = [
    system::vmx,
    system::vmx,
    system::control,
    system::control,
    system::control,
    system::debug,
    system::ports,
    system::ports,
    system::msrs,
    system::msrs,
    system::idle,
    system::idle,
    system::tables,
    system::state,
    flow::exceptions,
    flow::exceptions,
    flow::flags,
    flow::far,
    flow::calls,
    data::segments,
    data::memory,
    data::strings,
];

/// Writes a program into L2's code page. With `is_wild` its slots hold random bytes.
pub fn write(memory: &Page, mode: Mode, random: &mut Random, is_wild: bool) {
    for slot in 0..SLOTS {
        let mut place = Slot::new(mode, random);
        if is_wild {
            let count = 1 + place.random.below(15);
            for _ in 0..count {
                let byte = place.random.bits() >> 32;
                place.raw(&[byte as u8]);
            }
        } else {
            place.random.of(&FAMILIES)(&mut place);
        }
        memory.write_bytes(start(slot), &place.finish());
    }
    memory.write_bytes(start(SLOTS), &VMCALL);
    for at in start(SLOTS) + 3..layout::CODE + 0x1000 {
        memory.write(at, 0xccu8);
    }
}

/// L2's linear address of a slot.
pub fn start(slot: u64) -> u64 {
    layout::CODE + slot * BYTES as u64
}

/// The slot behind the one that an address lies in, if there is one.
pub fn slot_behind(address: u64) -> Option<u64> {
    let offset = address.checked_sub(layout::CODE)?;
    let slot = offset / BYTES as u64;
    (slot < SLOTS).then_some(slot + 1)
}

//! The descriptor tables of all cases: one of each kind of segment.

use rt::page::Page;

use crate::machine;
use crate::tables::WINDOW;
use crate::window::{CODE, DATA};

/// Flat data; this and 32-bit code lie where the run-time has them too.
pub const FLAT: u32 = rt::gdt::DATA as u32;
/// Flat 32-bit code.
pub const CODE32: u32 = rt::gdt::CODE32 as u32;
/// 16-bit code that begins at the window's code page.
pub const CODE16: u32 = 0x20;
/// 16-bit data (stack pointer of 16 bits) that begins at the data pages, 64 KiB.
pub const DATA16: u32 = 0x28;
/// Flat 32-bit code of privilege level 3.
pub const USER_CODE32: u32 = 0x33;
/// Flat data of privilege level 3.
pub const USER_FLAT: u32 = 0x3b;
/// The 32-bit task-state segment.
pub const TASK: u32 = 0x40;
/// 16-bit code of privilege level 3, from the code page on.
pub const USER_CODE16: u32 = 0x4b;
/// 16-bit data of privilege level 3, the data pages.
pub const USER_DATA16: u32 = 0x53;
/// Flat data that is read-only.
pub const READ_ONLY: u32 = 0x58;
/// Flat 32-bit code that can only be executed.
pub const EXECUTE_ONLY: u32 = 0x60;
/// Data from the data pages on: 4 KiB, limit in bytes.
pub const SMALL: u32 = 0x68;
/// The same base, offsets from 1000H up to 4 GiB.
pub const DOWN32: u32 = 0x70;
/// The same base, offsets from 1000H up to 64 KiB.
pub const DOWN16: u32 = 0x78;
/// The same base, offsets from 1000H on, read-only.
pub const DOWN_READ_ONLY: u32 = 0x80;
/// A base 64 KiB below the end, limit 4 GiB less one page: most of it has wrapped.
pub const WRAPPED: u32 = 0x88;
/// A base 4 bytes below the end of the linear addresses.
pub const TOP: u32 = 0x90;
/// 32-bit code that can be read, conforming, from the code page on, 4 KiB.
pub const CONFORMING: u32 = 0x98;
/// Code that can be read, as a data segment: the data pages, 4 KiB.
pub const READABLE_CODE: u32 = 0xa0;
/// Data from the data pages on, one byte.
pub const ONE_BYTE: u32 = 0xa8;
/// The FS and GS of an L1 that has them.
pub const OTHER_BASE: u32 = 0xb0;
/// 32-bit code that begins at the code page, 4 KiB.
pub const BASED_CODE: u32 = 0xb8;
/// Flat 32-bit code of privilege level 1.
pub const CODE32_1: u32 = 0xc1;
/// Flat data of privilege level 1.
pub const FLAT_1: u32 = 0xc9;
/// Bytes of the table.
pub const BYTES: u64 = 0xd0;

/// The base that [`WRAPPED`] has.
pub const WRAPPED_BASE: u32 = 0xffff_0000;

/// A descriptor: base, limit as it is encoded, and bits 23:8 of the second word less the limit.
const fn descriptor(base: u32, limit: u32, rights: u32) -> u64 {
    let low = limit & 0xffff | base << 16;
    let high = base >> 16 & 0xff | rights << 8 & 0xf0_ff00 | limit & 0xf_0000 | base & 0xff00_0000;
    (low as u64) | (high as u64) << 32
}

/// The tables, and the task-state segment.
pub struct Descriptors {
    /// The global descriptor table.
    pub gdt: Page,
    /// The interrupt descriptor table.
    pub idt: Page,
    /// The task-state segment.
    pub task: Page,
}

impl Descriptors {
    /// Makes them.
    pub fn new() -> Self {
        let made = Self {
            gdt: Page::alloc(1),
            idt: Page::alloc(1),
            task: Page::alloc(1),
        };
        for vector in 0..32 {
            let handler = u64::from(machine::handler(vector));
            let rights: u64 = if vector == 3 { 0xee00 } else { 0x8e00 };
            let gate =
                handler & 0xffff | u64::from(CODE32) << 16 | rights << 32 | handler >> 16 << 48;
            made.idt.write(u64::from(vector) * 8, gate);
        }
        made.task.write(4, machine::stack_top());
        made.task.write(8, FLAT);
        made.task.write(102, 104u16);
        made.reset();
        made
    }

    /// Writes every descriptor: the CPU marks the task-state segment busy and segments accessed.
    pub fn reset(&self) {
        let (code, data) = (WINDOW + CODE * 4096, WINDOW + DATA * 4096);
        for (selector, base, limit, rights) in [
            (rt::gdt::CODE64.into(), 0, 0xf_ffff, 0xa09b),
            (FLAT, 0, 0xf_ffff, 0xc093),
            (CODE32, 0, 0xf_ffff, 0xc09b),
            (CODE16, code, 0xffff, 0x009b),
            (DATA16, data, 0xffff, 0x0093),
            (USER_CODE32, 0, 0xf_ffff, 0xc0fb),
            (USER_FLAT, 0, 0xf_ffff, 0xc0f3),
            (TASK, self.task.address() as u32, 103, 0x0089),
            (USER_CODE16, code, 0xffff, 0x00fb),
            (USER_DATA16, data, 0xffff, 0x00f3),
            (READ_ONLY, 0, 0xf_ffff, 0xc091),
            (EXECUTE_ONLY, 0, 0xf_ffff, 0xc099),
            (SMALL, data, 0xfff, 0x4093),
            (DOWN32, data, 0xfff, 0x4097),
            (DOWN16, data, 0xfff, 0x0097),
            (DOWN_READ_ONLY, data, 0xfff, 0x4095),
            (WRAPPED, WRAPPED_BASE, 0xf_fffe, 0xc093),
            (TOP, 0xffff_fffc, 0xff, 0x4093),
            (CONFORMING, code, 0xfff, 0x409f),
            (READABLE_CODE, data, 0xfff, 0x409b),
            (ONE_BYTE, data, 0, 0x4093),
            (OTHER_BASE, data + 0x100, 0xfff, 0x4093),
            (BASED_CODE, code, 0xfff, 0x409b),
            (CODE32_1, 0, 0xf_ffff, 0xc0bb),
            (FLAT_1, 0, 0xf_ffff, 0xc0b3),
        ] {
            self.gdt
                .write(u64::from(selector & !3), descriptor(base, limit, rights));
        }
    }

    /// The memory operand of LGDT or LIDT.
    pub fn pointer(limit: u64, page: &Page) -> [u32; 2] {
        let base = page.address() as u32;
        [limit as u32 | base << 16, base >> 16]
    }
}

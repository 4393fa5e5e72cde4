//! Answers BIOS INT 15h for the memory map, in real mode and without Umbra.
//!
//! An L1 that asks the BIOS (Xen, GRUB, a boot sector) would learn the
//! machine's memory map with Umbra's memory in it as usable RAM. So before L1
//! starts, a block of 16-bit code with L1's map goes to the top of base memory
//! and takes over vector 15h. It runs in L1 as any resident BIOS extension
//! does, with no VM exit, so it works at any depth: each Umbra puts its own
//! block below the one of the Umbra under it, which it finds as part of the
//! BIOS, and its own table shadows the other's.
//!
//! | AX or AH | answer |
//! |---|---|
//! | E820h | L1's map; 20 bytes, or 24 where the caller has room for them |
//! | E801h | KiB from 1 to 16 MiB, 64-KiB blocks from 16 MiB |
//! | 88h | KiB from 1 MiB, at most 63 MiB |
//! | E881h, DA88h, 8Ah, C7h | carry, AH=86h: "not supported", as many a BIOS says |
//! | others | the handler that was there before |
//!
//! INT 12h and the BIOS data area tell the smaller base memory. What a BIOS
//! keeps in CMOS registers is not changed.

use crate::bytes::{align_up, u16_at};
use crate::emit::Emit;
use crate::error::Error;
use crate::memmap::MemoryMap;
use crate::phys::{PhysMemory, Region};
use crate::space::ONE_MIB;

/// Where real mode keeps the far pointer for INT 15h.
const VECTOR: u64 = 0x15 * 4;
/// BIOS data area: base memory in KiB, what INT 12h returns.
const BASE_MEMORY_KIB: u64 = 0x413;
/// A BIOS that reports less base memory than this is not believed, and the
/// block is not put below it: boot sectors and their stacks live there.
const LEAST_BASE_KIB: u16 = 128;
const MOST_BASE_KIB: u16 = 640;
const KIB: u64 = 1024;

/// Offset of the first instruction in the block.
const ENTRY: u16 = 0x10;
/// Offset of the map entries in the block, 20 bytes each.
const TABLE: u64 = 0xd0;
const TABLE_ENTRY_BYTES: u64 = 20;

/// The handler, to be placed at offset [`ENTRY`] of a 16-byte-aligned segment.
///
/// Data before it, by offset: 0 the old vector, 4 the number of entries
/// (32 bits), 8 and 0ah the two answers to E801h, 0ch the answer to 88h.
/// Jump targets are given as offsets in the block.
#[rustfmt::skip]
const CODE: [u8; 181] = [
    0x3d, 0x20, 0xe8,                               // 10 cmp ax, 0e820h
    0x74, 0x2d,                                     // 13 je 42
    0x3d, 0x01, 0xe8,                               // 15 cmp ax, 0e801h
    0x0f, 0x84, 0x83, 0x00,                         // 18 je 9f
    0x80, 0xfc, 0x88,                               // 1c cmp ah, 88h
    0x0f, 0x84, 0x8e, 0x00,                         // 1f je b1
    0x3d, 0x81, 0xe8,                               // 23 cmp ax, 0e881h
    0x0f, 0x84, 0x90, 0x00,                         // 26 je ba
    0x3d, 0x88, 0xda,                               // 2a cmp ax, 0da88h
    0x0f, 0x84, 0x89, 0x00,                         // 2d je ba
    0x80, 0xfc, 0x8a,                               // 31 cmp ah, 8ah
    0x0f, 0x84, 0x82, 0x00,                         // 34 je ba
    0x80, 0xfc, 0xc7,                               // 38 cmp ah, 0c7h
    0x74, 0x7d,                                     // 3b je ba
    0x2e, 0xff, 0x2e, 0x00, 0x00,                   // 3d jmp far cs:[0]
    // E820h. The caller's flags are at [bp+6].
    0x55,                                           // 42 push bp
    0x89, 0xe5,                                     // 43 mov bp, sp
    0x66, 0x81, 0xfa, 0x50, 0x41, 0x4d, 0x53,       // 45 cmp edx, "SMAP"
    0x75, 0x6f,                                     // 4c jne bd
    0x66, 0x83, 0xf9, 0x14,                         // 4e cmp ecx, 20
    0x72, 0x69,                                     // 52 jb bd
    0x2e, 0x66, 0x3b, 0x1e, 0x04, 0x00,             // 54 cmp ebx, cs:[4]
    0x73, 0x61,                                     // 5a jae bd
    0x1e,                                           // 5c push ds
    0x56,                                           // 5d push si
    0x57,                                           // 5e push di
    0x0e,                                           // 5f push cs
    0x1f,                                           // 60 pop ds
    0x6b, 0xf3, 0x14,                               // 61 imul si, bx, 20
    0x81, 0xc6, 0xd0, 0x00,                         // 64 add si, 0d0h
    0xfc,                                           // 68 cld
    0x66, 0xa5,                                     // 69 movsd
    0x66, 0xa5,                                     // 6b movsd
    0x66, 0xa5,                                     // 6d movsd
    0x66, 0xa5,                                     // 6f movsd
    0x66, 0xa5,                                     // 71 movsd
    0x66, 0x83, 0xf9, 0x18,                         // 73 cmp ecx, 24
    0x66, 0xb9, 0x14, 0x00, 0x00, 0x00,             // 77 mov ecx, 20
    0x72, 0x0a,                                     // 7d jb 89
    // Extended attributes: the entry counts.
    0x26, 0x66, 0xc7, 0x05, 0x01, 0x00, 0x00, 0x00, // 7f mov dword es:[di], 1
    0xb1, 0x18,                                     // 87 mov cl, 24
    0x5f,                                           // 89 pop di
    0x5e,                                           // 8a pop si
    0x1f,                                           // 8b pop ds
    0x43,                                           // 8c inc bx
    0x2e, 0x3b, 0x1e, 0x04, 0x00,                   // 8d cmp bx, cs:[4]
    0x72, 0x02,                                     // 92 jb 96
    0x31, 0xdb,                                     // 94 xor bx, bx
    0x66, 0x89, 0xd0,                               // 96 mov eax, edx
    // Success: clear the caller's carry flag.
    0x80, 0x66, 0x06, 0xfe,                         // 99 and byte [bp+6], 0feh
    0x5d,                                           // 9d pop bp
    0xcf,                                           // 9e iret
    // E801h.
    0x55,                                           // 9f push bp
    0x89, 0xe5,                                     // a0 mov bp, sp
    0x2e, 0xa1, 0x08, 0x00,                         // a2 mov ax, cs:[8]
    0x89, 0xc1,                                     // a6 mov cx, ax
    0x2e, 0x8b, 0x1e, 0x0a, 0x00,                   // a8 mov bx, cs:[0ah]
    0x89, 0xda,                                     // ad mov dx, bx
    0xeb, 0xe8,                                     // af jmp 99
    // 88h.
    0x55,                                           // b1 push bp
    0x89, 0xe5,                                     // b2 mov bp, sp
    0x2e, 0xa1, 0x0c, 0x00,                         // b4 mov ax, cs:[0ch]
    0xeb, 0xdf,                                     // b8 jmp 99
    // Failure: "not supported", and set the caller's carry flag.
    0x55,                                           // ba push bp
    0x89, 0xe5,                                     // bb mov bp, sp
    0xb4, 0x86,                                     // bd mov ah, 86h
    0x80, 0x4e, 0x06, 0x01,                         // bf or byte [bp+6], 1
    0x5d,                                           // c3 pop bp
    0xcf,                                           // c4 iret
];
const _: () = assert!(ENTRY as u64 + CODE.len() as u64 <= TABLE);

/// A block that was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// Where it lies: whole KiB at the top of base memory, reserved in the map.
    pub block: Region,
    /// Segment and offset of the handler to which it passes other calls on.
    pub chained: (u16, u16),
}

/// Puts the block for `map` at the top of base memory, reserves it in `map`,
/// and redirects INT 15h.
///
/// `map` must already have Umbra's memory reserved. `avoid` is what lies in
/// memory and is still needed (modules, say): the block goes below it.
///
/// # Errors
/// [`Error::BaseMemory`] when there is no room for it, or when the BIOS does
/// not say how much base memory there is; [`Error::TooManyEntries`] when
/// reserving it takes more entries than there are.
pub fn install<M: PhysMemory>(
    mem: &mut M,
    map: &mut MemoryMap,
    avoid: &[Region],
) -> Result<Installed, Error> {
    let mut word = [0; 2];
    mem.read(BASE_MEMORY_KIB, &mut word)?;
    let base_kib = u16_at(&word, 0).unwrap_or(0);
    // Reserving the block can split a usable entry in two around it.
    let most_entries = map.entries().len() as u64 + 2;
    let len = align_up(TABLE + most_entries * TABLE_ENTRY_BYTES, KIB).unwrap_or(u64::MAX);
    let block = place(map, base_kib, len, avoid).ok_or(Error::BaseMemory { base_kib, len })?;
    map.reserve(block)?;

    let mut vector = [0; 4];
    mem.read(VECTOR, &mut vector)?;
    write_block(mem, map, block, vector)?;
    // All below 640 KiB, so segment and KiB fit 16 bits.
    let segment = (block.start >> 4) as u16;
    mem.write(VECTOR, &ENTRY.to_le_bytes())?;
    mem.write(VECTOR + 2, &segment.to_le_bytes())?;
    let new_base_kib = (block.start / KIB) as u16;
    mem.write(BASE_MEMORY_KIB, &new_base_kib.to_le_bytes())?;
    Ok(Installed {
        block,
        chained: (
            u16_at(&vector, 2).unwrap_or(0),
            u16_at(&vector, 0).unwrap_or(0),
        ),
    })
}

/// The highest place for `len` bytes (whole KiB) at the top of base memory.
fn place(map: &MemoryMap, base_kib: u16, len: u64, avoid: &[Region]) -> Option<Region> {
    if !(LEAST_BASE_KIB..=MOST_BASE_KIB).contains(&base_kib) {
        return None;
    }
    let least = u64::from(LEAST_BASE_KIB) * KIB;
    map.highest_free(len, KIB, least, u64::from(base_kib) * KIB - 1, avoid)
        .map(|start| Region::new(start, len))
}

fn write_block<M: PhysMemory>(
    mem: &mut M,
    map: &MemoryMap,
    block: Region,
    old_vector: [u8; 4],
) -> Result<(), Error> {
    let (low_kib, high_blocks) = e801(map);
    let upper_kib = (map.usable_from(ONE_MIB) / KIB).min(63 * KIB);
    mem.zero(block.start, block.len)?;
    let mut to = Emit::at(mem, block.start);
    to.bytes(&old_vector)?;
    to.u32(map.entries().len() as u32)?;
    to.bytes(&low_kib.to_le_bytes())?;
    to.bytes(&high_blocks.to_le_bytes())?;
    to.bytes(&(upper_kib as u16).to_le_bytes())?;
    to.align(u64::from(ENTRY))?;
    to.bytes(&CODE)?;
    to.align(TABLE)?;
    for e in map.entries() {
        to.u64(e.start)?;
        to.u64(e.len())?;
        to.u32(e.kind.number())?;
    }
    Ok(())
}

/// The answers to E801h: KiB from 1 MiB to 16 MiB, and, if that is all RAM,
/// blocks of 64 KiB from 16 MiB on.
fn e801(map: &MemoryMap) -> (u16, u16) {
    const LOW_KIB: u64 = 15 * 1024;
    let low = (map.usable_from(ONE_MIB) / KIB).min(LOW_KIB);
    let high = if low == LOW_KIB {
        (map.usable_from(16 * ONE_MIB) / (64 * KIB)).min(0xffff)
    } else {
        0
    };
    (low as u16, high as u16)
}

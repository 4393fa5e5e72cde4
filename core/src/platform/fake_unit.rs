//! A VT-d unit for the tests, in an image with the feature `fake-caps`: no machine that runs
//! them has both VMX and a unit. It obeys commands at once, and confines nothing; when it is
//! told to translate, it looks what a device would reach by the tables that it was given. With
//! `fake-unit=stuck` it does not begin to translate.

use core::sync::atomic::{AtomicU32, Ordering};

use umbra_arch::Gpa1;
use umbra_core::options::FakeUnit;
use umbra_iommu::regs;

use crate::machine::machine;
use crate::mem::{layout, pointer};

/// Bytes of registers.
const BYTES: usize = 4096;
/// Version 1.0.
const VERSION: u32 = 0x10;
/// 39 bits in three levels, 2 MiB pages, one fault record at 220h.
const CAPABILITY: u64 = 0x0000_0004_2226_0202;
/// Walks look into the caches, invalidation by registers at F0h.
const EXTENDED: u64 = 0xf01;
const IOTLB: u32 = 0xf8;
/// The bit of a command in `CCMD_REG` and `IOTLB_REG` that the unit clears when it is done.
const AT_WORK: u64 = 1 << 63;

static WORDS: [AtomicU32; BYTES / 4] = [const { AtomicU32::new(0) }; BYTES / 4];

fn word(offset: u32) -> &'static AtomicU32 {
    &WORDS[offset as usize / 4]
}

/// Reads 32 bits.
pub fn read32(offset: u32) -> u32 {
    match offset {
        regs::VER => VERSION,
        regs::CAP => CAPABILITY as u32,
        offset if offset == regs::CAP + 4 => (CAPABILITY >> 32) as u32,
        regs::ECAP => EXTENDED as u32,
        offset if offset == regs::ECAP + 4 => (EXTENDED >> 32) as u32,
        _ => word(offset).load(Ordering::SeqCst),
    }
}

/// Writes 32 bits.
pub fn write32(offset: u32, value: u32) {
    if offset != regs::GCMD {
        word(offset).store(value, Ordering::SeqCst);
        return;
    }
    let once = value & regs::GLOBAL_ROOT_TABLE;
    let is_stuck = machine().options.fake_unit == Some(FakeUnit::Stuck);
    let value = match is_stuck {
        true => value & !regs::GLOBAL_TRANSLATION,
        false => value,
    };
    let was = read32(regs::GSTS);
    word(regs::GSTS).store(value & regs::GLOBAL_STATES | once, Ordering::SeqCst);
    if value & !was & regs::GLOBAL_TRANSLATION != 0 {
        look();
    }
}

/// Reads 64 bits.
pub fn read64(offset: u32) -> u64 {
    u64::from(read32(offset)) | u64::from(read32(offset + 4)) << 32
}

/// Writes 64 bits.
pub fn write64(offset: u32, value: u64) {
    let value = match offset {
        regs::CCMD | IOTLB => value & !AT_WORK,
        _ => value,
    };
    write32(offset, value as u32);
    write32(offset + 4, (value >> 32) as u32);
}

/// What a device reaches: all but Umbra's memory and the unit's registers.
fn look() {
    let layout = layout();
    let end = layout.hidden_start + layout.hidden_bytes;
    for (address, is_open) in [
        (0x1000, true),
        (layout.hidden_start - 1, true),
        (layout.hidden_start, false),
        (layout.hidden_start + layout.hidden_bytes / 2, false),
        (end - 1, false),
        (end, true),
    ] {
        assert_eq!(reaches(address), is_open, "a device at {address:#x}");
    }
    for range in layout.registers.iter() {
        assert!(!reaches(range.start), "a device at {:#x}", range.start);
        assert!(reaches(range.end), "a device at {:#x}", range.end);
    }
}

/// Whether device 0:0.0 reaches the address.
fn reaches(address: u64) -> bool {
    let root = read64(regs::RTADDR) & !0xfff;
    let context = entry(root, 0) & !0xfff;
    let mut table = entry(context, 0) & !0xfff;
    for level in (0..3).rev() {
        let entry = entry(table, address >> (12 + 9 * level) & 0x1ff);
        if entry & 3 == 0 || level == 0 || entry & 1 << 7 != 0 {
            return entry & 3 == 3;
        }
        table = entry & !0xfff;
    }
    false
}

fn entry(table: u64, index: u64) -> u64 {
    assert!(
        layout().touches_hidden(Gpa1::new(table), 4096),
        "a table of L1's"
    );
    // SAFETY: a page of L0's block, which is mapped; aligned.
    unsafe { pointer(table + 8 * index).cast::<u64>().read_volatile() }
}

//! The boot loader's information, copied into the image: it lies in memory
//! that is about to become L1's.

use crate::cannot_start;
use crate::mem::L1Physical;
use core::cell::UnsafeCell;
use umbra_arch::Gpa1;
use umbra_guests::BootInfo;

/// The most that is taken; GRUB's has a few KiB. Command lines are the part
/// that grows.
pub const MAX_BYTES: usize = 64 * 1024;

struct Buffer(UnsafeCell<[u8; MAX_BYTES]>);

// SAFETY: written by `copy`, once, on the only CPU that runs then.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new([0; MAX_BYTES]));

/// Copies and reads the information at physical address `address`. Called
/// once.
pub fn copy(magic: u32, address: u64) -> BootInfo<'static> {
    let memory = L1Physical::early();
    let mut head = [0; 8];
    if let Err(error) = memory.read_bytes(Gpa1::new(address), &mut head) {
        cannot_start!("the boot loader's information: {error}");
    }
    let total = match BootInfo::total_bytes(&head) {
        Ok(total) => total,
        Err(error) => cannot_start!("{error}"),
    };
    if total > MAX_BYTES {
        cannot_start!(
            "the boot loader's information has {total} bytes, and Umbra takes at most {MAX_BYTES}: shorten the command lines"
        );
    }
    // SAFETY: one CPU runs, and this is the first and only borrow.
    let buffer = unsafe { &mut *BUFFER.0.get() };
    let bytes = &mut buffer[..total];
    if let Err(error) = memory.read_bytes(Gpa1::new(address), bytes) {
        cannot_start!("the boot loader's information: {error}");
    }
    match BootInfo::parse(magic, bytes) {
        Ok(info) => info,
        Err(error) => cannot_start!("{error}"),
    }
}

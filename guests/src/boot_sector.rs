//! A BIOS boot sector as L1.

use crate::error::Error;
use crate::handover::Handover;
use crate::phys::{PhysMemory, Region};
use crate::space::Space;
use crate::state::StartState;

/// Where the BIOS puts a boot sector.
const LOAD_ADDRESS: u64 = 0x7c00;
/// Its length in bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The first hard disk, for a boot loader that did not say where it came from.
const FIRST_HARD_DISK: u8 = 0x80;

/// The BIOS drive that the command line names: `drive=0x80` is the first hard
/// disk. Umbra's own boot loader may have come from another one.
fn asked_drive(command_line: &[u8]) -> Result<Option<u8>, Error> {
    let mut words = command_line.split(|&byte| byte == b' ');
    let Some(value) = words.find_map(|word| word.strip_prefix(b"drive=")) else {
        return Ok(None);
    };
    core::str::from_utf8(value)
        .ok()
        .and_then(|text| match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        })
        .map(Some)
        .ok_or(Error::BadDrive)
}

/// Loads the sector and gives the state in which the BIOS enters it: real
/// mode, DL the drive, the stack right below the code.
pub(crate) fn start<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
) -> Result<StartState, Error> {
    if handover.efi.is_some() {
        return Err(Error::NoBios);
    }
    let mut space = Space::new(handover.map);
    space.take_fixed(Region::new(LOAD_ADDRESS, SECTOR_BYTES), "the boot sector")?;
    mem.copy_within(LOAD_ADDRESS, handover.kernel.start, SECTOR_BYTES)?;

    let mut state = StartState::real(LOAD_ADDRESS as u16);
    let drive = match asked_drive(handover.command_line)? {
        Some(drive) => drive,
        None => handover
            .boot_device
            .and_then(|d| u8::try_from(d.bios_drive).ok())
            .unwrap_or(FIRST_HARD_DISK),
    };
    state.gpr.rdx = u64::from(drive);
    state.gpr.rsp = LOAD_ADDRESS;
    Ok(state)
}

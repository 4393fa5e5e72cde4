//! The end of the run.
//!
//! Bochs stops when the letters of `Shutdown` are written to port 0x8900; other machines ignore
//! that and are switched off by ACPI S5. Section title: "Transitioning from the Working to the
//! Soft Off State" of the ACPI Specification.

use crate::console;
use crate::cpu::{halt, outb, outw};

/// Switches the machine off. Never prints: the program's last line is the transcript's last.
pub fn end_run() -> ! {
    console::drain();
    for letter in *b"Shutdown" {
        outb(0x8900, letter);
    }
    if let Some((port, value)) = soft_off() {
        outw(port, value);
    }
    halt()
}

/// Bytes of physical memory below 4 GiB, or `None` when the range is not there.
fn bytes(address: u32, length: u32) -> Option<&'static [u8]> {
    if address == 0 || address.checked_add(length).is_none() || length > 0x10_0000 {
        return None;
    }
    // SAFETY: the first 4 GiB are mapped one to one; ACPI tables are RAM or ROM that nobody writes
    // while this program, the only one on the machine, reads them. The length is bounded above.
    Some(unsafe { core::slice::from_raw_parts(address as usize as *const u8, length as usize) })
}

fn u32_at(table: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        table.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

/// A whole ACPI table, by the length in its header.
fn table(address: u32) -> Option<&'static [u8]> {
    let length = u32_at(bytes(address, 8)?, 4)?;
    bytes(address, length)
}

/// The PM1a control port and the value that enters S5, from the FADT and the `\_S5_` package.
fn soft_off() -> Option<(u16, u16)> {
    let bios = bytes(0xe_0000, 0x2_0000)?;
    let rsdp = bios
        .chunks_exact(16)
        .find(|chunk| chunk.starts_with(b"RSD PTR "))?;
    // The RSDT address lies at offset 16, in the next chunk.
    let offset = rsdp.as_ptr() as usize - bios.as_ptr() as usize;
    let rsdt = table(u32_at(bios, offset + 16)?)?;
    let fadt = rsdt.get(36..)?.chunks_exact(4).find_map(|entry| {
        let found = table(u32_at(entry, 0)?)?;
        found.starts_with(b"FACP").then_some(found)
    })?;
    let port = u32_at(fadt, 64)? as u16;
    let dsdt = table(u32_at(fadt, 40)?)?;
    let at = dsdt.windows(5).position(|bytes| bytes == b"_S5_\x12")?;
    // After the name: PackageOp, PkgLength (1 byte here), NumElements, then SLP_TYPa as a byte
    // constant with or without its prefix.
    let package = dsdt.get(at + 5..at + 12)?;
    let sleep_type = if package[2] == 0x0a {
        package[3]
    } else {
        package[2]
    };
    Some((port, u16::from(sleep_type) << 10 | 1 << 13))
}

//! The end of the run.
//!
//! Bochs stops when the letters of `Shutdown` are written to port 0x8900; other machines ignore
//! that and are switched off by ACPI S5. Section title: "Transitioning from the Working to the
//! Soft Off State" of the ACPI Specification.

use crate::acpi;
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

/// The PM1a control port and the value that enters S5, from the FADT and the `\_S5_` package.
fn soft_off() -> Option<(u16, u16)> {
    let fadt = acpi::find(*b"FACP")?;
    let port = acpi::u32_at(fadt, 64)? as u16;
    let dsdt = acpi::table(acpi::u32_at(fadt, 40)?)?;
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

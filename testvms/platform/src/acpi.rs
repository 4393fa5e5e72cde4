//! What the firmware's tables tell of DMA-remapping units, and what answers where the first of
//! them has its registers.
//!
//! ACPI Specification, "Finding the RSDP on IA-PC Systems"; VT-d "DMA Remapping Reporting
//! Structure".

use rt::case;

/// Where chipsets have the registers of their first unit.
const REGISTERS: u64 = 0xfed9_0000;
const HEADER_BYTES: u64 = 36;

fn word(address: u64) -> u32 {
    // SAFETY: low memory and what lies below 4 GiB is mapped; the tables are there.
    unsafe { (address as *const u32).read_unaligned() }
}

fn byte(address: u64) -> u8 {
    // SAFETY: as for `word`.
    unsafe { (address as *const u8).read() }
}

fn sum(address: u64, bytes: u64) -> u8 {
    (0..bytes).fold(0, |sum, n| sum.wrapping_add(byte(address + n)))
}

/// The RSDP: in the first KiB of the EBDA, or among the BIOS's read-only memory.
fn rsdp() -> Option<u64> {
    let ebda = u64::from(word(0x40e) & 0xffff) << 4;
    let places = [(ebda, ebda + 0x400), (0xe_0000, 0x10_0000)];
    places
        .into_iter()
        .filter(|(start, _)| *start != 0)
        .flat_map(|(start, end)| (start..end).step_by(16))
        .find(|&at| word(at) == u32::from_le_bytes(*b"RSD ") && sum(at, 20) == 0)
}

/// Prints it.
pub fn run() {
    let Some(rsdp) = rsdp() else {
        case!("acpi: no root pointer");
        return;
    };
    let rsdt = u64::from(word(rsdp + 16));
    let count = (u64::from(word(rsdt + 4)) - HEADER_BYTES) / 4;
    let tables = || (0..count).map(|n| u64::from(word(rsdt + HEADER_BYTES + 4 * n)));
    let has_dmar = tables().any(|at| word(at) == u32::from_le_bytes(*b"DMAR"));
    let are_whole = tables().all(|at| sum(at, word(at + 4).into()) == 0);
    case!("acpi: a DMAR table: {has_dmar}; sums of all tables are 0: {are_whole}");
    // SAFETY: mapped, and a device's registers or nothing.
    let version = unsafe { (REGISTERS as *const u32).read_volatile() };
    case!("acpi: the registers of a first unit: {version:08x}");
}

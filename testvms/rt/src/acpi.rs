//! ACPI tables, as far as a test VM reads them. Section titles: "Root System Description Pointer
//! (RSDP)", "Multiple APIC Description Table (MADT)" of the ACPI Specification.

/// Bytes of physical memory below 4 GiB, or `None` when the range is not there.
fn bytes(address: u32, length: u32) -> Option<&'static [u8]> {
    if address == 0 || address.checked_add(length).is_none() || length > 0x10_0000 {
        return None;
    }
    // SAFETY: the first 4 GiB are mapped one to one; ACPI tables are RAM or ROM that nobody writes
    // while this program, the only one on the machine, reads them. The length is bounded above.
    Some(unsafe { core::slice::from_raw_parts(address as usize as *const u8, length as usize) })
}

/// The 32-bit word at a byte offset.
pub fn u32_at(table: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        table.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

/// A whole ACPI table, by the length in its header.
pub fn table(address: u32) -> Option<&'static [u8]> {
    let length = u32_at(bytes(address, 8)?, 4)?;
    bytes(address, length)
}

/// The table with this signature.
pub fn find(signature: [u8; 4]) -> Option<&'static [u8]> {
    let bios = bytes(0xe_0000, 0x2_0000)?;
    let rsdp = bios
        .chunks_exact(16)
        .find(|chunk| chunk.starts_with(b"RSD PTR "))?;
    // The RSDT address lies at offset 16, in the next chunk.
    let offset = rsdp.as_ptr() as usize - bios.as_ptr() as usize;
    let rsdt = table(u32_at(bios, offset + 16)?)?;
    rsdt.get(36..)?.chunks_exact(4).find_map(|entry| {
        let found = table(u32_at(entry, 0)?)?;
        found.starts_with(&signature).then_some(found)
    })
}

/// The local APIC ids of the CPUs that the MADT lists as enabled, in its order.
pub fn apic_ids() -> impl Iterator<Item = u32> {
    let mut rest = find(*b"APIC")
        .and_then(|madt| madt.get(44..))
        .unwrap_or(&[]);
    core::iter::from_fn(move || {
        while let [kind, length, ..] = *rest {
            let length = usize::from(length);
            let entry = rest.get(..length).filter(|_| length >= 2)?;
            rest = &rest[length..];
            // Local APIC; local x2APIC.
            let (id, flags) = match kind {
                0 => (u32::from(*entry.get(3)?), u32_at(entry, 4)?),
                9 => (u32_at(entry, 4)?, u32_at(entry, 8)?),
                _ => continue,
            };
            if flags & 1 != 0 {
                return Some(id);
            }
        }
        None
    })
}

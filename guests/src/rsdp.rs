//! Finding the ACPI root pointer of a BIOS machine.

use crate::bytes::u16_at;
use crate::phys::PhysMemory;

/// Length of the ACPI 1.0 structure, the part the first checksum covers.
const V1_BYTES: usize = 20;

/// The physical address of the RSDP: looked for in the first KiB of the
/// extended BIOS data area and in 0xe0000-0xfffff (ACPI Specification,
/// "Finding the RSDP on IA-PC Systems").
pub fn find<M: PhysMemory>(mem: &M) -> Option<u64> {
    let mut word = [0; 2];
    // The BIOS data area names the segment of its extension at 0x40e.
    let ebda = mem
        .read(0x40e, &mut word)
        .ok()
        .and_then(|()| u16_at(&word, 0))
        .map_or(0, |segment| u64::from(segment) << 4);
    let in_ebda = (0x400..0xa_0000)
        .contains(&ebda)
        .then(|| scan(mem, ebda, 1024))
        .flatten();
    in_ebda.or_else(|| scan(mem, 0xe_0000, 0x2_0000))
}

fn scan<M: PhysMemory>(mem: &M, start: u64, len_bytes: u64) -> Option<u64> {
    (start..start + len_bytes).step_by(16).find(|&address| {
        let mut rsdp = [0; V1_BYTES];
        mem.read(address, &mut rsdp).is_ok()
            && rsdp.starts_with(b"RSD PTR ")
            && rsdp.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)) == 0
    })
}

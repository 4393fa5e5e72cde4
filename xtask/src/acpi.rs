//! ACPI tables for Bochs's machine where UEFI starts it: OVMF takes its own from
//! a device that Bochs 3.0 lacks. GRUB's `acpi` command puts them in place.
//!
//! ACPI Specification, "Fixed ACPI Description Table (FADT)", "Multiple APIC
//! Description Table (MADT)", "\_Sx (System States)".

/// Where OVMF puts the power-management registers of the PIIX4.
const PM_BASE: u32 = 0xb000;
const HEADER_BYTES: usize = 36;

/// The files that GRUB is to load, each with its name.
pub fn tables(cpus: u32) -> [(&'static str, Vec<u8>); 3] {
    [("facp", fadt()), ("apic", madt(cpus)), ("dsdt", dsdt())]
}

/// A table: its header, its body, its checksum.
pub fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    table.extend(signature);
    table.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    table.extend([revision, 0]);
    table.extend(b"UMBRA BOCHSPC ");
    table.extend(1u32.to_le_bytes());
    table.extend(b"UMBR");
    table.extend(1u32.to_le_bytes());
    table.extend(body);
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// The ports of the power-management registers. GRUB fills in where the DSDT is.
fn fadt() -> Vec<u8> {
    let mut body = vec![0; 116 - HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        let at = at - HEADER_BYTES;
        body[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(46, &9u16.to_le_bytes()); // SCI_INT
    put(48, &0xb2u32.to_le_bytes()); // SMI_CMD
    put(52, &[0xf1, 0xf0]); // ACPI_ENABLE, ACPI_DISABLE
    put(56, &PM_BASE.to_le_bytes()); // PM1a_EVT_BLK
    put(64, &(PM_BASE + 4).to_le_bytes()); // PM1a_CNT_BLK
    put(76, &(PM_BASE + 8).to_le_bytes()); // PM_TMR_BLK
    put(88, &[4, 2, 0, 4]); // lengths of PM1_EVT, PM1_CNT, PM2_CNT, PM_TMR
    // P_LVL2_LAT and P_LVL3_LAT: neither state is there.
    put(96, &0xfffu16.to_le_bytes());
    put(98, &0xfffu16.to_le_bytes());
    // WBINVD, C1 on all CPUs, no sleep button, no wake by the real-time clock.
    put(112, &(1u32 | 1 << 2 | 1 << 5 | 1 << 6).to_le_bytes());
    table(b"FACP", 1, &body)
}

/// Local APICs 0 to `cpus` - 1, one I/O APIC after them, and where its inputs
/// are not the interrupts of the PIC.
fn madt(cpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xfee0_0000u32.to_le_bytes());
    body.extend(1u32.to_le_bytes()); // PCAT_COMPAT
    for id in 0..cpus {
        body.extend([0, 8, id as u8, id as u8]);
        body.extend(1u32.to_le_bytes()); // enabled
    }
    body.extend([1, 12, cpus as u8, 0]);
    body.extend(0xfec0_0000u32.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    // ISA interrupt, input, flags: the timer as it comes; PCI's and the SCI
    // active high and by level.
    for (irq, input, flags) in [
        (0u8, 2u32, 0u16),
        (5, 5, 13),
        (9, 9, 13),
        (10, 10, 13),
        (11, 11, 13),
    ] {
        body.extend([2, 10, 0, irq]);
        body.extend(input.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    table(b"APIC", 1, &body)
}

/// What switches the machine off: `Name (_S5, Package () {0, 0, 0, 0})`.
fn dsdt() -> Vec<u8> {
    let body = [
        0x08, b'_', b'S', b'5', b'_', // NameOp
        0x12, 6, 4, // PackageOp, its length, four elements
        0, 0, 0, 0,
    ];
    table(b"DSDT", 1, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_length_and_sums_up_to_zero() {
        for (name, table) in tables(3) {
            assert_eq!(table[..4], *name.to_uppercase().as_bytes());
            assert_eq!(table[4..8], (table.len() as u32).to_le_bytes());
            assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        }
        assert_eq!(fadt().len(), 116);
        assert_eq!(madt(3).len() - madt(1).len(), 16);
    }
}

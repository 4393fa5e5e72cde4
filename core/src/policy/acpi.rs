//! The few things that Umbra asks of the ACPI tables: which CPUs there are,
//! and the ports of the power-management registers.
//!
//! ACPI Specification, "Root System Description Pointer", "Multiple APIC
//! Description Table", "Fixed ACPI Description Table".

use umbra_guests::{PhysMemory, Unreachable};

/// How many CPUs Umbra runs.
pub const MAX_CPUS: usize = 64;

/// Bytes of a table's header.
pub(crate) const HEADER_BYTES: u64 = 36;
/// Where a table has its checksum.
pub(crate) const CHECKSUM: u64 = 9;
/// The longest table that is taken seriously, in bytes.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// Why the tables cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No RSDP, or a damaged one.
    NoRoot,
    /// A table lies where there is no memory.
    Unreachable(u64),
    /// A table's length cannot be.
    Length(u64),
    /// A table's bytes do not sum up to 0.
    Checksum(u64),
    /// More than [`MAX_CPUS`] CPUs.
    TooManyCpus,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoRoot => write!(f, "the machine has no ACPI root pointer"),
            Self::Unreachable(at) => write!(f, "an ACPI table at {at:#x} is out of reach"),
            Self::Length(at) => write!(f, "the ACPI table at {at:#x} has an impossible length"),
            Self::Checksum(at) => write!(f, "the ACPI table at {at:#x} has a wrong checksum"),
            Self::TooManyCpus => write!(f, "the machine has more than {MAX_CPUS} CPUs"),
        }
    }
}

impl From<Unreachable> for Error {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error.address)
    }
}

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The local APIC ids of the CPUs that are enabled.
    pub apic_ids: heapless::Vec<u32, MAX_CPUS>,
    /// The ports of the PM1a and PM1b control registers; 0: none.
    pub pm1_control: [u16; 2],
    /// The port of the reset register and what is written there to reset the
    /// machine, where that register is one byte of I/O space.
    pub reset: Option<(u16, u8)>,
    /// The physical address of the DSDT; 0: none.
    pub dsdt: u64,
    /// The physical address of the DMAR table, whose structures are not looked at; 0: none.
    pub dmar: u64,
    /// The port of the power-management timer; 0: none.
    pub pm_timer: u16,
    /// Whether that timer has 32 bits (else 24).
    pub pm_timer_is_32_bit: bool,
}

pub(crate) fn number<const N: usize>(
    memory: &impl PhysMemory,
    at: u64,
) -> Result<u64, Unreachable> {
    let mut bytes = [0; 8];
    memory.read(at, &mut bytes[..N])?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads the tables from the RSDP at `rsdp` on.
///
/// # Errors
/// [`Error`]: a table that is needed on the way is damaged or out of reach.
/// Tables that are not there leave their part of the answer empty.
pub fn read(memory: &impl PhysMemory, rsdp: u64) -> Result<Machine, Error> {
    let revision = number::<1>(memory, rsdp.wrapping_add(15))?;
    let rsdt = number::<4>(memory, rsdp.wrapping_add(16))?;
    let xsdt = if revision >= 2 {
        number::<8>(memory, rsdp.wrapping_add(24))?
    } else {
        0
    };
    let (root, entry_bytes) = match (xsdt, rsdt) {
        (0, 0) => return Err(Error::NoRoot),
        (0, rsdt) => (rsdt, 4),
        (xsdt, _) => (xsdt, 8),
    };
    let root_bytes = check(memory, root)?;
    let mut machine = Machine::default();
    let mut at = root + HEADER_BYTES;
    while at + entry_bytes <= root + root_bytes {
        let table = if entry_bytes == 4 {
            number::<4>(memory, at)?
        } else {
            number::<8>(memory, at)?
        };
        at += entry_bytes;
        match &number::<4>(memory, table)?.to_le_bytes()[..4] {
            b"APIC" => madt(memory, table, &mut machine)?,
            b"FACP" => fadt(memory, table, &mut machine)?,
            b"DMAR" => machine.dmar = table,
            _ => {}
        }
    }
    Ok(machine)
}

/// Gives the table at `table` another signature, so that L1 does not find it, and keeps its
/// sum.
///
/// # Errors
/// [`Error`]: it is out of reach, or cannot be written.
pub fn hide(memory: &mut impl PhysMemory, table: u64) -> Result<(), Error> {
    const FIRST: u8 = b'X';
    let old = number::<1>(memory, table)? as u8;
    let sum = number::<1>(memory, table + CHECKSUM)? as u8;
    memory.write(table, &[FIRST])?;
    memory.write(
        table + CHECKSUM,
        &[sum.wrapping_add(old).wrapping_sub(FIRST)],
    )?;
    match number::<1>(memory, table)? as u8 {
        FIRST => Ok(()),
        _ => Err(Error::Unreachable(table)),
    }
}

/// Checks a table's length and sum; gives the length in bytes.
pub(crate) fn check(memory: &impl PhysMemory, table: u64) -> Result<u64, Error> {
    let bytes = number::<4>(memory, table.wrapping_add(4))?;
    if !(HEADER_BYTES..=MAX_TABLE_BYTES).contains(&bytes) || table.checked_add(bytes).is_none() {
        return Err(Error::Length(table));
    }
    let mut sum = 0u8;
    let mut chunk = [0; 64];
    let mut done = 0;
    while done < bytes {
        let part = (bytes - done).min(chunk.len() as u64) as usize;
        memory.read(table + done, &mut chunk[..part])?;
        sum = chunk[..part].iter().fold(sum, |s, &b| s.wrapping_add(b));
        done += part as u64;
    }
    if sum == 0 {
        Ok(bytes)
    } else {
        Err(Error::Checksum(table))
    }
}

fn madt(memory: &impl PhysMemory, table: u64, machine: &mut Machine) -> Result<(), Error> {
    let end = table + check(memory, table)?;
    let mut at = table + HEADER_BYTES + 8;
    while at + 2 <= end {
        let kind = number::<1>(memory, at)?;
        let bytes = number::<1>(memory, at + 1)?;
        if bytes < 2 || at + bytes > end {
            return Err(Error::Length(table));
        }
        let found = match (kind, bytes) {
            // Local APIC: id at 3, flags at 4.
            (0, 8..) => Some((number::<1>(memory, at + 3)?, number::<4>(memory, at + 4)?)),
            // Local x2APIC: id at 4, flags at 8.
            (9, 16..) => Some((number::<4>(memory, at + 4)?, number::<4>(memory, at + 8)?)),
            _ => None,
        };
        if let Some((id, flags)) = found
            && flags & 1 != 0
            && !machine.apic_ids.contains(&(id as u32))
        {
            machine
                .apic_ids
                .push(id as u32)
                .map_err(|_| Error::TooManyCpus)?;
        }
        at += bytes;
    }
    Ok(())
}

/// The I/O port of a register: from its old field (4 bytes at `old`), else
/// from its generic address (at `new`) if that is in I/O space.
fn port(
    memory: &impl PhysMemory,
    table: u64,
    bytes: u64,
    old: u64,
    new: u64,
) -> Result<u16, Error> {
    let mut found = 0;
    if old + 4 <= bytes {
        found = number::<4>(memory, table + old)?;
    }
    if found == 0 && new + 12 <= bytes && number::<1>(memory, table + new)? == 1 {
        found = number::<8>(memory, table + new + 4)?;
    }
    Ok(u16::try_from(found).unwrap_or(0))
}

fn fadt(memory: &impl PhysMemory, table: u64, machine: &mut Machine) -> Result<(), Error> {
    let bytes = check(memory, table)?;
    machine.pm1_control = [
        port(memory, table, bytes, 64, 172)?,
        port(memory, table, bytes, 68, 184)?,
    ];
    // DSDT, and X_DSDT, which counts where it is there.
    machine.dsdt = number::<4>(memory, table + 40)?;
    if bytes >= 148 {
        match number::<8>(memory, table + 140)? {
            0 => {}
            wide => machine.dsdt = wide,
        }
    }
    machine.pm_timer = port(memory, table, bytes, 76, 208)?;
    if bytes >= 116 {
        // TMR_VAL_EXT.
        machine.pm_timer_is_32_bit = number::<4>(memory, table + 112)? & 1 << 8 != 0;
    }
    if bytes >= 129 {
        // RESET_REG_SUP; the register's address space, width and address; the value.
        let is_there = number::<4>(memory, table + 112)? & 1 << 10 != 0;
        let kind = number::<2>(memory, table + 116)?;
        let at = number::<8>(memory, table + 120)?;
        let value = number::<1>(memory, table + 128)? as u8;
        machine.reset = u16::try_from(at)
            .ok()
            .filter(|&at| is_there && kind == 0x0801 && at != 0)
            .map(|at| (at, value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Memory of some bytes from address 0 on.
    struct Bytes(Vec<u8>);

    impl PhysMemory for Bytes {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable> {
            let start = usize::try_from(address).map_err(|_| Unreachable { address })?;
            let from = start
                .checked_add(bytes.len())
                .and_then(|end| self.0.get(start..end))
                .ok_or(Unreachable { address })?;
            bytes.copy_from_slice(from);
            Ok(())
        }
        fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
            let start = usize::try_from(address).map_err(|_| Unreachable { address })?;
            let to = start
                .checked_add(bytes.len())
                .and_then(|end| self.0.get_mut(start..end))
                .ok_or(Unreachable { address })?;
            to.copy_from_slice(bytes);
            Ok(())
        }
        fn zero(&mut self, address: u64, _: u64) -> Result<(), Unreachable> {
            Err(Unreachable { address })
        }
        fn copy_within(&mut self, address: u64, _: u64, _: u64) -> Result<(), Unreachable> {
            Err(Unreachable { address })
        }
    }

    impl Bytes {
        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn table(&mut self, at: usize, name: &[u8; 4], body: &[u8]) {
            let length = 36 + body.len();
            self.put(at, name);
            self.put(at + 4, &(length as u32).to_le_bytes());
            self.put(at + 36, body);
            self.0[at + 9] = 0;
            let sum = self.0[at..at + length]
                .iter()
                .fold(0u8, |s, &b| s.wrapping_add(b));
            self.0[at + 9] = 0u8.wrapping_sub(sum);
        }
    }

    fn machine_with(madt_entries: &[u8]) -> Bytes {
        let mut memory = Bytes(vec![0; 8192]);
        memory.put(0, b"RSD PTR ");
        memory.put(16, &0x100u32.to_le_bytes());
        let mut root = Vec::new();
        root.extend_from_slice(&0x200u32.to_le_bytes());
        root.extend_from_slice(&0x800u32.to_le_bytes());
        memory.table(0x100, b"RSDT", &root);
        let mut body = vec![0; 8];
        body.extend_from_slice(madt_entries);
        memory.table(0x200, b"APIC", &body);
        let mut fadt = vec![0; 80];
        fadt[28..32].copy_from_slice(&0xb004u32.to_le_bytes());
        fadt[40..44].copy_from_slice(&0xb008u32.to_le_bytes());
        fadt[77] = 1;
        memory.table(0x800, b"FACP", &fadt);
        memory
    }

    #[test]
    fn cpus_and_ports_are_found() {
        let memory = machine_with(&[
            0, 8, 0, 5, 1, 0, 0, 0, // enabled, id 5
            0, 8, 1, 6, 0, 0, 0, 0, // disabled
            1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // an I/O APIC
            9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // id 0x100
            0, 8, 0, 5, 1, 0, 0, 0, // again
        ]);
        let machine = read(&memory, 0).expect("tables");
        assert_eq!(machine.apic_ids.as_slice(), [5, 0x100]);
        assert_eq!(machine.pm1_control, [0xb004, 0]);
        assert_eq!(machine.pm_timer, 0xb008);
        assert!(machine.pm_timer_is_32_bit);
    }

    #[test]
    fn a_table_can_be_hidden() {
        let mut memory = machine_with(&[]);
        memory.table(0x200, b"DMAR", &[38, 0, 1, 2, 3]);
        assert_eq!(read(&memory, 0).expect("tables").dmar, 0x200);
        hide(&mut memory, 0x200).expect("it is there");
        assert_eq!(read(&memory, 0).expect("tables").dmar, 0);
        assert!(check(&memory, 0x200).is_ok(), "its sum");
        assert!(hide(&mut memory, 1 << 40).is_err());
    }

    #[test]
    fn the_reset_register_is_used_where_it_is_a_port() {
        let reset = |flags: u32, kind: u16, at: u64| {
            let mut memory = machine_with(&[]);
            let mut fadt = vec![0; 93];
            fadt[76..80].copy_from_slice(&flags.to_le_bytes());
            fadt[80..82].copy_from_slice(&kind.to_le_bytes());
            fadt[84..92].copy_from_slice(&at.to_le_bytes());
            fadt[92] = 6;
            memory.table(0x800, b"FACP", &fadt);
            read(&memory, 0).expect("tables").reset
        };
        assert_eq!(reset(1 << 10, 0x0801, 0xcf9), Some((0xcf9, 6)));
        assert_eq!(reset(0, 0x0801, 0xcf9), None, "not supported");
        assert_eq!(reset(1 << 10, 0x0800, 0xcf9), None, "memory");
        assert_eq!(reset(1 << 10, 0x0801, 0x1_0000), None, "no port");
        assert_eq!(read(&machine_with(&[]), 0).expect("tables").reset, None);
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(read(&Bytes(vec![0; 64]), 0), Err(Error::NoRoot));
        assert!(matches!(
            read(&Bytes(vec![0; 8]), u64::MAX - 3),
            Err(Error::Unreachable(_))
        ));
        let mut memory = machine_with(&[]);
        memory.0[0x110] ^= 1;
        assert_eq!(read(&memory, 0), Err(Error::Checksum(0x100)));
        assert_eq!(read(&machine_with(&[0, 0]), 0), Err(Error::Length(0x200)));
        assert_eq!(read(&machine_with(&[0, 200]), 0), Err(Error::Length(0x200)));
        let mut memory = machine_with(&[]);
        memory.put(0x104, &u32::MAX.to_le_bytes());
        assert_eq!(read(&memory, 0), Err(Error::Length(0x100)));
        let mut many = Vec::new();
        for id in 0..=MAX_CPUS as u8 {
            many.extend_from_slice(&[0, 8, id, id, 1, 0, 0, 0]);
        }
        assert_eq!(read(&machine_with(&many), 0), Err(Error::TooManyCpus));
    }

    #[test]
    fn an_endless_madt_ends() {
        // An entry at the very end, one byte short of a header.
        let machine = read(&machine_with(&[0]), 0).expect("tables");
        assert!(machine.apic_ids.is_empty());
    }
}

//! Made-up DMAR tables: Bochs has no unit, so that all of them have to be refused, in words.
//!
//! VT-d "DMA Remapping Reporting Structure".

use clap::ValueEnum;

use crate::acpi;

/// Where chipsets have the registers of their first unit; nothing answers there on Bochs.
const REGISTERS: u64 = 0xfed9_0000;
/// RAM of Bochs's machine, for the registers of a table that lies.
const RAM: u64 = 0x100_0000;

/// What is wrong with the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Dmar {
    /// Nothing, but that no unit is there.
    Absent,
    /// Nothing: Umbra's image for the tests makes the unit up as well.
    Fake,
    /// The same, but the unit does not begin to translate.
    Stuck,
    /// The registers are in RAM, which L1 fills as it likes.
    InRam,
    /// Two units have the same registers.
    Overlap,
    /// A structure is longer than the table.
    Long,
    /// There is no structure.
    Empty,
    /// A device's reserved memory ends before it begins.
    Reserved,
}

impl Dmar {
    /// The word that makes Umbra's image for the tests make the unit up, too.
    pub fn fake_unit(self) -> Option<&'static str> {
        match self {
            Self::Fake => Some(" fake-unit"),
            Self::Stuck => Some(" fake-unit=stuck"),
            _ => None,
        }
    }

    /// The table.
    pub fn table(self) -> Vec<u8> {
        let unit = unit(REGISTERS);
        let structures = match self {
            Self::Absent | Self::Fake | Self::Stuck => unit,
            Self::InRam => self::unit(RAM),
            Self::Overlap => [unit.clone(), unit].concat(),
            Self::Long => {
                let mut long = unit;
                long[2..4].copy_from_slice(&0x1000u16.to_le_bytes());
                long
            }
            Self::Empty => Vec::new(),
            Self::Reserved => [unit, reserved(0x2000, 0xfff)].concat(),
        };
        // The platform's width less one, no flags, ten reserved bytes.
        let mut body = vec![38, 0];
        body.extend([0; 10]);
        body.extend(structures);
        acpi::table(b"DMAR", 1, &body)
    }
}

/// A unit that serves all devices of segment 0.
fn unit(registers: u64) -> Vec<u8> {
    let mut unit = Vec::new();
    unit.extend(0u16.to_le_bytes());
    unit.extend(16u16.to_le_bytes());
    unit.extend([1, 0]);
    unit.extend(0u16.to_le_bytes());
    unit.extend(registers.to_le_bytes());
    unit
}

/// Memory that a device uses without the operating system.
fn reserved(first: u64, last: u64) -> Vec<u8> {
    let mut region = Vec::new();
    region.extend(1u16.to_le_bytes());
    region.extend(24u16.to_le_bytes());
    region.extend([0; 4]);
    region.extend(first.to_le_bytes());
    region.extend(last.to_le_bytes());
    region
}

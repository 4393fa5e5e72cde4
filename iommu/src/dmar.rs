//! The firmware's table of DMA-remapping units. VT-d "DMA Remapping Reporting
//! Structure" and the sections on each structure in it.
//!
//! The table comes from firmware, or from whoever put it where the firmware's
//! should be: every length in it is doubted.

use crate::mem::PAGE_BYTES;
use crate::ranges::Range;

/// How many units are driven.
pub const MAX_UNITS: usize = 32;
/// How many reserved-memory regions are kept.
pub const MAX_REGIONS: usize = 32;

/// An ACPI table's header, then the width, the flags and ten reserved bytes.
const HEADER_BYTES: usize = 48;
const WIDTH_AT: usize = 36;
const FLAGS_AT: usize = 37;
/// Type and length of a structure.
const PREFIX_BYTES: usize = 4;

/// A unit: DRHD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitEntry {
    /// Its register pages.
    pub registers: Range,
    /// The PCI segment whose devices it serves.
    pub segment: u16,
    /// It serves every device of the segment that no other unit names.
    pub is_catch_all: bool,
}

impl UnitEntry {
    /// How many bytes of registers there are.
    #[must_use]
    pub const fn register_bytes(&self) -> u64 {
        self.registers.end_hpa - self.registers.start_hpa
    }
}

/// What the table says, as far as confining devices needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmar {
    /// The widest address that the platform's DMA has, in bits.
    pub address_bits: u32,
    /// The platform can remap interrupts.
    pub interrupt_remapping: bool,
    /// The firmware asks for x2APIC to stay off.
    pub x2apic_opt_out: bool,
    /// The units.
    pub units: heapless::Vec<UnitEntry, MAX_UNITS>,
    /// Memory that devices use without the operating system: RMRR.
    pub reserved: heapless::Vec<Range, MAX_REGIONS>,
    /// How many structures there were of kinds that change nothing here: ATSR,
    /// RHSA, ANDD, and those of later revisions.
    pub others: u32,
}

/// Why the table cannot be trusted. The number is an offset in the table, in
/// bytes, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not a DMAR table.
    Signature,
    /// Shorter than its header, or than it says.
    Truncated,
    /// Its bytes do not sum up to 0.
    Checksum,
    /// A width of no known platform, in bits.
    Width(u32),
    /// A structure ends outside of the table, or is too short for its kind.
    Length(usize),
    /// A device scope ends outside of its structure, or is too short.
    Scope(usize),
    /// A unit's registers begin in the middle of a page, at 0, or beyond the
    /// platform's width.
    Registers(usize),
    /// The registers of two units overlap.
    Overlap(usize),
    /// A reserved region ends before it begins, or lies beyond the platform's width.
    Region(usize),
    /// More units than [`MAX_UNITS`].
    TooManyUnits,
    /// More reserved regions than [`MAX_REGIONS`].
    TooManyRegions,
    /// There is no unit in it.
    NoUnit,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Signature => write!(f, "the DMAR table has another signature"),
            Self::Truncated => write!(f, "the DMAR table is cut short"),
            Self::Checksum => write!(f, "the DMAR table has a wrong checksum"),
            Self::Width(bits) => write!(f, "the DMAR table tells of {bits}-bit addresses"),
            Self::Length(at) => {
                write!(f, "the DMAR structure at {at:#x} has an impossible length")
            }
            Self::Scope(at) => write!(
                f,
                "the DMAR device scope at {at:#x} has an impossible length"
            ),
            Self::Registers(at) => write!(
                f,
                "the DMAR unit at {at:#x} has its registers where none can be"
            ),
            Self::Overlap(at) => write!(
                f,
                "the DMAR unit at {at:#x} has its registers among another's"
            ),
            Self::Region(at) => write!(
                f,
                "the DMAR reserved region at {at:#x} is no range of memory"
            ),
            Self::TooManyUnits => write!(f, "the DMAR table has more than {MAX_UNITS} units"),
            Self::TooManyRegions => {
                write!(f, "the DMAR table has more than {MAX_REGIONS} regions")
            }
            Self::NoUnit => write!(f, "the DMAR table has no unit"),
        }
    }
}

/// The `N` bytes at `at`, as a number; `None` past the end.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    let end = at.checked_add(N)?;
    wide.get_mut(..N)?.copy_from_slice(bytes.get(at..end)?);
    Some(u64::from_le_bytes(wide))
}

impl Dmar {
    /// Reads the table. Bytes behind the length that it gives are no part of it.
    ///
    /// # Errors
    /// [`Error`]: what makes it useless. Nothing of such a table is used.
    pub fn parse(table: &[u8]) -> Result<Self, Error> {
        if table.get(..4).ok_or(Error::Truncated)? != b"DMAR" {
            return Err(Error::Signature);
        }
        let length = number::<4>(table, 4).ok_or(Error::Truncated)? as usize;
        let table = table.get(..length).ok_or(Error::Truncated)?;
        if length < HEADER_BYTES {
            return Err(Error::Truncated);
        }
        if table.iter().fold(0_u8, |sum, &b| sum.wrapping_add(b)) != 0 {
            return Err(Error::Checksum);
        }
        let width = number::<1>(table, WIDTH_AT).ok_or(Error::Truncated)? as u32 + 1;
        if !(20..=64).contains(&width) {
            return Err(Error::Width(width));
        }
        let flags = number::<1>(table, FLAGS_AT).ok_or(Error::Truncated)?;
        let mut dmar = Self {
            address_bits: width,
            interrupt_remapping: flags & 1 != 0,
            x2apic_opt_out: flags & 1 << 1 != 0,
            units: heapless::Vec::new(),
            reserved: heapless::Vec::new(),
            others: 0,
        };
        let mut at = HEADER_BYTES;
        while at < length {
            let kind = number::<2>(table, at).ok_or(Error::Length(at))?;
            let bytes = number::<2>(table, at + 2).ok_or(Error::Length(at))? as usize;
            if bytes < PREFIX_BYTES {
                return Err(Error::Length(at));
            }
            let structure = table.get(at..at + bytes).ok_or(Error::Length(at))?;
            dmar.take(kind, structure, at)?;
            at += bytes;
        }
        if dmar.units.is_empty() {
            return Err(Error::NoUnit);
        }
        Ok(dmar)
    }

    fn take(&mut self, kind: u64, structure: &[u8], at: usize) -> Result<(), Error> {
        match kind {
            0 => self.take_unit(structure, at),
            1 => self.take_region(structure, at),
            // ATSR, RHSA, ANDD: the bytes before what varies.
            2 => self.take_other(structure, at, 8, true),
            3 => self.take_other(structure, at, 20, false),
            4 => self.take_other(structure, at, 8, false),
            _ => self.take_other(structure, at, PREFIX_BYTES, false),
        }
    }

    fn take_unit(&mut self, structure: &[u8], at: usize) -> Result<(), Error> {
        let flags = number::<1>(structure, 4).ok_or(Error::Length(at))?;
        // Bits 3:0 of the byte behind: the number of register pages, as a
        // power of 2; 0 in older tables, where it was reserved.
        let size = number::<1>(structure, 5).ok_or(Error::Length(at))? & 0xf;
        let segment = number::<2>(structure, 6).ok_or(Error::Length(at))? as u16;
        let base = number::<8>(structure, 8).ok_or(Error::Length(at))?;
        check_scopes(structure, 16, at)?;
        let bytes = PAGE_BYTES << size;
        let registers = base
            .checked_add(bytes - 1)
            .filter(|last| base != 0 && base % PAGE_BYTES == 0 && self.is_within(*last))
            .and_then(|last| Range::touching(base, last))
            .ok_or(Error::Registers(at))?;
        if self.units.iter().any(|u| u.registers.overlaps(&registers)) {
            return Err(Error::Overlap(at));
        }
        let unit = UnitEntry {
            registers,
            segment,
            is_catch_all: flags & 1 != 0,
        };
        self.units.push(unit).map_err(|_| Error::TooManyUnits)
    }

    fn take_region(&mut self, structure: &[u8], at: usize) -> Result<(), Error> {
        let base = number::<8>(structure, 8).ok_or(Error::Length(at))?;
        let last = number::<8>(structure, 16).ok_or(Error::Length(at))?;
        check_scopes(structure, 24, at)?;
        // Firmware is known to miss the page boundaries that the specification
        // asks for: the whole pages count.
        let region = Some(last)
            .filter(|last| self.is_within(*last))
            .and_then(|last| Range::touching(base, last))
            .ok_or(Error::Region(at))?;
        self.reserved
            .push(region)
            .map_err(|_| Error::TooManyRegions)
    }

    fn take_other(
        &mut self,
        structure: &[u8],
        at: usize,
        fixed_bytes: usize,
        has_scopes: bool,
    ) -> Result<(), Error> {
        if structure.len() < fixed_bytes {
            return Err(Error::Length(at));
        }
        if has_scopes {
            check_scopes(structure, fixed_bytes, at)?;
        }
        self.others += 1;
        Ok(())
    }

    fn is_within(&self, last_hpa: u64) -> bool {
        self.address_bits == 64 || last_hpa >> self.address_bits == 0
    }
}

/// Whether the device scopes behind the first `fixed_bytes` are whole.
fn check_scopes(structure: &[u8], fixed_bytes: usize, at: usize) -> Result<(), Error> {
    let mut scope = fixed_bytes;
    while scope < structure.len() {
        let bytes = number::<1>(structure, scope + 1).ok_or(Error::Scope(at + scope))? as usize;
        // Type, length, reserved, enumeration id, bus, and one device and function.
        if bytes < 8 || !bytes.is_multiple_of(2) || scope + bytes > structure.len() {
            return Err(Error::Scope(at + scope));
        }
        scope += bytes;
    }
    Ok(())
}

//! What UEFI firmware leaves to the one that takes the machine over: the
//! system table, and the memory map with which boot services ended.
//!
//! UEFI Specification, "EFI System Table", "EFI_BOOT_SERVICES.GetMemoryMap()".

use crate::bytes::{align_down, align_up, u32_at, u64_at};
use crate::phys::{PhysMemory, Region};
use umbra_arch::paging::PAGE_BYTES;

/// Bytes of `EFI_MEMORY_DESCRIPTOR` that the specification defines.
pub(crate) const DESCRIPTOR_BYTES: usize = 40;
/// The longest descriptor that is taken seriously: firmware uses 48 bytes.
const MAX_DESCRIPTOR_BYTES: usize = 256;
/// The signature of the system table: "IBI SYST".
const SYSTEM_TABLE_SIGNATURE: u64 = 0x5453_5953_2049_4249;
/// Configuration tables of one machine that are looked at.
const MAX_CONFIGURATION_TABLES: u64 = 256;
/// `EFI_ACPI_20_TABLE_GUID` and `ACPI_TABLE_GUID`, as they lie in memory.
const ACPI_20: [u8; 16] = [
    0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81,
];
const ACPI_10: [u8; 16] = [
    0x30, 0x2d, 0x9d, 0xeb, 0x88, 0x2d, 0xd3, 0x11, 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d,
];

/// Memory types (`EFI_MEMORY_TYPE`).
pub mod memory_type {
    /// Not to be used.
    pub const RESERVED: u32 = 0;
    /// Code of boot services: free once they have ended, in principle.
    pub const BOOT_SERVICES_CODE: u32 = 3;
    /// Data of boot services: the same.
    pub const BOOT_SERVICES_DATA: u32 = 4;
}

/// What the firmware left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Efi<'a> {
    /// Physical address of the 64-bit system table.
    pub system_table: u64,
    /// The boot loader's image handle.
    pub image_handle: Option<u64>,
    /// The memory map.
    pub memory_map: EfiMemoryMap<'a>,
}

/// The firmware's memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiMemoryMap<'a> {
    /// Length of one descriptor in bytes.
    pub(crate) descriptor_bytes: usize,
    /// Version of the descriptors.
    pub(crate) version: u32,
    bytes: &'a [u8],
}

/// One descriptor of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor<'a> {
    /// What the memory is for: see [`memory_type`].
    pub kind: u32,
    /// Where it lies.
    pub region: Region,
    raw: &'a [u8],
}

impl<'a> EfiMemoryMap<'a> {
    /// Takes the body of a boot information's tag apart: length of a
    /// descriptor, version, descriptors (Multiboot2 Specification, "EFI memory
    /// map").
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn of_tag(body: &'a [u8]) -> Result<Self, &'static str> {
        let descriptor_bytes = u32_at(body, 0).unwrap_or(0) as usize;
        let version = u32_at(body, 4).unwrap_or(0);
        Self::new(descriptor_bytes, version, body.get(8..).unwrap_or_default())
    }

    /// The memory map whose descriptors are `bytes`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(
        descriptor_bytes: usize,
        version: u32,
        bytes: &'a [u8],
    ) -> Result<Self, &'static str> {
        if !(DESCRIPTOR_BYTES..=MAX_DESCRIPTOR_BYTES).contains(&descriptor_bytes)
            || !descriptor_bytes.is_multiple_of(8)
        {
            return Err("its descriptors have a length that no descriptor can have");
        }
        if bytes.is_empty() || !bytes.len().is_multiple_of(descriptor_bytes) {
            return Err("its last descriptor is cut off");
        }
        Ok(Self {
            descriptor_bytes,
            version,
            bytes,
        })
    }

    /// The descriptors, in the firmware's order.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor<'a>> + use<'a> {
        self.bytes
            .chunks_exact(self.descriptor_bytes)
            .filter_map(|raw| {
                let pages = u64_at(raw, 24)?;
                Some(Descriptor {
                    kind: u32_at(raw, 0)?,
                    region: Region::new(u64_at(raw, 8)?, pages.saturating_mul(PAGE_BYTES)),
                    raw,
                })
            })
    }

    /// What boot services used. Firmware has been seen to use it after their
    /// end, in SetVirtualAddressMap.
    pub fn boot_services(&self) -> impl Iterator<Item = Region> + use<'a> {
        self.descriptors()
            .filter(|d| {
                matches!(
                    d.kind,
                    memory_type::BOOT_SERVICES_CODE | memory_type::BOOT_SERVICES_DATA
                )
            })
            .map(|d| d.region)
    }

    /// The descriptors with every page of `region` reserved: one that it cuts
    /// is split.
    pub(crate) fn with_reserved(
        &self,
        region: Region,
    ) -> impl Iterator<Item = Descriptor<'a>> + use<'a> {
        let cut_start = align_down(region.start, PAGE_BYTES);
        let cut_end = align_up(region.start.saturating_add(region.len), PAGE_BYTES)
            .unwrap_or(!(PAGE_BYTES - 1));
        self.descriptors().flat_map(move |d| {
            let start = d.region.start;
            let end = start.saturating_add(d.region.len);
            // Where the cut begins and ends within this one.
            let from = cut_start.clamp(start, end);
            let to = cut_end.clamp(start, end);
            let part = |kind, first: u64, after: u64| {
                (first < after).then_some(Descriptor {
                    kind,
                    region: Region::new(first, after - first),
                    raw: d.raw,
                })
            };
            let parts = if from >= to {
                [Some(d), None, None]
            } else {
                [
                    part(d.kind, start, from),
                    part(memory_type::RESERVED, from, to),
                    part(d.kind, to, end),
                ]
            };
            parts.into_iter().flatten()
        })
    }
}

impl Descriptor<'_> {
    /// The descriptor as it stands in a memory map: what this version of the
    /// specification defines, changed as it was split; the rest follows in
    /// [`Self::tail`].
    pub(crate) fn head(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut head = [0; DESCRIPTOR_BYTES];
        for (to, from) in head.iter_mut().zip(self.raw) {
            *to = *from;
        }
        let mut put = |at: usize, bytes: &[u8]| {
            for (to, from) in head.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        };
        put(0, &self.kind.to_le_bytes());
        put(8, &self.region.start.to_le_bytes());
        put(24, &(self.region.len / PAGE_BYTES).to_le_bytes());
        head
    }

    /// What the firmware's descriptor has beyond that.
    pub(crate) fn tail(&self) -> &[u8] {
        self.raw.get(DESCRIPTOR_BYTES..).unwrap_or_default()
    }
}

/// The physical address of the RSDP, from the system table at `system_table`.
pub fn rsdp<M: PhysMemory>(mem: &M, system_table: u64) -> Option<u64> {
    let mut table = [0; 120];
    mem.read(system_table, &mut table).ok()?;
    if u64_at(&table, 0)? != SYSTEM_TABLE_SIGNATURE {
        return None;
    }
    let count = u64_at(&table, 104)?.min(MAX_CONFIGURATION_TABLES);
    let first = u64_at(&table, 112)?;
    let find = |guid: [u8; 16]| {
        (0..count).find_map(|index| {
            let mut entry = [0; 24];
            mem.read(first.checked_add(index * 24)?, &mut entry).ok()?;
            entry.starts_with(&guid).then(|| u64_at(&entry, 16))?
        })
    };
    find(ACPI_20).or_else(|| find(ACPI_10))
}

//! What the boot loader told Umbra: the multiboot2 boot information.
//!
//! Read from a byte slice, tag by tag (Multiboot2 Specification, "Boot
//! information format"). The `multiboot2` crate is not used for it: it wants a
//! raw pointer, and it asserts where a tag is shorter than its type.

use crate::bytes::{align_up, u8_at, u32_at, u64_at};
use crate::efi::{Efi, EfiMemoryMap};
use crate::memmap::{Kind, MemoryMap, TooManyEntries};
use crate::module::ModuleRef;
use crate::phys::Region;

/// EAX when a multiboot2 loader enters its kernel.
pub const LOADER_MAGIC: u32 = 0x36d7_6289;

/// Tags of one boot information that are looked at. A tag has at least eight
/// bytes, so this bounds nothing that a boot loader makes.
const MAX_TAGS: usize = 4096;

/// Tag types (Multiboot2 Specification, "Boot information format").
pub(crate) mod tag {
    pub(crate) const END: u32 = 0;
    pub(crate) const COMMAND_LINE: u32 = 1;
    pub(crate) const BOOT_LOADER_NAME: u32 = 2;
    pub(crate) const MODULE: u32 = 3;
    pub(crate) const BASIC_MEMINFO: u32 = 4;
    pub(crate) const BOOT_DEVICE: u32 = 5;
    pub(crate) const MEMORY_MAP: u32 = 6;
    pub(crate) const FRAMEBUFFER: u32 = 8;
    pub(crate) const ELF_SECTIONS: u32 = 9;
    pub(crate) const EFI32_SYSTEM_TABLE: u32 = 11;
    pub(crate) const EFI64_SYSTEM_TABLE: u32 = 12;
    pub(crate) const ACPI_OLD: u32 = 14;
    pub(crate) const ACPI_NEW: u32 = 15;
    pub(crate) const EFI_MEMORY_MAP: u32 = 17;
    pub(crate) const EFI_BOOT_SERVICES: u32 = 18;
    pub(crate) const EFI32_IMAGE_HANDLE: u32 = 19;
    pub(crate) const EFI64_IMAGE_HANDLE: u32 = 20;
    pub(crate) const LOAD_BASE_ADDRESS: u32 = 21;
}

/// Why the boot information cannot be used: one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// EAX was not what a multiboot2 loader passes.
    #[error(
        "the boot loader passed {0:#x} instead of multiboot2's {LOADER_MAGIC:#x}: use GRUB's multiboot2 command"
    )]
    NotMultiboot2(u32),
    /// Its length is nonsense, or more than there is.
    #[error("the boot loader's information says it has {said} bytes, and {there} are there")]
    Length {
        /// What it says, in bytes.
        said: u64,
        /// What there is, in bytes.
        there: u64,
    },
    /// A tag does not fit.
    #[error("tag {kind} at byte {offset:#x} of the boot loader's information is damaged: {what}")]
    Tag {
        /// Type of the tag.
        kind: u32,
        /// Where it begins.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// It does not end.
    #[error("the boot loader's information has no end tag")]
    NoEnd,
    /// Started by UEFI firmware of 32 bits.
    #[error(
        "the machine was started by 32-bit UEFI firmware, and Umbra needs a 64-bit one or a BIOS"
    )]
    Efi32,
    /// Boot services of UEFI still run.
    #[error("the boot loader left UEFI's boot services running: use GRUB's multiboot2 command")]
    BootServices,
    /// A system table of UEFI without its memory map.
    #[error("the boot loader passed UEFI's system table and not its memory map")]
    NoEfiMemoryMap,
    /// No memory map in it.
    #[error("the boot loader gave no memory map")]
    NoMemoryMap,
    /// A memory map that does not fit.
    #[error("{0}")]
    TooManyEntries(#[from] TooManyEntries),
}

/// Where the boot loader came from (tag 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootDevice {
    /// BIOS drive number: 0x00 first floppy, 0x80 first hard disk.
    pub bios_drive: u32,
    /// Top-level partition number, or all ones.
    pub partition: u32,
    /// Number of the partition inside it, or all ones.
    pub sub_partition: u32,
}

/// What kind of picture memory a framebuffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramebufferKind {
    /// Colours through a palette.
    Indexed,
    /// Direct colour.
    Rgb {
        /// Bit position and size in bits of red, green and blue.
        fields: [u8; 6],
    },
    /// Text cells of two bytes.
    Text,
}

/// The screen (tag 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address.
    pub address: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Width in pixels, or in characters for text.
    pub width: u32,
    /// Height in pixels, or in characters for text.
    pub height: u32,
    /// Bits a pixel, 16 for text.
    pub bits_per_pixel: u8,
    /// What is in it.
    pub kind: FramebufferKind,
}

impl Framebuffer {
    /// The text screen of every BIOS machine: 80 by 25 at 0xb8000.
    pub const VGA_TEXT: Framebuffer = Framebuffer {
        address: 0xb8000,
        pitch: 160,
        width: 80,
        height: 25,
        bits_per_pixel: 16,
        kind: FramebufferKind::Text,
    };
}

/// The boot information, checked once as a whole by [`BootInfo::parse`].
#[derive(Debug, Clone, Copy)]
pub struct BootInfo<'a> {
    /// From the first tag to the end tag.
    bytes: &'a [u8],
    command_line: &'a [u8],
    boot_loader_name: &'a [u8],
    memory_map: &'a [u8],
    memory_map_entry_bytes: usize,
    rsdp_v1: Option<&'a [u8]>,
    rsdp_v2: Option<&'a [u8]>,
    framebuffer: Option<Framebuffer>,
    boot_device: Option<BootDevice>,
    basic_memory_kib: Option<(u32, u32)>,
    efi_system_table: Option<u64>,
    efi_image_handle: Option<u64>,
    efi_memory_map: Option<EfiMemoryMap<'a>>,
}

impl<'a> BootInfo<'a> {
    /// How many bytes the boot information has, read from its first eight.
    ///
    /// # Errors
    /// [`Error::Length`] when that is too small to be one.
    pub fn total_bytes(head: &[u8]) -> Result<usize, Error> {
        let said = u32_at(head, 0).unwrap_or(0);
        if said < 16 || head.len() < 8 {
            return Err(Error::Length {
                said: u64::from(said),
                there: head.len() as u64,
            });
        }
        // A u32 always fits the usize of a machine that can run Umbra.
        Ok(said as usize)
    }

    /// Reads the boot information at the beginning of `bytes`, which may be
    /// longer. `magic` is what the boot loader left in EAX.
    ///
    /// # Errors
    /// One line about what was wrong, for anything that is not whole.
    pub fn parse(magic: u32, bytes: &'a [u8]) -> Result<Self, Error> {
        if magic != LOADER_MAGIC {
            return Err(Error::NotMultiboot2(magic));
        }
        let total = Self::total_bytes(bytes)?;
        let bytes = bytes.get(..total).ok_or(Error::Length {
            said: total as u64,
            there: bytes.len() as u64,
        })?;
        let mut info = BootInfo {
            bytes,
            command_line: &[],
            boot_loader_name: &[],
            memory_map: &[],
            memory_map_entry_bytes: 0,
            rsdp_v1: None,
            rsdp_v2: None,
            framebuffer: None,
            boot_device: None,
            basic_memory_kib: None,
            efi_system_table: None,
            efi_image_handle: None,
            efi_memory_map: None,
        };
        let mut tags = Tags::new(bytes);
        for tag in &mut tags {
            info.take(&tag?)?;
        }
        if !tags.ended {
            return Err(Error::NoEnd);
        }
        if info.memory_map_entry_bytes == 0 {
            return Err(Error::NoMemoryMap);
        }
        if info.efi_system_table.is_some() && info.efi_memory_map.is_none() {
            return Err(Error::NoEfiMemoryMap);
        }
        Ok(info)
    }

    /// Umbra's own command line, without the terminating NUL; empty if none.
    pub fn command_line(&self) -> &'a [u8] {
        self.command_line
    }

    /// The boot loader's name, without the terminating NUL; empty if none.
    pub fn boot_loader_name(&self) -> &'a [u8] {
        self.boot_loader_name
    }

    /// The modules, in order. The first is L1's kernel.
    pub fn modules(&self) -> impl Iterator<Item = ModuleRef<'a>> + use<'a> {
        Tags::new(self.bytes).filter_map(|tag| {
            let tag = tag.ok()?;
            module(&tag)
        })
    }

    /// The memory map, sorted out.
    ///
    /// # Errors
    /// [`Error::TooManyEntries`] when it has more than Umbra keeps.
    pub fn memory_map(&self) -> Result<MemoryMap, Error> {
        let mut map = MemoryMap::new();
        for (start, len, kind) in self.raw_memory_map() {
            map.add(start, len, kind)?;
        }
        Ok(map)
    }

    /// The memory map as it was given: start, length in bytes, kind.
    pub fn raw_memory_map(&self) -> impl Iterator<Item = (u64, u64, Kind)> + use<'a> {
        self.memory_map
            .chunks_exact(self.memory_map_entry_bytes.max(MEMORY_MAP_ENTRY_BYTES))
            .filter_map(|e| Some((u64_at(e, 0)?, u64_at(e, 8)?, Kind::new(u32_at(e, 16)?))))
    }

    /// A copy of the ACPI 1.0 root pointer.
    pub fn rsdp_v1(&self) -> Option<&'a [u8]> {
        self.rsdp_v1
    }

    /// A copy of the ACPI 2.0 root pointer.
    pub fn rsdp_v2(&self) -> Option<&'a [u8]> {
        self.rsdp_v2
    }

    /// The screen.
    pub fn framebuffer(&self) -> Option<Framebuffer> {
        self.framebuffer
    }

    /// Where the boot loader came from.
    pub fn boot_device(&self) -> Option<BootDevice> {
        self.boot_device
    }

    /// Usable KiB from 0 and from 1 MiB on, as the boot loader counted them.
    pub fn basic_memory_kib(&self) -> Option<(u32, u32)> {
        self.basic_memory_kib
    }

    /// What UEFI firmware left; nothing on a BIOS machine.
    pub fn efi(&self) -> Option<Efi<'a>> {
        Some(Efi {
            system_table: self.efi_system_table?,
            image_handle: self.efi_image_handle,
            memory_map: self.efi_memory_map?,
        })
    }

    /// Takes one tag in. Of a tag that must be there once, the first counts.
    fn take(&mut self, tag: &Tag<'a>) -> Result<(), Error> {
        let body = tag.body;
        match tag.kind {
            tag::COMMAND_LINE => self.command_line = until_nul(body),
            tag::BOOT_LOADER_NAME => self.boot_loader_name = until_nul(body),
            tag::MODULE => {
                let module =
                    module(tag).ok_or_else(|| tag.bad("it is shorter than a module tag"))?;
                if module.region.len != 0 && module.region.last().is_none() {
                    return Err(tag.bad("the module ends before it begins"));
                }
            }
            tag::BASIC_MEMINFO => {
                self.basic_memory_kib = u32_at(body, 0).zip(u32_at(body, 4));
            }
            tag::BOOT_DEVICE => {
                self.boot_device = (|| {
                    Some(BootDevice {
                        bios_drive: u32_at(body, 0)?,
                        partition: u32_at(body, 4)?,
                        sub_partition: u32_at(body, 8)?,
                    })
                })();
            }
            tag::MEMORY_MAP if self.memory_map_entry_bytes == 0 => {
                let entry_bytes = u32_at(body, 0).unwrap_or(0) as usize;
                if entry_bytes < MEMORY_MAP_ENTRY_BYTES || !entry_bytes.is_multiple_of(8) {
                    return Err(tag.bad("its entries have a length that no entry can have"));
                }
                let entries = body.get(8..).unwrap_or(&[]);
                if !entries.len().is_multiple_of(entry_bytes) {
                    return Err(tag.bad("its last memory map entry is cut off"));
                }
                self.memory_map = entries;
                self.memory_map_entry_bytes = entry_bytes;
            }
            tag::FRAMEBUFFER => self.framebuffer = framebuffer(body),
            tag::ACPI_OLD => {
                if body.len() < 20 {
                    return Err(tag.bad("an ACPI 1.0 root pointer has 20 bytes"));
                }
                self.rsdp_v1 = Some(body);
            }
            tag::ACPI_NEW => {
                if body.len() < 36 {
                    return Err(tag.bad("an ACPI 2.0 root pointer has 36 bytes"));
                }
                self.rsdp_v2 = Some(body);
            }
            tag::EFI64_SYSTEM_TABLE => self.efi_system_table = u64_at(body, 0),
            tag::EFI64_IMAGE_HANDLE => self.efi_image_handle = u64_at(body, 0),
            tag::EFI_MEMORY_MAP => {
                self.efi_memory_map =
                    Some(EfiMemoryMap::of_tag(body).map_err(|what| tag.bad(what))?);
            }
            tag::EFI_BOOT_SERVICES => return Err(Error::BootServices),
            tag::EFI32_SYSTEM_TABLE | tag::EFI32_IMAGE_HANDLE => return Err(Error::Efi32),
            _ => {}
        }
        Ok(())
    }
}

/// Bytes of a memory map entry that this version of the format defines,
/// without the reserved word that follows.
const MEMORY_MAP_ENTRY_BYTES: usize = 20;

fn module<'a>(tag: &Tag<'a>) -> Option<ModuleRef<'a>> {
    if tag.kind != tag::MODULE {
        return None;
    }
    let start = u64::from(u32_at(tag.body, 0)?);
    let end = u64::from(u32_at(tag.body, 4)?);
    Some(ModuleRef {
        // An end before the start becomes a length with no last address,
        // which `parse` refuses.
        region: Region::new(start, end.wrapping_sub(start)),
        string: until_nul(tag.body.get(8..)?),
    })
}

fn framebuffer(body: &[u8]) -> Option<Framebuffer> {
    let kind = match u8_at(body, 21)? {
        0 => FramebufferKind::Indexed,
        1 => FramebufferKind::Rgb {
            fields: crate::bytes::array_at(body, 24)?,
        },
        2 => FramebufferKind::Text,
        _ => return None,
    };
    Some(Framebuffer {
        address: u64_at(body, 0)?,
        pitch: u32_at(body, 8)?,
        width: u32_at(body, 12)?,
        height: u32_at(body, 16)?,
        bits_per_pixel: u8_at(body, 20)?,
        kind,
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(&[])
}

/// One tag of the boot information.
struct Tag<'a> {
    kind: u32,
    offset: usize,
    /// What follows its type and length.
    body: &'a [u8],
}

impl Tag<'_> {
    fn bad(&self, what: &'static str) -> Error {
        Error::Tag {
            kind: self.kind,
            offset: self.offset,
            what,
        }
    }
}

/// The tags before the end tag. Stops after the first error.
struct Tags<'a> {
    bytes: &'a [u8],
    offset: usize,
    left: usize,
    ended: bool,
}

impl<'a> Tags<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            offset: 8,
            left: MAX_TAGS,
            ended: false,
        }
    }

    fn read(&self) -> Result<Tag<'a>, Error> {
        let (Some(kind), Some(size)) = (
            u32_at(self.bytes, self.offset),
            u32_at(self.bytes, self.offset.saturating_add(4)),
        ) else {
            return Err(Error::NoEnd);
        };
        let bad = |what| Error::Tag {
            kind,
            offset: self.offset,
            what,
        };
        let size = size as usize;
        if size < 8 {
            return Err(bad("it is shorter than its own head"));
        }
        let body = self
            .offset
            .checked_add(size)
            .and_then(|end| self.bytes.get(self.offset..end))
            .and_then(|whole| whole.get(8..))
            .ok_or_else(|| bad("it reaches past the end"))?;
        Ok(Tag {
            kind,
            offset: self.offset,
            body,
        })
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Result<Tag<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.ended {
            return None;
        }
        let read = self.read();
        match &read {
            Ok(tag) if tag.kind == tag::END => {
                self.ended = true;
                return None;
            }
            Ok(tag) => {
                let end = (tag.offset as u64).saturating_add(tag.body.len() as u64 + 8);
                self.offset = align_up(end, 8)
                    .and_then(|next| usize::try_from(next).ok())
                    .unwrap_or(usize::MAX);
            }
            Err(_) => self.left = 0,
        }
        Some(read)
    }
}

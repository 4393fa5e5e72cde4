//! Multiboot2.

use crate::bootinfo::{Framebuffer, FramebufferKind, LOADER_MAGIC, tag};
use crate::bytes::{align_up, u32_at};
use crate::elf_image;
use crate::elf_image::Plan;
use crate::emit::Emit;
use crate::error::Error;
use crate::handover::Handover;
use crate::multiboot::{self, AddressFields, Placed, basic_memory_kib, kernel_file};
use crate::phys::PhysMemory;
use crate::search::search;
use crate::source::Source;
use crate::space::{LAST_32BIT, LOW_FIRST, Space, Want};
use crate::state::StartState;

const HEADER_MAGIC: u32 = 0xe852_50d6;
/// The header lies wholly in the first 32 KiB.
const SEARCH_BYTES: u64 = 32768;
/// Architecture 0 is 32-bit protected mode of i386.
const ARCHITECTURE_I386: u32 = 0;
const HEADER_NAME: &str = "multiboot2";
const HEADER_WHAT: &str = "the multiboot2 header";
/// Magic, architecture, length, checksum.
const HEADER_HEAD_BYTES: u64 = 16;

/// Tags of the header ("Multiboot2 header").
mod header_tag {
    pub(super) const END: u16 = 0;
    pub(super) const INFORMATION_REQUEST: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const ENTRY_ADDRESS: u16 = 3;
    pub(super) const CONSOLE_FLAGS: u16 = 4;
    pub(super) const FRAMEBUFFER: u16 = 5;
    pub(super) const MODULE_ALIGNMENT: u16 = 6;
    pub(super) const EFI_BOOT_SERVICES: u16 = 7;
    pub(super) const EFI32_ENTRY: u16 = 8;
    pub(super) const EFI64_ENTRY: u16 = 9;
    pub(super) const RELOCATABLE: u16 = 10;
    /// Flag: a loader that does not know the tag may ignore it.
    pub(super) const OPTIONAL: u16 = 1 << 0;
}

/// The highest type of information that the specification defines; GRUB
/// accepts a demand for any of them, given or not on this machine.
const LAST_INFORMATION_TYPE: u32 = tag::LOAD_BASE_ADDRESS;
/// SMBIOS tables: the one type that GRUB neither gives nor accepts a demand
/// for.
const SMBIOS: u32 = 13;

/// The relocatable tag.
#[derive(Debug, Clone, Copy)]
struct Relocatable {
    min_addr: u32,
    max_addr: u32,
    align: u32,
    preference: u32,
}

/// The header's tags that a BIOS loader heeds.
#[derive(Debug, Default, Clone, Copy)]
struct Header {
    at: u64,
    /// header_addr, load_addr, load_end_addr, bss_end_addr.
    addresses: Option<[u32; 4]>,
    entry: Option<u32>,
    relocatable: Option<Relocatable>,
    console_required: bool,
    text_refused: bool,
    takes_framebuffer: bool,
}

/// Where in the file the header stands, if there is one.
pub(crate) fn find_header<S: Source>(file: &S) -> Result<Option<u64>, Error> {
    search(file, HEADER_MAGIC, 8, SEARCH_BYTES, |at| {
        if at + HEADER_HEAD_BYTES > file.len().min(SEARCH_BYTES) {
            return Ok(false);
        }
        let head: [u8; 16] = file.array(at, HEADER_WHAT)?;
        let word = |i| u32_at(&head, i).unwrap_or(0);
        let sum = word(0)
            .wrapping_add(word(4))
            .wrapping_add(word(8))
            .wrapping_add(word(12));
        Ok(sum == 0 && word(4) == ARCHITECTURE_I386)
    })
}

/// Loads the kernel and gives its start state.
pub(crate) fn start<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
) -> Result<StartState, Error> {
    let file = kernel_file(mem, handover);
    let header = read_header(&file)?;
    check_console(&header, handover)?;
    let plan = plan(&file, &header)?;
    let shift = match &header.relocatable {
        Some(wish) => shift(handover, &plan, wish)?,
        None => 0,
    };
    let load_base = header
        .relocatable
        .map(|_| plan.hull().start.wrapping_add(shift) as u32);
    multiboot::start(mem, handover, &plan, shift, LOADER_MAGIC, |to, placed| {
        build(to, placed, load_base)
    })
}

fn read_header<S: Source>(file: &S) -> Result<Header, Error> {
    let at = find_header(file)?.ok_or(Error::NotAKernel { len: file.len() })?;
    let bad = |what| Error::BadHeader {
        header: HEADER_NAME,
        what,
    };
    let len = u64::from(file.u32(at + 8, HEADER_WHAT)?);
    if at + len > SEARCH_BYTES {
        return Err(bad("it is not wholly in the first 32 KiB of the file"));
    }
    file.check(at, len, HEADER_WHAT)?;
    let mut header = Header {
        at,
        ..Header::default()
    };
    let mut offset = HEADER_HEAD_BYTES;
    // Each tag has at least eight bytes, so this ends.
    while offset + 8 <= len {
        let head: [u8; 8] = file.array(at + offset, HEADER_WHAT)?;
        let [t0, t1, f0, f1, s0, s1, s2, s3] = head;
        let kind = u16::from_le_bytes([t0, t1]);
        let optional = u16::from_le_bytes([f0, f1]) & header_tag::OPTIONAL != 0;
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        if kind == header_tag::END {
            return Ok(header);
        }
        if size < 8 || offset + size > len {
            return Err(bad("a tag of it reaches past its end"));
        }
        header.take(file, kind, optional, at + offset, size)?;
        offset = align_up(offset + size, 8).unwrap_or(len);
    }
    Err(bad("it has no end tag"))
}

impl Header {
    /// Takes in the tag of `size` bytes that stands at byte `tag_at` of the
    /// file.
    fn take<S: Source>(
        &mut self,
        file: &S,
        kind: u16,
        optional: bool,
        tag_at: u64,
        size: u64,
    ) -> Result<(), Error> {
        let word = |index: u64| {
            let offset = 8 + 4 * index;
            if offset + 4 > size {
                return Err(Error::BadHeader {
                    header: HEADER_NAME,
                    what: "a tag of it is too short",
                });
            }
            file.u32(tag_at + offset, HEADER_WHAT)
        };
        match kind {
            header_tag::INFORMATION_REQUEST if !optional => {
                for index in 0..(size - 8) / 4 {
                    let wanted = word(index)?;
                    if wanted > LAST_INFORMATION_TYPE || wanted == SMBIOS {
                        return Err(Error::Unsupported {
                            header: HEADER_NAME,
                            what: "demands information of type",
                            value: wanted,
                        });
                    }
                }
            }
            header_tag::ADDRESS => {
                self.addresses = Some([word(0)?, word(1)?, word(2)?, word(3)?]);
            }
            header_tag::ENTRY_ADDRESS => self.entry = Some(word(0)?),
            header_tag::CONSOLE_FLAGS => {
                let flags = word(0)?;
                self.console_required |= flags & 1 != 0;
                self.text_refused |= flags & 2 == 0;
            }
            header_tag::FRAMEBUFFER => self.takes_framebuffer = true,
            header_tag::RELOCATABLE => {
                self.relocatable = Some(Relocatable {
                    min_addr: word(0)?,
                    max_addr: word(1)?,
                    align: word(2)?,
                    preference: word(3)?,
                });
            }
            // Modules always lie on page boundaries; the others speak to UEFI
            // loaders alone.
            header_tag::INFORMATION_REQUEST
            | header_tag::MODULE_ALIGNMENT
            | header_tag::EFI_BOOT_SERVICES
            | header_tag::EFI32_ENTRY
            | header_tag::EFI64_ENTRY => {}
            _ if optional => {}
            _ => {
                return Err(Error::Unsupported {
                    header: HEADER_NAME,
                    what: "has a tag that must be heeded of type",
                    value: u32::from(kind),
                });
            }
        }
        Ok(())
    }
}

/// A kernel may insist on a console; Umbra hands on the screen as it is.
fn check_console(header: &Header, handover: &Handover<'_>) -> Result<(), Error> {
    if !header.console_required {
        return Ok(());
    }
    let usable = match handover.framebuffer.unwrap_or(Framebuffer::VGA_TEXT).kind {
        FramebufferKind::Text => !header.text_refused,
        FramebufferKind::Indexed | FramebufferKind::Rgb { .. } => header.takes_framebuffer,
    };
    if usable {
        return Ok(());
    }
    Err(Error::BadHeader {
        header: HEADER_NAME,
        what: "it insists on a kind of console that the boot loader did not set up",
    })
}

fn plan<S: Source>(file: &S, header: &Header) -> Result<Plan, Error> {
    let mut plan = match header.addresses {
        None => elf_image::plan(file)?,
        Some([header_addr, load_addr, load_end_addr, bss_end_addr]) => {
            let bad = |what| Error::BadHeader {
                header: HEADER_NAME,
                what,
            };
            let entry_addr = header
                .entry
                .ok_or(bad("an address tag needs an entry address tag"))?;
            // All ones: the file is loaded from its beginning.
            let load_addr = match load_addr {
                u32::MAX => u64::from(header_addr)
                    .checked_sub(header.at)
                    .and_then(|a| u32::try_from(a).ok())
                    .ok_or(bad(
                        "header_addr is lower than the header's place in the file",
                    ))?,
                a => a,
            };
            AddressFields {
                header_offset: header.at,
                header_addr,
                load_addr,
                load_end_addr,
                bss_end_addr,
                entry_addr,
            }
            .plan(file, HEADER_NAME)?
        }
    };
    if let Some(entry) = header.entry {
        plan.entry = entry;
    }
    Ok(plan)
}

/// How far a relocatable kernel is moved from where it is linked (wrapping).
fn shift(handover: &Handover<'_>, plan: &Plan, wish: &Relocatable) -> Result<u64, Error> {
    let hull = plan.hull();
    let want = Want {
        len: hull.len,
        align: u64::from(wish.align),
        first: u64::from(wish.min_addr).max(LOW_FIRST),
        last: u64::from(wish.max_addr).min(LAST_32BIT),
    };
    let space = Space::new(handover.map);
    let linked_is_fine = hull.start >= want.first
        && hull.last().is_some_and(|last| last <= want.last)
        && hull.start.is_multiple_of(want.align.max(1))
        && space.is_free(hull);
    let start = match wish.preference {
        1 => space.lowest(&want),
        2 => space.highest(&want),
        _ if linked_is_fine => Some(hull.start),
        _ => space.lowest(&want),
    }
    .ok_or_else(|| want.does_not_fit("the relocatable kernel"))?;
    Ok(start.wrapping_sub(hull.start))
}

/// Writes the boot information.
fn build<M: PhysMemory>(
    to: &mut Emit<'_, M>,
    placed: &Placed<'_>,
    load_base: Option<u32>,
) -> Result<(), Error> {
    let handover = placed.handover;
    // Total size, known at the end, and a reserved word.
    to.u64(0)?;

    if let Some(base) = load_base {
        tag(to, tag::LOAD_BASE_ADDRESS, 4)?;
        to.u32(base)?;
    }
    string_tag(to, tag::COMMAND_LINE, handover.command_line)?;
    string_tag(to, tag::BOOT_LOADER_NAME, handover.boot_loader_name)?;
    for (item, module) in placed.modules.iter().zip(handover.modules) {
        tag(to, tag::MODULE, 8 + module.string.len() as u64 + 1)?;
        to.u32(item.region.start as u32)?;
        to.u32(item.region.start.wrapping_add(item.region.len) as u32)?;
        to.string(module.string)?;
    }

    /// Start, length, type, reserved.
    const ENTRY_BYTES: u32 = 24;
    let entries = handover.map.entries();
    tag(
        to,
        tag::MEMORY_MAP,
        8 + entries.len() as u64 * u64::from(ENTRY_BYTES),
    )?;
    to.u32(ENTRY_BYTES)?;
    to.u32(0)?;
    for e in entries {
        to.u64(e.start)?;
        to.u64(e.len())?;
        to.u32(e.kind.number())?;
        to.u32(0)?;
    }

    if let Some(table) = &placed.plan.sections {
        tag(to, tag::ELF_SECTIONS, 12 + table.bytes())?;
        to.u32(u32::from(table.count))?;
        to.u32(u32::from(table.entry_bytes))?;
        to.u32(u32::from(table.names_index))?;
        let address = to.address();
        to.zeros(table.bytes())?;
        if let Some(mem) = to.mem() {
            table.copy(mem, placed.file, address, placed.shift)?;
        }
    }

    let (lower, upper) = basic_memory_kib(handover);
    tag(to, tag::BASIC_MEMINFO, 8)?;
    to.u32(lower)?;
    to.u32(upper)?;
    if let Some(device) = handover.boot_device {
        tag(to, tag::BOOT_DEVICE, 12)?;
        to.u32(device.bios_drive)?;
        to.u32(device.partition)?;
        to.u32(device.sub_partition)?;
    }
    if let Some(screen) = handover.framebuffer {
        framebuffer_tag(to, &screen)?;
    }
    if let Some(rsdp) = handover.rsdp_v1 {
        tag(to, tag::ACPI_OLD, rsdp.len() as u64)?;
        to.bytes(rsdp)?;
    }
    if let Some(rsdp) = handover.rsdp_v2 {
        tag(to, tag::ACPI_NEW, rsdp.len() as u64)?;
        to.bytes(rsdp)?;
    }
    efi_tags(to, handover)?;
    tag(to, tag::END, 0)?;
    let total = to.len() as u32;
    Ok(to.patch_u32(0, total)?)
}

/// What UEFI firmware left, as GRUB hands it on once boot services have ended.
fn efi_tags<M: PhysMemory>(to: &mut Emit<'_, M>, handover: &Handover<'_>) -> Result<(), Error> {
    let Some(efi) = &handover.efi else {
        return Ok(());
    };
    tag(to, tag::EFI64_SYSTEM_TABLE, 8)?;
    to.u64(efi.system_table)?;
    if let Some(handle) = efi.image_handle {
        tag(to, tag::EFI64_IMAGE_HANDLE, 8)?;
        to.u64(handle)?;
    }
    let map = &efi.memory_map;
    let bytes = map.with_reserved(handover.umbra).count() * map.descriptor_bytes;
    tag(to, tag::EFI_MEMORY_MAP, 8 + bytes as u64)?;
    to.u32(map.descriptor_bytes as u32)?;
    to.u32(map.version)?;
    for descriptor in map.with_reserved(handover.umbra) {
        to.bytes(&descriptor.head())?;
        to.bytes(descriptor.tail())?;
    }
    Ok(())
}

/// Begins a tag with `body_bytes` bytes after its head, at the next multiple
/// of eight.
fn tag<M: PhysMemory>(to: &mut Emit<'_, M>, kind: u32, body_bytes: u64) -> Result<(), Error> {
    to.align(8)?;
    to.u32(kind)?;
    Ok(to.u32(body_bytes.saturating_add(8) as u32)?)
}

fn string_tag<M: PhysMemory>(to: &mut Emit<'_, M>, kind: u32, string: &[u8]) -> Result<(), Error> {
    tag(to, kind, string.len() as u64 + 1)?;
    Ok(to.string(string)?)
}

/// Describes the screen; not one with a palette, which is no longer known.
fn framebuffer_tag<M: PhysMemory>(to: &mut Emit<'_, M>, screen: &Framebuffer) -> Result<(), Error> {
    let (kind, fields) = match screen.kind {
        FramebufferKind::Indexed => return Ok(()),
        FramebufferKind::Rgb { fields } => (1, Some(fields)),
        FramebufferKind::Text => (2, None),
    };
    tag(
        to,
        tag::FRAMEBUFFER,
        24 + fields.map_or(0, |f| f.len() as u64),
    )?;
    to.u64(screen.address)?;
    to.u32(screen.pitch)?;
    to.u32(screen.width)?;
    to.u32(screen.height)?;
    to.bytes(&[screen.bits_per_pixel, kind, 0, 0])?;
    if let Some(fields) = fields {
        to.bytes(&fields)?;
    }
    Ok(())
}

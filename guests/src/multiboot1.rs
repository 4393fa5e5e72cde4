//! Multiboot (version 0.6.96 of the specification).

use crate::bootinfo::{Framebuffer, FramebufferKind};
use crate::bytes::u32_at;
use crate::elf_image;
use crate::elf_image::Plan;
use crate::emit::Emit;
use crate::error::Error;
use crate::handover::Handover;
use crate::multiboot::{self, AddressFields, Placed, basic_memory_kib, kernel_file};
use crate::phys::PhysMemory;
use crate::search::search;
use crate::source::Source;
use crate::state::StartState;

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// EAX when the kernel is entered.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies wholly in the first 8 KiB.
const SEARCH_BYTES: u64 = 8192;
const HEADER_NAME: &str = "multiboot";

/// Flags of the header ("The layout of Multiboot header").
mod header_flag {
    /// Bits that a loader must know or refuse.
    pub(super) const REQUIRED: u32 = 0xffff;
    /// Modules on page boundaries, memory information, video mode.
    pub(super) const KNOWN: u32 = 0b111;
    /// The address fields are valid.
    pub(super) const ADDRESSES: u32 = 1 << 16;
}

/// Flags of the information ("Boot information format").
mod info_flag {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const BOOT_DEVICE: u32 = 1 << 1;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const ELF_SECTIONS: u32 = 1 << 5;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const BOOT_LOADER_NAME: u32 = 1 << 9;
    pub(super) const FRAMEBUFFER: u32 = 1 << 12;
}

/// Offsets in the information.
mod field {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const MEM_LOWER: u64 = 4;
    pub(super) const MEM_UPPER: u64 = 8;
    pub(super) const BOOT_DEVICE: u64 = 12;
    pub(super) const COMMAND_LINE: u64 = 16;
    pub(super) const MODULE_COUNT: u64 = 20;
    pub(super) const MODULES: u64 = 24;
    pub(super) const ELF_COUNT: u64 = 28;
    pub(super) const ELF_ENTRY_BYTES: u64 = 32;
    pub(super) const ELF_ADDRESS: u64 = 36;
    pub(super) const ELF_NAMES_INDEX: u64 = 40;
    pub(super) const MEMORY_MAP_BYTES: u64 = 44;
    pub(super) const MEMORY_MAP: u64 = 48;
    pub(super) const BOOT_LOADER_NAME: u64 = 64;
    pub(super) const FRAMEBUFFER_ADDRESS_LOW: u64 = 88;
    pub(super) const FRAMEBUFFER_ADDRESS_HIGH: u64 = 92;
    pub(super) const FRAMEBUFFER_PITCH: u64 = 96;
    pub(super) const FRAMEBUFFER_WIDTH: u64 = 100;
    pub(super) const FRAMEBUFFER_HEIGHT: u64 = 104;
    /// Bits a pixel, kind, and the first two bytes of the colour fields.
    pub(super) const FRAMEBUFFER_FORMAT: u64 = 108;
    pub(super) const FRAMEBUFFER_COLOURS: u64 = 112;
    /// Length of it all, rounded up to whole 64-bit words.
    pub(super) const END: u64 = 120;
}

/// Where in the file the header stands, if there is one.
pub(crate) fn find_header<S: Source>(file: &S) -> Result<Option<u64>, Error> {
    search(file, HEADER_MAGIC, 4, SEARCH_BYTES, |at| {
        if at + 12 > file.len().min(SEARCH_BYTES) {
            return Ok(false);
        }
        let head: [u8; 12] = file.array(at, "the multiboot header")?;
        let word = |i| u32_at(&head, i).unwrap_or(0);
        Ok(word(0).wrapping_add(word(4)).wrapping_add(word(8)) == 0)
    })
}

/// Loads the kernel and gives its start state.
pub(crate) fn start<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
) -> Result<StartState, Error> {
    let plan = plan(&kernel_file(mem, handover))?;
    multiboot::start(mem, handover, &plan, 0, LOADER_MAGIC, build)
}

fn plan<S: Source>(file: &S) -> Result<Plan, Error> {
    let at = find_header(file)?.ok_or(Error::NotAKernel { len: file.len() })?;
    let flags = file.u32(at + 4, "the multiboot header")?;
    let unknown = flags & header_flag::REQUIRED & !header_flag::KNOWN;
    if unknown != 0 {
        return Err(Error::Unsupported {
            header: HEADER_NAME,
            what: "demands flags",
            value: unknown,
        });
    }
    // A video mode request (flag 2) is a wish: what L1 gets is the screen as
    // it is, which its information describes.
    if flags & header_flag::ADDRESSES == 0 {
        return elf_image::plan(file);
    }
    let words: [u8; 20] = file.array(at + 12, "the multiboot header")?;
    let word = |i| u32_at(&words, i).unwrap_or(0);
    AddressFields {
        header_offset: at,
        header_addr: word(0),
        load_addr: word(4),
        load_end_addr: word(8),
        bss_end_addr: word(12),
        entry_addr: word(16),
    }
    .plan(file, HEADER_NAME)
}

/// Writes the information and all that it points to.
fn build<M: PhysMemory>(to: &mut Emit<'_, M>, placed: &Placed<'_>) -> Result<(), Error> {
    let handover = placed.handover;
    let mut flags = info_flag::MEMORY;
    to.zeros(field::END)?;
    let (lower, upper) = basic_memory_kib(handover);
    to.patch_u32(field::MEM_LOWER, lower)?;
    to.patch_u32(field::MEM_UPPER, upper)?;

    if let Some(device) = handover.boot_device {
        flags |= info_flag::BOOT_DEVICE;
        // Drive, partition, sub-partition; the fourth byte is unused.
        let value = (device.bios_drive & 0xff) << 24
            | (device.partition & 0xff) << 16
            | (device.sub_partition & 0xff) << 8
            | 0xff;
        to.patch_u32(field::BOOT_DEVICE, value)?;
    }

    flags |= info_flag::COMMAND_LINE;
    point(to, field::COMMAND_LINE)?;
    to.string(handover.command_line)?;
    to.align(4)?;
    flags |= info_flag::BOOT_LOADER_NAME;
    point(to, field::BOOT_LOADER_NAME)?;
    to.string(handover.boot_loader_name)?;
    to.align(4)?;

    if !placed.modules.is_empty() {
        flags |= info_flag::MODULES;
        modules(to, placed)?;
    }
    flags |= info_flag::MEMORY_MAP;
    memory_map(to, handover)?;

    if let Some(table) = &placed.plan.sections {
        flags |= info_flag::ELF_SECTIONS;
        to.patch_u32(field::ELF_COUNT, u32::from(table.count))?;
        to.patch_u32(field::ELF_ENTRY_BYTES, u32::from(table.entry_bytes))?;
        to.patch_u32(field::ELF_NAMES_INDEX, u32::from(table.names_index))?;
        to.align(8)?;
        point(to, field::ELF_ADDRESS)?;
        let address = to.address();
        to.zeros(table.bytes())?;
        if let Some(mem) = to.mem() {
            table.copy(mem, placed.file, address, placed.shift)?;
        }
    }
    if let Some(screen) = handover.framebuffer
        && describe_screen(to, &screen)?
    {
        flags |= info_flag::FRAMEBUFFER;
    }
    Ok(to.patch_u32(field::FLAGS, flags)?)
}

/// Makes the field at `offset` point to what is appended next.
fn point<M: PhysMemory>(to: &mut Emit<'_, M>, offset: u64) -> Result<(), Error> {
    // The block lies below 4 GiB.
    let address = to.address() as u32;
    Ok(to.patch_u32(offset, address)?)
}

fn modules<M: PhysMemory>(to: &mut Emit<'_, M>, placed: &Placed<'_>) -> Result<(), Error> {
    /// Start, end, string, reserved.
    const ENTRY_BYTES: u64 = 16;
    let count = placed.modules.len() as u64;
    to.patch_u32(field::MODULE_COUNT, count as u32)?;
    point(to, field::MODULES)?;
    let mut string = to.address().saturating_add(count * ENTRY_BYTES);
    for (item, module) in placed.modules.iter().zip(placed.handover.modules) {
        let start = item.region.start as u32;
        to.u32(start)?;
        to.u32(start.wrapping_add(item.region.len as u32))?;
        to.u32(string as u32)?;
        to.u32(0)?;
        string = string.saturating_add(module.string.len() as u64 + 1);
    }
    for module in placed.handover.modules {
        to.string(module.string)?;
    }
    Ok(to.align(4)?)
}

fn memory_map<M: PhysMemory>(to: &mut Emit<'_, M>, handover: &Handover<'_>) -> Result<(), Error> {
    /// What follows the length word of an entry.
    const ENTRY_BYTES: u32 = 20;
    let entries = handover.map.entries();
    let bytes = entries.len() as u32 * (ENTRY_BYTES + 4);
    to.patch_u32(field::MEMORY_MAP_BYTES, bytes)?;
    point(to, field::MEMORY_MAP)?;
    for e in entries {
        to.u32(ENTRY_BYTES)?;
        to.u64(e.start)?;
        to.u64(e.len())?;
        to.u32(e.kind.number())?;
    }
    Ok(())
}

/// Describes the screen; not one with a palette, which is no longer known.
fn describe_screen<M: PhysMemory>(
    to: &mut Emit<'_, M>,
    screen: &Framebuffer,
) -> Result<bool, Error> {
    let (kind, fields) = match screen.kind {
        FramebufferKind::Indexed => return Ok(false),
        FramebufferKind::Rgb { fields } => (1, fields),
        FramebufferKind::Text => (2, [0; 6]),
    };
    let [a, b, c, d, e, f] = fields;
    to.patch_u32(field::FRAMEBUFFER_ADDRESS_LOW, screen.address as u32)?;
    to.patch_u32(
        field::FRAMEBUFFER_ADDRESS_HIGH,
        (screen.address >> 32) as u32,
    )?;
    to.patch_u32(field::FRAMEBUFFER_PITCH, screen.pitch)?;
    to.patch_u32(field::FRAMEBUFFER_WIDTH, screen.width)?;
    to.patch_u32(field::FRAMEBUFFER_HEIGHT, screen.height)?;
    let format = [screen.bits_per_pixel, kind, a, b];
    to.patch_u32(field::FRAMEBUFFER_FORMAT, u32::from_le_bytes(format))?;
    to.patch_u32(field::FRAMEBUFFER_COLOURS, u32::from_le_bytes([c, d, e, f]))?;
    Ok(true)
}

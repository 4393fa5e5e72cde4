//! The boot parameters ("zero page") and what goes with them.

use super::header::{HEADER_START, Header};
use crate::bootinfo::{Framebuffer, FramebufferKind};
use crate::bytes::align_up;
use crate::efi::Efi;
use crate::emit::Emit;
use crate::error::Error;
use crate::handover::Handover;
use crate::memmap::Entry;
use crate::phys::{PhysMemory, Region, Unreachable};
use crate::space::{ONE_MIB, Space};
use crate::state::{GDT, GDT_BYTES};

/// Length of `struct boot_params`.
const PARAMS_BYTES: u64 = 4096;
/// Entries in the table inside the boot parameters.
const E820_TABLE_ENTRIES: usize = 128;
/// Bytes of one entry there: start, length, type.
const E820_ENTRY_BYTES: u64 = 20;
/// Head of a `struct setup_data`: next, type, length.
const SETUP_DATA_HEAD_BYTES: u64 = 16;
/// `SETUP_E820_EXT`: the entries that the table has no room for.
const SETUP_E820_EXT: u32 = 1;
/// `type_of_loader` for one without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// Plain 80-column text mode.
const VIDEO_MODE_NORMAL: u16 = 0xffff;

/// `efi_loader_signature` of firmware with 64 bits.
const EFI_LOADER_SIGNATURE: &[u8; 4] = b"EL64";
/// `orig_video_isVGA`: a text screen, and a linear framebuffer set up by VESA or
/// by UEFI.
const VIDEO_TEXT: u8 = 1;
const VIDEO_VESA: u8 = 0x23;
const VIDEO_EFI: u8 = 0x70;
/// `capabilities`: the framebuffer's address has 64 bits.
const CAPABILITY_64BIT_BASE: u32 = 1 << 1;

/// One block: boot parameters, GDT, further memory map entries, the firmware's
/// memory map, command line.
pub(crate) struct Block {
    base: u64,
    more_entries: u64,
    efi_map_bytes: u64,
}

impl Block {
    /// Finds the place for it.
    pub(crate) fn plan(space: &mut Space<'_>, handover: &Handover<'_>) -> Result<Self, Error> {
        let entries = handover.map.entries().len();
        let mut block = Self {
            base: 0,
            more_entries: entries.saturating_sub(E820_TABLE_ENTRIES) as u64,
            efi_map_bytes: handover.efi.map_or(0, |efi| {
                let map = efi.memory_map;
                (map.with_reserved(handover.umbra).count() * map.descriptor_bytes) as u64
            }),
        };
        let len = block
            .command_line()
            .saturating_add(handover.command_line.len() as u64 + 1);
        block.base = space.take_info(len, "the Linux boot parameters and command line")?;
        Ok(block)
    }

    /// Physical address of the descriptor table.
    pub(crate) fn gdt(&self) -> u64 {
        self.base.saturating_add(PARAMS_BYTES)
    }

    fn setup_data(&self) -> u64 {
        self.gdt().saturating_add(GDT_BYTES)
    }

    fn efi_map(&self) -> u64 {
        let setup_data_bytes = match self.more_entries {
            0 => 0,
            n => SETUP_DATA_HEAD_BYTES + n * E820_ENTRY_BYTES,
        };
        let after = self.setup_data().saturating_add(setup_data_bytes);
        align_up(after, 8).unwrap_or(after)
    }

    fn command_line(&self) -> u64 {
        self.efi_map().saturating_add(self.efi_map_bytes)
    }

    /// Writes it all; gives the address of the boot parameters.
    pub(crate) fn write<M: PhysMemory>(
        &self,
        mem: &mut M,
        handover: &Handover<'_>,
        header: &Header,
        load: u64,
        initrd: Region,
    ) -> Result<u64, Error> {
        mem.zero(self.base, PARAMS_BYTES)?;
        self.write_header(mem, header, load, initrd)?;
        self.write_screen(mem, handover)?;
        // The kernel uses `alt_mem_k` only where it has no memory map.
        let upper_kib = handover.map.usable_from(ONE_MIB) / 1024;
        self.put(mem, 0x1e0, &clamp_u32(upper_kib).to_le_bytes())?;
        if let Some(rsdp) = handover.rsdp_address {
            self.put(mem, 0x70, &rsdp.to_le_bytes())?;
        }
        self.write_memory_map(mem, handover.map.entries())?;
        if let Some(efi) = &handover.efi {
            self.write_efi(mem, efi, handover.umbra)?;
        }

        let mut rest = Emit::at(mem, self.gdt());
        for descriptor in GDT {
            rest.u64(descriptor)?;
        }
        let mut rest = Emit::at(mem, self.command_line());
        rest.string(handover.command_line)?;
        Ok(self.base)
    }

    fn write_header<M: PhysMemory>(
        &self,
        mem: &mut M,
        header: &Header,
        load: u64,
        initrd: Region,
    ) -> Result<(), Unreachable> {
        self.put(mem, HEADER_START as u64, header.raw())?;
        self.put(mem, 0x1fa, &VIDEO_MODE_NORMAL.to_le_bytes())?;
        self.put(mem, 0x210, &[LOADER_UNDEFINED])?;
        self.put(mem, 0x211, &[header.load_flags()])?;
        self.put(mem, 0x214, &clamp_u32(load).to_le_bytes())?;
        self.put(mem, 0x218, &clamp_u32(initrd.start).to_le_bytes())?;
        self.put(mem, 0x21c, &clamp_u32(initrd.len).to_le_bytes())?;
        self.put(mem, 0x228, &clamp_u32(self.command_line()).to_le_bytes())
    }

    fn write_screen<M: PhysMemory>(
        &self,
        mem: &mut M,
        handover: &Handover<'_>,
    ) -> Result<(), Unreachable> {
        let screen = match (handover.framebuffer, &handover.efi) {
            (Some(screen), _) => screen,
            (None, None) => Framebuffer::VGA_TEXT,
            // All zero: no screen that is known.
            (None, Some(_)) => return Ok(()),
        };
        match screen.kind {
            FramebufferKind::Text => {}
            FramebufferKind::Rgb { fields } => {
                let kind = if handover.efi.is_some() {
                    VIDEO_EFI
                } else {
                    VIDEO_VESA
                };
                return self.write_framebuffer(mem, &screen, fields, kind);
            }
            // Its palette is no longer known.
            FramebufferKind::Indexed => return Ok(()),
        }
        let columns = u8::try_from(screen.width).unwrap_or(80);
        let lines = u8::try_from(screen.height).unwrap_or(25);
        // The BIOS data area knows where the cursor is on page 0.
        let mut cursor = [0; 2];
        mem.read(0x450, &mut cursor)?;
        let [column, line] = cursor;
        if column < columns && line < lines {
            self.put(mem, 0x00, &cursor)?;
        }
        // Mode 3, columns; lines; a VGA with 16-line characters.
        self.put(mem, 0x06, &[3, columns])?;
        self.put(mem, 0x0e, &[lines, VIDEO_TEXT])?;
        self.put(mem, 0x10, &16u16.to_le_bytes())
    }

    /// `struct screen_info` of a linear framebuffer.
    fn write_framebuffer<M: PhysMemory>(
        &self,
        mem: &mut M,
        screen: &Framebuffer,
        fields: [u8; 6],
        kind: u8,
    ) -> Result<(), Unreachable> {
        let clamp_u16 = |value: u32| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
        self.put(mem, 0x0f, &[kind])?;
        self.put(mem, 0x12, &clamp_u16(screen.width))?;
        self.put(mem, 0x14, &clamp_u16(screen.height))?;
        self.put(mem, 0x16, &u16::from(screen.bits_per_pixel).to_le_bytes())?;
        self.put(mem, 0x18, &(screen.address as u32).to_le_bytes())?;
        let bytes = u64::from(screen.pitch).saturating_mul(u64::from(screen.height));
        // VESA counts 64 KiB, UEFI bytes.
        let size = if kind == VIDEO_VESA {
            bytes.div_ceil(64 * 1024)
        } else {
            bytes
        };
        self.put(mem, 0x1c, &clamp_u32(size).to_le_bytes())?;
        self.put(mem, 0x24, &clamp_u16(screen.pitch))?;
        // Size and position of red, green and blue; here position comes first.
        let [red, red_bits, green, green_bits, blue, blue_bits] = fields;
        let colours = [red_bits, red, green_bits, green, blue_bits, blue];
        self.put(mem, 0x26, &colours)?;
        let high = (screen.address >> 32) as u32;
        if high != 0 {
            self.put(mem, 0x36, &CAPABILITY_64BIT_BASE.to_le_bytes())?;
            self.put(mem, 0x3a, &high.to_le_bytes())?;
        }
        Ok(())
    }

    /// `struct efi_info`, and the memory map that it names: the firmware's, with
    /// Umbra's own memory reserved.
    fn write_efi<M: PhysMemory>(
        &self,
        mem: &mut M,
        efi: &Efi<'_>,
        umbra: Region,
    ) -> Result<(), Unreachable> {
        let map = &efi.memory_map;
        let at = self.efi_map();
        let mut to = Emit::at(mem, at);
        for descriptor in map.with_reserved(umbra) {
            to.bytes(&descriptor.head())?;
            to.bytes(descriptor.tail())?;
        }
        let mut info = Emit::at(mem, self.base.saturating_add(0x1c0));
        info.bytes(EFI_LOADER_SIGNATURE)?;
        info.u32(efi.system_table as u32)?;
        info.u32(map.descriptor_bytes as u32)?;
        info.u32(map.version)?;
        info.u32(at as u32)?;
        info.u32(clamp_u32(self.efi_map_bytes))?;
        info.u32((efi.system_table >> 32) as u32)?;
        info.u32((at >> 32) as u32)
    }

    fn write_memory_map<M: PhysMemory>(
        &self,
        mem: &mut M,
        entries: &[Entry],
    ) -> Result<(), Unreachable> {
        let (first, more) = entries
            .split_at_checked(E820_TABLE_ENTRIES)
            .unwrap_or((entries, &[]));
        self.put(mem, 0x1e8, &[u8::try_from(first.len()).unwrap_or(u8::MAX)])?;
        let mut table = Emit::at(mem, self.base.saturating_add(0x2d0));
        put_entries(&mut table, first)?;
        if more.is_empty() {
            return Ok(());
        }
        self.put(mem, 0x250, &self.setup_data().to_le_bytes())?;
        let mut data = Emit::at(mem, self.setup_data());
        data.u64(0)?;
        data.u32(SETUP_E820_EXT)?;
        data.u32(clamp_u32(more.len() as u64 * E820_ENTRY_BYTES))?;
        put_entries(&mut data, more)
    }

    fn put<M: PhysMemory>(
        &self,
        mem: &mut M,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Unreachable> {
        mem.write(self.base.saturating_add(offset), bytes)
    }
}

fn put_entries<M: PhysMemory>(to: &mut Emit<'_, M>, entries: &[Entry]) -> Result<(), Unreachable> {
    for e in entries {
        to.u64(e.start)?;
        to.u64(e.len())?;
        to.u32(e.kind.number())?;
    }
    Ok(())
}

/// The places above are all below 4 GiB; a number that is not would be cut.
fn clamp_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

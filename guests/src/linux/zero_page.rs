//! The boot parameters ("zero page") and what goes with them.

use super::header::{HEADER_START, Header};
use crate::bootinfo::{Framebuffer, FramebufferKind};
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

/// One block: boot parameters, GDT, further memory map entries, command line.
pub(crate) struct Block {
    base: u64,
    more_entries: u64,
}

impl Block {
    /// Finds the place for it.
    pub(crate) fn plan(space: &mut Space<'_>, handover: &Handover<'_>) -> Result<Self, Error> {
        let entries = handover.map.entries().len();
        let mut block = Self {
            base: 0,
            more_entries: entries.saturating_sub(E820_TABLE_ENTRIES) as u64,
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

    fn command_line(&self) -> u64 {
        let setup_data_bytes = match self.more_entries {
            0 => 0,
            n => SETUP_DATA_HEAD_BYTES + n * E820_ENTRY_BYTES,
        };
        self.setup_data().saturating_add(setup_data_bytes)
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
        self.write_screen(mem, handover.framebuffer)?;
        // The kernel uses `alt_mem_k` only where it has no memory map.
        let upper_kib = handover.map.usable_from(ONE_MIB) / 1024;
        self.put(mem, 0x1e0, &clamp_u32(upper_kib).to_le_bytes())?;
        if let Some(rsdp) = handover.rsdp_address {
            self.put(mem, 0x70, &rsdp.to_le_bytes())?;
        }
        self.write_memory_map(mem, handover.map.entries())?;

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
        framebuffer: Option<Framebuffer>,
    ) -> Result<(), Unreachable> {
        let screen = framebuffer.unwrap_or(Framebuffer::VGA_TEXT);
        if screen.kind != FramebufferKind::Text {
            // All zero: no text screen. Umbra asks its own loader for text, so
            // a picture mode is one that it did not choose.
            return Ok(());
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
        self.put(mem, 0x0e, &[lines, 1])?;
        self.put(mem, 0x10, &16u16.to_le_bytes())
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

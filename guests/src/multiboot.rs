//! What multiboot and multiboot2 have in common.

use crate::elf_image::Plan;
use crate::emit::Emit;
use crate::error::Error;
use crate::handover::Handover;
use crate::phys::{PhysMemory, Region};
use crate::place::{self, Item, Items};
use crate::source::{InMemory, Source};
use crate::space::{LAST_32BIT, ONE_MIB, Space};
use crate::state::{GDT, GDT_BYTES, StartState};

/// Where GRUB leaves the stack pointer for kernels that use it although the
/// specification tells them not to.
const STACK_TOP: u64 = 0x7_ff00;
/// What is kept free for such a stack.
const STACK: Region = Region::new(0x7_e000, 0x2000);
/// Modules are aligned as GRUB aligns them, whether the kernel asks for it or
/// not.
const MODULE_ALIGN: u64 = 4096;
/// The kernel file itself, when it has to be moved.
const FILE_ALIGN: u64 = 16;

/// A multiboot kernel whose places are all decided.
pub(crate) struct Placed<'a> {
    pub(crate) handover: &'a Handover<'a>,
    pub(crate) plan: &'a Plan,
    /// How far the kernel lies above its linked address (wrapping).
    pub(crate) shift: u64,
    /// Where the kernel file lies in the end.
    pub(crate) file: Region,
    /// The modules, in order, where they lie in the end.
    pub(crate) modules: &'a [Item],
}

/// Places kernel, modules and information block, loads them, and gives the
/// start state.
///
/// `build` writes the protocol's information; it is called twice, the first
/// time to count.
pub(crate) fn start<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
    plan: &Plan,
    shift: u64,
    magic: u32,
    build: impl Fn(&mut Emit<'_, M>, &Placed<'_>) -> Result<(), Error>,
) -> Result<StartState, Error> {
    let mut space = Space::new(handover.map);
    plan.take_places(&mut space, shift)?;
    space.take(STACK)?;

    let (mut items, kernel_index) = items(handover)?;
    let moves = place::plan(&mut space, &mut items, LAST_32BIT)?;
    let (modules, file) = items
        .split_at_checked(kernel_index)
        .and_then(|(m, k)| Some((m, k.first()?.region)))
        .unwrap_or((&[], handover.kernel));
    let placed = Placed {
        handover,
        plan,
        shift,
        file,
        modules,
    };
    let mut count = Emit::count();
    build(&mut count, &placed)?;
    let len = GDT_BYTES.saturating_add(count.len());
    let block = space.take_info(len, "the multiboot information")?;
    let info = block.saturating_add(GDT_BYTES);

    place::perform(mem, &moves)?;
    plan.load(mem, placed.file, shift)?;
    let mut gdt = Emit::at(mem, block);
    for descriptor in GDT {
        gdt.u64(descriptor)?;
    }
    build(&mut Emit::at(mem, info), &placed)?;

    // Both fit: segments and block end below 4 GiB.
    let entry = plan.entry.wrapping_add(shift as u32);
    let mut state = StartState::protected(entry, block);
    state.gpr.rax = u64::from(magic);
    state.gpr.rbx = info;
    state.gpr.rsp = STACK_TOP;
    Ok(state)
}

/// The modules in order, then the kernel file, and the index of the latter.
fn items(handover: &Handover<'_>) -> Result<(Items, usize), Error> {
    let mut items = Items::new();
    let too_many = |_| Error::TooManyModules {
        count: handover.modules.len(),
        limit: crate::MAX_MODULES,
    };
    for module in handover.modules {
        items
            .push(Item {
                what: "a module",
                region: module.region,
                align: MODULE_ALIGN,
            })
            .map_err(too_many)?;
    }
    let kernel_index = items.len();
    items
        .push(Item {
            what: "the kernel file",
            region: handover.kernel,
            align: if handover.kernel.start.is_multiple_of(4) {
                4
            } else {
                FILE_ALIGN
            },
        })
        .map_err(too_many)?;
    Ok((items, kernel_index))
}

/// Usable KiB from 0 and from 1 MiB on, without a gap, as both protocols and
/// the BIOS count them.
pub(crate) fn basic_memory_kib(handover: &Handover<'_>) -> (u32, u32) {
    let kib = |start, most: u64| {
        u32::try_from((handover.map.usable_from(start) / 1024).min(most)).unwrap_or(u32::MAX)
    };
    (kib(0, 640), kib(ONE_MIB, u64::from(u32::MAX)))
}

/// The address fields of either header: where the file goes without ELF.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressFields {
    /// Where in the file the multiboot header stands.
    pub(crate) header_offset: u64,
    pub(crate) header_addr: u32,
    pub(crate) load_addr: u32,
    pub(crate) load_end_addr: u32,
    pub(crate) bss_end_addr: u32,
    pub(crate) entry_addr: u32,
}

impl AddressFields {
    /// Checks the fields against one another and the file.
    pub(crate) fn plan<S: Source>(&self, file: &S, header: &'static str) -> Result<Plan, Error> {
        let bad = |what| Error::BadHeader { header, what };
        let before = self
            .header_addr
            .checked_sub(self.load_addr)
            .ok_or(bad("header_addr lies below load_addr"))?;
        let file_offset = self
            .header_offset
            .checked_sub(u64::from(before))
            .ok_or(bad("load_addr lies before the beginning of the file"))?;
        let file_bytes = if self.load_end_addr == 0 {
            file.len().saturating_sub(file_offset)
        } else {
            u64::from(
                self.load_end_addr
                    .checked_sub(self.load_addr)
                    .ok_or(bad("load_end_addr lies below load_addr"))?,
            )
        };
        file.check(file_offset, file_bytes, "the part to load")?;
        let memory_bytes = if self.bss_end_addr == 0 {
            file_bytes
        } else {
            u64::from(
                self.bss_end_addr
                    .checked_sub(self.load_addr)
                    .ok_or(bad("bss_end_addr lies below load_addr"))?,
            )
        };
        if memory_bytes < file_bytes {
            return Err(bad("bss_end_addr lies below the end of what is loaded"));
        }
        let memory = Region::new(u64::from(self.load_addr), memory_bytes);
        match memory.last() {
            None => return Err(bad("there is nothing to load")),
            Some(last) if last > LAST_32BIT => return Err(bad("it reaches beyond 4 GiB")),
            Some(last) => {
                let entry = u64::from(self.entry_addr);
                if entry < memory.start || entry > last {
                    return Err(bad("entry_addr lies outside of what is loaded"));
                }
            }
        }
        let mut segments = heapless::Vec::new();
        let _ = segments.push(crate::elf_image::LoadSegment {
            file_offset,
            file_bytes,
            memory,
        });
        Ok(Plan {
            segments,
            entry: self.entry_addr,
            sections: None,
        })
    }
}

/// The kernel file of a handover.
pub(crate) fn kernel_file<'m, M: PhysMemory>(
    mem: &'m M,
    handover: &Handover<'_>,
) -> InMemory<'m, M> {
    InMemory::new(mem, handover.kernel)
}

//! Linux by the 32-bit boot protocol.
//!
//! Source of every offset and rule: Linux, Documentation/arch/x86/boot.rst
//! ("The Real-Mode Kernel Header", "32-bit Boot Protocol") and
//! Documentation/arch/x86/zero-page.rst.

mod header;
mod zero_page;

use crate::bytes::align_up;
use crate::error::Error;
use crate::handover::Handover;
use crate::phys::{PhysMemory, Region};
use crate::source::InMemory;
use crate::space::{LAST_32BIT, ONE_MIB, Space, Want};
use crate::state::StartState;

use header::Header;
pub(crate) use header::is_linux;

/// Loads the kernel and gives its start state.
pub(crate) fn start<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
) -> Result<StartState, Error> {
    let header = Header::read(&InMemory::new(mem, handover.kernel))?;
    let command_line_bytes = handover.command_line.len() as u64;
    if command_line_bytes > header.command_line_limit() {
        return Err(Error::CommandLineTooLong {
            len: command_line_bytes,
            limit: header.command_line_limit(),
        });
    }

    // The plan.
    let mut space = Space::new(handover.map);
    let load = load_address(&space, &header)?;
    space.take_fixed(Region::new(load, header.space_bytes), "the Linux kernel")?;
    let initrd = place_initrd(&space, &header, handover)?;
    space.take(initrd)?;
    let block = zero_page::Block::plan(&mut space, handover)?;

    // The deeds: first what may lie where the kernel goes, then the kernel,
    // last the block, which may lie where either was.
    move_initrd(mem, handover, initrd)?;
    mem.copy_within(
        load,
        handover.kernel.start.saturating_add(header.setup_bytes),
        header.kernel_bytes,
    )?;
    let params = block.write(mem, handover, &header, load, initrd)?;

    let mut state = StartState::protected(header::entry(load)?, block.gdt());
    state.gpr.rsi = params;
    Ok(state)
}

/// Where the protected-mode part goes: where the kernel prefers to be, or, if
/// that is not free and the kernel can be moved, at the next place above.
///
/// Not below: a kernel that finds itself below its preferred address unpacks
/// itself to that address all the same.
fn load_address(space: &Space<'_>, header: &Header) -> Result<u64, Error> {
    let preferred = Region::new(header.preferred_address, header.space_bytes);
    if space.is_free(preferred) || !header.relocatable {
        return Ok(preferred.start);
    }
    let want = Want {
        len: header.space_bytes,
        align: header.alignment,
        first: header.preferred_address.max(ONE_MIB),
        last: LAST_32BIT,
    };
    space
        .lowest(&want)
        .ok_or_else(|| want.does_not_fit("the Linux kernel"))
}

/// The modules one after the other, each at a multiple of four, are the
/// initial RAM disk, as several arguments of GRUB's `initrd` are.
fn initrd_bytes(handover: &Handover<'_>) -> u64 {
    handover.modules.iter().fold(0u64, |sum, m| {
        align_up(sum, 4)
            .unwrap_or(u64::MAX)
            .saturating_add(m.region.len)
    })
}

fn place_initrd(
    space: &Space<'_>,
    header: &Header,
    handover: &Handover<'_>,
) -> Result<Region, Error> {
    let want = Want {
        len: initrd_bytes(handover),
        align: 4096,
        first: ONE_MIB,
        last: header.initrd_last.min(LAST_32BIT),
    };
    if want.len == 0 {
        return Ok(Region::default());
    }
    // The kernel file is copied after the initrd, so it must stay whole; and
    // modules are gathered one by one, so none may be overwritten by another.
    let mut space_now = Space::new(space.map());
    for taken in space.taken() {
        space_now.take(*taken)?;
    }
    space_now.take(handover.kernel)?;
    if handover.modules.len() > 1 {
        for module in handover.modules {
            space_now.take(module.region)?;
        }
    }
    match space_now.highest(&want) {
        Some(start) => Ok(Region::new(start, want.len)),
        None => Err(want.does_not_fit("the initial RAM disk")),
    }
}

fn move_initrd<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
    initrd: Region,
) -> Result<(), Error> {
    let mut offset = 0;
    for module in handover.modules {
        let aligned = align_up(offset, 4).unwrap_or(offset);
        mem.zero(initrd.start.saturating_add(offset), aligned - offset)?;
        mem.copy_within(
            initrd.start.saturating_add(aligned),
            module.region.start,
            module.region.len,
        )?;
        offset = aligned.saturating_add(module.region.len);
    }
    Ok(())
}

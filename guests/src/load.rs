//! From a kernel file in memory to a start state.

use crate::boot_sector;
use crate::error::Error;
use crate::handover::Handover;
use crate::kernel::{KernelKind, identify_source};
use crate::linux;
use crate::module::MAX_MODULES;
use crate::multiboot1;
use crate::multiboot2;
use crate::phys::PhysMemory;
use crate::source::InMemory;
use crate::state::StartState;

/// Loads the kernel of `handover` by its own boot protocol, with modules,
/// command line and memory map, and gives the state it starts in.
///
/// Modules and kernel file are moved where they are in the way. What cannot
/// work is refused before anything is moved, except for memory that the map
/// calls usable and `mem` does not reach.
///
/// # Errors
/// One line that says what was wrong.
pub fn start<M: PhysMemory>(
    mem: &mut M,
    handover: &Handover<'_>,
) -> Result<(KernelKind, StartState), Error> {
    if handover.modules.len() > MAX_MODULES {
        return Err(Error::TooManyModules {
            count: handover.modules.len(),
            limit: MAX_MODULES,
        });
    }
    let kind = identify_source(&InMemory::new(mem, handover.kernel))?;
    let state = match kind {
        KernelKind::Linux => linux::start(mem, handover),
        KernelKind::Multiboot2 => multiboot2::start(mem, handover),
        KernelKind::Multiboot1 => multiboot1::start(mem, handover),
        KernelKind::BootSector => boot_sector::start(mem, handover),
    }?;
    Ok((kind, state))
}

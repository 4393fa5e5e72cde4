//! L1 gets what the boot loader would have given it.

use super::too_many_entries;
use crate::cannot_start;
use crate::mem::{L1Physical, layout};
use umbra_guests::{BootInfo, Handover, MAX_MODULES, MemoryMap, ModuleRef, Region, StartState};

/// Loads the first module as L1's kernel, with the others as its modules;
/// stops with a line if it cannot be done.
pub fn load_l1(map: &MemoryMap, info: &BootInfo<'_>, rsdp: Option<u64>) -> StartState {
    let mut map = map.clone();
    let hidden = Region::new(layout().hidden_start, layout().hidden_bytes);
    if let Err(error) = map.reserve(hidden) {
        too_many_entries(error);
    }
    let mut modules = info.modules();
    let Some(kernel) = modules.next() else {
        cannot_start!("there is no L1 kernel: give one as the first module (GRUB: `module2 FILE`)");
    };
    let mut others = heapless::Vec::<ModuleRef<'_>, MAX_MODULES>::new();
    for module in modules {
        if others.push(module).is_err() {
            cannot_start!("there are more than {MAX_MODULES} modules for L1");
        }
    }
    let mut memory = L1Physical::new();
    let mut taken = heapless::Vec::<Region, { MAX_MODULES + 1 }>::new();
    // There is room for the kernel and every module.
    let _ = taken.push(kernel.region);
    taken.extend(others.iter().map(|module| module.region));
    // What the BIOS tells L1 in real mode has to agree with the map. UEFI leaves
    // no BIOS.
    if info.efi().is_none()
        && let Err(error) = umbra_guests::int15::install(&mut memory, &mut map, &taken)
    {
        cannot_start!("{error}");
    }
    let handover = Handover {
        map: &map,
        kernel: kernel.region,
        command_line: kernel.string,
        modules: &others,
        boot_loader_name: info.boot_loader_name(),
        rsdp_v1: info.rsdp_v1(),
        rsdp_v2: info.rsdp_v2(),
        rsdp_address: rsdp,
        boot_device: info.boot_device(),
        framebuffer: info.framebuffer(),
        efi: info.efi(),
        umbra: hidden,
    };
    match umbra_guests::start(&mut memory, &handover) {
        Ok((_, state)) => state,
        Err(error) => cannot_start!("{error}"),
    }
}

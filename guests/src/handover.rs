//! What Umbra hands to an L1.

use crate::bootinfo::{BootDevice, Framebuffer};
use crate::efi::Efi;
use crate::memmap::MemoryMap;
use crate::module::ModuleRef;
use crate::phys::Region;

/// Everything that an L1 gets from Umbra in the place of its boot loader.
///
/// The slices must not lie in memory that is usable in `map`: they are read
/// after modules and kernel have been moved there.
#[derive(Debug, Clone, Copy)]
pub struct Handover<'a> {
    /// L1's memory: the machine's, with Umbra's own reserved.
    pub map: &'a MemoryMap,
    /// Where the kernel file lies.
    pub kernel: Region,
    /// The command line, without the terminating NUL, as the boot loader gave
    /// it: GRUB 2 leaves the file name away in `multiboot`, `multiboot2` and
    /// `module2` alike, so the string of Umbra's first module is exactly what
    /// the kernel would have got from GRUB.
    pub command_line: &'a [u8],
    /// L1's own modules, in order.
    pub modules: &'a [ModuleRef<'a>],
    /// The boot loader's name. Xen decides by it whether the first word of its
    /// command line is a file name, so it has to be the one of the loader
    /// whose strings are passed on.
    pub boot_loader_name: &'a [u8],
    /// A copy of the ACPI 1.0 RSDP (20 bytes), if there is one.
    pub rsdp_v1: Option<&'a [u8]>,
    /// A copy of the ACPI 2.0 RSDP (36 bytes or more), if there is one.
    pub rsdp_v2: Option<&'a [u8]>,
    /// Physical address of the machine's RSDP, where it is known
    /// ([`crate::rsdp::find`]).
    pub rsdp_address: Option<u64>,
    /// The device that the boot loader started from.
    pub boot_device: Option<BootDevice>,
    /// The screen, as the boot loader set it up.
    pub framebuffer: Option<Framebuffer>,
    /// What UEFI firmware left, where it is no BIOS machine.
    pub efi: Option<Efi<'a>>,
    /// Umbra's own memory: reserved in `map`, and to be reserved in the
    /// firmware's map.
    pub umbra: Region,
}

impl<'a> Handover<'a> {
    /// A handover with nothing but the memory map and the kernel.
    pub const fn new(map: &'a MemoryMap, kernel: Region) -> Self {
        Self {
            map,
            kernel,
            command_line: &[],
            modules: &[],
            boot_loader_name: &[],
            rsdp_v1: None,
            rsdp_v2: None,
            rsdp_address: None,
            boot_device: None,
            framebuffer: None,
            efi: None,
            umbra: Region::new(0, 0),
        }
    }
}

//! How much memory Umbra takes, and where.

use super::{loader_regions, too_many_entries};
use crate::arch::cpuid;
use crate::cannot_start;
use crate::cpu::percpu::{CPU_AREA_BYTES, fixed_pages};
use crate::machine::machine;
use crate::mem::paging::{PageSize, pages, tables_for};
use crate::mem::{LOW_BYTES, PAGE_BYTES};
use crate::platform::{ept01, iommu};
use umbra_ept::mtrr::Mtrrs;
use umbra_guests::{BootInfo, Kind, MemoryMap, Region};

/// L0's block begins and ends at multiples of this, so that ept01 hides it
/// with few tables.
pub const ALIGN: u64 = 2 << 20;
/// Where video memory begins: start-up IPIs reach below.
pub const LEGACY_END: u64 = 0xa_0000;
/// The least RAM that must be left for L1.
const MIN_L1_BYTES: u64 = 64 << 20;

unsafe extern "C" {
    pub safe static image_start: u8;
    pub safe static rodata_start: u8;
    pub safe static data_start: u8;
    pub safe static image_end: u8;
}

/// Linear addresses of the parts of the image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// First byte, of the code.
    pub start: u64,
    /// First byte that is read-only data.
    pub rodata: u64,
    /// First byte that can be written.
    pub data: u64,
    /// First byte after it.
    pub end: u64,
}

impl Image {
    /// Of this image.
    pub fn own() -> Self {
        Self {
            start: &raw const image_start as u64,
            rodata: &raw const rodata_start as u64,
            data: &raw const data_start as u64,
            end: &raw const image_end as u64,
        }
    }

    /// Its length in bytes, a multiple of the page size.
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Where the boot loader put it.
    pub const fn loaded_at(&self) -> u64 {
        // See `link.ld`.
        self.start - 0xffff_ffff_8000_0000
    }
}

/// The size of the pages that map RAM above 4 GiB in L0.
pub fn high_page_size() -> PageSize {
    // CPUID.80000001H:EDX bit 26: 1 GiB pages.
    if cpuid::has_gib_pages() {
        PageSize::Large
    } else {
        PageSize::Medium
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// L0's block.
    pub block: Region,
    /// How much of physical memory L0 maps.
    pub mapped_bytes: u64,
    /// A free page below 1 MiB, if there is one.
    pub trampoline: Option<u64>,
}

/// Decides, or stops with a line that gives the numbers.
pub fn make(map: &MemoryMap, info: &BootInfo<'_>, info_address: u64, mtrrs: &Mtrrs) -> Plan {
    let image = Image::own();
    let mapped_bytes = mapped_bytes();
    let bytes = block_bytes(&image, mapped_bytes, mtrrs);
    let usable: u64 = map
        .entries()
        .iter()
        .filter(|e| e.kind == Kind::USABLE)
        .fold(0, |sum, e| sum.saturating_add(e.len()));
    if usable < bytes.saturating_add(MIN_L1_BYTES) {
        cannot_start!(
            "the machine has {} MiB of RAM; Umbra takes {} MiB and leaves L1 at least {} MiB",
            usable >> 20,
            bytes >> 20,
            MIN_L1_BYTES >> 20
        );
    }
    let mut free = map.clone();
    let occupied = loader_regions(info, info_address, super::loader_info::MAX_BYTES as u64)
        .chain([Region::new(image.loaded_at(), image.bytes())]);
    for region in occupied {
        if let Err(error) = free.reserve(region) {
            too_many_entries(error);
        }
    }
    // Some firmware uses what boot services had once more, when L1 tells it where
    // its memory is mapped: there only where nothing else is left.
    let mut unused = free.clone();
    let efi = info.efi();
    for region in efi.iter().flat_map(|efi| efi.memory_map.boot_services()) {
        if let Err(error) = unused.reserve(region) {
            too_many_entries(error);
        }
    }
    let top = |map: &MemoryMap| map.find_top(bytes, ALIGN, LOW_BYTES);
    let Some(start) = top(&unused).or_else(|| top(&free)) else {
        cannot_start!(
            "Umbra needs {} MiB of RAM in one piece below 4 GiB, and the boot loader's modules or the memory map leave none",
            bytes >> 20
        );
    };
    Plan {
        block: Region::new(start, bytes),
        mapped_bytes,
        trampoline: free.find_top(PAGE_BYTES, PAGE_BYTES, LEGACY_END),
    }
}

/// How much of physical memory L0 maps, in bytes from 0: all RAM, in whole GiB.
pub fn mapped_bytes() -> u64 {
    machine()
        .ram_end
        .next_multiple_of(PageSize::Large.bytes())
        .max(LOW_BYTES)
}

/// How many bytes L0's block has.
pub fn block_bytes(image: &Image, mapped_bytes: u64, mtrrs: &Mtrrs) -> u64 {
    let options = &machine().options;
    let cpus = u64::from(machine().cpu_count());
    let tables = 1
        + tables_for(LOW_BYTES, PageSize::Medium)
        + tables_for(mapped_bytes - LOW_BYTES, high_page_size())
        + tables_for(image.bytes(), PageSize::Small)
        + tables_for(cpus * CPU_AREA_BYTES, PageSize::Small)
        // The tables that start the other CPUs.
        + 4;
    // An upper bound on the block, for planning ept01: it hides whole 2 MiB
    // blocks, however many.
    let ept01 = ept01::pages_for(mtrrs, ALIGN);
    // The void page is the one in front.
    let total =
        pages(image.bytes()) + tables + cpus * (fixed_pages(options) + ept01) + iommu::pages() + 1;
    (total * PAGE_BYTES).next_multiple_of(ALIGN)
}

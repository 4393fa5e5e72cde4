//! Physical addresses that an honest L1 would not name, and one that it would.

use core::ops::Range;

use rt::{Boot, cpu};

/// What answers at a physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Memory of this program, given out for the purpose.
    Ram,
    /// Memory that a hypervisor below keeps for itself.
    Hidden,
    /// A part of the firmware: readable, and writes are lost.
    Rom,
    /// A device.
    Device,
    /// Nothing.
    Nothing,
    /// What this program's VMX operation uses: the VMXON region, the current VMCS.
    Own,
}

/// A page.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The word in reports.
    pub name: &'static str,
    /// Its physical address.
    pub address: u64,
    /// What answers there.
    pub kind: Kind,
}

impl Place {
    /// Whether what is written can be read again.
    pub fn is_memory(&self) -> bool {
        matches!(self.kind, Kind::Ram | Kind::Hidden)
    }

    /// Whether it can be read without an effect, and always reads the same.
    pub fn is_readable(&self) -> bool {
        self.is_memory() || self.kind == Kind::Rom
    }

    /// Reads 64 bits. Only for pages below 4 GiB, which are mapped one to one.
    pub fn peek(&self, offset: u64) -> u64 {
        assert!(self.address < 1 << 32 && offset <= 4088, "not mapped");
        // SAFETY: mapped; no Rust object lies at any of these places but behind volatile access.
        unsafe { ((self.address + offset) as *const u64).read_volatile() }
    }

    /// Writes 64 bits where the place is memory.
    pub fn poke(&self, offset: u64, value: u64) {
        assert!(self.is_memory() && offset <= 4088, "not to be written");
        // SAFETY: memory that no Rust object uses, mapped one to one.
        unsafe { ((self.address + offset) as *mut u64).write_volatile(value) }
    }

    /// Writes 32 bits where the place is memory.
    pub fn poke32(&self, offset: u64, value: u32) {
        assert!(self.is_memory() && offset <= 4092, "not to be written");
        // SAFETY: as for `poke`.
        unsafe { ((self.address + offset) as *mut u32).write_volatile(value) }
    }

    /// Makes every word of a place that is memory `value`.
    pub fn fill(&self, value: u64) {
        for offset in (0..4096).step_by(8) {
            self.poke(offset, value);
        }
    }
}

/// Bytes of the blocks that a hypervisor is expected to hide.
const BLOCK: u64 = 2 << 20;

/// One range of the boot loader's memory map.
struct Entry {
    start: u64,
    end: u64,
    kind: u32,
}

/// Entry `number` of the memory map. Section title: "Boot information format" of the Multiboot
/// Specification.
fn entry(boot: &Boot, number: usize) -> Option<Entry> {
    let info = boot.start_state().ebx as usize;
    let word = |address: usize| {
        // SAFETY: the boot loader says that its information is there; the low 4 GiB are mapped.
        unsafe { (address as *const u32).read_unaligned() }
    };
    if word(info) & 1 << 6 == 0 {
        return None;
    }
    let (length, mut at) = (word(info + 44) as usize, word(info + 48) as usize);
    let end = at + length;
    for _ in 0..number {
        at += word(at) as usize + 4;
        if at >= end {
            return None;
        }
    }
    let wide =
        |offset: usize| u64::from(word(at + offset)) | u64::from(word(at + offset + 4)) << 32;
    (at < end).then(|| Entry {
        start: wide(4),
        end: wide(4).wrapping_add(wide(12)),
        kind: word(at + 20),
    })
}

/// The memory that a hypervisor below hides: a reserved range of whole 2 MiB blocks, right above
/// usable memory. `None` where there is no such range, as on a bare machine.
pub fn hidden(boot: &Boot) -> Option<Range<u64>> {
    let entries = || (0..256).map_while(|number| entry(boot, number));
    entries()
        .find(|e| {
            e.kind != 1
                && e.start.is_multiple_of(BLOCK)
                && e.end.is_multiple_of(BLOCK)
                && e.start < e.end
                && e.end < 1 << 32
                && entries().any(|below| below.kind == 1 && below.end == e.start)
        })
        .map(|e| e.start..e.end)
}

/// How many places there are at most.
pub const MAX_PLACES: usize = 13;

/// The places. `ram` is a page of the program's own; `own` are its VMXON region and VMCS.
pub fn all(hidden: &Option<Range<u64>>, ram: u64, own: [u64; 2]) -> [Option<Place>; MAX_PLACES] {
    let place = |name, address, kind| {
        Some(Place {
            name,
            address,
            kind,
        })
    };
    let inside = |name, address: fn(&Range<u64>) -> u64| {
        let address = address(hidden.as_ref()?);
        place(name, address, Kind::Hidden)
    };
    let width = cpu::maxphyaddr();
    [
        place("ram", ram, Kind::Ram),
        inside("hidden first", |h| h.start),
        inside("hidden middle", |h| ((h.start + h.end) / 2) & !0xfff),
        inside("hidden near the end", |h| h.end - (1 << 20) - 4096),
        inside("hidden last", |h| h.end - 4096),
        place("rom", 0xf_0000, Kind::Rom),
        place("high rom", 0xffff_f000, Kind::Rom),
        place("vga", 0xa_0000, Kind::Device),
        place("hole", 0xd000_0000, Kind::Nothing),
        place(
            "beyond memory",
            0x40_0000_0000 >> (40 - width.min(40)),
            Kind::Nothing,
        ),
        place("last page", (1 << width) - 4096, Kind::Nothing),
        place("vmxon region", own[0], Kind::Own),
        place("own vmcs", own[1], Kind::Own),
    ]
}

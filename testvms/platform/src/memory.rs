//! What the boot loader hands over: the start state, the memory map, and memory that the map
//! keeps back.
//!
//! Multiboot Specification 0.6.96, "Machine state" and "Boot information format". Of the map only
//! what cannot depend on who reserved memory below 4 GiB is printed.

use rt::Boot;
use rt::case;

/// "flags" bits 0 and 6: memory sizes, memory map.
const HAS_SIZES: u32 = 1;
const HAS_MAP: u32 = 1 << 6;
const USABLE: u32 = 1;
const RESERVED: u32 = 2;
const MIB: u64 = 1 << 20;
/// Above this a 32-bit machine has devices.
const TOP: u64 = 0xc000_0000;

/// One entry of the map.
#[derive(Clone, Copy)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// 1 for RAM that may be used.
    pub kind: u32,
}

impl Range {
    fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

fn word(address: u64) -> u32 {
    // SAFETY: the multiboot information and its map are below 4 GiB, which is mapped.
    unsafe { (address as *const u32).read_unaligned() }
}

fn long(address: u64) -> u64 {
    u64::from(word(address)) | u64::from(word(address + 4)) << 32
}

/// Prints what must be equal of a map, whoever gives it.
pub fn describe(name: &str, ranges: &[Range]) {
    let total: u64 = ranges.iter().map(|range| range.bytes).sum();
    case!("{name}: {total:x} bytes in all kinds");
    let starts_at_0 = ranges
        .iter()
        .any(|range| range.start == 0 && range.kind == USABLE);
    case!("{name}, usable from 0 on: {starts_at_0}");
    if let Some(last) = ranges.iter().max_by_key(|range| range.start) {
        case!(
            "{name}, highest: {:x} {:x} kind {}",
            last.start,
            last.bytes,
            last.kind
        );
    }
    let overlaps = ranges.iter().enumerate().any(|(n, a)| {
        ranges[n + 1..]
            .iter()
            .any(|b| a.start < b.end() && b.start < a.end())
    });
    case!("{name}, two entries overlap: {overlaps}");
    let other: u64 = ranges
        .iter()
        .filter(|range| range.kind != USABLE && range.kind != RESERVED)
        .map(|range| range.bytes)
        .sum();
    case!("{name}: {other:x} bytes are neither usable nor reserved");
}

/// Prints it.
pub fn run(boot: &Boot) {
    let state = boot.start_state();
    // PG and PE; VM and IF. The rest is undefined by the specification.
    case!(
        "start: EAX {:x}, CR0.PG {}, CR0.PE {}, EFLAGS.VM {}, EFLAGS.IF {}",
        state.eax,
        state.cr0 >> 31,
        state.cr0 & 1,
        state.eflags >> 17 & 1,
        state.eflags >> 9 & 1
    );
    let info = u64::from(state.ebx);
    let flags = word(info);
    case!(
        "multiboot: sizes {}, map {}",
        flags & HAS_SIZES,
        flags >> 6 & 1
    );
    if flags & HAS_MAP == 0 {
        return;
    }
    let mut ranges = [Range {
        start: 0,
        bytes: 0,
        kind: 0,
    }; 64];
    let (mut at, mut count) = (u64::from(word(info + 48)), 0);
    let end = at + u64::from(word(info + 44));
    while at < end && count < ranges.len() {
        ranges[count] = Range {
            start: long(at + 4),
            bytes: long(at + 12),
            kind: word(at + 20),
        };
        count += 1;
        at += u64::from(word(at)) + 4;
    }
    let ranges = &ranges[..count];
    case!("multiboot map ends with its last entry: {}", at == end);
    describe("multiboot map", ranges);
    if flags & HAS_SIZES != 0 {
        let lower = u64::from(word(info + 4)) << 10;
        let upper = u64::from(word(info + 8)) << 10;
        let has = |start: u64, bytes: u64| {
            ranges.iter().any(|range| {
                range.kind == USABLE && range.start == start && range.bytes & !1023 == bytes
            })
        };
        case!("multiboot lower memory is the map's: {}", has(0, lower));
        case!("multiboot upper memory is the map's: {}", has(MIB, upper));
    }
    touch_reserved(ranges);
}

/// Reads and writes memory that the map keeps back between usable memory: on a bare machine there
/// is none, below a hypervisor it is the hypervisor's.
fn touch_reserved(ranges: &[Range]) {
    let top = ranges
        .iter()
        .filter(|range| range.kind == USABLE && range.start < TOP)
        .map(Range::end)
        .max()
        .unwrap_or(0);
    let kept = ranges.iter().filter(|range| {
        range.kind == RESERVED && range.start >= MIB && range.end() <= TOP && range.start <= top
    });
    for range in kept {
        for offset in (0..range.bytes).step_by(4096) {
            let word = (range.start + offset) as *mut u64;
            // SAFETY: mapped, and nobody's who would miss it: that is what is tested.
            unsafe { word.write_volatile(!word.read_volatile()) };
        }
    }
    case!("reserved memory touched");
}

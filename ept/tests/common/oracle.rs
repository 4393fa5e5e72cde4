//! What a CPU would do with ept12 and ept01, read off the SDM one address at a
//! time. Shares no code with the crate.

use umbra_ept::addr::Level;
use umbra_ept::caps::Caps;

use super::{Cells, HIDDEN, VOID};

/// What an entry is.
#[derive(Debug, PartialEq)]
pub enum Class {
    NotPresent,
    Misconfigured,
    Table,
    Leaf,
}

/// The reserved bits of an entry, from the SDM's table of formats.
fn reserved(raw: u64, level: Level, caps: &Caps) -> (bool, u64) {
    let bits = |high: u32, low: u32| ((1u128 << (high + 1)) - (1u128 << low)) as u64;
    let width = u32::from(caps.maxphyaddr);
    let beyond = if width < 52 { bits(51, width) } else { 0 };
    let seven = raw >> 7 & 1 == 1;
    let (leaf, more) = match level {
        Level::Pml5 | Level::Pml4 => (false, bits(7, 3)),
        Level::Pdpt if seven && caps.page_1g => (true, bits(29, 12)),
        Level::Pd if seven && caps.page_2m => (true, bits(20, 12)),
        Level::Pdpt | Level::Pd => (false, bits(7, 3)),
        Level::Pt => (true, 0),
    };
    (leaf, beyond | more)
}

/// What the SDM makes of an entry.
pub fn expected(raw: u64, level: Level, caps: &Caps) -> Class {
    let bit = |n: u32| raw >> n & 1 == 1;
    let executable = bit(2) || caps.mode_based_execute && bit(10);
    if !bit(0) && !bit(1) && !executable {
        return Class::NotPresent;
    }
    let (leaf, reserved) = reserved(raw, level, caps);
    let bad = !bit(0) && bit(1)
        || !bit(0) && !caps.execute_only && executable
        || raw & reserved != 0
        || leaf && matches!(raw >> 3 & 7, 2 | 3 | 7);
    match (bad, leaf) {
        (true, _) => Class::Misconfigured,
        (false, true) => Class::Leaf,
        (false, false) => Class::Table,
    }
}

/// A translation by ept12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naive {
    pub gpa1: u64,
    /// Bits 0, 1, 2 and 10; without mode-based execute 10 follows 2.
    pub rights: u64,
    pub leaf: u64,
    pub level: u32,
    pub accessed: bool,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NaiveFault {
    NotPresent { suppress_ve: bool },
    Misconfigured,
}

/// L1's address in the machine.
pub fn home(gpa1: u64) -> u64 {
    if (HIDDEN.start..HIDDEN.end).contains(&gpa1) {
        VOID + gpa1 % 4096
    } else {
        gpa1
    }
}

/// Walks ept12 for one address.
pub fn walk12(cells: &Cells, root: u64, gpa2: u64, caps: &Caps) -> Result<Naive, NaiveFault> {
    let mut table = root;
    let mut rights = 0x407;
    let mut accessed = true;
    for level in [Level::Pml4, Level::Pdpt, Level::Pd, Level::Pt] {
        let shift = [12, 21, 30, 39][level as usize - 1];
        let entry = cells.get(home(table + (gpa2 >> shift) % 512 * 8));
        let class = expected(entry, level, caps);
        match class {
            Class::NotPresent => {
                return Err(NaiveFault::NotPresent {
                    suppress_ve: entry >> 63 == 1,
                });
            }
            Class::Misconfigured => return Err(NaiveFault::Misconfigured),
            _ => {}
        }
        let mut here = entry & 7;
        if caps.mode_based_execute {
            here |= entry & 0x400;
        } else if entry & 4 != 0 {
            here |= 0x400;
        }
        rights &= here;
        accessed &= entry & 0x100 != 0;
        let address = entry % (1 << 52) / 4096 * 4096;
        if class == Class::Leaf {
            return Ok(Naive {
                gpa1: address + gpa2 % (1 << shift),
                rights,
                leaf: entry,
                level: level as u32,
                accessed,
            });
        }
        table = address;
    }
    unreachable!("the last level holds leaves only")
}

//! Walks ept12 as the CPU would, for one access of L2.

use umbra_arch::qualification::EptViolation;
use umbra_arch::{Gpa1, Gpa2};

use crate::addr::Level;
use crate::caps::Caps;
use crate::entry::{Decoded, Entry, Why, bit};
use crate::eptp::Eptp;
use crate::mem::L1Memory;
use crate::memtype::MemType;
use crate::rights::{Access, Permits, Rights};

/// Levels of the longest walk.
pub const MAX_LEVELS: usize = 5;

/// An entry that a walk used: where it is and what it held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Where the entry is, 8-byte aligned.
    pub gpa1: Gpa1,
    /// Its value when it was read.
    pub value: u64,
}

/// Where ept12 takes an L2 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where the byte is that was asked for.
    pub gpa1: Gpa1,
    /// Level of the leaf: its size is `level.span_bytes()`.
    pub level: Level,
    /// AND of the rights of every entry used.
    pub rights: Rights,
    /// Memory type of the leaf.
    pub mem_type: MemType,
    /// Ignore-PAT bit of the leaf.
    pub ignore_pat: bool,
    /// Suppress-#VE bit of the leaf.
    pub suppress_ve: bool,
    /// The entries used, root first.
    entries: [Used; MAX_LEVELS],
    count: usize,
}

impl Translation {
    /// The entries used, root first and the leaf last, for their accessed and
    /// dirty flags.
    #[inline]
    #[must_use]
    pub fn entries(&self) -> &[Used] {
        self.entries.get(..self.count).unwrap_or(&[])
    }

    /// AND of the rights of every entry but the leaf.
    pub(crate) fn upper_rights(&self, mode_based_execute: bool) -> Rights {
        let upper = self.entries().split_last().map_or(&[][..], |(_, u)| u);
        let all = upper.iter().fold(u64::MAX, |all, used| all & used.value);
        Rights::of_entry(all, mode_based_execute)
    }

    /// The leaf entry.
    #[inline]
    #[must_use]
    pub fn leaf(&self) -> Used {
        self.entries().last().copied().unwrap_or_default()
    }

    /// Replaces the value of each entry, root first, by what `set` makes of it
    /// and of whether it is the leaf; stops and returns `false` at `None`.
    pub(crate) fn set_flags(&mut self, mut set: impl FnMut(Used, bool) -> Option<u64>) -> bool {
        let count = self.count;
        for (n, used) in self.entries.iter_mut().take(count).enumerate() {
            match set(*used, n + 1 == count) {
                Some(value) => used.value = value,
                None => return false,
            }
        }
        true
    }

    /// Every entry has its accessed flag.
    #[inline]
    #[must_use]
    pub fn is_accessed(&self) -> bool {
        self.entries().iter().all(|u| u.value & bit::ACCESSED != 0)
    }

    /// The leaf has its dirty flag.
    #[inline]
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.leaf().value & bit::DIRTY != 0
    }
}

/// An EPT violation that L1's tables cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Bits 0 to 6 of the exit qualification: the access, and what the walk
    /// allowed. See [`Violation::qualification`] for the rest.
    pub low_bits: u64,
    /// Whether the CPU may turn it into a virtualization exception, if vmcs12
    /// enables that (SDM "Convertible EPT Violations").
    pub convertible: bool,
    /// The entry at fault maps a page (and lacks a right) or is not present.
    pub present: bool,
    /// Level of that entry.
    pub level: Level,
}

impl Violation {
    /// The exit qualification for L1, from the one that the hardware gave for
    /// the same access under ept02: bits 3 to 6 are ept12's, and everything
    /// about the linear address, NMI unblocking and so on stays.
    #[inline]
    #[must_use]
    pub const fn qualification(&self, hardware: u64) -> u64 {
        const ALLOWED: u64 = EptViolation::READABLE
            .union(EptViolation::WRITABLE)
            .union(EptViolation::EXECUTABLE)
            .union(EptViolation::EXECUTABLE_USER)
            .bits();
        hardware & !ALLOWED | self.low_bits & ALLOWED
    }
}

/// An EPT misconfiguration in L1's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misconfiguration {
    /// What is wrong with the entry.
    pub why: Why,
    /// Level of the entry.
    pub level: Level,
    /// The entry.
    pub entry: Used,
}

/// Why ept12 does not translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// VM exit 48 to L1, or #VE to L2.
    Violation(Violation),
    /// VM exit 49 to L1.
    Misconfiguration(Misconfiguration),
}

/// Walks ept12 from `eptp` for `gpa2` as far as it goes, leaving aside whether an access
/// would be allowed. `access` only appears in the qualification of a fault.
///
/// Every entry on the way is read and judged before rights are: a
/// misconfiguration further down comes before a right that is missing further
/// up (SDM "Prioritization of EPT Misconfigurations and EPT Violations").
///
/// # Errors
/// A [`Fault`] for an entry that is not present or misconfigured, and a
/// violation for an address that the walk has no index for.
#[inline]
pub fn translate(
    eptp: Eptp,
    gpa2: Gpa2,
    access: Access,
    caps: &Caps,
    mem: &mut impl L1Memory,
) -> Result<Translation, Fault> {
    let top = eptp.root_level();
    let mut walk = Walk {
        gpa2,
        caps,
        mem,
        ordinary: caps.beyond_width() | bit::TABLE_RESERVED | Rights::READ.bits(),
        all: u64::MAX,
        entries: [Used::default(); MAX_LEVELS],
        count: 0,
    };
    let stop = if gpa2.raw() >> (top.shift() + 9) == 0 {
        walk.run(top, eptp.root())
    } else {
        Stop {
            level: top,
            decoded: Decoded::NotPresent { suppress_ve: true },
        }
    };
    let level = stop.level;
    match stop.decoded {
        Decoded::Leaf(leaf) => Ok(Translation {
            gpa1: leaf.address.plus(level.offset(gpa2.raw())),
            level,
            rights: Rights::of_entry(walk.all, caps.mode_based_execute),
            mem_type: leaf.mem_type,
            ignore_pat: leaf.ignore_pat,
            suppress_ve: leaf.suppress_ve,
            entries: walk.entries,
            count: walk.count,
        }),
        Decoded::Misconfigured(why) => {
            let last = walk.count.wrapping_sub(1);
            Err(Fault::Misconfiguration(Misconfiguration {
                why,
                level,
                entry: walk.entries.get(last).copied().unwrap_or_default(),
            }))
        }
        // The last level decodes to leaves only, so no walk stops at a table.
        Decoded::NotPresent { suppress_ve: true } | Decoded::Table { .. } => {
            Err(not_present(access, false, level))
        }
        Decoded::NotPresent { suppress_ve: false } => Err(not_present(access, true, level)),
    }
}

fn not_present(access: Access, convertible: bool, level: Level) -> Fault {
    Fault::Violation(Violation {
        low_bits: access.qualification_bits(),
        convertible,
        present: false,
        level,
    })
}

/// A walk on its way down.
struct Walk<'a, M> {
    gpa2: Gpa2,
    caps: &'a Caps,
    mem: &'a mut M,
    /// An entry above the last level whose only bit of these is R names a
    /// table: nearly every one does, and needs no further look.
    ordinary: u64,
    /// AND of the entries so far.
    all: u64,
    entries: [Used; MAX_LEVELS],
    count: usize,
}

/// Where a walk ended, and at what.
struct Stop {
    level: Level,
    decoded: Decoded,
}

impl<M: L1Memory> Walk<'_, M> {
    #[inline(always)]
    fn run(&mut self, top: Level, root: Gpa1) -> Stop {
        match self.down(top, root) {
            Ok(_) => Stop {
                level: Level::Pt,
                decoded: Decoded::NotPresent { suppress_ve: true },
            },
            Err(stop) => stop,
        }
    }

    #[inline(always)]
    fn down(&mut self, top: Level, root: Gpa1) -> Result<Gpa1, Stop> {
        let mut table = root;
        if top == Level::Pml5 {
            table = self.step(Level::Pml5, table)?;
        }
        table = self.step(Level::Pml4, table)?;
        table = self.step(Level::Pdpt, table)?;
        table = self.step(Level::Pd, table)?;
        self.step(Level::Pt, table)
    }

    /// Reads one entry. The next table, or why there is none.
    #[inline(always)]
    fn step(&mut self, level: Level, table: Gpa1) -> Result<Gpa1, Stop> {
        let gpa1 = table.plus((level.index(self.gpa2.raw()) as u64) << 3);
        // Where nothing answers, the bus reads as ones.
        let value = self.mem.read_u64(gpa1).unwrap_or(u64::MAX);
        if let Some(slot) = self.entries.get_mut(self.count) {
            *slot = Used { gpa1, value };
        }
        self.count += 1;
        self.all &= value;
        if level != Level::Pt && value & self.ordinary == Rights::READ.bits() {
            return Ok(Gpa1::in_entry(value));
        }
        match Entry(value).decode(level, self.caps) {
            Decoded::Table { address, .. } => Ok(address),
            decoded => Err(Stop { level, decoded }),
        }
    }
}

impl Translation {
    /// The violation of an access that the walk's rights do not permit.
    #[inline]
    #[must_use]
    pub fn violation(&self, access: Access, caps: &Caps) -> Violation {
        Violation {
            low_bits: access.qualification_bits()
                | self.rights.qualification_bits(caps.mode_based_execute),
            convertible: !self.suppress_ve,
            present: true,
            level: self.level,
        }
    }
}

/// Walks ept12 for one access. Accessed and dirty flags are left alone.
///
/// A fetch whose mode is unknown passes if either mode may fetch.
///
/// # Errors
/// The [`Fault`] that the CPU would find.
pub fn walk(
    eptp: Eptp,
    gpa2: Gpa2,
    access: Access,
    caps: &Caps,
    mem: &mut impl L1Memory,
) -> Result<Translation, Fault> {
    let found = translate(eptp, gpa2, access, caps, mem)?;
    match access.permitted_by(found.rights) {
        Permits::Yes | Permits::Unknown => Ok(found),
        Permits::No => Err(Fault::Violation(found.violation(access, caps))),
    }
}

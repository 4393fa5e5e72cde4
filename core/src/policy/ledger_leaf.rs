//! The ledger's cells, and the CPUID leaf through which L1's kernel reads them.
//!
//! With the option `ledger`, CPUID with EAX = [`LEAF`] at privilege level 0 of L1 answers what ECX asks:
//!
//! | ECX | EAX | EBX | ECX | EDX |
//! |---|---|---|---|---|
//! | 0 | [`SIGNATURE`] | [`VERSION`] | the number of cells | bit 0: accesses are counted; bits 31:16: CPUs |
//! | 0x10000 + cell | count, low | count, high | ticks, low | ticks, high |
//! | 0x20000 + cell | VMREADs, low | VMWRITEs, low | VMPTRLDs, low | 0 |
//!
//! A cell is level << 9, reason << 2, why. Programs of L1's, and L2, read what they read without Umbra.

/// The leaf.
pub const LEAF: u32 = 0x4fff_4c47;
/// Of the leaf: "UMLG".
pub const SIGNATURE: u32 = u32::from_le_bytes(*b"UMLG");
/// Of the leaf, and of the document at the end of a run.
pub const VERSION: u32 = 1;

/// Who was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Level {
    /// L1.
    L1,
    /// L2.
    L2,
}

impl Level {
    /// Both.
    pub const ALL: [Self; 2] = [Self::L1, Self::L2];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
        }
    }
}

/// Why the exit happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Why {
    /// L1 asked for it: its own control bits, or an instruction of VMX.
    L1Asked,
    /// L0 needs it.
    L0Needs,
    /// ept01 or ept02 had no entry yet.
    CacheMiss,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::L1Asked, Self::L0Needs, Self::CacheMiss];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1Asked => "l1-asked",
            Self::L0Needs => "l0-needs",
            Self::CacheMiss => "cache-miss",
        }
    }
}

/// Exit reasons have numbers below this; the last is for those that do not.
pub const REASONS: usize = 128;
/// The number of cells: each index is a combination, with room for a fourth why.
pub const CELLS: usize = 2 * REASONS * 4;

/// The cell of a combination, below [`CELLS`].
#[inline]
pub const fn cell_of(level: Level, reason: u16, why: Why) -> usize {
    let row = if reason < REASONS as u16 {
        reason as usize
    } else {
        REASONS - 1
    };
    (level as usize) << 9 | row << 2 | why as usize
}

/// What ECX asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What the ledger is.
    What,
    /// Count and ticks of a cell.
    Exits(usize),
    /// VMCS accesses of a cell.
    Accesses(usize),
    /// Nothing that there is.
    Unknown,
}

impl Question {
    /// From ECX.
    pub const fn of(subleaf: u32) -> Self {
        let cell = (subleaf & 0xffff) as usize;
        match subleaf >> 16 {
            0 if cell == 0 => Self::What,
            1 if cell < CELLS => Self::Exits(cell),
            2 if cell < CELLS => Self::Accesses(cell),
            _ => Self::Unknown,
        }
    }
}

/// What a cell came to.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Exits.
    pub count: u64,
    /// Ticks of the TSC in their handlers.
    pub ticks: u64,
    /// VMREADs, VMWRITEs and VMPTRLDs in their handlers.
    pub accesses: [u64; 3],
}

impl Sums {
    /// Both together.
    pub const fn plus(mut self, other: &Self) -> Self {
        self.count = self.count.wrapping_add(other.count);
        self.ticks = self.ticks.wrapping_add(other.ticks);
        let mut n = 0;
        while n < self.accesses.len() {
            self.accesses[n] = self.accesses[n].wrapping_add(other.accesses[n]);
            n += 1;
        }
        self
    }

    /// The answer to [`Question::Exits`].
    pub const fn exits(&self) -> [u32; 4] {
        [
            self.count as u32,
            (self.count >> 32) as u32,
            self.ticks as u32,
            (self.ticks >> 32) as u32,
        ]
    }

    /// The answer to [`Question::Accesses`].
    pub const fn accesses(&self) -> [u32; 4] {
        let [reads, writes, loads] = self.accesses;
        [reads as u32, writes as u32, loads as u32, 0]
    }
}

/// The answer to [`Question::What`].
pub const fn what(counts_accesses: bool, cpus: u32) -> [u32; 4] {
    [
        SIGNATURE,
        VERSION,
        CELLS as u32,
        counts_accesses as u32 | cpus << 16,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_has_a_cell_of_its_own_and_the_last_is_nobodys() {
        let mut seen = std::collections::BTreeSet::new();
        for level in Level::ALL {
            for reason in 0..REASONS as u16 {
                for why in Why::ALL {
                    assert!(seen.insert(cell_of(level, reason, why)));
                }
            }
            assert_eq!(
                cell_of(level, u16::MAX, Why::L1Asked),
                cell_of(level, 127, Why::L1Asked)
            );
        }
        assert!(seen.iter().all(|&cell| cell < CELLS - 1));
    }

    #[test]
    fn what_is_asked_beyond_the_cells_is_unknown() {
        assert_eq!(Question::of(0), Question::What);
        assert_eq!(Question::of(0x1_03ff), Question::Exits(0x3ff));
        assert_eq!(Question::of(0x2_0000), Question::Accesses(0));
        for beyond in [1, 0xffff, 0x1_0400, 0x2_0400, 0x3_0000, u32::MAX] {
            assert_eq!(Question::of(beyond), Question::Unknown, "{beyond:#x}");
        }
    }

    #[test]
    fn counts_come_in_halves() {
        let sums = Sums {
            count: 1 << 32 | 7,
            ticks: 5 << 32,
            accesses: [1, 2, 3],
        };
        assert_eq!(sums.exits(), [7, 1, 0, 5]);
        assert_eq!(sums.accesses(), [1, 2, 3, 0]);
        assert_eq!(what(true, 4)[3], 0x4_0001);
    }
}

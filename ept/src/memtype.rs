//! Memory types and their merge.

pub use umbra_arch::MemType;

/// All five types, in the order of their encodings.
pub const ALL: [MemType; 5] = [
    MemType::Uncacheable,
    MemType::WriteCombining,
    MemType::WriteThrough,
    MemType::WriteProtected,
    MemType::WriteBack,
];

/// The type that two overlapping ranges have together.
///
/// SDM "MTRR Precedences" settles the equal pairs, everything with UC
/// (UC), and WT with WB (WT); it leaves the rest undefined. Here WB asks
/// for nothing and gives way to any type, and two different ones of WC, WT
/// and WP, which contradict each other, give UC.
#[inline]
#[must_use]
pub const fn meet(one: MemType, other: MemType) -> MemType {
    if one as u8 == other as u8 {
        return one;
    }
    match (one, other) {
        (MemType::WriteBack, t) | (t, MemType::WriteBack) => t,
        _ => MemType::Uncacheable,
    }
}

/// How ept02 gets its memory type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// ept12's type alone: MTRRs have no say in an access that EPT translates
    /// (SDM "Memory Type Used for Translated Guest-Physical Addresses").
    #[default]
    Ept12Only,
    /// ept12's type and the machine's by [`meet`]: never more
    /// cacheable than the MTRRs allow.
    MtrrPrecedence,
}

impl Merge {
    /// The type of an ept02 leaf from ept12's and the machine's (ept01's).
    #[inline]
    #[must_use]
    pub const fn merge(self, ept12: MemType, machine: MemType) -> MemType {
        match self {
            Self::Ept12Only => ept12,
            Self::MtrrPrecedence => meet(ept12, machine),
        }
    }
}

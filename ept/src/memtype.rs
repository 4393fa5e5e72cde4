//! Memory types and their merge.

/// A memory type that an EPT leaf or an MTRR may name. The values are the
/// encodings of the SDM ("Memory Types That Can Be Encoded in MTRRs").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MemType {
    /// UC.
    Uncacheable = 0,
    /// WC.
    WriteCombining = 1,
    /// WT.
    WriteThrough = 4,
    /// WP.
    WriteProtected = 5,
    /// WB.
    WriteBack = 6,
}

/// All five types, in the order of their encodings.
pub const ALL: [MemType; 5] = [
    MemType::Uncacheable,
    MemType::WriteCombining,
    MemType::WriteThrough,
    MemType::WriteProtected,
    MemType::WriteBack,
];

impl MemType {
    /// From an encoding; `None` for the reserved ones.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }

    /// The type that two overlapping ranges have together.
    ///
    /// SDM "MTRR Precedences" settles the equal pairs, everything with UC
    /// (UC), and WT with WB (WT); it leaves the rest undefined. Here WB asks
    /// for nothing and gives way to any type, and two different ones of WC, WT
    /// and WP, which contradict each other, give UC.
    #[inline]
    #[must_use]
    pub const fn meet(self, other: Self) -> Self {
        if self as u8 == other as u8 {
            return self;
        }
        match (self, other) {
            (Self::WriteBack, t) | (t, Self::WriteBack) => t,
            _ => Self::Uncacheable,
        }
    }
}

/// How ept02 gets its memory type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// ept12's type alone: MTRRs have no say in an access that EPT translates
    /// (SDM "Memory Type Used for Translated Guest-Physical Addresses").
    #[default]
    Ept12Only,
    /// ept12's type and the machine's by [`MemType::meet`]: never more
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
            Self::MtrrPrecedence => ept12.meet(machine),
        }
    }
}

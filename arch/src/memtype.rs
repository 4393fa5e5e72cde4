//! Memory types, the PAT, the MTRRs. SDM "Memory Type Range Registers (MTRRs)",
//! "Page Attribute Table (PAT)".

/// Memory types, as the MTRRs, the PAT and EPT entries encode them.
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

impl MemType {
    /// The type of an encoding; 2, 3, 7 and more are no type of an MTRR.
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
}

/// Whether IA32_PAT may hold the value: each byte is 0, 1, 4, 5, 6 or 7.
#[inline]
#[must_use]
pub const fn pat_is_valid(pat: u64) -> bool {
    // Bit 1 only beside bit 2 (6, 7), and no bit above.
    const LOW: u64 = 0x0101_0101_0101_0101;
    let bit2 = pat >> 2 & LOW;
    let bit1 = pat >> 1 & LOW;
    pat & !(LOW * 7) == 0 && bit1 & !bit2 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_pat_counts() {
        for byte in 0..8 {
            for value in 0..=255u64 {
                let pat = 0x0007_0406_0007_0406 & !(0xff << (8 * byte)) | value << (8 * byte);
                let valid = matches!(value, 0 | 1 | 4..=7);
                assert_eq!(pat_is_valid(pat), valid, "{pat:#x}");
            }
        }
    }
}

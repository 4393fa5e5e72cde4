//! All 25 pairs of memory types under both policies, as literal tables.

use umbra_ept::memtype::MemType::{
    self, Uncacheable as UC, WriteBack as WB, WriteCombining as WC, WriteProtected as WP,
    WriteThrough as WT,
};
use umbra_ept::memtype::{ALL, Merge};

/// Rows: ept12. Columns: the machine, UC WC WT WP WB.
const PRECEDENCE: [[MemType; 5]; 5] = [
    [UC, UC, UC, UC, UC],
    [UC, WC, UC, UC, WC],
    [UC, UC, WT, UC, WT],
    [UC, UC, UC, WP, WP],
    [UC, WC, WT, WP, WB],
];

#[test]
fn all_pairs_by_mtrr_precedence() {
    for (ept12, row) in ALL.into_iter().zip(PRECEDENCE) {
        for (machine, expect) in ALL.into_iter().zip(row) {
            let got = Merge::MtrrPrecedence.merge(ept12, machine);
            assert_eq!(got, expect, "{ept12:?} {machine:?}");
        }
    }
}

#[test]
fn all_pairs_by_ept12_alone() {
    for ept12 in ALL {
        for machine in ALL {
            assert_eq!(Merge::Ept12Only.merge(ept12, machine), ept12);
        }
    }
    assert_eq!(Merge::default(), Merge::Ept12Only);
}

#[test]
fn encodings() {
    for bits in 0..=255u8 {
        let expect = match bits {
            0 => Some(UC),
            1 => Some(WC),
            4 => Some(WT),
            5 => Some(WP),
            6 => Some(WB),
            _ => None,
        };
        assert_eq!(MemType::from_bits(bits), expect);
    }
}

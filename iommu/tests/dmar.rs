//! The firmware's table: what it says, and every way in which it can be wrong.

mod common;

use common::{SCOPE, dmar, drhd, rmrr, seal, structure};
use proptest::prelude::*;
use umbra_iommu::dmar::{Dmar, Error, MAX_REGIONS, MAX_UNITS};
use umbra_iommu::plan;
use umbra_iommu::ranges::Range;

fn range(start: u64, last: u64) -> Range {
    Range::touching(start, last).expect("a range")
}

fn good() -> Vec<u8> {
    let mut rhsa = vec![0; 4];
    rhsa.extend(0xfed9_0000_u64.to_le_bytes());
    rhsa.extend([0; 4]);
    dmar(
        38,
        3,
        &[
            drhd(0, 0, 0, 0xfed9_1000, &SCOPE),
            drhd(1, 0, 0, 0xfed9_0000, &[SCOPE, SCOPE].concat()),
            rmrr(0x7b80_0000, 0x7fbf_ffff, &SCOPE),
            structure(2, &[1, 0, 0, 0]),
            structure(3, &rhsa),
            structure(4, &[0, 0, 0, 1, b'X', 0]),
            structure(77, &[]),
        ],
    )
}

#[test]
fn every_structure_is_understood() {
    let dmar = Dmar::parse(&good()).unwrap();
    assert_eq!(dmar.address_bits, 39);
    assert!(dmar.interrupt_remapping);
    assert!(dmar.x2apic_opt_out);
    assert_eq!(dmar.units.len(), 2);
    assert!(!dmar.units[0].is_catch_all);
    assert!(dmar.units[1].is_catch_all);
    assert_eq!(dmar.units[0].registers, range(0xfed9_1000, 0xfed9_1fff));
    assert_eq!(dmar.units[0].register_bytes(), 4096);
    assert_eq!(dmar.reserved[..], [range(0x7b80_0000, 0x7fbf_ffff)]);
    assert_eq!(dmar.others, 4);
}

#[test]
fn bytes_behind_the_table_do_not_count() {
    let mut table = good();
    table.extend([0xff; 32]);
    assert_eq!(Dmar::parse(&table), Dmar::parse(&good()));
}

#[test]
fn a_table_cut_anywhere_is_refused() {
    let whole = good();
    for bytes in 0..whole.len() {
        assert_eq!(
            Dmar::parse(&whole[..bytes]),
            Err(Error::Truncated),
            "{bytes} bytes"
        );
        // With the length put right it is cut at a structure or not at all.
        if bytes >= 48 {
            let mut cut = whole[..bytes].to_vec();
            seal(&mut cut);
            match Dmar::parse(&cut) {
                Ok(dmar) => assert!(!dmar.units.is_empty()),
                Err(error) => assert!(
                    matches!(error, Error::Length(_) | Error::NoUnit),
                    "{bytes} bytes: {error:?}"
                ),
            }
        }
    }
}

#[test]
fn a_damaged_table_is_refused() {
    for at in 0..good().len() {
        let mut table = good();
        table[at] ^= 0x10;
        let error = Dmar::parse(&table).unwrap_err();
        match at {
            0..4 => assert_eq!(error, Error::Signature),
            4..8 => assert!(matches!(error, Error::Truncated | Error::Checksum)),
            _ => assert_eq!(error, Error::Checksum, "byte {at}"),
        }
    }
}

#[test]
fn each_malformation_has_its_name() {
    let unit = || drhd(1, 0, 0, 0xfed9_0000, &[]);
    let one = |structure| Dmar::parse(&dmar(38, 0, &[structure])).unwrap_err();
    let two = |structure| Dmar::parse(&dmar(38, 0, &[unit(), structure])).unwrap_err();
    assert_eq!(Dmar::parse(&dmar(38, 0, &[])), Err(Error::NoUnit));
    assert_eq!(
        Dmar::parse(&dmar(11, 0, &[unit()])),
        Err(Error::Width(12)),
        "narrower than the real mode's"
    );
    // A length of nothing would be read for ever.
    assert_eq!(one(vec![0, 0, 0, 0]), Error::Length(48));
    assert_eq!(one(vec![0, 0, 3, 0]), Error::Length(48));
    assert_eq!(one(vec![0, 0, 200, 0]), Error::Length(48));
    assert_eq!(one(structure(0, &[0; 4])), Error::Length(48));
    assert_eq!(two(structure(1, &[0; 8])), Error::Length(64));
    assert_eq!(two(structure(2, &[0; 2])), Error::Length(64));
    assert_eq!(two(structure(3, &[0; 8])), Error::Length(64));
    assert_eq!(two(structure(4, &[])), Error::Length(64));
    for scope in [
        &[1, 0, 0, 0, 0, 0, 0, 0][..],
        &[1, 10, 0, 0, 0, 0, 0, 0],
        &[1, 9, 0],
        &[1],
    ] {
        assert_eq!(two(drhd(0, 0, 0, 0xfed9_2000, scope)), Error::Scope(80));
        assert_eq!(two(rmrr(0x1000, 0x1fff, scope)), Error::Scope(88));
    }
    for base in [0, 0xfed9_0800, 1 << 39, !0xfff, u64::MAX] {
        assert_eq!(
            one(drhd(0, 0, 0, base, &[])),
            Error::Registers(48),
            "{base:#x}"
        );
    }
    // The last of many pages lies beyond the width.
    assert_eq!(
        one(drhd(0, 15, 0, (1 << 39) - 4096, &[])),
        Error::Registers(48)
    );
    assert_eq!(two(unit()), Error::Overlap(64));
    assert_eq!(two(drhd(0, 1, 1, 0xfed8_f000, &[])), Error::Overlap(64));
    assert_eq!(two(rmrr(0x2000, 0x1fff, &[])), Error::Region(64));
    assert_eq!(two(rmrr(0x2000, 1 << 39, &[])), Error::Region(64));
    assert_eq!(two(rmrr(0, u64::MAX, &[])), Error::Region(64));
}

#[test]
fn there_is_an_end_to_units_and_regions() {
    let units = |count: usize| -> Vec<_> {
        (0..count)
            .map(|n| drhd(0, 0, 0, 0xfe00_0000 + 0x1000 * n as u64, &[]))
            .collect()
    };
    assert!(Dmar::parse(&dmar(38, 0, &units(MAX_UNITS))).is_ok());
    assert_eq!(
        Dmar::parse(&dmar(38, 0, &units(MAX_UNITS + 1))),
        Err(Error::TooManyUnits)
    );
    let regions = |count| {
        let mut all = units(1);
        all.extend(vec![rmrr(0x1000, 0x1fff, &[]); count]);
        Dmar::parse(&dmar(38, 0, &all))
    };
    assert!(regions(MAX_REGIONS).is_ok());
    assert_eq!(regions(MAX_REGIONS + 1), Err(Error::TooManyRegions));
}

#[test]
fn a_reserved_region_where_umbra_is_is_refused() {
    let hidden = [range(common::HIDDEN_START, common::HIDDEN_LAST)];
    let memory = [range(0, 0x7fff_ffff)];
    let with = |base, last| {
        let dmar = Dmar::parse(&dmar(
            38,
            0,
            &[drhd(1, 0, 0, 0xfed9_0000, &[]), rmrr(base, last, &[])],
        ))
        .unwrap();
        plan::reach(&dmar, memory, &hidden)
    };
    for (base, last) in [
        (common::HIDDEN_START, common::HIDDEN_START),
        (0, common::HIDDEN_START),
        (common::HIDDEN_LAST, 0x8fff_ffff),
        (0, 0xffff_ffff),
    ] {
        let refused = with(base, last).unwrap_err();
        assert_eq!(refused, plan::Error::ReservedIsHidden(range(base, last)));
    }
    let reach = with(0x9000_0000, 0x9000_0fff).unwrap();
    assert!(reach.contains(0x9000_0000));
    assert!(!reach.contains(common::HIDDEN_START));
    assert!(!reach.contains(0xfed9_0000));
}

#[test]
fn no_table_opens_a_units_registers() {
    // Reserved memory over the unit's own registers.
    let table = dmar(
        38,
        0,
        &[
            drhd(1, 0, 0, 0xfed9_0000, &[]),
            rmrr(0xfed0_0000, 0xfedf_ffff, &[]),
        ],
    );
    let reach = plan::reach(&Dmar::parse(&table).unwrap(), [], &[]).unwrap();
    assert!(reach.contains(0xfed8_ffff));
    assert!(!reach.contains(0xfed9_0fff));
    assert!(reach.contains(0xfed9_1000));
}

proptest! {
    #[test]
    fn no_table_is_too_odd(mut bytes in prop::collection::vec(any::<u8>(), 48..400)) {
        bytes[..4].copy_from_slice(b"DMAR");
        seal(&mut bytes);
        let _ = Dmar::parse(&bytes);
    }

    #[test]
    fn nothing_of_umbras_is_given_whatever_the_table_says(
        regions in prop::collection::vec((any::<u32>(), any::<u32>()), 0..8),
        probes in prop::collection::vec(common::HIDDEN_START..=common::HIDDEN_LAST, 32),
    ) {
        let mut all = vec![drhd(1, 0, 0, 0xfed9_0000, &[])];
        for (a, b) in regions {
            all.push(rmrr(u64::from(a.min(b)), u64::from(a.max(b)), &[]));
        }
        let dmar = Dmar::parse(&dmar(38, 0, &all)).unwrap();
        let hidden = [range(common::HIDDEN_START, common::HIDDEN_LAST)];
        if let Ok(reach) = plan::reach(&dmar, [range(0, u64::MAX)], &hidden) {
            for probe in probes {
                prop_assert!(!reach.contains(probe));
            }
        }
    }
}

//! The tables against an oracle: a device reaches what it may, where it lies,
//! by the largest pages that fit.

mod common;

use common::Pages;
use proptest::prelude::*;
use umbra_iommu::caps::{Capability, Caps, Extended, Levels};
use umbra_iommu::context::{Contexts, DOMAIN};
use umbra_iommu::mem::Tables;
use umbra_iommu::ranges::{Range, Ranges};
use umbra_iommu::second_level::{Format, NoRoom, SecondLevel};

const KIB4: u64 = 1 << 12;
const MIB2: u64 = 1 << 21;
const GIB: u64 = 1 << 30;

fn format(levels: Levels, has_2m: bool, has_1g: bool) -> Format {
    Format {
        levels,
        address_bits: levels.address_bits(),
        has_2m,
        has_1g,
        is_coherent: true,
    }
}

#[test]
fn the_largest_pages_that_fit_are_taken() {
    let mut ranges = Ranges::<4>::new();
    ranges
        .add(Range::touching(0, 4 * GIB - 1).unwrap())
        .unwrap();
    ranges
        .remove(Range::touching(2 * GIB + MIB2 + KIB4, 2 * GIB + MIB2 + 2 * KIB4 - 1).unwrap())
        .unwrap();
    let sizes = |has_2m, has_1g| {
        let mut pages = Pages::new(5000);
        let domain =
            SecondLevel::identity(&mut pages, format(Levels::Three, has_2m, has_1g), &ranges)
                .unwrap();
        let size = |address| domain.translate(&pages, address).map(|(_, bytes)| bytes);
        let found = [0, 2 * GIB, 2 * GIB + MIB2, 2 * GIB + MIB2 + KIB4, 3 * GIB].map(size);
        (found, pages.taken())
    };
    assert_eq!(
        sizes(true, true),
        ([Some(GIB), Some(MIB2), Some(KIB4), None, Some(GIB)], 3)
    );
    assert_eq!(
        sizes(true, false),
        ([Some(MIB2), Some(MIB2), Some(KIB4), None, Some(MIB2)], 6)
    );
    assert_eq!(
        sizes(false, false),
        (
            [Some(KIB4), Some(KIB4), Some(KIB4), None, Some(KIB4)],
            1 + 4 + 2048
        )
    );
    // 1 GiB pages without those of 2 MiB are not taken.
    assert_eq!(sizes(false, true), sizes(false, false));
}

#[test]
fn memory_beyond_the_width_is_left_out() {
    let mut ranges = Ranges::<4>::new();
    ranges
        .add(Range::touching(0, (1 << 45) - 1).unwrap())
        .unwrap();
    for bits in [30, 36, 39] {
        let mut pages = Pages::new(100);
        let mut narrow = format(Levels::Three, true, true);
        narrow.address_bits = bits;
        let domain = SecondLevel::identity(&mut pages, narrow, &ranges).unwrap();
        assert!(domain.translate(&pages, (1 << bits) - 1).is_some());
        assert_eq!(domain.translate(&pages, 1 << bits), None);
    }
}

#[test]
fn too_few_pages_are_told() {
    let mut ranges = Ranges::<4>::new();
    ranges.add(Range::touching(0, GIB - 1).unwrap()).unwrap();
    for count in 0..3 {
        let mut pages = Pages::new(count);
        let built = SecondLevel::identity(&mut pages, format(Levels::Four, true, false), &ranges);
        assert_eq!(built.unwrap_err(), NoRoom, "{count} pages");
    }
    for count in 3..5 {
        let mut pages = Pages::new(count);
        let domain =
            SecondLevel::identity(&mut pages, format(Levels::Four, true, false), &ranges).unwrap();
        assert_eq!(Contexts::all_through(&mut pages, &domain), Err(NoRoom));
    }
}

#[test]
fn every_device_is_in_the_domain() {
    for (levels, code) in [(Levels::Three, 1), (Levels::Four, 2), (Levels::Five, 3)] {
        let mut pages = Pages::new(10);
        let domain =
            SecondLevel::identity(&mut pages, format(levels, true, true), &Ranges::<1>::new())
                .unwrap();
        let contexts = Contexts::all_through(&mut pages, &domain).unwrap();
        for source in 0..=u16::MAX {
            let root = pages.read(contexts.root_hpa(), 2 * (source >> 8) as usize);
            assert_eq!(root & 0xfff, 1);
            let entry = 2 * (source & 0xff) as usize;
            let low = pages.read(root & !0xfff, entry);
            let high = pages.read(root & !0xfff, entry + 1);
            assert_eq!(low, domain.root_hpa() | 1);
            assert_eq!(high, code | u64::from(DOMAIN) << 8);
        }
    }
}

#[test]
fn units_that_look_into_no_cache_get_all_of_it_written_back() {
    let mut ranges = Ranges::<4>::new();
    ranges
        .add(Range::touching(KIB4, 3 * GIB + KIB4).unwrap())
        .unwrap();
    let mut incoherent = format(Levels::Four, true, false);
    incoherent.is_coherent = false;
    let mut pages = Pages::new(100);
    let domain = SecondLevel::identity(&mut pages, incoherent, &ranges).unwrap();
    Contexts::all_through(&mut pages, &domain).unwrap();
    assert_eq!(pages.written_back.len(), pages.taken());
    for (page, words) in &pages.written_back {
        for (index, word) in words.iter().enumerate() {
            assert_eq!(*word, pages.read(*page, index));
        }
    }
}

#[test]
fn levels_are_the_fewest_that_reach() {
    let caps = |widths, bits: u8| Caps {
        cap: Capability::new()
            .with_address_widths(widths)
            .with_max_address_bits_less_1(bits - 1),
        ecap: Extended::new(),
    };
    assert_eq!(caps(0b00110, 39).levels(), Some(Levels::Three));
    assert_eq!(caps(0b00110, 48).levels(), Some(Levels::Four));
    assert_eq!(caps(0b01110, 57).levels(), Some(Levels::Five));
    assert_eq!(caps(0b00100, 39).levels(), Some(Levels::Four));
    assert_eq!(caps(0b00010, 48).levels(), Some(Levels::Three), "no more");
    assert_eq!(caps(0b00010, 48).address_bits(), 39);
    assert_eq!(caps(0b00001, 30).levels(), None, "two levels: not known");
    assert_eq!(caps(0, 48).levels(), None);
}

proptest! {
    #[test]
    fn a_device_reaches_just_what_it_may(
        levels in prop::sample::select(&[Levels::Three, Levels::Four, Levels::Five]),
        has_2m: bool,
        has_1g: bool,
        short in 0u32..8,
        pieces in prop::collection::vec((any::<bool>(), 0u64..1 << 27, 1u64..4000), 1..12),
        probes in prop::collection::vec(0u64..1 << 40, 64),
    ) {
        let mut ranges = Ranges::<32>::new();
        let mut edges = Vec::new();
        for (add, page, count) in pieces {
            // Some ranges of many pages, in which large ones fit.
            let count = if page % 3 == 0 && has_2m { count * 512 } else { count };
            let range = Range::touching(page << 12, ((page + count) << 12) - 1).unwrap();
            edges.extend([range.start_hpa, range.end_hpa]);
            if add { ranges.add(range) } else { ranges.remove(range) }.unwrap();
        }
        let mut how = format(levels, has_2m, has_1g);
        how.address_bits -= short;
        let mut pages = Pages::new(200_000);
        let domain = SecondLevel::identity(&mut pages, how, &ranges).unwrap();
        let near = edges.iter().flat_map(|e| [e.wrapping_sub(1), *e, e + 1]);
        for address in probes.iter().copied().chain(near) {
            let may = ranges.contains(address) && address >> how.address_bits == 0;
            match domain.translate(&pages, address) {
                None => prop_assert!(!may, "{address:#x} is missing"),
                Some((hpa, bytes)) => {
                    prop_assert!(may, "{address:#x} is open");
                    prop_assert_eq!(hpa, address);
                    prop_assert!(bytes == KIB4 || has_2m && (bytes == MIB2 || bytes == GIB && has_1g));
                    // The next larger page would not have fitted.
                    let larger = if bytes == KIB4 && has_2m { MIB2 }
                        else if bytes != GIB && has_1g && has_2m { GIB } else { continue };
                    let start = address & !(larger - 1);
                    let whole = ranges.iter().any(|r| r.start_hpa <= start
                        && start + larger <= r.end_hpa)
                        && (start + larger - 1) >> how.address_bits == 0;
                    prop_assert!(!whole, "{address:#x} could lie in a larger page");
                }
            }
        }
    }
}

#[test]
fn pages_are_split_by_the_sizes_that_there_are() {
    for (has_2m, has_1g) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut ranges = Ranges::<4>::new();
        ranges.add(Range::touching(0, GIB - 1).unwrap()).unwrap();
        let mut pages = Pages::new(2000);
        let domain =
            SecondLevel::identity(&mut pages, format(Levels::Three, has_2m, has_1g), &ranges)
                .unwrap();
        let page = Range::touching(5 * KIB4, 6 * KIB4 - 1).unwrap();
        domain.take_away(&mut pages, page).unwrap();
        assert_eq!(domain.translate(&pages, 5 * KIB4), None);
        let (_, bytes) = domain.translate(&pages, GIB / 2).unwrap();
        assert!(bytes == KIB4 || bytes == MIB2 && has_2m, "{bytes:#x}");
        domain.give_back(&mut pages, page).unwrap();
        assert_eq!(domain.translate(&pages, 5 * KIB4), Some((5 * KIB4, KIB4)));
    }
}

proptest! {
    #[test]
    fn pages_can_be_taken_away_and_given_back(
        has_2m: bool,
        has_1g: bool,
        is_coherent: bool,
        steps in prop::collection::vec((any::<bool>(), 0u64..0xc0000, 1u64..600), 1..12),
    ) {
        let mut ranges = Ranges::<32>::new();
        // Without large pages less, or it takes long.
        let end = if has_2m { 2 * GIB } else { 32 * MIB2 };
        ranges.add(Range::touching(0, end - 1).unwrap()).unwrap();
        let mut how = format(Levels::Four, has_2m, has_1g);
        how.is_coherent = is_coherent;
        let mut pages = Pages::new(20_000);
        let domain = SecondLevel::identity(&mut pages, how, &ranges).unwrap();
        let mut edges = vec![0, end];
        for (give, page, count) in steps {
            let page = page % (end >> 12) * 5 / 4;
            let range = Range::touching(page << 12, ((page + count) << 12) - 1).unwrap();
            edges.extend([range.start_hpa, range.end_hpa]);
            if give {
                ranges.add(range).unwrap();
                domain.give_back(&mut pages, range).unwrap();
            } else {
                ranges.remove(range).unwrap();
                domain.take_away(&mut pages, range).unwrap();
            }
        }
        for address in edges.iter().flat_map(|e| [e.wrapping_sub(1), *e, e + KIB4]) {
            let found = domain.translate(&pages, address).map(|(hpa, _)| hpa);
            prop_assert_eq!(found, ranges.contains(address).then_some(address));
        }
        if !is_coherent {
            for (page, words) in &pages.written_back {
                for (index, word) in words.iter().enumerate() {
                    prop_assert_eq!(*word, pages.read(*page, index));
                }
            }
        }
    }
}

proptest! {
    /// What is reserved for the tables suffices, wherever the holes are. (Without 2 MiB pages
    /// every table is there: see above.)
    #[test]
    fn the_bound_on_pages_holds(
        holes in prop::collection::vec((0..4 * GIB / KIB4, 1..2000_u64), 0..6),
        end_gib in 1..9_u64,
        has_1g in any::<bool>(),
    ) {
        let mut ranges = Ranges::<16>::new();
        let end = end_gib * GIB;
        ranges.add(Range::touching(0, end - 1).unwrap()).unwrap();
        for (page, count) in holes {
            let start = page * KIB4;
            ranges.remove(Range::touching(start, start + count * KIB4 - 1).unwrap()).unwrap();
        }
        for levels in [Levels::Three, Levels::Four, Levels::Five] {
            let format = format(levels, true, has_1g);
            let bound = format.pages_at_most(end, ranges.iter().count() as u64);
            let mut pages = Pages::new(bound as u32);
            SecondLevel::identity(&mut pages, format, &ranges).expect("they suffice");
        }
    }
}

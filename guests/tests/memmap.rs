//! The memory map against a model that knows the kind of every address.

use proptest::prelude::*;
use umbra_guests::{Entry, Kind, MAX_ENTRIES, MemoryMap, Region, TooManyEntries};

fn map_of(entries: &[(u64, u64, u32)]) -> MemoryMap {
    let mut map = MemoryMap::new();
    for &(start, len, kind) in entries {
        map.add(start, len, Kind::new(kind)).unwrap();
    }
    map
}

fn entries(map: &MemoryMap) -> Vec<(u64, u64, u32)> {
    map.entries()
        .iter()
        .map(|e| (e.start, e.last, e.kind.number()))
        .collect()
}

#[test]
fn order_of_the_entries_does_not_matter() {
    let mut list = [
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x400, 2),
        (0xf_0000, 0x1_0000, 2),
        (0x10_0000, 0x7ef_0000, 1),
        (0x7ff_0000, 0x1_0000, 3),
        (0xfffc_0000, 0x4_0000, 2),
        (0x400_0000, 0x1000, 5),
    ];
    let sorted = map_of(&list);
    assert_eq!(sorted.entries().len(), 8);
    list.reverse();
    assert_eq!(map_of(&list), sorted);
    list.swap(1, 5);
    assert_eq!(map_of(&list), sorted);
}

#[test]
fn the_more_reserved_kind_wins() {
    assert_eq!(
        entries(&map_of(&[
            (0, 0x1_0000, 1),
            (0x4000, 0x1000, 2),
            (0x4800, 0x1000, 4)
        ])),
        [
            (0, 0x3fff, 1),
            (0x4000, 0x47ff, 2),
            (0x4800, 0x57ff, 4),
            (0x5800, 0xffff, 1),
        ]
    );
    // The other way round: RAM over something reserved adds only the rest.
    assert_eq!(
        entries(&map_of(&[(0x4000, 0x1000, 2), (0, 0x1_0000, 1)])),
        [(0, 0x3fff, 1), (0x4000, 0x4fff, 2), (0x5000, 0xffff, 1)]
    );
}

#[test]
fn neighbours_of_one_kind_are_one() {
    assert_eq!(
        entries(&map_of(&[
            (0x2000, 0x1000, 1),
            (0, 0x1000, 1),
            (0x1000, 0x1000, 1)
        ])),
        [(0, 0x2fff, 1)]
    );
    assert_eq!(
        entries(&map_of(&[(0, 0x1000, 1), (0x1000, 0x1000, 2)])).len(),
        2
    );
}

#[test]
fn an_entry_may_end_where_the_address_space_ends() {
    let map = map_of(&[(u64::MAX - 0xfff, 0x1000, 2), (0, 0x1000, 1)]);
    assert_eq!(
        entries(&map),
        [(0, 0xfff, 1), (u64::MAX - 0xfff, u64::MAX, 2)]
    );
    assert_eq!(map.entries()[1].len(), 0x1000);
    // One that says more than there is ends there as well.
    let map = map_of(&[(u64::MAX - 0xfff, u64::MAX, 1)]);
    assert_eq!(entries(&map), [(u64::MAX - 0xfff, u64::MAX, 1)]);
    assert_eq!(
        map.find_top(0x800, 0x800, u64::MAX),
        Some(u64::MAX - 0xfff),
        "the end is exclusive, so the last byte does not count"
    );
    // All of it in one.
    let map = map_of(&[(0, u64::MAX, 1), (u64::MAX, 1, 1)]);
    assert_eq!(entries(&map), [(0, u64::MAX, 1)]);
    assert_eq!(map.entries()[0].len(), u64::MAX);
}

#[test]
fn empty_entries_and_type_0() {
    assert!(
        map_of(&[(0x1000, 0, 1), (u64::MAX, 0, 2)])
            .entries()
            .is_empty()
    );
    assert_eq!(entries(&map_of(&[(0, 0x1000, 0)])), [(0, 0xfff, 2)]);
}

#[test]
fn too_many_entries_are_refused_and_nothing_is_lost() {
    let mut map = MemoryMap::new();
    for i in 0..MAX_ENTRIES as u64 {
        map.add(i * 0x2000, 0x1000, Kind::USABLE).unwrap();
    }
    let full = map.clone();
    assert_eq!(map.add(0x2000_0000, 1, Kind::USABLE), Err(TooManyEntries));
    assert_eq!(map.reserve(Region::new(0x100, 0x100)), Err(TooManyEntries));
    assert_eq!(map, full);
    // Filling the gaps merges, and needs less.
    map.add(0x1000, 0x1000, Kind::USABLE).unwrap();
    assert_eq!(map.entries().len(), MAX_ENTRIES - 1);
    assert!(TooManyEntries.to_string().contains("256"));
}

#[test]
fn three_hundred_entries_that_merge_are_no_problem() {
    let mut map = MemoryMap::new();
    for i in 0..300 {
        map.add(i * 0x1000, 0x1000, Kind::USABLE).unwrap();
    }
    assert_eq!(entries(&map), [(0, 300 * 0x1000 - 1, 1)]);
}

#[test]
fn reserving_spares_acpi_and_fills_holes() {
    let mut map = map_of(&[(0, 0x4000, 1), (0x4000, 0x1000, 3), (0x8000, 0x1000, 1)]);
    map.reserve(Region::new(0x2000, 0x7000)).unwrap();
    assert_eq!(
        entries(&map),
        [
            (0, 0x1fff, 1),
            (0x2000, 0x3fff, 2),
            (0x4000, 0x4fff, 3),
            (0x5000, 0x8fff, 2)
        ]
    );
}

#[test]
fn find_top_respects_alignment_and_limit() {
    let map = map_of(&[
        (0, 0xa_0000, 1),
        (0x10_0000, 0x0ff0_1234, 1),
        (0x1_0000_0000, 0x1000_0000, 1),
    ]);
    let below_4g = 0x1_0000_0000;
    assert_eq!(
        map.find_top(0x20_0000, 0x20_0000, below_4g),
        Some(0xfc0_0000 + 0x20_0000)
    );
    assert_eq!(map.find_top(0x1000, 0x1000, 0x10_0000), Some(0x9_f000));
    assert_eq!(map.find_top(0x1000, 0x1000, u64::MAX), Some(0x1_0fff_f000));
    assert_eq!(map.find_top(0x1_0000_0000, 1, u64::MAX), None);
    assert_eq!(map.find_top(0, 1, u64::MAX), None);
    assert_eq!(map.find_top(1, 0, 1), Some(0));
    assert_eq!(map.find_top(1, 1, 0), None);
}

/// Entries over a small space, so that a model can hold each byte's kind.
fn small_entry() -> impl Strategy<Value = (u64, u64, u32)> {
    (0u64..256, 0u64..64, 0u32..6)
}

const SIZE: usize = 320;

fn model(list: &[(u64, u64, u32)]) -> [Option<u32>; SIZE] {
    let mut bytes = [None; SIZE];
    for &(start, len, kind) in list {
        let kind = Kind::new(kind).number();
        for byte in &mut bytes[start as usize..(start + len) as usize] {
            *byte = (*byte).max(Some(kind));
        }
    }
    bytes
}

fn check_shape(map: &MemoryMap) {
    for e in map.entries() {
        assert!(e.start <= e.last);
    }
    for pair in map.entries().windows(2) {
        let [a, b]: [Entry; 2] = pair.try_into().unwrap();
        assert!(a.last < b.start, "sorted, no overlap");
        assert!(a.last + 1 < b.start || a.kind != b.kind, "merged");
    }
}

proptest! {
    #[test]
    fn every_byte_has_the_kind_of_the_model(
        list in prop::collection::vec(small_entry(), 0..24),
        reserved in prop::collection::vec((0u64..256, 0u64..64), 0..4),
    ) {
        let mut map = map_of(&list);
        check_shape(&map);
        let mut bytes = model(&list);
        for &(start, len) in &reserved {
            map.reserve(Region::new(start, len)).unwrap();
            for byte in &mut bytes[start as usize..(start + len) as usize] {
                if matches!(byte, None | Some(1)) {
                    *byte = Some(2);
                }
            }
        }
        check_shape(&map);
        for (address, kind) in bytes.iter().enumerate() {
            let found = map
                .entries()
                .iter()
                .find(|e| (e.start..=e.last).contains(&(address as u64)))
                .map(|e| e.kind.number());
            prop_assert_eq!(found, *kind);
        }
    }

    #[test]
    fn find_top_finds_the_highest(
        list in prop::collection::vec(small_entry(), 0..24),
        len in 1u64..40,
        align in 1u64..17,
        below in 0u64..SIZE as u64,
    ) {
        let bytes = model(&list);
        let expected = (0..SIZE as u64).rev().find(|s| {
            s % align == 0
                && s + len <= below
                && (*s..s + len).all(|b| bytes[b as usize] == Some(1))
        });
        prop_assert_eq!(map_of(&list).find_top(len, align, below), expected);
    }

    #[test]
    fn any_numbers_leave_a_sound_map(
        list in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..300),
    ) {
        let mut map = MemoryMap::new();
        for (start, len, kind) in list {
            if map.add(start, len, Kind::new(kind)).is_err() {
                break;
            }
        }
        check_shape(&map);
    }
}

//! ept01: what it maps, what it hides, and how it changes.

mod common;

use common::{CAPS, Cells, Found, Tables, identity, root, table_pages, walk_cells, walk_own};
use proptest::prelude::*;
use umbra_arch::Gpa1;
use umbra_arch::hpa::{Identity, MAX_HIDDEN, Range};
use umbra_arch::msr::{IA32_MTRR_DEF_TYPE, IA32_MTRR_PHYSBASE0, MTRR_FIXED};
use umbra_ept::addr::Level;
use umbra_ept::ept01::{BuildError, Config, Ept01, OnDemand, pages_needed};
use umbra_ept::invalidate::Invalidate;
use umbra_ept::memtype::MemType;
use umbra_ept::mtrr::Mtrrs;

const GIB: u64 = 1 << 30;
const MIB2: u64 = 1 << 21;
/// Table pages of ept01 in these tests, hidden in every configuration.
const OWN: Range = Range {
    start: 0x3f00_0000,
    end: 0x3fc0_0000,
};
const VOID: u64 = OWN.end - 0x1000;

struct Built {
    tables: Tables,
    ept01: Ept01,
    hidden: Vec<Range>,
    mtrrs: Mtrrs,
    page_1g: bool,
}

fn tables() -> Tables {
    Tables {
        memory: common::Memory::default(),
        stores: Default::default(),
        record: false,
        reads: Default::default(),
        writes: 0,
        fills: 0,
    }
}

fn try_build(
    limit: u64,
    more_hidden: &[Range],
    mtrrs: &Mtrrs,
    page_1g: bool,
    on_demand_pages: u32,
    retype_pages: u32,
) -> Result<Built, BuildError> {
    let mut hidden = vec![OWN];
    hidden.extend(more_hidden);
    let mut caps = CAPS;
    caps.page_1g = page_1g;
    let config = Config {
        limit,
        identity: &identity(&hidden, VOID),
        mtrrs,
        caps,
        on_demand_pages,
        retype_pages,
    };
    let mut tables = tables();
    // Nothing may be read that was not written first.
    let needed = pages_needed(&config)?;
    for page in 0..u64::from(needed) {
        for index in 0..512 {
            tables
                .memory
                .set(OWN.start + page * 4096 + 8 * index, 0xbad);
        }
    }
    let ept01 = Ept01::build(&mut tables, table_pages(OWN.start, needed), &config)?;
    assert_eq!(
        ept01.pages_used() + on_demand_pages.max(2) + retype_pages,
        needed
    );
    let mtrrs = mtrrs.clone();
    Ok(Built {
        tables,
        ept01,
        hidden,
        mtrrs,
        page_1g,
    })
}

fn mtrrs(def_type: u64, ranges: &[(u64, u64, u64)]) -> Mtrrs {
    let mut m = Mtrrs::new(0x50a, CAPS.maxphyaddr);
    for (n, (base, size, t)) in ranges.iter().enumerate() {
        let mask = !(size - 1) & ((1 << CAPS.maxphyaddr) - 1);
        m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n as u32, base & mask | t)
            .unwrap();
        m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n as u32 + 1, mask | 0x800)
            .unwrap();
    }
    for msr in MTRR_FIXED {
        m.write_msr(msr, 0x0606_0606_0606_0606).unwrap();
    }
    m.write_msr(MTRR_FIXED[2], 0).unwrap();
    m.write_msr(IA32_MTRR_DEF_TYPE, def_type).unwrap();
    m
}

impl Built {
    fn is_hidden(&self, address: u64) -> bool {
        self.hidden
            .iter()
            .any(|r| (r.start..r.end).contains(&address))
    }

    /// Where the machine keeps `gpa1`, from first principles.
    fn home(&self, gpa1: u64) -> u64 {
        if self.is_hidden(gpa1) {
            VOID + gpa1 % 4096
        } else {
            gpa1
        }
    }

    fn expected_type(&self, gpa1: u64) -> u64 {
        if self.is_hidden(gpa1) {
            6
        } else {
            self.mtrrs.type_at(gpa1) as u64
        }
    }

    /// Everything about one mapped address.
    fn check(&self, gpa1: u64) -> Found {
        let found = walk_own(&self.tables, self.ept01.eptp(), gpa1).expect("mapped");
        assert_eq!(found.hpa, self.home(gpa1), "{gpa1:#x}");
        assert_eq!(found.rights, 0x407);
        assert_eq!(found.entry >> 3 & 7, self.expected_type(gpa1), "{gpa1:#x}");
        let at = Gpa1::new(gpa1);
        assert_eq!(self.ept01.redirect(at).raw(), found.hpa);
        let leaf = self.ept01.lookup(&self.tables, at).unwrap();
        assert_eq!(leaf.at(at).raw(), found.hpa);
        assert_eq!(
            (leaf.level as u32, leaf.mem_type as u64),
            (found.level, found.entry >> 3 & 7)
        );
        assert_eq!(leaf.rights.bits(), 0x407);
        found
    }

    /// The largest page that hiding, types and the CPU allow.
    fn check_size(&self, gpa1: u64) {
        let found = self.check(gpa1);
        let level = match found.level {
            1 => Level::Pt,
            2 => Level::Pd,
            _ => Level::Pdpt,
        };
        assert!(self.page_1g || level != Level::Pdpt);
        let above = match level {
            Level::Pt => Level::Pd,
            Level::Pd if self.page_1g => Level::Pdpt,
            _ => return,
        };
        let (start, end) = (above.base(gpa1), above.base(gpa1) + above.span_bytes());
        let mixed = self.mtrrs.uniform(gpa1, above).is_none();
        let touched = self.hidden.iter().any(|r| r.start < end && start < r.end);
        assert!(
            mixed || touched,
            "{gpa1:#x} is in a page of {level:?} for no reason"
        );
    }

    /// No leaf anywhere shows a hidden page other than the void.
    fn nothing_shows(&self) {
        let cells = self.tables.memory.0.borrow();
        let mut todo = vec![(root(self.ept01.eptp()), 4u32)];
        let mut seen = std::collections::HashSet::new();
        let mut leaves = 0;
        while let Some((table, level)) = todo.pop() {
            if !seen.insert(table) {
                continue;
            }
            assert!(self.is_hidden(table), "a table where L1 could write");
            for index in 0..512 {
                let entry = cells.get(table + 8 * index);
                if entry & 7 == 0 {
                    continue;
                }
                let address = entry & 0x000f_ffff_ffff_f000;
                if level > 1 && entry & 0x80 == 0 {
                    todo.push((address, level - 1));
                    continue;
                }
                leaves += 1;
                let end = address + (1u64 << (12 + 9 * (level - 1)));
                let shows = self.hidden.iter().any(|r| r.start < end && address < r.end);
                assert!(
                    !shows || (address, end) == (VOID, VOID + 4096),
                    "{entry:#x}"
                );
            }
        }
        assert!(leaves > 0);
    }

    /// Addresses around every edge, up to the limit.
    fn edges(&self) -> Vec<u64> {
        let mut all = vec![0, 0x9f123, 0xa0000, 0xfffff, 0x10_0000, 0x20_0000];
        for r in &self.hidden {
            for e in [r.start, r.end] {
                for d in [0x1000, MIB2, GIB] {
                    all.extend([e, e.wrapping_sub(1), e + d, e.wrapping_sub(d), e & !(d - 1)]);
                }
            }
        }
        for msr in (IA32_MTRR_PHYSBASE0..IA32_MTRR_PHYSBASE0 + 20).step_by(2) {
            let base = self.mtrrs.read_msr(msr).unwrap() & !0xfff;
            let mask = self.mtrrs.read_msr(msr + 1).unwrap();
            let size = (1u64 << CAPS.maxphyaddr) - (mask & !0xfff & ((1 << CAPS.maxphyaddr) - 1));
            all.extend([base, base.wrapping_sub(1), base + size, base + size - 1]);
        }
        let limit = self.ept01.limit();
        all.extend((0..limit / GIB).flat_map(|g| [g * GIB, g * GIB + GIB - 1]));
        all.retain(|a| *a < limit);
        all.sort_unstable();
        all.dedup();
        all
    }

    fn check_all(&self) {
        for address in self.edges() {
            self.check(address);
        }
        self.nothing_shows();
    }
}

const PC: &[(u64, u64, u64)] = &[
    (0, 2 * GIB, 6),
    (2 * GIB, GIB, 6),
    (4 * GIB, 4 * GIB, 6),
    (0xbf80_0000, 0x80_0000, 0),
];

#[test]
fn eight_gibibytes_take_few_pages() {
    let m = mtrrs(0xc00, PC);
    let b = try_build(8 * GIB, &[], &m, true, 2, 0).unwrap();
    b.check_all();
    for address in b.edges() {
        b.check_size(address);
    }
    // Root, two for the void, one for 512 GiB; directories for the gibibytes
    // at 0 (with a table for the first 2 MiB) and at 2 GiB. OWN is whole 2 MiB
    // blocks and costs nothing more.
    assert_eq!(b.ept01.pages_used(), 4 + 1 + 1 + 1);
    // Without 1 GiB pages: a directory for each.
    let b = try_build(8 * GIB, &[], &m, false, 2, 0).unwrap();
    b.check_all();
    assert_eq!(b.ept01.pages_used(), 4 + 8 + 1);
    for address in b.edges() {
        b.check_size(address);
    }
}

#[test]
fn a_gibibyte_of_umbras_shares_the_void() {
    let m = mtrrs(0x806, &[]);
    let big = Range {
        start: 4 * GIB - 0x3000,
        end: 6 * GIB + 0x5000,
    };
    let b = try_build(8 * GIB, &[big], &m, true, 2, 0).unwrap();
    b.check_all();
    for address in [4 * GIB, 5 * GIB + 0x1234_5678, 6 * GIB - 1] {
        assert_eq!(b.check(address).level, 1);
    }
    // Directories and tables only at the ragged ends.
    assert_eq!(b.ept01.pages_used(), 4 + 1 + 2 + 2);
    let hides = |start, bytes| b.ept01.is_hidden(Gpa1::new(start), bytes);
    assert!(hides(big.end - 1, 1) && !hides(big.end, 1 << 20));
    assert!(hides(big.start - 8, 9) && !hides(u64::MAX, 1));
}

#[test]
fn bad_configurations_are_refused() {
    let m = mtrrs(0x806, &[]);
    let r = |start, end| Range { start, end };
    let err = |limit, hidden: &[Range]| try_build(limit, hidden, &m, true, 2, 0).err();
    assert_eq!(err(0, &[]), Some(BuildError::Limit));
    assert_eq!(err((1 << 40) + 1, &[]), Some(BuildError::Limit));
    for bad in [
        r(0x1000, 0x1000),
        r(0x2000, 0x1000),
        r(0x1800, 0x3000),
        r(0x1000, 0x3001),
        r(GIB, GIB + 0x1000),
    ] {
        assert_eq!(err(GIB, &[bad]), Some(BuildError::Hidden(bad)));
    }
    let many = [r(0x1000, 0x2000); MAX_HIDDEN + 1];
    let void = identity(&[], VOID).void();
    // SAFETY: no CPU uses the addresses that it gives.
    assert!(unsafe { Identity::new(&many, void) }.is_none());
    let many: Vec<Range> = (0..15).map(|n| r(n << 24, (n << 24) + 0x1000)).collect();
    assert_eq!(err(GIB, &many), None);
    let config = Config {
        limit: GIB,
        identity: &identity(&[OWN], OWN.end),
        mtrrs: &m,
        caps: CAPS,
        on_demand_pages: 0,
        retype_pages: 0,
    };
    assert_eq!(pages_needed(&config), Err(BuildError::Void));
    let config = Config {
        identity: &identity(&[OWN], VOID),
        ..config
    };
    let needed = pages_needed(&config).unwrap();
    let few = table_pages(OWN.start, needed - 1);
    let got = Ept01::build(&mut tables(), few, &config).err();
    assert_eq!(got, Some(BuildError::Pages { needed }));
    let mut caps = CAPS;
    caps.page_2m = false;
    let config = Config { caps, ..config };
    assert_eq!(pages_needed(&config), Err(BuildError::Unsupported));
}

#[test]
fn addresses_above_the_limit_come_on_demand_and_never_run_out() {
    // Small types up there, so that a gibibyte takes a directory and tables.
    let ranges = &[
        (0, 4 * GIB, 6),
        (100 * GIB, 0x3000, 6),
        (700 * GIB, MIB2, 1),
        (900 * GIB, 0x3000, 1),
    ];
    let m = mtrrs(0x800, ranges);
    for (limit, page_1g, kept) in [
        (4 * GIB, true, 2),
        (4 * GIB, false, 3),
        (512 * GIB, true, 2),
        (511 * GIB, false, 5),
    ] {
        let mut b = try_build(limit, &[], &m, page_1g, kept, 0).unwrap();
        let first = limit / GIB;
        let mut dropped = 0;
        for round in 0..3 {
            for gib in (first..1024)
                .step_by(37)
                .chain([100.max(first), 700, 900, 1023])
            {
                let address = gib * GIB + 0x1234_5678 * (round + 1) % GIB;
                let at = Gpa1::new(address);
                match b.ept01.map_on_demand(&mut b.tables, at) {
                    Ok(()) => {}
                    Err(OnDemand::NoPages(owed)) => {
                        dropped += 1;
                        assert_eq!(owed, Invalidate::Single(b.ept01.eptp()));
                        assert!(walk_own(&b.tables, b.ept01.eptp(), address).is_none());
                        b.ept01.invalidated(&mut b.tables);
                        b.ept01.map_on_demand(&mut b.tables, at).unwrap();
                    }
                    Err(OnDemand::Never) => panic!("{address:#x}"),
                }
                let found = walk_own(&b.tables, b.ept01.eptp(), address).unwrap();
                assert_eq!((found.hpa, found.rights), (address, 0x407));
                let t = found.entry >> 3 & 7;
                // For want of a table UC is allowed, nothing else.
                assert!(t == b.expected_type(address) || t == 0);
                let leaf = b.ept01.lookup(&b.tables, at).unwrap();
                assert_eq!(leaf.at(at).raw(), address);
                assert_eq!(leaf.mem_type as u64, b.expected_type(address));
                assert!(page_1g || leaf.level != Level::Pdpt);
                // Another touch changes nothing.
                b.ept01.map_on_demand(&mut b.tables, at).unwrap();
            }
        }
        assert_eq!(b.ept01.shortages().1, dropped);
        assert!(dropped > 0);
        b.check_all();
        assert_eq!(
            b.ept01.map_on_demand(&mut b.tables, Gpa1::new(1 << 40)),
            Err(OnDemand::Never)
        );
        assert_eq!(b.ept01.lookup(&b.tables, Gpa1::new(1 << 40)), None);
        assert_eq!(b.ept01.map_on_demand(&mut b.tables, Gpa1::new(0)), Ok(()));
    }
}

#[test]
fn without_pages_a_split_becomes_uncacheable() {
    let plain = mtrrs(0x806, &[]);
    let mixed = mtrrs(0x806, &[(2 * GIB, GIB / 2, 1)]);
    let mut b = try_build(4 * GIB, &[], &plain, true, 2, 0).unwrap();
    let owed = b.ept01.retype(&mut b.tables, &mixed);
    assert_eq!(owed, Invalidate::Single(b.ept01.eptp()));
    let found = walk_own(&b.tables, b.ept01.eptp(), 2 * GIB + 5).unwrap();
    assert_eq!(
        (found.hpa, found.level, found.entry >> 3 & 7),
        (2 * GIB + 5, 3, 0)
    );
    assert_eq!(b.ept01.shortages().0, 1);
    let owed = b.ept01.retype(&mut b.tables, &plain);
    assert_eq!(owed, Invalidate::Single(b.ept01.eptp()));
    b.check_all();
    assert_eq!(b.ept01.retype(&mut b.tables, &plain), Invalidate::None);
}

/// Tables that are joined are used again, but only after the INVEPT.
#[test]
fn joined_tables_come_back() {
    let plain = mtrrs(0x806, &[]);
    let mixed = mtrrs(0x806, &[(2 * GIB, 0x3000, 1)]);
    let mut b = try_build(4 * GIB, &[], &plain, true, 2, 2).unwrap();
    for _ in 0..10 {
        let _ = b.ept01.retype(&mut b.tables, &mixed);
        b.ept01.invalidated(&mut b.tables);
        b.mtrrs = mixed.clone();
        b.check_all();
        let _ = b.ept01.retype(&mut b.tables, &plain);
        b.mtrrs = plain.clone();
        b.check_all();
        b.ept01.invalidated(&mut b.tables);
    }
    assert_eq!(b.ept01.shortages().0, 0);
    // Not acknowledged: the pages stay out of use.
    for _ in 0..2 {
        let _ = b.ept01.retype(&mut b.tables, &mixed);
        let _ = b.ept01.retype(&mut b.tables, &plain);
    }
    assert!(b.ept01.shortages().0 > 0);
    b.check_all();
}

/// A CPU may still walk a table that was joined away: nothing is stored there
/// until the INVEPT was done.
#[test]
fn a_joined_table_rests_until_the_invept() {
    let plain = mtrrs(0x806, &[]);
    let mixed = mtrrs(0x806, &[(2 * GIB, 0x3000, 1)]);
    for page_1g in [false, true] {
        let mut b = try_build(4 * GIB, &[], &plain, page_1g, 2, 4).unwrap();
        let root = root(b.ept01.eptp());
        let tables_of = |b: &mut Built| {
            let _ = b.ept01.retype(&mut b.tables, &mixed);
            let cells = b.tables.memory.0.borrow();
            let next = |table: u64, index: u64| cells.get(table + 8 * index) & 0x000f_ffff_f000;
            let pd = next(next(root, 0), 2);
            (pd, next(pd, 0))
        };
        let (pd, pt) = tables_of(&mut b);
        b.tables.record = true;
        let _ = b.ept01.retype(&mut b.tables, &plain);
        let (_, second) = tables_of(&mut b);
        let _ = b.ept01.retype(&mut b.tables, &plain);
        b.tables.record = false;
        let into =
            |page: u64, stores: &[(u64, u64)]| stores.iter().any(|(a, _)| a & !0xfff == page);
        let stores = b.tables.stores.take();
        assert_ne!(second, pt);
        assert!(!into(pt, &stores));
        assert!(!page_1g || !into(pd, &stores));
        b.ept01.invalidated(&mut b.tables);
        let (_, third) = tables_of(&mut b);
        assert!([pd, pt, second].contains(&third));
    }
}

fn a_range() -> impl Strategy<Value = (u64, u64, u64)> {
    (12..33u32, 0..(1u64 << 20), 0..5usize)
        .prop_map(|(log2, page, t)| (page << 12, 1u64 << log2, [0u64, 1, 4, 5, 6][t]))
}

fn some_mtrrs() -> impl Strategy<Value = Mtrrs> {
    (
        prop_oneof![4 => Just(0xc06u64), 2 => Just(0x800), 1 => Just(0)],
        prop::collection::vec(a_range(), 0..5),
    )
        .prop_map(|(d, r)| mtrrs(d, &r))
}

fn some_hidden() -> impl Strategy<Value = Vec<Range>> {
    prop::collection::vec((0..(1u64 << 18), 1..0x9000u64), 0..3).prop_map(|v| {
        v.into_iter()
            .map(|(start, pages)| Range {
                start: start << 12,
                end: (start + pages) << 12,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_machine_is_mapped_and_hidden(
        m in some_mtrrs(), hidden in some_hidden(), gib in 2..6u64, page_1g: bool,
        picks in prop::collection::vec(any::<u64>(), 50),
    ) {
        let b = try_build(gib * GIB, &hidden, &m, page_1g, 2, 0).unwrap();
        b.check_all();
        for address in b.edges() {
            b.check_size(address);
        }
        for pick in picks {
            b.check(pick % (gib * GIB));
        }
    }

    /// A chain of MTRR changes: right at the end of each, and at every single
    /// store on the way each address keeps its place and nothing hidden shows.
    #[test]
    fn retyping_never_moves_or_shows_anything(
        chain in prop::collection::vec(some_mtrrs(), 1..6), hidden in some_hidden(),
        page_1g: bool, retype_pages in 0..8u32, acknowledge: bool,
    ) {
        let mut b = try_build(3 * GIB, &hidden, &chain[0], page_1g, 2, retype_pages).unwrap();
        for m in &chain[1..] {
            let mut replay: Cells = b.tables.memory.0.borrow().clone();
            b.tables.record = true;
            let owed = b.ept01.retype(&mut b.tables, m);
            b.tables.record = false;
            let stores = b.tables.stores.take();
            prop_assert!(stores.is_empty() == (owed == Invalidate::None));
            b.mtrrs = m.clone();
            let edges = b.edges();
            let few: Vec<u64> = edges.iter().copied().step_by(edges.len().div_ceil(24)).collect();
            // Stores to tables that are not linked yet cannot be seen: look
            // after each link, and now and then.
            for (n, (hpa, value)) in stores.iter().enumerate() {
                replay.set(*hpa, *value);
                if n % 61 == 0 || value & 0x87 == 7 {
                    for address in &few {
                        let found = walk_cells(&replay, b.ept01.eptp(), *address);
                        prop_assert_eq!(found.map(|f| (f.hpa, f.rights)), Some((b.home(*address), 0x407)));
                    }
                }
            }
            if b.ept01.shortages().0 == 0 {
                b.check_all();
            } else {
                b.nothing_shows();
                for address in edges {
                    let found = walk_own(&b.tables, b.ept01.eptp(), address).unwrap();
                    let t = found.entry >> 3 & 7;
                    prop_assert_eq!(found.hpa, b.home(address));
                    prop_assert!(t == b.expected_type(address) || t == MemType::Uncacheable as u64);
                }
            }
            if acknowledge {
                b.ept01.invalidated(&mut b.tables);
            }
        }
    }
}

/// Pages with a leaf of their own, in blocks of all sizes and above the limit: nothing else changes,
/// retyping keeps them, and of too many the earliest is given up.
#[test]
fn a_page_keeps_a_small_leaf() {
    let m = mtrrs(0xc00, PC);
    let mut b = try_build(8 * GIB, &[], &m, true, 16, 16).unwrap();
    let small = |b: &Built, page: u64| b.check(page).level == 1;
    let before = b.ept01.pages_used();
    // A 1 GiB page, one within another's 2 MiB page, one whose leaf is small already.
    let pages = [5 * GIB + 0x1234_5000, 5 * GIB + 0x1230_0000, 0xa_0000];
    for page in pages {
        let owed = b.ept01.keep_small(&mut b.tables, Gpa1::new(page + 0x123));
        let was_small = page == 0xa_0000 || page == pages[1];
        assert_eq!(owed == Invalidate::None, was_small, "{page:#x}");
        b.ept01.invalidated(&mut b.tables);
        assert!(small(&b, page));
        // Again costs nothing.
        let again = b.ept01.keep_small(&mut b.tables, Gpa1::new(page));
        assert_eq!(again, Invalidate::None);
    }
    assert_eq!(b.ept01.pages_used(), before + 2);
    assert_eq!(b.check(5 * GIB + 0x2000_0000).level, 2);
    assert_eq!(b.check(6 * GIB).level, 3);
    b.check_all();

    // Other types, and back.
    for def_type in [0x806, 0xc00] {
        b.mtrrs = mtrrs(def_type, PC);
        let mtrrs = b.mtrrs.clone();
        let _ = b.ept01.retype(&mut b.tables, &mtrrs);
        b.ept01.invalidated(&mut b.tables);
        assert!(pages.iter().all(|&page| small(&b, page)));
        b.check_all();
    }

    // Above the limit: when it is mapped, and when it was mapped already.
    let far = 20 * GIB + 0x5000;
    assert_eq!(b.ept01.map_on_demand(&mut b.tables, Gpa1::new(far)), Ok(()));
    assert!(!small(&b, far));
    let owed = b.ept01.keep_small(&mut b.tables, Gpa1::new(far));
    assert_eq!(owed, Invalidate::Single(b.ept01.eptp()));
    b.ept01.invalidated(&mut b.tables);
    assert_eq!(b.ept01.map_on_demand(&mut b.tables, Gpa1::new(far)), Ok(()));
    assert!(small(&b, far));

    // Two more than there is room for: the first two go, and their pages come back.
    for page in [7 * GIB, 6 * GIB] {
        let _ = b.ept01.keep_small(&mut b.tables, Gpa1::new(page));
        b.ept01.invalidated(&mut b.tables);
        assert!(small(&b, page));
    }
    assert_eq!(b.check(5 * GIB + 0x1234_5000).level, 3);
    b.check_all();
}

#[test]
fn no_page_for_a_small_leaf_changes_nothing() {
    let m = mtrrs(0xc00, PC);
    let mut b = try_build(8 * GIB, &[], &m, true, 2, 1).unwrap();
    let owed = b.ept01.keep_small(&mut b.tables, Gpa1::new(5 * GIB));
    assert_eq!(owed, Invalidate::None);
    assert_eq!(b.check(5 * GIB).level, 3);
    assert_eq!(b.ept01.shortages(), (0, 0));
    // Nor does an address that L1 does not have.
    let owed = b.ept01.keep_small(&mut b.tables, Gpa1::new(1 << 50));
    assert_eq!(owed, Invalidate::None);
    b.check_all();
}

/// A gibibyte above the limit that needed no table page of its own.
#[test]
fn large_pages_above_the_limit_are_retyped_too() {
    let mut b = try_build(8 * GIB, &[], &mtrrs(0xc00, PC), true, 2, 0).unwrap();
    let far = 20 * GIB;
    assert_eq!(b.ept01.map_on_demand(&mut b.tables, Gpa1::new(far)), Ok(()));
    assert_eq!(b.check(far).level, 3);
    b.mtrrs = mtrrs(0xc04, PC);
    let mtrrs = b.mtrrs.clone();
    let owed = b.ept01.retype(&mut b.tables, &mtrrs);
    assert_eq!(owed, Invalidate::Single(b.ept01.eptp()));
    b.ept01.invalidated(&mut b.tables);
    assert_eq!(b.ept01.map_on_demand(&mut b.tables, Gpa1::new(far)), Ok(()));
    b.check(far);
}

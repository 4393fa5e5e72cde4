//! The pool answers a first touch and the hidden pages stay hidden.
mod common;
use common::{CAPS, Machine};
use umbra_ept::addr::Level;
use umbra_ept::ept02::{Config, Context12, Outcome, Pml, Pool};
use umbra_ept::eptp::Eptp;
use umbra_ept::mem::TablePages;
use umbra_ept::memtype::Merge;
use umbra_ept::rights::Access;

#[test]
fn first_touch_through_a_large_page_and_a_hole() {
    let mut m = Machine::new();
    // ept12: one 1 GiB leaf over all that ept01 maps first.
    let root = m.l1_table();
    let pdpt = m.l1_table();
    m.poke(root, pdpt | 7);
    m.poke(pdpt, 7 | 6 << 3 | 1 << 7);
    let context = Context12 {
        eptp: Eptp::new(root | 0x1e, &CAPS).unwrap(),
        caps: CAPS,
    };
    let mut pool: Pool<2, 8> = Pool::new();
    pool.configure(
        TablePages::new(common::POOL, 16),
        &Config {
            caches: 2,
            pages_per_cache: 8,
            refill: 4,
            merge: Merge::Ept12Only,
            hardware: CAPS,
        },
    )
    .unwrap();
    let (mut t, mut l1) = m.split();
    let active = pool.activate(&context, &mut t, &mut l1).unwrap();
    assert_eq!(active.eptp.raw(), 0x9000_001e);
    // Below the hole ept01 has 2 MiB pages, at the hole 4 KiB ones.
    for (gpa2, level, hpa) in [
        (0x0040_1234, Level::Pd, 0x0040_1234),
        (
            common::HIDDEN.start + 0x5123,
            Level::Pt,
            common::VOID + 0x123,
        ),
        (
            common::HIDDEN.start - 1,
            Level::Pt,
            common::HIDDEN.start - 1,
        ),
    ] {
        let got = pool.fill(&context, gpa2, Access::READ, Pml::Off, &mut t, &mut l1);
        assert!(
            matches!(got, Outcome::Filled { level: l, .. } if l == level),
            "{got:?}"
        );
        assert_eq!(common::walk_own(&t, active.eptp, gpa2).unwrap().hpa, hpa);
    }
    assert_eq!(pool.counters().miss, 3);
}

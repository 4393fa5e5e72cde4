//! The instruction that touches most: each page that it needs far from every other.

mod common;

use common::{CAPS, Machine, POOL, table_pages, walk_own};
use umbra_arch::Gpa2;
use umbra_ept::caps::Caps;
use umbra_ept::ept02::{Config, Context12, Outcome, Pml, Pool, SCATTERED_PAGES};
use umbra_ept::eptp::Eptp;
use umbra_ept::memtype::Merge;
use umbra_ept::rights::Access;

/// INT in 64-bit mode under five-level paging: the table that CR3 names, and for each of ten linear
/// pages four more tables and the page.
const TOUCHED: u64 = 1 + 10 * (4 + 1);

/// Whether L2 gets on within the exits that a CPU takes at most: one for each page, twice over.
fn gets_on(pages: u32) -> bool {
    let caps = Caps {
        maxphyaddr: 48,
        ..CAPS
    };
    let mut machine = Machine::new();
    let root = machine.l1_table();
    let pages_of_l2: Vec<u64> = (0..TOUCHED)
        .map(|n| n << 39 | (n * 7 % 512) << 30 | (n * 5 % 512) << 21 | (n * 3 % 512) << 12)
        .collect();
    for &gpa2 in &pages_of_l2 {
        let mut table = root;
        for shift in [39, 30, 21, 12] {
            let next = machine.l1_table();
            machine.poke(
                table + 8 * (gpa2 >> shift & 511),
                next | 7 | if shift == 12 { 6 << 3 } else { 0 },
            );
            table = next;
        }
    }
    let (mut tables, mut l1) = machine.split();
    let mut pool: Pool<4, 64> = Pool::new();
    let config = Config {
        caches: 1,
        pages_per_cache: pages,
        refill: 64,
        merge: Merge::Ept12Only,
        hardware: CAPS,
    };
    pool.configure(table_pages(POOL, pages), &config)
        .expect("a pool");
    let context = Context12 {
        eptp: Eptp::new(root | 0x1e, &caps).expect("an EPT pointer"),
        caps,
    };
    for _ in 0..2 * TOUCHED {
        let active = pool
            .activate(&context, &mut tables, &mut l1)
            .expect("a cache");
        // The CPU stops at the first page that it does not find.
        let missing = pages_of_l2
            .iter()
            .find(|&&gpa2| walk_own(&tables, active.eptp, gpa2).is_none());
        let Some(&gpa2) = missing else { return true };
        let access = Access::READ | Access::WRITE;
        let got = pool.fill(
            &context,
            Gpa2::new(gpa2),
            access,
            Pml::Off,
            &mut tables,
            &mut l1,
        );
        assert!(matches!(got, Outcome::Filled { .. }), "{gpa2:#x}: {got:?}");
    }
    false
}

#[test]
fn the_most_scattered_instruction_gets_on() {
    assert_eq!(u64::from(SCATTERED_PAGES), 1 + 3 * TOUCHED);
    assert!(gets_on(SCATTERED_PAGES));
    assert!(!gets_on(SCATTERED_PAGES - 1));
    assert!(!gets_on(12));
}

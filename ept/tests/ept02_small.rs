//! All small tables: every choice of one entry at each level out of the kinds
//! that matter, for every kind of access and set of capabilities.

mod common;

use common::oracle::{Class, NaiveFault, expected, home, walk12};
use common::{CAPS, HIDDEN, Machine, POOL, table_pages, walk_own};
use umbra_arch::Gpa2;
use umbra_ept::addr::Level;
use umbra_ept::caps::Caps;
use umbra_ept::ept02::{Config, Context12, Outcome, Pml, Pool};
use umbra_ept::eptp::Eptp;
use umbra_ept::memtype::Merge;
use umbra_ept::rights::Access;

/// Indexes 1, 2, 131 and 0x103, with an offset; the last two place it at the
/// edge of the hole if the tables above map it there.
const GPA2: u64 = 1 << 39 | 2 << 30 | 0x83 << 21 | 0x103 << 12 | 0x567;

const ACCESSES: [Access; 7] = [
    Access::READ,
    Access::FETCH,
    Access::FETCH.union(Access::USER),
    Access::FETCH.union(Access::MODE_UNKNOWN),
    Access::FETCH.union(Access::MODE_UNKNOWN),
    Access::WRITE,
    Access::READ.union(Access::WRITE),
];

fn upper(next: u64, level: u32) -> Vec<u64> {
    let mut all = vec![0, 1 << 63, next, 0x400 | next];
    // Tables with all kinds of rights.
    all.extend([1, 3, 4, 5, 7, 0x401, 0x404, 0x405, 0x407].map(|r| next | r));
    // Illegal ones.
    all.extend([next | 2, next | 6, next | 0x47, next | 7 | 1 << 45]);
    if level > 3 {
        all.push(next | 0x87);
        return all;
    }
    // Leaves, with and without what their size reserves.
    let size = 1u64 << (12 + 9 * (level - 1));
    let base = HIDDEN.start & !(size - 1);
    all.extend([1, 4, 7, 0x403].map(|r| base | 0x80 | 6 << 3 | r));
    all.push(base | 0x80 | 7 | 1 << 63);
    all.push(base | 0x87 | 2 << 3);
    all.push(base | 0x87 | (size / 2));
    all
}

fn last() -> Vec<u64> {
    let page = HIDDEN.start;
    let mut all = vec![0, 1 << 63, page, 0x400 | page];
    all.extend([1, 3, 4, 5, 7, 0x401, 0x403, 0x404, 0x407].map(|r| page | 6 << 3 | r));
    all.extend([page | 2, page | 6, page | 7 | 3 << 3, page | 7 | 1 << 50]);
    // Bit 7 is ignored in the last level; other types, ignore PAT, #VE.
    all.extend([0x5000_0087, 0x5000_0007 | 1 << 63, 0x5000_0047 | 1 << 3]);
    all
}

#[derive(Default)]
struct Count {
    tables: u64,
    accesses: u64,
    kinds: [u64; 4],
}

struct Bench {
    machine: Machine,
    tables: [u64; 4],
    pool: Pool<1, 8>,
    count: Count,
}

impl Bench {
    fn slots(&self) -> [u64; 4] {
        let index = |shift: u32| (GPA2 >> shift & 511) * 8;
        [
            self.tables[0] + index(39),
            self.tables[1] + index(30),
            self.tables[2] + index(21),
            self.tables[3] + index(12),
        ]
    }

    fn run(&mut self, entries: &[u64; 4], caps: Caps, accessed_dirty: bool, merge: Merge) {
        for (slot, entry) in self.slots().into_iter().zip(entries) {
            self.machine.poke(slot, *entry);
        }
        let flag = if accessed_dirty { 0x40 } else { 0 };
        let context = Context12 {
            eptp: Eptp::new(self.tables[0] | 0x1e | flag, &caps).unwrap(),
            caps,
        };
        let (mut t, mut l1) = self.machine.split();
        let _ = self.pool.drop_all();
        let active = self.pool.activate(&context, &mut t, &mut l1).unwrap();
        self.count.tables += 1;
        let mut doubt = false;
        for access in ACCESSES {
            let before = walk12(&self.machine.memory.0.borrow(), self.tables[0], GPA2, &caps);
            let leaf_before = walk_own(&t, active.eptp, GPA2);
            let entries_before = self.slots().map(|s| self.machine.memory.get(home(s)));
            let got = self
                .pool
                .fill(&context, Gpa2::new(GPA2), access, Pml::Off, &mut t, &mut l1);
            self.count.accesses += 1;
            let what = || format!("{entries:x?} {access:?} {caps:?} {got:?}");

            // What the CPU would say.
            let a = u64::from(access.bits());
            let low = a & 7;
            let naive = match before {
                Err(NaiveFault::Misconfigured) => {
                    assert!(matches!(got, Outcome::Misconfig12(_)), "{}", what());
                    None
                }
                Err(NaiveFault::NotPresent { suppress_ve }) => {
                    let Outcome::Violation12(v) = got else {
                        panic!("{}", what())
                    };
                    assert_eq!(
                        (v.low_bits, v.convertible, v.present),
                        (low, !suppress_ve, false)
                    );
                    None
                }
                Ok(n) => Some(n),
            };
            let Some(naive) = naive else {
                assert_eq!(walk_own(&t, active.eptp, GPA2), leaf_before);
                assert_eq!(
                    self.slots().map(|s| self.machine.memory.get(home(s))),
                    entries_before
                );
                self.count.kinds[if matches!(got, Outcome::Misconfig12(_)) {
                    0
                } else {
                    1
                }] += 1;
                continue;
            };
            let (s, u) = (naive.rights & 4 != 0, naive.rights & 0x400 != 0);
            let fetch_ok = match (
                access.contains(Access::MODE_UNKNOWN),
                access.contains(Access::USER),
            ) {
                (true, _) => s || u,
                (_, true) => u,
                _ => s,
            };
            let unknown = access.contains(Access::MODE_UNKNOWN) && s != u && fetch_ok;
            let data_ok = low & 3 & !naive.rights == 0;
            let ok = data_ok && (low & 4 == 0 || fetch_ok);
            let bit6 = if caps.mode_based_execute {
                naive.rights >> 10 << 6
            } else {
                0
            };
            let bits = low | (naive.rights & 7) << 3 | bit6;
            // A fetch of unknown mode that only one mode may do is tried once.
            let tried = unknown && doubt;
            doubt |= unknown;
            if !ok || tried {
                let Outcome::Violation12(v) = got else {
                    panic!("{}", what())
                };
                assert_eq!(v.low_bits, bits, "{}", what());
                assert_eq!((v.convertible, v.present), (naive.leaf >> 63 == 0, true));
                assert_eq!(v.qualification(0xffff_0387), 0xffff_0387 | bits & 0x78);
                assert_eq!(v.qualification(0x79) & 0x78, bits & 0x78);
                assert_eq!(walk_own(&t, active.eptp, GPA2), leaf_before);
                assert_eq!(
                    self.slots().map(|s| self.machine.memory.get(home(s))),
                    entries_before
                );
                self.count.kinds[2] += 1;
                continue;
            }
            self.count.kinds[3] += 1;
            assert!(
                matches!(got, Outcome::Filled { .. } | Outcome::AlreadyThere),
                "{}",
                what()
            );
            // What ept02 must now hold.
            let after =
                walk12(&self.machine.memory.0.borrow(), self.tables[0], GPA2, &caps).unwrap();
            let mut rights = naive.rights;
            if accessed_dirty {
                assert!(after.accessed, "{}", what());
                let dirty = naive.leaf & 0x200 != 0 || low & 2 != 0;
                assert_eq!(after.leaf & 0x200 != 0, dirty, "{}", what());
                assert_eq!(after.leaf & !0x300, naive.leaf & !0x300);
                if !dirty {
                    rights &= !2;
                }
            } else {
                assert_eq!(after, naive);
            }
            let found = walk_own(&t, active.eptp, GPA2).expect("filled");
            assert_eq!(found.hpa, home(naive.gpa1), "{}", what());
            assert_eq!(found.rights, rights, "{}", what());
            assert_eq!(found.entry & 0x40, naive.leaf & 0x40);
            let machine_type = 6;
            let t12 = naive.leaf >> 3 & 7;
            let expect_type = match merge {
                Merge::Ept12Only => t12,
                // Against a machine of WB all types keep their own.
                Merge::MtrrPrecedence => {
                    if t12 == machine_type {
                        6
                    } else {
                        t12
                    }
                }
            };
            assert_eq!(found.entry >> 3 & 7, expect_type);
            // As large as both allow: ept01 has 4 KiB around the hole.
            let in_hole_block = (naive.gpa1 & !0x1f_ffff) == HIDDEN.start & !0x1f_ffff;
            let level01 = if in_hole_block {
                1
            } else {
                naive.level.min(2 + u32::from(naive.gpa1 >> 30 == 1))
            };
            assert_eq!(found.level, naive.level.min(level01), "{}", what());
        }
    }
}

#[test]
fn every_small_table() {
    let mut machine = Machine::new();
    let tables = [(); 4].map(|()| machine.l1_table());
    let mut pool = Pool::new();
    let mut bench = {
        pool.configure(
            table_pages(POOL, 4),
            &Config {
                caches: 1,
                pages_per_cache: 4,
                refill: 0,
                merge: Merge::MtrrPrecedence,
                hardware: CAPS,
            },
        )
        .unwrap();
        Bench {
            machine,
            tables,
            pool,
            count: Count::default(),
        }
    };
    for set in 0..8u32 {
        let mut caps = CAPS;
        caps.execute_only = set & 1 != 0;
        caps.mode_based_execute = set & 2 != 0;
        let ad = set & 4 != 0;
        // What lies below a leaf, a hole or an error is not walked: one choice
        // of it is enough.
        // Bit 10 means something with mode-based execute control only.
        let some = |all: Vec<u64>| -> Vec<u64> {
            let keep = |e: &u64| caps.mode_based_execute || e & 0x400 == 0 || e & 7 <= 1;
            all.into_iter().filter(keep).collect()
        };
        let goes_on = |e: u64, level| expected(e, level, &caps) == Class::Table;
        let [_, t1, t2, t3] = bench.tables;
        for a in some(upper(t1, 4)) {
            for b in some(upper(t2, 3)) {
                for c in some(upper(t3, 2)) {
                    for d in some(last()) {
                        bench.run(&[a, b, c, d], caps, ad, Merge::MtrrPrecedence);
                        if !goes_on(c, Level::Pd) {
                            break;
                        }
                    }
                    if !goes_on(b, Level::Pdpt) {
                        break;
                    }
                }
                if !goes_on(a, Level::Pml4) {
                    break;
                }
            }
        }
    }
    let Count {
        tables,
        accesses,
        kinds,
    } = bench.count;
    eprintln!(
        "{tables} tables, {accesses} accesses, misconfigurations, holes, rights, filled: {kinds:?}"
    );
    assert!(tables > 50_000 && kinds.iter().all(|k| *k > 10_000));
    assert_eq!(bench.pool.counters().full, 0);
}

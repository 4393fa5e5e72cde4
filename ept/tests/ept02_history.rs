//! Histories: L1 rewrites its tables, touches, switches and invalidates in any
//! order. Whatever the pool lets L2 do must be what ept12 and ept01 allowed at
//! some time since the last INVEPT, at each single store as well as at rest;
//! and each access must be answered by ept12 as it is at that moment.

mod common;

use std::collections::HashSet;

use common::oracle::{Naive, NaiveFault, home, walk12};
use common::{CAPS, Cells, HIDDEN, L1, Machine, POOL, Tables, table_pages, walk_cells};
use proptest::prelude::*;
use umbra_arch::Gpa2;
use umbra_ept::ept02::{Config, Context12, Outcome, Pml, Pool};
use umbra_ept::eptp::{Eptp, OwnEptp};
use umbra_ept::invalidate::{Invalidate, InveptScope};
use umbra_ept::memtype::Merge;
use umbra_ept::rights::{Access, Permits};

const I4: [u64; 2] = [0, 1];
const I3: [u64; 2] = [0, 1];
const I2: [u64; 3] = [0x80, 0x83, 0x84];
const I1: [u64; 3] = [5, 0x102, 0x103];
const SAMPLES: usize = 36;
/// Two roots, two of each level below, and one table inside Umbra's memory.
const TABLES: usize = 9;
const CONTEXTS: usize = 4;

fn sample(n: usize) -> u64 {
    let n = n % SAMPLES;
    I4[n % 2] << 39 | I3[n / 2 % 2] << 30 | I2[n / 4 % 3] << 21 | I1[n / 12] << 12 | 0x9a8
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        table: usize,
        index: usize,
        entry: EntryKind,
    },
    Touch {
        context: usize,
        sample: usize,
        access: u8,
    },
    Activate {
        context: usize,
    },
    InveptOne {
        context: usize,
    },
    InveptAll,
}

#[derive(Clone, Debug)]
enum EntryKind {
    /// To a table one level down, or to any table.
    Table {
        pick: usize,
        any: bool,
        rights: u64,
    },
    Leaf {
        place: usize,
        rights: u64,
        flags: u64,
    },
    Raw(u64),
}

fn rights() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => Just(0x407u64), 2 => Just(1), 2 => Just(3), 1 => Just(4), 2 => Just(5), 1 => Just(0x401),
        1 => Just(7),
    ]
}

fn entry() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        6 => (0..9usize, prop::bool::weighted(0.1), rights())
            .prop_map(|(pick, any, rights)| EntryKind::Table { pick, any, rights }),
        5 => (0..8usize, rights(), any::<u64>())
            .prop_map(|(place, rights, flags)| EntryKind::Leaf { place, rights, flags }),
        1 => prop_oneof![Just(0u64), Just(1 << 63), any::<u64>(), (0..4096u64)].prop_map(EntryKind::Raw),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..TABLES, 0..6usize, entry())
            .prop_map(|(table, index, entry)| Op::Write { table, index, entry }),
        10 => (0..CONTEXTS, 0..SAMPLES, 0..32u8)
            .prop_map(|(context, sample, access)| Op::Touch { context, sample, access }),
        1 => (0..CONTEXTS).prop_map(|context| Op::Activate { context }),
        1 => (0..CONTEXTS).prop_map(|context| Op::InveptOne { context }),
        1 => Just(Op::InveptAll),
    ]
}

#[derive(Clone, Debug)]
struct Shape {
    caches: usize,
    pages: u32,
    refill: usize,
    merge: Merge,
    neighbours: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..4usize, 4..12u32, 0..9usize, any::<bool>(), any::<bool>()).prop_map(
        |(caches, pages, refill, m, neighbours)| Shape {
            neighbours,
            caches,
            pages,
            refill,
            merge: if m {
                Merge::MtrrPrecedence
            } else {
                Merge::Ept12Only
            },
        },
    )
}

/// (machine address, rights) of one sample.
type Grant = (u64, u64);

struct World {
    machine: Machine,
    t: Tables,
    l1: L1,
    tables: [u64; TABLES],
    contexts: [Context12; CONTEXTS],
    pool: Pool<3, 8>,
    /// What ept12 and ept01 granted since the last INVEPT, by context.
    since: Vec<[HashSet<Grant>; SAMPLES]>,
    /// The same, and what came before that INVEPT, while it is not carried out.
    before: Vec<[HashSet<Grant>; SAMPLES]>,
    root02: [Option<OwnEptp>; CONTEXTS],
}

impl World {
    fn new(shape: &Shape) -> Self {
        let mut machine = Machine::new();
        let mut tables = [(); TABLES].map(|()| machine.l1_table());
        tables[8] = HIDDEN.start + 0x4000;
        machine.memory.0.borrow_mut().scribble_pool(0x1234_5007);
        let mut mbec = CAPS;
        mbec.mode_based_execute = true;
        let context = |root: usize, flags: u64, caps| Context12 {
            eptp: Eptp::new(tables[root] | 0x1e | flags, &caps).unwrap(),
            caps,
        };
        let contexts = [
            context(0, 0, CAPS),
            context(1, 0x40, CAPS),
            context(0, 0x40, mbec),
            context(1, 0, mbec),
        ];
        let (t, l1) = machine.split();
        let mut pool = Pool::new();
        let config = Config {
            caches: shape.caches,
            pages_per_cache: shape.pages,
            refill: shape.refill,
            merge: shape.merge,
            hardware: CAPS,
        };
        pool.configure(table_pages(POOL, 36), &config).unwrap();
        pool.set_neighbours(shape.neighbours);
        let empty = || vec![[(); SAMPLES].map(|()| HashSet::new()); CONTEXTS];
        let mut world = Self {
            machine,
            t,
            l1,
            tables,
            contexts,
            pool,
            since: empty(),
            before: empty(),
            root02: [None; CONTEXTS],
        };
        world.t.record = true;
        // Something to start from: a path through every level of both roots.
        for (table, index, next) in [
            (0, 0, 2),
            (1, 0, 3),
            (2, 0, 4),
            (3, 0, 5),
            (4, 0x83, 6),
            (5, 0x83, 7),
        ] {
            world
                .machine
                .poke(world.tables[table] + 8 * index, world.tables[next] | 0x407);
        }
        world.note();
        world
    }

    fn naive(&self, context: usize, sample_index: usize) -> Result<Naive, NaiveFault> {
        let c = &self.contexts[context];
        walk12(
            &self.machine.memory.0.borrow(),
            c.eptp.root().raw(),
            sample(sample_index),
            &c.caps,
        )
    }

    fn grant(&self, context: usize, n: &Naive) -> Grant {
        let mut rights = n.rights;
        if self.contexts[context].eptp.accessed_dirty() && n.leaf & 0x200 == 0 {
            rights &= !2;
        }
        (home(n.gpa1), rights)
    }

    /// Writes down what is granted now.
    fn note(&mut self) {
        for context in 0..CONTEXTS {
            for s in 0..SAMPLES {
                if let Ok(n) = self.naive(context, s) {
                    let grant = self.grant(context, &n);
                    self.since[context][s].insert(grant);
                }
            }
        }
    }

    fn write(&mut self, table: usize, index: usize, entry: &EntryKind) {
        let level = [4, 4, 3, 3, 2, 2, 1, 1, 1][table];
        let index = match level {
            4 | 3 => [0, 1][index % 2],
            2 => I2[index % 3],
            _ => I1[index % 3],
        };
        let value = match *entry {
            EntryKind::Raw(raw) => raw,
            EntryKind::Leaf {
                place,
                rights,
                flags,
            } => {
                let address = [
                    0,
                    HIDDEN.start & !0x1f_ffff,
                    0x1080_0000,
                    HIDDEN.start,
                    HIDDEN.end - 0x1000,
                    0x4000_0000,
                    self.tables[4],
                    0x7fe0_0000,
                ][place];
                let size = [0x1000u64, 0x1000, 0x20_0000, 0x4000_0000, 0x1000][level];
                let t = [0, 1, 4, 5, 6][flags as usize % 5];
                let large = if level > 1 { 0x80 } else { 0 };
                let bits = flags & (0x340 | 1 << 63);
                address & !(size - 1) | rights | t << 3 | large | bits
            }
            EntryKind::Table { pick, any, rights } => {
                let next: &[usize] = match level {
                    _ if any => &[0, 1, 2, 3, 4, 5, 6, 7, 8],
                    4 => &[2, 3],
                    3 => &[4, 5],
                    _ => &[6, 7, 8],
                };
                self.tables[next[pick % next.len()]] | rights | (pick as u64 & 1) << 8
            }
        };
        self.machine.poke(self.tables[table] + 8 * index, value);
        self.note();
    }

    /// Does `run` and looks at what L2 could reach after every store of it.
    fn watched<R>(&mut self, context: usize, run: impl FnOnce(&mut Self) -> R) -> R {
        let mut replay: Cells = self.machine.memory.0.borrow().clone();
        // A cache new to this context holds another's leaves until its root is
        // cleared; it is not entered before that.
        let skip = if self.root02[context].is_none() {
            511
        } else {
            0
        };
        let result = run(self);
        self.note();
        let stores = self.t.stores.take();
        let Some(root) = self.root02[context] else {
            return result;
        };
        for (n, (hpa, value)) in stores.iter().enumerate() {
            replay.set(*hpa, *value);
            // Clearing can only take away: look at it now and then.
            if n < skip || (*value == 1 << 63 && n % 100 != 11) {
                continue;
            }
            for s in (0..SAMPLES).step_by(5) {
                let Some(found) = walk_cells(&replay, root, sample(s)) else {
                    continue;
                };
                let mut allowed = self.since[context][s]
                    .iter()
                    .chain(&self.before[context][s]);
                assert!(
                    allowed.any(|(hpa, rights)| *hpa == found.hpa && found.rights & !rights == 0),
                    "after store {n} L2 may reach {found:x?} through {:#x}",
                    sample(s)
                );
            }
        }
        result
    }

    fn activate(&mut self, context: usize) -> Invalidate {
        let active = self
            .pool
            .activate(&self.contexts[context], &mut self.t, &mut self.l1)
            .unwrap();
        // A root names one cache: whoever had it lost it.
        for root in &mut self.root02 {
            if root.is_some_and(|r| r.has_root_of(active.eptp)) {
                *root = None;
            }
        }
        self.root02[context] = Some(active.eptp);
        assert_eq!(
            active.eptp.raw() & 0x40 != 0,
            self.contexts[context].eptp.accessed_dirty()
        );
        active.invalidate
    }

    /// Nothing beyond what was granted since the last INVEPT.
    fn check(&self, context: usize) {
        let Some(root) = self.root02[context] else {
            return;
        };
        let cells = self.machine.memory.0.borrow();
        for s in 0..SAMPLES {
            if let Some(found) = walk_cells(&cells, root, sample(s)) {
                let ok = self.since[context][s]
                    .iter()
                    .any(|(hpa, rights)| *hpa == found.hpa && found.rights & !rights == 0);
                assert!(
                    ok,
                    "{context} may reach {found:x?} through {:#x}",
                    sample(s)
                );
            }
        }
    }
}

impl World {
    fn invept(&mut self, scope: InveptScope) {
        self.pool.invept(scope);
        for c in 0..CONTEXTS {
            let hit = match scope {
                InveptScope::All => true,
                InveptScope::Single(eptp) => eptp.root() == self.contexts[c].eptp.root(),
            };
            if hit {
                for s in 0..SAMPLES {
                    let old = std::mem::take(&mut self.since[c][s]);
                    self.before[c][s].extend(old);
                }
            }
        }
        self.note();
    }

    fn enter(&mut self, context: usize) {
        let stale =
            self.before[context].iter().any(|s| !s.is_empty()) && self.root02[context].is_some();
        let owed = self.watched(context, |w| w.activate(context));
        self.before[context].iter_mut().for_each(HashSet::clear);
        if stale {
            assert_ne!(
                owed,
                Invalidate::None,
                "the hardware keeps what INVEPT removed"
            );
        }
        self.check(context);
    }

    fn touch(&mut self, context: usize, s: usize, bits: u8) {
        let c = self.contexts[context];
        let mut access = Access::from_bits_truncate(bits);
        if !access.contains(Access::FETCH) {
            access -= Access::USER | Access::MODE_UNKNOWN;
        }
        if (access & (Access::READ | Access::WRITE | Access::FETCH)).is_empty() {
            access |= Access::READ;
        }
        let naive = self.naive(context, s);
        let gpa2 = sample(s);
        let got = self.watched(context, |w| {
            w.pool
                .fill(&c, Gpa2::new(gpa2), access, Pml::Off, &mut w.t, &mut w.l1)
        });
        let what = format!("{gpa2:#x} {access:?} {naive:x?} {got:?}");
        match naive {
            Err(NaiveFault::Misconfigured) => {
                assert!(matches!(got, Outcome::Misconfig12(_)), "{what}")
            }
            Err(NaiveFault::NotPresent { suppress_ve }) => {
                let Outcome::Violation12(v) = got else {
                    panic!("{what}")
                };
                assert_eq!(
                    (v.low_bits, v.convertible),
                    (u64::from(bits & 7).max(v.low_bits), !suppress_ve)
                );
            }
            Ok(n) => {
                let permits =
                    access.permitted_by(umbra_ept::rights::Rights::from_bits_truncate(n.rights));
                match got {
                    Outcome::Violation12(v) => {
                        assert_ne!(permits, Permits::Yes, "{what}");
                        assert_eq!(v.low_bits >> 3 & 7, n.rights & 7, "{what}");
                    }
                    Outcome::Filled { .. } | Outcome::AlreadyThere => {
                        assert_ne!(permits, Permits::No, "{what}");
                        // What ept12 says now, after the flags were set.
                        let after = self.naive(context, s).unwrap();
                        let (hpa, rights) = self.grant(context, &after);
                        let root = self.root02[context].unwrap();
                        let found = walk_cells(&self.machine.memory.0.borrow(), root, gpa2);
                        assert_eq!(
                            found.map(|f| (f.hpa, f.rights)),
                            Some((hpa, rights)),
                            "{what}"
                        );
                        if c.eptp.accessed_dirty() {
                            assert!(after.accessed, "{what}");
                            assert!(!access.contains(Access::WRITE) || after.leaf & 0x200 != 0);
                        }
                        // The access succeeds, unless the mode was in doubt.
                        let hit = access
                            .permitted_by(umbra_ept::rights::Rights::from_bits_truncate(rights));
                        assert_ne!(hit, Permits::No, "{what}");
                    }
                    other => panic!("{other:?} {what}"),
                }
            }
        }
        self.check(context);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history(shape in shape(), ops in prop::collection::vec(op(), 1..80)) {
        let mut w = World::new(&shape);
        for op in ops {
            match op {
                Op::Write { table, index, entry } => w.write(table, index, &entry),
                Op::Touch { context, sample, access } => {
                    w.enter(context);
                    w.touch(context, sample, access);
                }
                Op::Activate { context } => w.enter(context),
                Op::InveptOne { context } => w.invept(InveptScope::Single(w.contexts[context].eptp)),
                Op::InveptAll => w.invept(InveptScope::All),
            }
        }
        let c = w.pool.counters();
        prop_assert!(shape.refill > 0 || c.refill == 0);
    }
}

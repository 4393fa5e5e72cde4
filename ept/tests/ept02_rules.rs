//! The pool, one rule a test.

mod common;

use common::oracle::home;
use common::{CAPS, HIDDEN, L1, Machine, POOL, Tables, VOID, root, table_pages, walk_own};
use umbra_arch::{Gpa1, Gpa2};
use umbra_ept::addr::Level;
use umbra_ept::caps::Caps;
use umbra_ept::entry::Why;
use umbra_ept::ept02::{Config, ConfigError, Context12, Counters, Outcome, Pml, Pool};
use umbra_ept::eptp::{Eptp, OwnEptp};
use umbra_ept::invalidate::{Invalidate, InveptScope};
use umbra_ept::memtype::Merge;
use umbra_ept::rights::Access;

const RWX: u64 = 7;
const WB: u64 = 6 << 3;
const A: u64 = 1 << 8;
const D: u64 = 1 << 9;
const AD: u64 = 0x40;

/// A machine, a pool, and an L1 that maps pages in its tables.
struct Bench {
    machine: Machine,
    t: Tables,
    l1: L1,
    pool: Pool<4, 64>,
}

fn config(caches: usize, pages_per_cache: u32, refill: usize) -> Config {
    Config {
        caches,
        pages_per_cache,
        refill,
        merge: Merge::Ept12Only,
        hardware: CAPS,
    }
}

impl Bench {
    fn new(caches: usize, pages: u32, refill: usize) -> Self {
        let machine = Machine::new();
        let (t, l1) = machine.split();
        let mut pool = Pool::new();
        pool.configure(table_pages(POOL, 64), &config(caches, pages, refill))
            .unwrap();
        // Most rules are about one leaf.
        pool.set_neighbours(false);
        Self {
            machine,
            t,
            l1,
            pool,
        }
    }

    /// A new ept12 without pages.
    fn context(&mut self, flags: u64, caps: Caps) -> Context12 {
        let root = self.machine.l1_table();
        Context12 {
            eptp: Eptp::new(root | 0x1e | flags, &caps).unwrap(),
            caps,
        }
    }

    /// Where ept12 keeps the entry of `level` for `gpa2`; tables above it are
    /// made with `upper` rights and flags.
    fn slot(&mut self, c: &Context12, gpa2: u64, level: Level, upper: u64) -> u64 {
        let mut table = c.eptp.root().raw();
        let mut at = Level::Pml4;
        loop {
            let slot = table + 8 * at.index(gpa2) as u64;
            if at == level {
                return slot;
            }
            let mut entry = self.machine.memory.get(home(slot));
            if entry & 7 == 0 || entry & 0x80 != 0 {
                entry = self.machine.l1_table() | upper;
                self.machine.poke(slot, entry);
            }
            table = entry & 0x000f_ffff_ffff_f000;
            at = at.below().unwrap();
        }
    }

    fn map(&mut self, c: &Context12, gpa2: u64, level: Level, entry: u64) -> u64 {
        let slot = self.slot(c, gpa2, level, RWX);
        let large = if level == Level::Pt { 0 } else { 0x80 };
        self.machine.poke(slot, entry | large);
        slot
    }

    fn enter(&mut self, c: &Context12) -> (OwnEptp, Invalidate) {
        let active = self.pool.activate(c, &mut self.t, &mut self.l1).unwrap();
        (active.eptp, active.invalidate)
    }

    fn touch(&mut self, c: &Context12, gpa2: u64, access: Access) -> Outcome {
        self.touch_pml(c, gpa2, access, Pml::Off)
    }

    fn touch_pml(&mut self, c: &Context12, gpa2: u64, access: Access, pml: Pml) -> Outcome {
        self.pool
            .fill(c, Gpa2::new(gpa2), access, pml, &mut self.t, &mut self.l1)
    }

    /// As L2: only what ept02 does not allow comes to L0. Returns the exits.
    fn run(&mut self, c: &Context12, gpa2: u64, access: Access) -> u32 {
        let root = self
            .pool
            .activate(c, &mut self.t, &mut self.l1)
            .unwrap()
            .eptp;
        let need = u64::from(access.bits() & 7);
        for exits in 0..3 {
            match walk_own(&self.t, root, gpa2) {
                Some(f) if need & !f.rights == 0 => return exits,
                _ => {}
            }
            let got = self.touch(c, gpa2, access);
            assert!(matches!(got, Outcome::Filled { .. }), "{gpa2:#x} {got:?}");
        }
        panic!("{gpa2:#x} is never allowed");
    }

    fn peek(&self, gpa1: u64) -> u64 {
        self.machine.memory.get(home(gpa1))
    }
}

#[track_caller]
fn filled(got: Outcome) -> (Level, Option<Gpa2>, Invalidate) {
    match got {
        Outcome::Filled {
            level,
            log,
            invalidate,
        } => (level, log, invalidate),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn violation(got: Outcome) -> umbra_ept::ept12::Violation {
    match got {
        Outcome::Violation12(v) => v,
        other => panic!("{other:?}"),
    }
}

// ---- merging ----

#[test]
fn a_gibibyte_of_l1_over_a_hole() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0, Level::Pdpt, RWX | WB);
    b.map(&c, 1 << 30, Level::Pdpt, 1 << 30 | RWX | WB);
    let root = b.enter(&c).0;
    for (gpa2, level) in [
        (0x0040_1234, Level::Pd),
        (HIDDEN.start - 1, Level::Pt),
        (HIDDEN.start, Level::Pt),
        (HIDDEN.end - 0x3000 + 5, Level::Pt),
        (HIDDEN.end, Level::Pt),
        (0x4000_0000, Level::Pdpt),
    ] {
        assert_eq!(filled(b.touch(&c, gpa2, Access::READ)).0, level);
        assert_eq!(walk_own(&b.t, root, gpa2).unwrap().hpa, home(gpa2));
    }
    assert_eq!(walk_own(&b.t, root, HIDDEN.start).unwrap().hpa, VOID);
}

#[test]
fn a_leaf_is_as_large_as_the_cpu_has() {
    let mut b = Bench::new(1, 16, 0);
    let mut hardware = CAPS;
    hardware.page_1g = false;
    b.pool
        .configure(
            table_pages(POOL, 64),
            &Config {
                hardware,
                ..config(1, 16, 0)
            },
        )
        .unwrap();
    let c = b.context(0, CAPS);
    b.map(&c, 1 << 30, Level::Pdpt, 1 << 30 | RWX | WB);
    assert_eq!(filled(b.touch(&c, 0x4000_0000, Access::READ)).0, Level::Pd);
}

#[test]
fn rights_are_those_of_every_level() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    // Read-only two levels up, everything in the leaf.
    let slot = b.slot(&c, 0x5000, Level::Pd, RWX);
    let table = b.machine.l1_table();
    b.machine.poke(slot, table | 1);
    b.machine.poke(table + 8 * 5, 0x5000_5000 | RWX | WB);
    let root = b.enter(&c).0;
    let _ = filled(b.touch(&c, 0x5000, Access::READ));
    assert_eq!(walk_own(&b.t, root, 0x5000).unwrap().rights, 1);
    let v = violation(b.touch(&c, 0x5000, Access::WRITE));
    assert_eq!(
        (v.low_bits, v.present, v.convertible),
        (2 | 1 << 3, true, true)
    );
}

#[test]
fn an_execute_only_leaf_is_a_leaf() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | 4 | WB);
    let root = b.enter(&c).0;
    let _ = filled(b.touch(&c, 0x5000, Access::FETCH));
    assert_eq!(walk_own(&b.t, root, 0x5000).unwrap().rights & 7, 4);
    assert_eq!(
        violation(b.touch(&c, 0x5000, Access::READ)).low_bits,
        1 | 4 << 3
    );
    let mut caps = CAPS;
    caps.execute_only = false;
    let c = Context12 { caps, ..c };
    let Outcome::Misconfig12(m) = b.touch(&c, 0x5000, Access::FETCH) else {
        panic!()
    };
    assert_eq!((m.why, m.level), (Why::ExecuteOnly, Level::Pt));
}

#[test]
fn kvms_mmio_leaf_is_a_misconfiguration() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    let slot = b.map(&c, 0xfee0_0000, Level::Pt, 0x000f_ff00_fee0_0006);
    let Outcome::Misconfig12(m) = b.touch(&c, 0xfee0_0000, Access::READ) else {
        panic!()
    };
    assert_eq!(
        (m.why, m.level, m.entry.gpa1.raw()),
        (Why::WriteWithoutRead, Level::Pt, slot)
    );
}

#[test]
fn a_misconfiguration_below_comes_before_a_right_above() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    let slot = b.slot(&c, 0x5000, Level::Pt, 1);
    b.machine.poke(slot, 0x5000_5000 | RWX | 2 << 3);
    let got = b.touch(&c, 0x5000, Access::WRITE);
    assert!(matches!(got, Outcome::Misconfig12(m) if m.why == Why::MemoryType));
}

#[test]
fn tables_where_nothing_answers_read_as_ones() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    let slot = b.slot(&c, 0x5000, Level::Pdpt, RWX);
    b.machine.poke(slot, 0xf0_0000_0000 | RWX);
    b.l1.end = 0x40_0000_0000;
    let got = b.touch(&c, 0x5000, Access::READ);
    assert!(
        matches!(got, Outcome::Misconfig12(m) if m.why == Why::AddressWidth),
        "{got:?}"
    );
}

#[test]
fn tables_inside_umbra_read_what_l1_would() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    let slot = b.slot(&c, 0x5000, Level::Pdpt, RWX);
    // The page that really holds ept01's root: L1 must see the void instead.
    let own = root(b.machine.ept01.eptp());
    assert!(b.machine.memory.get(own) & 7 != 0);
    b.machine.poke(slot, own | RWX);
    assert!(!violation(b.touch(&c, 0x5000, Access::READ)).present);
}

#[test]
fn addresses_beyond_the_walk_are_violations() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    let v = violation(b.touch(&c, 1 << 48 | 0x5000, Access::READ));
    assert_eq!((v.low_bits, v.present, v.convertible), (1, false, false));
    // Were 5 levels ever offered, the address must not alias in ept02.
    let mut caps = CAPS;
    caps.walk_5 = true;
    let top = b.machine.l1_table();
    b.machine.poke(top, c.eptp.root().raw() | RWX);
    b.machine.poke(top + 8, c.eptp.root().raw() | RWX);
    let c5 = Context12 {
        eptp: Eptp::new(top | 0x26, &caps).unwrap(),
        caps,
    };
    let _ = filled(b.touch(&c5, 0x5000, Access::READ));
    let got = b.touch(&c5, 1 << 48 | 0x5000, Access::READ);
    assert_eq!(
        got,
        Outcome::Denied01 {
            gpa1: Gpa1::new(0x5000_5000)
        }
    );
}

#[test]
fn suppress_ve_decides_what_is_convertible_and_ept02_never_converts() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    for (gpa2, bit) in [(0x5000, 0), (0x6000, 1u64 << 63)] {
        b.map(&c, gpa2, Level::Pt, 0x5000_5000 | 1 | WB | bit);
        b.map(&c, gpa2 + 0x10000, Level::Pt, bit);
        let _ = filled(b.touch(&c, gpa2, Access::READ));
        let root = b.enter(&c).0;
        assert_eq!(walk_own(&b.t, root, gpa2).unwrap().entry >> 63, 1);
        for at in [gpa2, gpa2 + 0x10000] {
            assert_eq!(
                violation(b.touch(&c, at, Access::WRITE)).convertible,
                bit == 0
            );
        }
    }
}

// ---- accessed and dirty flags, page-modification logging ----

#[test]
fn flags_are_set_as_the_cpu_sets_them() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    let leaf = b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    let pd = b.slot(&c, 0x5000, Level::Pd, RWX);
    let root = b.enter(&c).0;
    assert!(root.raw() & AD != 0);
    let _ = filled(b.touch(&c, 0x5000, Access::READ));
    assert_eq!((b.peek(leaf) & (A | D), b.peek(pd) & (A | D)), (A, A));
    // The first write has to come to L0.
    assert_eq!(walk_own(&b.t, root, 0x5000).unwrap().rights & 7, 5);
    // A guest paging structure is read and written at once.
    let _ = filled(b.touch(&c, 0x5000, Access::READ | Access::WRITE));
    assert_eq!((b.peek(leaf) & (A | D), b.peek(pd) & (A | D)), (A | D, A));
    assert_eq!(walk_own(&b.t, root, 0x5000).unwrap().rights & 7, 7);
    assert_eq!(b.l1.exchanges, 5);
    assert_eq!(b.touch(&c, 0x5000, Access::WRITE), Outcome::AlreadyThere);
}

#[test]
fn a_fault_sets_no_flag() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    let leaf = b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | 1 | WB);
    violation(b.touch(&c, 0x5000, Access::WRITE));
    assert_eq!((b.peek(leaf) & (A | D), b.l1.exchanges), (0, 0));
}

#[test]
fn without_the_flags_ept12_is_never_written() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    let root = b.enter(&c).0;
    let _ = filled(b.touch(&c, 0x5000, Access::READ));
    assert_eq!(b.l1.exchanges, 0);
    assert!(root.raw() & AD == 0);
    assert_eq!(walk_own(&b.t, root, 0x5000).unwrap().rights & 7, 7);
}

#[test]
fn one_dirty_flag_serves_a_large_page() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    // 2 MiB over the hole: 4 KiB leaves in ept02, one flag in ept12.
    let base = HIDDEN.start & !0x1f_ffff;
    let slot = b.map(&c, base, Level::Pd, base | RWX | WB);
    let root = b.enter(&c).0;
    let pml = Pml::On { full: false };
    assert_eq!(
        filled(b.touch_pml(&c, base + 0x123, Access::WRITE, pml)).1,
        Some(Gpa2::new(base))
    );
    assert_eq!(b.peek(slot) & D, D);
    assert_eq!(
        filled(b.touch_pml(&c, base + 0x5000, Access::READ, pml)).1,
        None
    );
    assert_eq!(walk_own(&b.t, root, base + 0x5000).unwrap().rights & 7, 7);
}

/// L1 was told of a violation and mended it: L2 does not fault there again. What ept12 does not
/// allow, or has not marked as accessed, stays out, and no flag is set.
#[test]
fn a_leaf_that_l1_has_just_mended_is_put_in_before_l2_asks() {
    for (flags, entry, puts_in) in [
        (0, RWX | WB, true),
        (0, 1 | WB, true),
        (0, 0, false),
        (AD, RWX | WB, false),
        (AD, RWX | WB | A, false),
    ] {
        let mut b = Bench::new(1, 16, 0);
        let c = b.context(flags, CAPS);
        let slot = b.slot(&c, 0x5000, Level::Pt, RWX);
        let root = b.enter(&c).0;
        assert!(matches!(
            b.touch(&c, 0x5000, Access::READ),
            Outcome::Violation12(_)
        ));
        b.machine.poke(slot, 0x5000_5000 | entry);
        let owed = b.pool.prefill(&c, Gpa2::new(0x5000), &mut b.t, &mut b.l1);
        assert_eq!(owed, Invalidate::None);
        let found = walk_own(&b.t, root, 0x5000);
        // The tables above the leaf have no accessed flag, if they have one.
        assert_eq!(found.is_some(), puts_in, "{flags:#x} {entry:#x}");
        assert_eq!(b.peek(slot), 0x5000_5000 | entry);
    }
    // All levels marked: the leaf goes in, without the right to write where it is not dirty.
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    let slot = b.slot(&c, 0x5000, Level::Pt, RWX | A);
    b.machine.poke(slot, 0x5000_5000 | RWX | WB | A);
    let root = b.enter(&c).0;
    let owed = b.pool.prefill(&c, Gpa2::new(0x5000), &mut b.t, &mut b.l1);
    assert_eq!(owed, Invalidate::None);
    let found = walk_own(&b.t, root, 0x5000).expect("put in");
    assert_eq!(found.rights & 7, 5);
    assert_eq!(b.peek(slot) & D, 0);
}

#[test]
fn another_cpu_of_l1_may_be_quicker() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    b.l1.races = 3;
    let _ = filled(b.touch(&c, 0x5000, Access::WRITE));
    b.l1.races = u32::MAX;
    b.map(&c, 0x6000, Level::Pt, 0x5000_5000 | RWX | WB);
    let before = b.l1.exchanges;
    assert_eq!(b.touch(&c, 0x6000, Access::WRITE), Outcome::Retry);
    assert!(b.l1.exchanges - before <= 8, "bounded");
}

#[test]
fn a_write_is_logged_once() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    let slot = b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    let pml = Pml::On { full: false };
    assert_eq!(filled(b.touch_pml(&c, 0x5678, Access::READ, pml)).1, None);
    assert_eq!(
        filled(b.touch_pml(&c, 0x5678, Access::WRITE, pml)).1,
        Some(Gpa2::new(0x5000))
    );
    assert_eq!(
        b.touch_pml(&c, 0x5678, Access::WRITE, pml),
        Outcome::AlreadyThere
    );
    // L1 clears the flag and invalidates: logged again.
    b.machine.poke(slot, b.peek(slot) & !D);
    b.pool.invept(InveptScope::All);
    let _ = b.enter(&c);
    assert_eq!(
        filled(b.touch_pml(&c, 0x5678, Access::WRITE, pml)).1,
        Some(Gpa2::new(0x5000))
    );
    assert_eq!(filled_log_off(&mut b, &c), None);
}

fn filled_log_off(b: &mut Bench, c: &Context12) -> Option<Gpa2> {
    b.map(c, 0x7000, Level::Pt, 0x5000_7000 | RWX | WB);
    filled(b.touch_pml(c, 0x7000, Access::WRITE, Pml::Off)).1
}

#[test]
fn a_full_log_stops_before_any_flag() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(AD, CAPS);
    let slot = b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    let full = Pml::On { full: true };
    // Even an accessed flag is not set while the log is full.
    for access in [Access::READ, Access::WRITE] {
        assert_eq!(b.touch_pml(&c, 0x5000, access, full), Outcome::PmlFull);
    }
    assert_eq!((b.peek(slot) & (A | D), b.l1.exchanges), (0, 0));
    let root = b.enter(&c).0;
    assert!(walk_own(&b.t, root, 0x5000).is_none());
    // With all flags there, nothing needs the log.
    let _ = filled(b.touch(&c, 0x5000, Access::WRITE));
    b.pool.invept(InveptScope::All);
    let _ = b.enter(&c);
    let _ = filled(b.touch_pml(&c, 0x5000, Access::WRITE, full));
    // A violation comes before the log.
    b.map(&c, 0x6000, Level::Pt, 0x5000_5000 | 1 | WB);
    violation(b.touch_pml(&c, 0x6000, Access::WRITE, full));
}

// ---- INVEPT and refill ----

#[test]
fn more_rights_need_no_invept() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    violation(b.touch(&c, 0x5000, Access::READ));
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | 1 | WB);
    let _ = filled(b.touch(&c, 0x5000, Access::READ));
    violation(b.touch(&c, 0x5000, Access::WRITE));
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | 3 | WB);
    let (_, _, owed) = filled(b.touch(&c, 0x5000, Access::WRITE));
    assert_eq!(owed, Invalidate::None);
    assert_eq!(b.run(&c, 0x5000, Access::WRITE), 0);
}

#[test]
fn fewer_rights_hold_after_invept() {
    for refill in [0, 8] {
        let mut b = Bench::new(2, 16, refill);
        let c = b.context(0, CAPS);
        let other = b.context(0, CAPS);
        for c in [&c, &other] {
            b.map(c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
            b.run(c, 0x5000, Access::WRITE);
        }
        b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | 1 | WB);
        // As on a CPU, the old right may be used until the INVEPT.
        assert_eq!(b.run(&c, 0x5000, Access::WRITE), 0);
        // An EPTP with other low bits names the same tables.
        let same = Eptp::new(c.eptp.raw() | AD, &CAPS).unwrap();
        b.pool.invept(InveptScope::Single(same));
        let (root, owed) = b.enter(&c);
        assert_eq!(owed, Invalidate::Single(root));
        let rights = walk_own(&b.t, root, 0x5000).map(|f| f.rights & 7);
        assert_eq!(rights, (refill > 0).then_some(1));
        violation(b.touch(&c, 0x5000, Access::WRITE));
        // Once is enough, and the other context lost nothing.
        assert_eq!(b.enter(&c).1, Invalidate::None);
        assert_eq!(b.enter(&other).1, Invalidate::None);
        assert_eq!(b.run(&other, 0x5000, Access::WRITE), 0);
        b.pool.invept(InveptScope::All);
        assert_ne!(b.enter(&other).1, Invalidate::None);
    }
}

#[test]
fn a_fill_without_entry_honours_invept_too() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    b.map(&c, 0x6000, Level::Pt, 0x5000_6000 | RWX | WB);
    b.run(&c, 0x5000, Access::WRITE);
    let root = b.enter(&c).0;
    b.pool.invept(InveptScope::All);
    let (_, _, owed) = filled(b.touch(&c, 0x6000, Access::READ));
    assert_eq!(owed, Invalidate::Single(root));
    assert!(walk_own(&b.t, root, 0x5000).is_none());
}

#[test]
fn hot_pages_are_back_after_invept() {
    let mut exits = [0; 2];
    for (slot, refill) in [(0, 64), (1, 0)] {
        let mut b = Bench::new(1, 16, refill);
        let c = b.context(0, CAPS);
        let pages: Vec<u64> = (0..32).map(|n| n * 0x3000).collect();
        for p in &pages {
            b.map(&c, *p, Level::Pt, (0x5000_0000 + p) | RWX | WB);
        }
        let first: u32 = pages.iter().map(|p| b.run(&c, *p, Access::WRITE)).sum();
        assert_eq!(first, 32);
        for _ in 0..10 {
            b.pool.invept(InveptScope::All);
            exits[slot] += pages
                .iter()
                .map(|p| b.run(&c, *p, Access::WRITE))
                .sum::<u32>();
        }
        // The ninth INVEPT is the one that asks whether they are in use.
        let expect = if refill > 0 { 9 * 32 } else { 0 };
        assert_eq!(b.pool.counters().refill, expect);
    }
    assert_eq!(exits, [32, 320]);
}

/// What L2 does not use any more is read anew after eight INVEPTs and no more;
/// what it does use comes back by one miss each.
#[test]
fn pages_out_of_use_are_put_back_eight_times() {
    let mut b = Bench::new(1, 16, 64);
    b.pool.set_neighbours(true);
    let c = b.context(0, CAPS);
    let (used, unused) = (0x10_0000u64, 0x20_0000u64);
    for first in [unused, used] {
        for n in 0..16 {
            let gpa2 = first + (n << 12);
            b.map(&c, gpa2, Level::Pt, (0x5000_0000 + gpa2) | RWX | WB);
        }
        assert_eq!(b.run(&c, first, Access::READ), 1);
    }
    let mut exits = 0;
    for round in 1..=40u64 {
        b.pool.invept(InveptScope::All);
        let (root, _) = b.enter(&c);
        let is_there = walk_own(&b.t, root, unused).is_some();
        assert_eq!(is_there, round <= 8, "round {round}");
        exits += b.run(&c, used, Access::READ);
        assert_eq!(u64::from(exits), round / 9);
    }
    let rounds_put_back = 40 - 40 / 9;
    assert_eq!(b.pool.counters().refill, 16 * (8 + rounds_put_back));
}

/// The work of a refill is bounded, whatever L1 does to its tables.
#[test]
fn a_refill_is_bounded() {
    for neighbours in [false, true] {
        for pages in [8u64, 40, 64, 65, 400] {
            let mut b = Bench::new(1, 16, 24);
            b.pool.set_neighbours(neighbours);
            let c = b.context(0, CAPS);
            // Each in a block of 16 leaves of its own, 64 KiB apart.
            for p in 0..pages {
                b.map(&c, p << 16, Level::Pt, (0x5000_0000 + (p << 16)) | RWX | WB);
                b.run(&c, p << 16, Access::WRITE);
            }
            b.pool.invept(InveptScope::All);
            let (reads, l1, writes) = (b.t.reads.get(), b.l1.reads, b.t.writes);
            let (root, _) = b.enter(&c);
            let back = pages.min(24);
            assert_eq!(b.pool.counters().refill, back);
            assert_eq!(u64::from(b.l1.reads - l1), 4 * back);
            // Taking out at most 64 leaves, and for each one a walk of ept02.
            assert!(b.t.reads.get() - reads <= 64 + 24 * 4 + 8);
            assert!(b.t.writes - writes <= 64 + 24 + 3 + 24);
            // The ones filled in last are the ones that are back.
            for p in 0..pages {
                let there = walk_own(&b.t, root, p << 16).is_some();
                assert_eq!(there, p >= pages - back, "page {p} of {pages}");
            }
            // L1 took everything away: two walks for each block, no more.
            for p in 0..pages {
                b.map(&c, p << 16, Level::Pt, 0);
            }
            b.pool.invept(InveptScope::All);
            let l1 = b.l1.reads;
            let _ = b.enter(&c);
            assert!(u64::from(b.l1.reads - l1) <= 24 * 8);
        }
    }
}

#[test]
fn a_refill_reads_everything_anew() {
    let mut b = Bench::new(1, 16, 16);
    let c = b.context(0, CAPS);
    let pages = [0x5000u64, 0x6000, 0x7000, 0x8000, 0x20_0000];
    for p in pages {
        b.map(&c, p, Level::Pt, (0x5000_0000 + p) | RWX | WB);
        b.run(&c, p, Access::WRITE);
    }
    b.map(&c, 0x5000, Level::Pt, 0x5100_0000 | RWX | WB); // elsewhere
    b.map(&c, 0x6000, Level::Pt, 0); // gone
    b.map(&c, 0x7000, Level::Pt, 0x5000_7000 | 2); // illegal
    b.map(&c, 0x20_0000, Level::Pd, 0x5020_0000 | 5 | WB); // large
    b.pool.invept(InveptScope::All);
    let (root, _) = b.enter(&c);
    let at = |gpa2| walk_own(&b.t, root, gpa2).map(|f| (f.hpa, f.rights & 7, f.level));
    assert_eq!(at(0x5000), Some((0x5100_0000, 7, 1)));
    assert_eq!(at(0x6000), None);
    assert_eq!(at(0x7000), None);
    assert_eq!(at(0x8000), Some((0x5000_8000, 7, 1)));
    assert_eq!(at(0x20_3000), Some((0x5020_3000, 5, 2)));
}

#[test]
fn a_refill_sets_no_flags() {
    let mut b = Bench::new(1, 16, 16);
    let c = b.context(AD, CAPS);
    let slots: Vec<u64> = [0x5000u64, 0x6000, 0x7000]
        .iter()
        .map(|p| {
            let slot = b.map(&c, *p, Level::Pt, (0x5000_0000 + p) | RWX | WB);
            b.run(&c, *p, Access::WRITE);
            slot
        })
        .collect();
    b.machine.poke(slots[0], b.peek(slots[0]) & !D);
    b.machine.poke(slots[1], b.peek(slots[1]) & !(A | D));
    b.pool.invept(InveptScope::All);
    let before = b.l1.exchanges;
    let (root, _) = b.enter(&c);
    assert_eq!(b.l1.exchanges, before);
    let rights = |gpa2| walk_own(&b.t, root, gpa2).map(|f| f.rights & 7);
    // The write comes to L0 again; a page whose accessed flag is clear stays out.
    assert_eq!(
        [rights(0x5000), rights(0x6000), rights(0x7000)],
        [Some(5), None, Some(7)]
    );
    assert_eq!(b.run(&c, 0x5000, Access::WRITE), 1);
    assert_eq!(b.peek(slots[0]) & D, D);
}

/// The walk from the root that begins a block looks at the accessed flag of
/// every entry too.
#[test]
fn a_refill_begins_with_an_accessed_page() {
    for level in [Level::Pt, Level::Pd, Level::Pdpt, Level::Pml4] {
        let mut b = Bench::new(1, 16, 16);
        let c = b.context(AD, CAPS);
        b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
        b.run(&c, 0x5000, Access::WRITE);
        let slot = b.slot(&c, 0x5000, level, RWX);
        assert_eq!(b.peek(slot) & A, A);
        b.machine.poke(slot, b.peek(slot) & !A);
        b.pool.invept(InveptScope::All);
        let (root, _) = b.enter(&c);
        assert_eq!(walk_own(&b.t, root, 0x5000), None, "{level:?}");
        assert_eq!(b.peek(slot) & A, 0);
        assert_eq!(b.run(&c, 0x5000, Access::READ), 1);
        assert_eq!(b.peek(slot) & A, A);
    }
}

/// A block that L1 took away whole costs two walks, not sixteen.
#[test]
fn a_refill_gives_a_block_up() {
    let mut b = Bench::new(1, 16, 16);
    b.pool.set_neighbours(true);
    let c = b.context(0, CAPS);
    for n in 0..16u64 {
        b.map(&c, n << 12, Level::Pt, (0x5000_0000 + (n << 12)) | RWX | WB);
    }
    b.run(&c, 0, Access::READ);
    for n in 0..16u64 {
        b.map(&c, n << 12, Level::Pt, 0);
    }
    b.pool.invept(InveptScope::All);
    let before = b.l1.reads;
    let (root, _) = b.enter(&c);
    assert_eq!(b.l1.reads - before, 8);
    assert!((0..16u64).all(|n| walk_own(&b.t, root, n << 12).is_none()));
}

#[test]
fn a_change_of_size_owes_an_invept() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0x20_0000, Level::Pd, 0x5020_0000 | 1 | WB);
    let root = b.enter(&c).0;
    assert_eq!(
        filled(b.touch(&c, 0x20_0000, Access::READ)).2,
        Invalidate::None
    );
    // L1 splits it and adds a right, without INVEPT.
    b.map(&c, 0x20_3000, Level::Pt, 0x5020_3000 | 3 | WB);
    let got = filled(b.touch(&c, 0x20_3000, Access::WRITE));
    assert_eq!(got, (Level::Pt, None, Invalidate::Single(root)));
    // And joins it again.
    b.map(&c, 0x20_0000, Level::Pd, 0x5020_0000 | 7 | WB);
    let got = filled(b.touch(&c, 0x20_8000, Access::FETCH));
    assert_eq!(got, (Level::Pd, None, Invalidate::Single(root)));
    // And splits it once more: the table used before is not in use any more.
    b.map(&c, 0x20_3000, Level::Pt, 0x5120_3000 | 7 | WB);
    b.pool.invept(InveptScope::All);
    let _ = b.enter(&c);
    assert_eq!(b.run(&c, 0x20_3000, Access::WRITE), 1);
    assert_eq!(walk_own(&b.t, root, 0x20_3000).unwrap().hpa, 0x5120_3000);
    b.map(&c, 0x20_0000, Level::Pd, 0x5020_0000 | 7 | WB);
    let _ = filled(b.touch(&c, 0x20_8000, Access::WRITE));
    b.map(&c, 0x20_4000, Level::Pt, 0x5120_4000 | 7 | WB);
    let _ = filled(b.touch(&c, 0x20_4000, Access::WRITE));
    assert_eq!(walk_own(&b.t, root, 0x20_4000).unwrap().hpa, 0x5120_4000);
}

// ---- neighbours ----

#[test]
fn neighbours_come_along() {
    for level in [Level::Pt, Level::Pd] {
        let mut b = Bench::new(1, 16, 16);
        b.pool.set_neighbours(true);
        let c = b.context(0, CAPS);
        let span = level.span_bytes();
        for n in 0..64 {
            b.map(&c, n * span, level, (0x4000_0000 + n * span) | RWX | WB);
        }
        // Entry 3 is absent, 5 read-only, 7 illegal, 9 of type UC.
        let slot = b.slot(&c, 3 * span, level, RWX);
        b.machine.poke(slot, 0);
        b.map(&c, 5 * span, level, (0x4000_0000 + 5 * span) | 1 | WB);
        b.map(&c, 7 * span, level, (0x4000_0000 + 7 * span) | RWX | 2 << 3);
        b.map(&c, 9 * span, level, (0x4000_0000 + 9 * span) | RWX);
        let (root, _) = b.enter(&c);
        let _ = filled(b.touch(&c, 2 * span + 0x123, Access::READ));
        let check = |b: &Bench| {
            for n in 0..64 {
                let found = walk_own(&b.t, root, n * span);
                if n >= 16 || n == 3 || n == 7 {
                    assert_eq!(found, None, "{n}");
                    continue;
                }
                let found = found.unwrap();
                assert_eq!(found.hpa, 0x4000_0000 + n * span);
                assert_eq!(found.rights & 7, if n == 5 { 1 } else { 7 });
                assert_eq!(found.entry >> 3 & 7, if n == 9 { 0 } else { 6 });
                assert_eq!(found.level, level as u32);
            }
        };
        check(&b);
        assert_eq!((b.pool.counters().miss, b.pool.counters().around), (1, 13));
        // What is there is not touched; what L1 takes away goes with INVEPT.
        b.map(&c, 4 * span, level, (0x5000_0000 + 4 * span) | 1 | WB);
        violation(b.touch(&c, 5 * span, Access::WRITE));
        check(&b);
        b.pool.invept(InveptScope::All);
        let _ = b.enter(&c);
        let moved = walk_own(&b.t, root, 4 * span).unwrap();
        assert_eq!((moved.hpa, moved.rights & 7), (0x5000_0000 + 4 * span, 1));
        assert_eq!(b.pool.counters().refill, 14);
    }
}

/// A neighbour that looks like the page that was touched may still be illegal,
/// or lie where ept01 says something else.
#[test]
fn neighbours_are_judged_one_by_one() {
    for (level, first) in [(Level::Pt, 0x5000_0000u64), (Level::Pd, 0x5000_0000)] {
        let mut b = Bench::new(1, 16, 0);
        b.pool.set_neighbours(true);
        let c = b.context(0, CAPS);
        let span = level.span_bytes();
        let beyond = 1 << CAPS.maxphyaddr;
        let hidden = HIDDEN.start & !(span - 1);
        let nowhere = 1 << (CAPS.maxphyaddr - 1);
        for (n, address) in [
            (0, first),
            (1, hidden),
            (2, first + 2 * span + beyond),
            (3, first + 3 * span),
            (4, nowhere),
        ] {
            b.map(&c, n * span, level, address | RWX | WB);
        }
        if level == Level::Pd {
            b.map(&c, 5 * span, level, (first + 5 * span + 0x1000) | RWX | WB);
        }
        let (root, _) = b.enter(&c);
        let _ = filled(b.touch(&c, 0, Access::READ));
        let at = |n: u64| walk_own(&b.t, root, n * span).map(|f| f.hpa);
        assert_eq!(at(0), Some(first));
        assert_eq!(at(2), None);
        assert_eq!(at(3), Some(first + 3 * span));
        assert_eq!(at(5), None);
        for (n, gpa1) in [(1, hidden), (4, nowhere)] {
            // Left out where the sizes differ, else as ept01 has it.
            assert!(
                at(n).is_none_or(|hpa| hpa == home(gpa1)),
                "{n} {:x?}",
                at(n)
            );
        }
        assert_eq!(at(1).is_some(), level == Level::Pt);
    }
}

/// The page that was touched lies in a small page of ept01, whose type is not
/// that of the large page used before.
#[test]
fn neighbours_have_their_own_types() {
    let mut b = Bench::new(1, 16, 0);
    let mut mtrrs = common::mtrrs_wb();
    mtrrs.write_msr(0x200, 0x5020_0000).unwrap();
    let mask = (1u64 << CAPS.maxphyaddr) - 0x1000;
    mtrrs.write_msr(0x201, mask | 0x800).unwrap();
    b.machine = Machine::with(mtrrs, CAPS);
    (b.t, b.l1) = b.machine.split();
    let with_types = Config {
        merge: Merge::MtrrPrecedence,
        ..config(1, 16, 0)
    };
    b.pool
        .configure(table_pages(POOL, 64), &with_types)
        .unwrap();
    b.pool.set_neighbours(true);
    let c = b.context(0, CAPS);
    for (gpa2, gpa1) in [
        (0x4000_0000, 0x5000_0000u64),
        (0, 0x5020_0000),
        (0x1000, 0x5000_1000),
    ] {
        b.map(&c, gpa2, Level::Pt, gpa1 | RWX | WB);
    }
    let (root, _) = b.enter(&c);
    let _ = filled(b.touch(&c, 0x4000_0000, Access::READ));
    let _ = filled(b.touch(&c, 0, Access::READ));
    let kind = |gpa2: u64| walk_own(&b.t, root, gpa2).map(|f| f.entry >> 3 & 7);
    assert_eq!(kind(0), Some(0));
    assert_eq!(kind(0x1000), Some(6));
}

#[test]
fn neighbours_have_their_own_flags() {
    let mut b = Bench::new(1, 16, 0);
    b.pool.set_neighbours(true);
    let c = b.context(AD, CAPS);
    let flags = [0, A, A | D, D];
    let slots: Vec<u64> = (0..8u64)
        .map(|n| {
            let raw = (0x5000_0000 + (n << 12)) | RWX | WB | flags[n as usize % 4];
            b.map(&c, n << 12, Level::Pt, raw)
        })
        .collect();
    let (root, _) = b.enter(&c);
    let _ = filled(b.touch(&c, 0, Access::WRITE));
    let rights = |n: u64| walk_own(&b.t, root, n << 12).map(|f| f.rights & 7);
    let got: Vec<_> = (0..8).map(rights).collect();
    let (none, read) = (None, Some(5));
    assert_eq!(
        got,
        [Some(7), read, Some(7), none, none, read, Some(7), none]
    );
    // Only the page that was touched changed in ept12.
    for (n, slot) in slots.iter().enumerate().skip(1) {
        assert_eq!(b.peek(*slot) & (A | D), flags[n % 4]);
    }
    // The first write to a neighbour is logged like any other.
    let pml = Pml::On { full: false };
    assert_eq!(
        filled(b.touch_pml(&c, 0x1000, Access::WRITE, pml)).1,
        Some(Gpa2::new(0x1000))
    );
}

/// ept12 has one large page, ept01 small ones around the hole: each neighbour
/// is judged by ept01 alone.
#[test]
fn neighbours_over_a_hole() {
    let mut b = Bench::new(1, 16, 0);
    b.pool.set_neighbours(true);
    let c = b.context(0, CAPS);
    b.map(&c, 0, Level::Pdpt, RWX | WB);
    let (root, _) = b.enter(&c);
    let reads = b.l1.reads;
    let _ = filled(b.touch(&c, HIDDEN.start, Access::READ));
    // The large page is read once: 2 levels.
    assert_eq!(b.l1.reads - reads, 2);
    let first = HIDDEN.start & !0xffff;
    for page in (first..first + 0x1_0000).step_by(0x1000) {
        assert_eq!(walk_own(&b.t, root, page + 5).unwrap().hpa, home(page + 5));
    }
    assert_eq!(walk_own(&b.t, root, first + 0x1_0000), None);
    assert_eq!(b.pool.counters().around, 15);
}

#[test]
fn sixty_four_pages_take_four_misses() {
    let mut b = Bench::new(1, 16, 64);
    b.pool.set_neighbours(true);
    let c = b.context(0, CAPS);
    for n in 0..64u64 {
        b.map(&c, n << 12, Level::Pt, (0x5000_0000 + (n << 12)) | RWX | WB);
    }
    let touch_all =
        |b: &mut Bench| -> u32 { (0..64).map(|n| b.run(&c, n << 12, Access::WRITE)).sum() };
    assert_eq!(touch_all(&mut b), 4);
    b.pool.invept(InveptScope::All);
    assert_eq!(touch_all(&mut b), 0);
    assert_eq!(b.pool.counters().refill, 64);
}

/// The limit of a refill is one of leaves, whatever blocks they are in; the
/// newest come first.
#[test]
fn a_refill_counts_leaves() {
    for (refill, back) in [(1, 1), (15, 15), (16, 16), (17, 17), (40, 40), (64, 48)] {
        let mut b = Bench::new(1, 16, refill);
        b.pool.set_neighbours(true);
        let c = b.context(0, CAPS);
        for n in 0..48u64 {
            b.map(&c, n << 12, Level::Pt, (0x5000_0000 + (n << 12)) | RWX | WB);
        }
        for n in (0..48u64).step_by(16) {
            b.run(&c, n << 12, Access::READ);
        }
        for round in 0..3 {
            b.pool.invept(InveptScope::All);
            let before = (b.pool.counters().refill, b.l1.reads);
            let (root, _) = b.enter(&c);
            assert_eq!(b.pool.counters().refill - before.0, back);
            let reads = u64::from(b.l1.reads - before.1);
            assert!(reads <= 8 * back);
            // A walk to one of a block, and the block's entries together.
            assert!(round > 0 || reads <= 20 * back.div_ceil(16));
            let there = |n: &u64| walk_own(&b.t, root, n << 12).is_some();
            assert_eq!((0..48).filter(there).count() as u64, back);
            // At first nothing was touched later than the third block.
            if round == 0 {
                let newest = (32..48).filter(there).count() as u64;
                assert_eq!(newest, back.min(16));
            }
            // The others come back when they are touched.
            for n in (0..48u64).step_by(16) {
                b.run(&c, n << 12, Access::READ);
                b.run(&c, (n + 15) << 12, Access::READ);
            }
        }
    }
}

// ---- the pool ----

#[test]
fn eight_pages_are_enough_for_anything() {
    // One cache of 8 pages, and leaves that need three tables each.
    let mut b = Bench::new(1, 8, 4);
    let c = b.context(0, CAPS);
    let all: Vec<u64> = (0..40u64)
        .map(|n| n << 39 | (n % 3) << 30 | n << 21 | 0x7000)
        .collect();
    for p in &all {
        b.map(&c, *p, Level::Pt, 0x5000_0000 | (p >> 39) << 12 | RWX | WB);
    }
    for round in 0..3 {
        for p in &all {
            b.run(&c, *p, Access::WRITE);
            let root = b.enter(&c).0;
            let found = walk_own(&b.t, root, *p).unwrap();
            assert_eq!(found.hpa, 0x5000_0000 | (p >> 39) << 12);
        }
        assert!(b.pool.counters().full >= 10 * (round + 1));
        assert!(b.pool.pages_used() <= 8);
        b.pool.invept(InveptScope::All);
    }
    // Four pages, the least, work as well.
    let mut b = Bench::new(1, 4, 4);
    let c = b.context(0, CAPS);
    for p in &all {
        b.map(&c, *p, Level::Pt, 0x5000_0000 | (p >> 39) << 12 | RWX | WB);
        assert_eq!(b.run(&c, *p, Access::WRITE), 1);
    }
    assert_eq!(b.pool.counters().full, 39);
}

#[test]
fn running_out_owes_an_invept() {
    let mut b = Bench::new(1, 4, 0);
    let c = b.context(0, CAPS);
    b.map(&c, 0, Level::Pt, 0x5000_0000 | RWX | WB);
    b.map(&c, 1 << 39, Level::Pt, 0x5000_0000 | RWX | WB);
    let root = b.enter(&c).0;
    assert_eq!(filled(b.touch(&c, 0, Access::READ)).2, Invalidate::None);
    assert_eq!(
        filled(b.touch(&c, 1 << 39, Access::READ)).2,
        Invalidate::Single(root)
    );
    assert!(walk_own(&b.t, root, 0).is_none());
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut b = Bench::new(2, 8, 0);
    let c: Vec<Context12> = (0..3).map(|_| b.context(0, CAPS)).collect();
    for c in &c {
        b.map(c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    }
    let (r0, owed) = b.enter(&c[0]);
    assert_eq!(owed, Invalidate::Single(r0));
    b.run(&c[0], 0x5000, Access::READ);
    let (r1, _) = b.enter(&c[1]);
    b.run(&c[1], 0x5000, Access::READ);
    assert!(!r0.has_root_of(r1));
    assert_eq!(b.enter(&c[0]), (r0, Invalidate::None));
    // 1 was used longer ago than 0.
    assert_eq!(b.enter(&c[2]), (r1, Invalidate::Single(r1)));
    assert!(walk_own(&b.t, r1, 0x5000).is_none());
    assert_eq!(b.run(&c[0], 0x5000, Access::READ), 0);
    let Counters {
        evict,
        hit,
        miss,
        full,
        ..
    } = b.pool.counters();
    assert_eq!((evict, miss, full), (1, 2, 0));
    assert!(hit >= 3);
    assert_eq!(b.run(&c[1], 0x5000, Access::READ), 1);
    // Everything forgotten: nobody is evicted, and an INVEPT is owed.
    assert_eq!(b.pool.drop_all(), Invalidate::All);
    assert_eq!(b.pool.pages_used(), 0);
    assert_eq!(b.run(&c[0], 0x5000, Access::READ), 1);
    assert_eq!(b.pool.counters().evict, 2);
}

#[test]
fn what_makes_a_cache_of_its_own() {
    let mut b = Bench::new(4, 8, 0);
    let c = b.context(0, CAPS);
    let with = |flags: u64, mbec| Context12 {
        eptp: Eptp::new(c.eptp.raw() | flags, &CAPS).unwrap(),
        caps: CAPS.with_mode_based_execute(mbec),
    };
    let mut roots: Vec<u64> = [
        with(0, false),
        with(AD, false),
        with(0, true),
        with(AD, true),
    ]
    .iter()
    .map(|c| root(b.enter(c).0))
    .collect();
    roots.sort_unstable();
    roots.dedup();
    assert_eq!(roots.len(), 4);
    // The memory type of ept12's tables makes no difference.
    let uc = Context12 {
        eptp: Eptp::new(c.eptp.raw() & !7, &CAPS).unwrap(),
        caps: CAPS,
    };
    assert_eq!(b.enter(&uc), b.enter(&c));
    assert_eq!(b.pool.counters().evict, 0);
}

#[test]
fn a_repeated_entry_touches_nothing() {
    let mut b = Bench::new(4, 8, 64);
    let c = b.context(0, CAPS);
    b.map(&c, 0x5000, Level::Pt, 0x5000_5000 | RWX | WB);
    b.run(&c, 0x5000, Access::READ);
    let before = (b.t.reads.get(), b.t.writes, b.t.fills, b.l1.reads);
    let _ = b.enter(&c);
    assert_eq!((b.t.reads.get(), b.t.writes, b.t.fills, b.l1.reads), before);
}

#[test]
fn a_fill_is_short() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    for p in 0..64u64 {
        b.map(&c, p << 12, Level::Pt, (0x5000_0000 + (p << 12)) | RWX | WB);
    }
    b.run(&c, 0, Access::READ);
    for p in 1..64u64 {
        let before = (b.t.reads.get(), b.t.writes, b.t.fills, b.l1.reads);
        let _ = filled(b.touch(&c, p << 12, Access::READ));
        // ept12: 4; ept01: the large page is remembered; ept02: the leaf.
        assert_eq!(b.l1.reads - before.3, 4);
        assert_eq!(b.t.reads.get() - before.0, 1);
        assert_eq!((b.t.writes - before.1, b.t.fills - before.2), (1, 0));
    }
}

#[test]
fn large_pages_of_l1_take_one_miss_each() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS);
    for n in 0..32u64 {
        b.map(&c, n << 21, Level::Pd, (0x5000_0000 + (n << 21)) | RWX | WB);
    }
    let exits: u32 = (0..64 << 8)
        .map(|p| b.run(&c, p << 12, Access::WRITE))
        .sum();
    assert_eq!((exits, b.pool.counters().miss), (32, 32));
    assert_eq!(b.pool.pages_used(), 3);
}

#[test]
fn bad_configurations_are_refused() {
    let pages = table_pages(POOL, 64);
    let mut pool: Pool<4, 8> = Pool::new();
    let mut t = Machine::new().split();
    let mut b = Bench::new(1, 8, 0);
    let c = b.context(0, CAPS);
    assert!(pool.activate(&c, &mut t.0, &mut t.1).is_none());
    for (caches, each, error) in [
        (0, 8, ConfigError::Caches { most: 4 }),
        (5, 8, ConfigError::Caches { most: 4 }),
        (
            1,
            3,
            ConfigError::PagesPerCache {
                least: 4,
                most: 0xffff,
            },
        ),
        (
            1,
            0x1_0000,
            ConfigError::PagesPerCache {
                least: 4,
                most: 0xffff,
            },
        ),
        (4, 17, ConfigError::Memory { needed: 68 }),
        (4, 0xffff, ConfigError::Memory { needed: 4 * 0xffff }),
    ] {
        assert_eq!(pool.configure(pages, &config(caches, each, 0)), Err(error));
    }
    assert_eq!(pool.configure(pages, &config(4, 16, 1000)), Ok(()));
    assert!(pool.activate(&c, &mut t.0, &mut t.1).is_some());
}

// ---- mode-based execute ----

#[test]
fn a_fetch_of_unknown_mode_is_tried_once() {
    let mut b = Bench::new(1, 16, 0);
    let c = b.context(0, CAPS.with_mode_based_execute(true));
    let slot = b.slot(&c, 0x5000, Level::Pt, 0x407);
    b.machine.poke(slot, 0x5000_5000 | 0x401 | WB);
    let fetch = Access::from_qualification(1 << 2, true);
    assert!(fetch.contains(Access::MODE_UNKNOWN));
    let _ = filled(b.touch(&c, 0x5000, fetch));
    assert_eq!(
        violation(b.touch(&c, 0x5000, fetch)).low_bits,
        4 | 1 << 3 | 1 << 6
    );
    // With the CPU's word for it no trial is needed.
    let user = Access::from_qualification(0x384, true);
    let supervisor = Access::from_qualification(0x184, true);
    assert_eq!(b.touch(&c, 0x5000, user), Outcome::AlreadyThere);
    violation(b.touch(&c, 0x5000, supervisor));
}

/// Besides the table pages: the pool itself, at the default sizes.
#[test]
fn the_room_that_a_pool_takes() {
    let bytes = size_of::<Pool>();
    assert!(bytes < 16 << 10, "{bytes}");
}

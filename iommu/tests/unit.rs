//! Switching a unit on, against a fake one that caches as much as it is allowed
//! to and looks, at every write of a register, whether a device could reach
//! Umbra's memory.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{HIDDEN_LAST, HIDDEN_START, Pages};
use umbra_iommu::caps::{Capability, Caps, Extended, Unsupported};
use umbra_iommu::command::{Command, Stuck};
use umbra_iommu::context::Contexts;
use umbra_iommu::invalidate::What;
use umbra_iommu::mem::Tables;
use umbra_iommu::ranges::{Range, Ranges};
use umbra_iommu::regs::{self, Registers};
use umbra_iommu::second_level::{Format, SecondLevel};
use umbra_iommu::unit::Unit;

const IOTLB: u32 = 0x108;
const FAULTS: u32 = 0x220;

/// What the firmware may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Off,
    /// Translating, with everything mapped, by its own tables and queue.
    Open,
}

/// What a unit has cached: with which tables it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cached {
    /// Nothing: it walks.
    Nothing,
    /// What the firmware's tables gave: everything.
    Firmware,
}

struct Fake {
    pages: Rc<RefCell<Pages>>,
    caps: Caps,
    status: u32,
    root: u64,
    taken_root: Option<u64>,
    contexts: Cached,
    translations: Cached,
    protected: bool,
    low: (u32, u32),
    high: (u64, u64),
    queue: u64,
    head: u64,
    /// Nothing of Umbra's may be reachable from the first moment at which the
    /// unit could prevent it.
    must_be_closed: bool,
    /// Whether it ever was open after that.
    was_open: bool,
    /// The command that it never finishes.
    stuck: Option<Command>,
    faults: Vec<(u64, u64)>,
    fault_status: u32,
    wrong: Vec<String>,
}

impl Fake {
    fn reaches(&self, address: u64) -> bool {
        let low =
            address >> 32 == 0 && (self.low.0..=self.low.1 | 0x1f_ffff).contains(&(address as u32));
        let high = (self.high.0..=self.high.1 | 0x1f_ffff).contains(&address) && address >> 32 != 0;
        if self.protected && (low || high) {
            return false;
        }
        if self.status & regs::GLOBAL_TRANSLATION == 0 {
            return true;
        }
        if self.contexts == Cached::Firmware || self.translations == Cached::Firmware {
            return true;
        }
        let Some(root) = self.taken_root else {
            return true;
        };
        // Device 0:0.0, level by level, by what lies in memory where the unit
        // looks for it.
        let pages = self.pages.borrow();
        let read = |page: u64, index: usize| {
            if self.caps.ecap.coherent() {
                pages.read(page, index)
            } else {
                pages
                    .written_back
                    .get(&page)
                    .map_or(1 << 12 | 3, |p| p[index])
            }
        };
        let context = read(root, 0) & !0xfff;
        let mut table = read(context, 0) & !0xfff;
        let levels = self.caps.levels().unwrap().count();
        for level in (0..levels).rev() {
            let entry = read(table, (address >> (12 + 9 * level)) as usize % 512);
            if entry & 3 == 0 {
                return false;
            }
            if level == 0 || entry & 1 << 7 != 0 {
                return true;
            }
            table = entry & !0xfff;
        }
        unreachable!()
    }

    fn look(&mut self) {
        if self.must_be_closed {
            for address in [HIDDEN_START, 0x7f80_0123, HIDDEN_LAST] {
                self.was_open |= self.reaches(address);
            }
        }
    }

    fn command(&mut self, value: u32) {
        let old = self.status;
        for (bit, what) in [
            (regs::GLOBAL_TRANSLATION, Command::Translate),
            (regs::GLOBAL_QUEUE, Command::SwitchQueue),
            (
                regs::GLOBAL_INTERRUPT_REMAPPING,
                Command::StopRemappingInterrupts,
            ),
        ] {
            if self.stuck != Some(what) {
                self.status = self.status & !bit | value & bit;
            }
        }
        if value & regs::GLOBAL_ROOT_TABLE != 0 && self.stuck != Some(Command::TakeRootTable) {
            self.taken_root = Some(self.root);
            self.status |= regs::GLOBAL_ROOT_TABLE;
        }
        if value & regs::GLOBAL_WRITE_BUFFER != 0 && self.stuck == Some(Command::FlushWriteBuffers)
        {
            self.status |= regs::GLOBAL_WRITE_BUFFER;
        }
        if self.status & regs::GLOBAL_QUEUE == 0 {
            self.head = 0;
        }
        if (self.status ^ old).count_ones() > 2 {
            self.wrong
                .push(format!("several commands at once: {value:#x}"));
        }
    }

    fn work_queue(&mut self, tail: u64) {
        if self.status & regs::GLOBAL_QUEUE == 0 || self.stuck == Some(Command::Queue) {
            return;
        }
        while self.head != tail {
            let index = (self.head / 8) as usize;
            let (low, high) = {
                let pages = self.pages.borrow();
                (
                    pages.read(self.queue, index),
                    pages.read(self.queue, index + 1),
                )
            };
            match low & 0xf {
                1 if low >> 4 & 3 == 1 => self.contexts = Cached::Nothing,
                2 if low >> 4 & 3 == 1 => self.translations = Cached::Nothing,
                2 => {}
                5 => {
                    let mut pages = self.pages.borrow_mut();
                    pages.write(high & !0xfff, (high & 0xfff) as usize / 8, low >> 32);
                }
                _ => self.fault_status |= 1 << 4,
            }
            self.head = (self.head + 16) % 4096;
        }
    }
}

/// A handle on a [`Fake`], so that a test can look at it later.
#[derive(Clone)]
struct Handle(Rc<RefCell<Fake>>);

impl Registers for Handle {
    fn read32(&mut self, offset: u32) -> u32 {
        let fake = self.0.borrow();
        match offset {
            regs::VER => 0x10,
            regs::GSTS => fake.status,
            regs::PMEN => u32::from(fake.protected),
            regs::PLMBASE => fake.low.0,
            regs::FSTS => fake.fault_status,
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write32(&mut self, offset: u32, value: u32) {
        let mut fake = self.0.borrow_mut();
        match offset {
            regs::GCMD => fake.command(value),
            regs::FECTL => assert_eq!(value, 1 << 31),
            regs::FSTS => fake.fault_status &= !value,
            regs::PMEN => {
                if fake.stuck != Some(Command::ProtectMemory) {
                    fake.protected = value & regs::PMEN_ENABLE != 0;
                    fake.must_be_closed |= fake.protected;
                }
            }
            // Aligned to 2 MiB.
            regs::PLMBASE => fake.low.0 = value & !0x1f_ffff,
            regs::PLMLIMIT => fake.low.1 = value & !0x1f_ffff,
            _ => panic!("write of {offset:#x}"),
        }
        fake.look();
    }

    fn read64(&mut self, offset: u32) -> u64 {
        let fake = self.0.borrow();
        match offset {
            regs::CAP => fake.caps.cap.into(),
            regs::ECAP => fake.caps.ecap.into(),
            regs::PHMBASE => fake.high.0,
            regs::CCMD if fake.stuck == Some(Command::InvalidateContexts) => 1 << 63,
            IOTLB if fake.stuck == Some(Command::InvalidateTranslations) => 1 << 63,
            regs::CCMD | IOTLB => 0,
            _ if offset >= FAULTS => {
                let at = (offset - FAULTS) as usize;
                let record = fake.faults[at / 16];
                if at.is_multiple_of(16) {
                    record.0
                } else {
                    record.1
                }
            }
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write64(&mut self, offset: u32, value: u64) {
        let mut fake = self.0.borrow_mut();
        match offset {
            regs::RTADDR => fake.root = value,
            regs::IQA => {
                if fake.status & regs::GLOBAL_QUEUE != 0 {
                    fake.wrong.push("queue moved while in use".into());
                }
                fake.queue = value;
            }
            regs::IQT => fake.work_queue(value),
            regs::PHMBASE => fake.high.0 = value & !0x1f_ffff,
            regs::PHMLIMIT => fake.high.1 = value & !0x1f_ffff,
            regs::CCMD | IOTLB => {
                if fake.status & regs::GLOBAL_QUEUE != 0 {
                    fake.wrong.push("registers used beside the queue".into());
                }
                if value >> 60 & 7 == 0b001 && offset == IOTLB || value >> 61 & 3 == 1 {
                    match offset {
                        IOTLB => fake.translations = Cached::Nothing,
                        _ => fake.contexts = Cached::Nothing,
                    }
                }
            }
            _ if offset >= FAULTS => {
                let at = (offset - FAULTS) as usize / 16;
                fake.faults[at].1 &= !value;
            }
            _ => panic!("write of {offset:#x}"),
        }
        fake.look();
    }
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    low_region: bool,
    high_region: bool,
    coherent: bool,
    queue: bool,
    write_buffers: bool,
    before: Before,
}

fn caps(kind: Kind) -> Caps {
    Caps {
        cap: Capability::new()
            .with_address_widths(0b00110)
            .with_max_address_bits_less_1(38)
            .with_large_pages(0b0001)
            .with_low_region(kind.low_region)
            .with_high_region(kind.high_region)
            .with_needs_write_buffer_flush(kind.write_buffers)
            .with_page_invalidation(true)
            .with_max_address_mask(9)
            .with_fault_offset((FAULTS / 16) as u16)
            .with_fault_records_less_1(3),
        ecap: Extended::new()
            .with_coherent(kind.coherent)
            .with_queue(kind.queue)
            .with_iotlb_offset(0x10),
    }
}

fn kinds() -> Vec<Kind> {
    let mut all = Vec::new();
    for bits in 0..64_u32 {
        let bit = |n: u32| bits & 1 << n != 0;
        all.push(Kind {
            low_region: bit(0),
            high_region: bit(1),
            coherent: bit(2),
            queue: bit(3),
            write_buffers: bit(4),
            before: if bit(5) { Before::Open } else { Before::Off },
        });
    }
    all
}

struct Bench {
    fake: Rc<RefCell<Fake>>,
    unit: Unit<Handle>,
    pages: Rc<RefCell<Pages>>,
}

/// Tables reached through a cell that the fake unit shares.
struct Shared(Rc<RefCell<Pages>>);

impl Tables for Shared {
    fn take(&mut self) -> Option<u64> {
        self.0.borrow_mut().take()
    }
    fn read(&self, page_hpa: u64, index: usize) -> u64 {
        self.0.borrow().read(page_hpa, index)
    }
    fn write(&mut self, page_hpa: u64, index: usize, value: u64) {
        self.0.borrow_mut().write(page_hpa, index, value);
    }
    fn write_back(&mut self, page_hpa: u64) {
        self.0.borrow_mut().write_back(page_hpa);
    }
}

fn bench(kind: Kind) -> Bench {
    let pages = Rc::new(RefCell::new(Pages::new(64)));
    let is_open = kind.before == Before::Open;
    let cached = if is_open {
        Cached::Firmware
    } else {
        Cached::Nothing
    };
    let fake = Rc::new(RefCell::new(Fake {
        pages: pages.clone(),
        caps: caps(kind),
        status: if is_open {
            regs::GLOBAL_TRANSLATION
                | regs::GLOBAL_INTERRUPT_REMAPPING
                | if kind.queue { regs::GLOBAL_QUEUE } else { 0 }
        } else {
            0
        },
        root: 0,
        taken_root: None,
        contexts: cached,
        translations: cached,
        protected: false,
        low: (u32::MAX, 0),
        high: (u64::MAX, 0),
        queue: 0,
        head: if is_open { 64 } else { 0 },
        must_be_closed: false,
        was_open: false,
        stuck: None,
        faults: vec![(0, 0); 4],
        fault_status: 0,
        wrong: Vec::new(),
    }));
    let unit = Unit::open(Handle(fake.clone()), 4096).unwrap();
    Bench { fake, unit, pages }
}

impl Bench {
    fn hidden() -> Range {
        Range::touching(HIDDEN_START, HIDDEN_LAST).unwrap()
    }

    fn contexts(&self) -> Contexts {
        let mut ranges = Ranges::<8>::new();
        ranges
            .add(Range::touching(0, 0x1_ffff_ffff).unwrap())
            .unwrap();
        ranges.remove(Self::hidden()).unwrap();
        let mut tables = Shared(self.pages.clone());
        let format = Format::of(self.unit.caps()).unwrap();
        let domain = SecondLevel::identity(&mut tables, format, &ranges).unwrap();
        Contexts::all_through(&mut tables, &domain).unwrap()
    }

    fn confine(&mut self) -> Result<(), Stuck> {
        let contexts = self.contexts();
        let mut tables = Shared(self.pages.clone());
        self.unit.confine(&mut tables, &contexts)
    }
}

#[test]
fn every_kind_of_unit_ends_up_closed_and_gives_the_rest() {
    for kind in kinds() {
        let mut bench = bench(kind);
        let is_protected = bench.unit.protect(Bench::hidden()).unwrap();
        assert_eq!(is_protected, kind.low_region, "{kind:?}");
        bench.confine().unwrap();
        let mut fake = bench.fake.borrow_mut();
        fake.must_be_closed = true;
        fake.look();
        assert!(!fake.was_open, "{kind:?}: open at some step");
        assert!(fake.wrong.is_empty(), "{kind:?}: {:?}", fake.wrong);
        assert!(!fake.protected, "{kind:?}");
        for address in [0, HIDDEN_START - 1, HIDDEN_LAST + 1, 0x1_ffff_ffff] {
            assert!(fake.reaches(address), "{kind:?}: {address:#x}");
        }
        assert!(!fake.reaches(0x2_0000_0000));
        let ends = regs::GLOBAL_TRANSLATION | regs::GLOBAL_ROOT_TABLE;
        let queue = if kind.queue { regs::GLOBAL_QUEUE } else { 0 };
        assert_eq!(fake.status, ends | queue, "{kind:?}");
    }
}

#[test]
fn memory_above_4_gib_is_protected_by_the_other_region() {
    for kind in kinds() {
        let mut bench = bench(kind);
        let hidden = Range::touching(0x1_2340_0000, 0x1_237f_ffff).unwrap();
        assert_eq!(bench.unit.protect(hidden), Ok(kind.high_region), "{kind:?}");
        let fake = bench.fake.borrow();
        if kind.high_region && kind.before == Before::Off {
            assert!(!fake.reaches(0x1_2340_0000));
            assert!(!fake.reaches(0x1_237f_ffff));
            assert!(fake.reaches(0x1_2380_0000));
            assert!(
                fake.reaches(0x1000),
                "{kind:?}: the low region must be empty"
            );
        }
        // Across the border neither region can.
        drop(fake);
        let across = Range::touching(0xffff_0000, 0x1_0000_ffff).unwrap();
        let mut bench = self::bench(kind);
        assert_eq!(bench.unit.protect(across), Ok(false));
    }
}

#[test]
fn a_stuck_unit_is_named_and_stays_protected() {
    let kind = Kind {
        low_region: true,
        high_region: true,
        coherent: true,
        queue: false,
        write_buffers: true,
        before: Before::Open,
    };
    let with_queue = Kind {
        queue: true,
        ..kind
    };
    for (kind, command) in [
        (kind, Command::FlushWriteBuffers),
        (kind, Command::TakeRootTable),
        (kind, Command::StopRemappingInterrupts),
        (kind, Command::InvalidateContexts),
        (kind, Command::InvalidateTranslations),
        (with_queue, Command::SwitchQueue),
        (with_queue, Command::Queue),
    ] {
        let mut bench = bench(kind);
        bench.unit.protect(Bench::hidden()).unwrap();
        bench.fake.borrow_mut().stuck = Some(command);
        assert_eq!(bench.confine(), Err(Stuck(command)));
        let fake = bench.fake.borrow();
        assert!(fake.protected && !fake.was_open, "{command:?}");
    }
    let mut bench = bench(Kind {
        before: Before::Off,
        ..kind
    });
    bench.fake.borrow_mut().stuck = Some(Command::Translate);
    assert_eq!(bench.confine(), Err(Stuck(Command::Translate)));
    let mut bench = self::bench(kind);
    bench.fake.borrow_mut().stuck = Some(Command::ProtectMemory);
    let refused = bench.unit.protect(Bench::hidden());
    assert_eq!(refused, Err(Stuck(Command::ProtectMemory)));
}

#[test]
fn a_queue_goes_round() {
    let mut bench = bench(Kind {
        low_region: false,
        high_region: false,
        coherent: true,
        queue: true,
        write_buffers: false,
        before: Before::Off,
    });
    bench.confine().unwrap();
    let mut tables = Shared(bench.pages.clone());
    for number in 0..1000 {
        let what = match number % 4 {
            0 => What::Contexts,
            1 => What::Everything,
            2 => What::Domain(1),
            _ => What::Pages {
                domain: 1,
                address: 0x20_0000,
                order: 9,
            },
        };
        bench.unit.invalidate(&mut tables, what).unwrap();
    }
}

#[test]
fn faults_come_in_order_and_once() {
    let mut bench = bench(Kind {
        low_region: false,
        high_region: false,
        coherent: true,
        queue: false,
        write_buffers: false,
        before: Before::Off,
    });
    {
        let mut fake = bench.fake.borrow_mut();
        let record = |reason: u64, source| 1 << 63 | reason << 32 | source;
        fake.faults[3] = (0x5123, record(5, 0x00a1));
        fake.faults[0] = (0x6000, record(6, 0x1f23) | 1 << 62);
        fake.faults[1] = (0x7000, record(0x99, 0));
        // The first is number 3; one was lost.
        fake.fault_status = 3 << 8 | 0b11;
    }
    let mut seen = Vec::new();
    assert!(bench.unit.faults(|fault| seen.push(fault.to_string())));
    assert_eq!(
        seen,
        [
            "device 00:14.1 wrote 0x5000: write not permitted",
            "device 1f:04.3 read 0x6000: read not permitted",
            "device 00:00.0 wrote 0x7000: another reason",
        ]
    );
    assert!(!bench.unit.faults(|_| panic!("a record came twice")));
}

/// A unit that answers every read with the same word.
#[derive(Debug)]
struct Constant(u32, u64);

impl Registers for Constant {
    fn read32(&mut self, _: u32) -> u32 {
        self.0
    }
    fn write32(&mut self, _: u32, _: u32) {
        panic!("a unit that cannot be used is not touched");
    }
    fn read64(&mut self, _: u32) -> u64 {
        self.1
    }
    fn write64(&mut self, _: u32, _: u64) {
        panic!("a unit that cannot be used is not touched");
    }
}

#[test]
fn what_cannot_be_driven_is_refused_in_words() {
    let refused =
        |version, word| Unit::open(Constant(version, word), 4096).expect_err("it cannot be driven");
    assert_eq!(refused(u32::MAX, u64::MAX), Unsupported::Absent);
    assert_eq!(refused(0, 0), Unsupported::Version(0));
    assert_eq!(refused(0x70, 0), Unsupported::Version(0x70));
    let scalable = refused(0x10, 1 << 43);
    assert_eq!(
        scalable,
        Unsupported::NoLegacyWidth {
            scalable_mode: true
        }
    );
    assert!(scalable.to_string().contains("scalable mode"));
    let none = refused(0x10, 0);
    assert_eq!(
        none,
        Unsupported::NoLegacyWidth {
            scalable_mode: false
        }
    );
    // Widths are there, and the offset of the fault records is far.
    let far = refused(0x10, 0b110 << 8 | 0x3ff << 24);
    assert_eq!(far, Unsupported::RegistersOutside { offset: 0x3ff0 });
}

//! A machine for the tests: memory by address, an ept01 with a hole, and a
//! naive walker that shares no code with the crate.
#![allow(dead_code)]

pub mod oracle;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use umbra_arch::hpa::{Identity, OwnEntry, Range, TablePage, TablePages};
use umbra_arch::msr::IA32_MTRR_DEF_TYPE;
use umbra_arch::{Gpa1, Hpa};
use umbra_ept::caps::Caps;
use umbra_ept::ept01::{self, Ept01};
use umbra_ept::eptp::OwnEptp;
use umbra_ept::mem::{L1Memory, Leaf01, TableMemory};
use umbra_ept::mtrr::Mtrrs;

pub const CAPS: Caps = Caps {
    page_1g: true,
    page_2m: true,
    execute_only: true,
    accessed_dirty: true,
    walk_4: true,
    walk_5: false,
    tables_uc: true,
    tables_wb: true,
    advanced_info: true,
    supervisor_shadow_stack: false,
    mode_based_execute: false,
    maxphyaddr: 40,
};
/// Not aligned to 2 MiB at either end, and longer than two of them.
pub const HIDDEN: Range = Range {
    start: 0x1070_3000,
    end: 0x10e0_5000,
};
pub const VOID: u64 = 0x1080_0000;
const EPT01_PAGES: u64 = 0x1090_0000;
/// Where tests put L1's tables.
const L1_TABLES: u64 = 0x2000_0000;

/// Where tests put the pages of ept02, and how many there may be.
pub const POOL: u64 = 0x9000_0000;
const POOL_PAGES: usize = 64;

/// Pages for tables in the tests' memory.
pub fn table_pages(base: u64, count: u32) -> TablePages {
    // SAFETY: no CPU walks the tests' tables.
    unsafe { TablePages::new(base, count) }
}

/// L1's memory with these ranges hidden.
pub fn identity(hidden: &[Range], void: u64) -> Identity {
    // SAFETY: as above.
    let void = unsafe { Hpa::new(void) };
    // SAFETY: as above.
    unsafe { Identity::new(hidden, void) }.expect("few ranges")
}

/// An entry as the tests' memory has it.
fn entry(raw: u64) -> OwnEntry {
    // SAFETY: an `OwnEntry` is a `u64`, and no CPU walks the tests' tables.
    unsafe { std::mem::transmute(raw) }
}

/// Where the root table of an EPT pointer of Umbra's is.
pub fn root(eptp: OwnEptp) -> u64 {
    eptp.raw() & 0x000f_ffff_ffff_f000
}

/// Machine memory in units of 8 bytes; what was never written reads 0. The
/// pool's pages are kept apart to be quick.
#[derive(Clone, Default)]
pub struct Cells {
    map: HashMap<u64, u64>,
    pool: Vec<u64>,
}

impl Cells {
    pub fn get(&self, hpa: u64) -> u64 {
        match hpa.checked_sub(POOL) {
            Some(n) if n < (POOL_PAGES as u64) << 12 => {
                self.pool.get(n as usize / 8).copied().unwrap_or(0)
            }
            _ => self.map.get(&hpa).copied().unwrap_or(0),
        }
    }
    pub fn set(&mut self, hpa: u64, value: u64) {
        match hpa.checked_sub(POOL) {
            Some(n) if n < (POOL_PAGES as u64) << 12 => {
                if self.pool.is_empty() {
                    self.pool.resize(POOL_PAGES * 512, 0);
                }
                self.pool[n as usize / 8] = value;
            }
            _ => {
                self.map.insert(hpa, value);
            }
        }
    }
    /// Forgets the pool's pages, so that a copy is quick and tells what was
    /// read without being written.
    pub fn scribble_pool(&mut self, value: u64) {
        self.pool = vec![value; POOL_PAGES * 512];
    }
}

/// Shared machine memory.
#[derive(Clone, Default)]
pub struct Memory(pub Rc<RefCell<Cells>>);

impl Memory {
    pub fn get(&self, hpa: u64) -> u64 {
        self.0.borrow().get(hpa)
    }
    pub fn set(&self, hpa: u64, value: u64) {
        self.0.borrow_mut().set(hpa, value);
    }
}

/// Tables of Umbra, with every store written down.
#[derive(Clone)]
pub struct Tables {
    pub memory: Memory,
    pub stores: Rc<RefCell<Vec<(u64, u64)>>>,
    pub record: bool,
    pub reads: Rc<Cell<u32>>,
    pub writes: u32,
    pub fills: u32,
}

impl TableMemory for Tables {
    fn read(&self, table: TablePage, index: usize) -> OwnEntry {
        assert!(index < 512 && table.raw() & 0xfff == 0);
        self.reads.set(self.reads.get() + 1);
        entry(self.memory.get(table.raw() + 8 * index as u64))
    }
    fn write(&mut self, table: TablePage, index: usize, value: OwnEntry) {
        assert!(index < 512 && table.raw() & 0xfff == 0);
        let hpa = table.raw() + 8 * index as u64;
        self.writes += 1;
        if self.record {
            self.stores.borrow_mut().push((hpa, value.raw()));
        }
        self.memory.set(hpa, value.raw());
    }
    fn fill(&mut self, table: TablePage, value: OwnEntry) {
        self.fills += 1;
        let before = self.writes;
        for index in 0..512 {
            self.write(table, index, value);
        }
        self.writes = before;
    }
}

/// L1's view of the machine.
pub struct L1 {
    pub memory: Memory,
    pub tables: Tables,
    pub ept01: Rc<Ept01>,
    /// Exchanges that fail as if another CPU of L1 had been quicker.
    pub races: u32,
    pub exchanges: u32,
    pub reads: u32,
    /// Nothing answers from here on.
    pub end: u64,
}

impl L1Memory for L1 {
    fn read_u64(&mut self, gpa1: Gpa1) -> Option<u64> {
        assert!(gpa1.is_aligned(8));
        self.reads += 1;
        (gpa1.raw() < self.end).then(|| self.memory.get(self.ept01.redirect(gpa1).raw()))
    }
    fn compare_exchange_u64(&mut self, gpa1: Gpa1, old: u64, new: u64) -> bool {
        self.exchanges += 1;
        if self.races > 0 {
            self.races -= 1;
            return false;
        }
        let hpa = self.ept01.redirect(gpa1).raw();
        if self.memory.get(hpa) != old {
            return false;
        }
        self.memory.set(hpa, new);
        true
    }
    fn lookup01(&mut self, gpa1: Gpa1) -> Option<Leaf01> {
        self.ept01.lookup(&self.tables, gpa1)
    }
}

pub struct Machine {
    pub memory: Memory,
    pub tables: Tables,
    pub ept01: Rc<Ept01>,
    next: u64,
}

pub fn mtrrs_wb() -> Mtrrs {
    let mut m = Mtrrs::new(0x50a, CAPS.maxphyaddr);
    m.write_msr(IA32_MTRR_DEF_TYPE, 0x806).unwrap();
    m
}

impl Machine {
    pub fn new() -> Self {
        Self::with(mtrrs_wb(), CAPS)
    }

    pub fn with(mtrrs: Mtrrs, caps: Caps) -> Self {
        let memory = Memory::default();
        let mut tables = Tables {
            memory: memory.clone(),
            stores: Rc::default(),
            record: false,
            reads: Rc::default(),
            writes: 0,
            fills: 0,
        };
        let config = ept01::Config {
            limit: 2 << 30,
            identity: &identity(&[HIDDEN], VOID),
            mtrrs: &mtrrs,
            caps,
            on_demand_pages: 4,
            retype_pages: 8,
        };
        let needed = ept01::pages_needed(&config).unwrap();
        let pages = table_pages(EPT01_PAGES, needed);
        let ept01 = Rc::new(Ept01::build(&mut tables, pages, &config).unwrap());
        Self {
            memory,
            tables,
            ept01,
            next: L1_TABLES,
        }
    }

    /// A fresh page for a table of L1, by its L1-physical address.
    pub fn l1_table(&mut self) -> u64 {
        self.next += 0x1000;
        self.next - 0x1000
    }

    /// Writes 8 bytes as L1 would.
    pub fn poke(&self, gpa1: u64, value: u64) {
        self.memory
            .set(self.ept01.redirect(Gpa1::new(gpa1)).raw(), value);
    }

    pub fn split(&self) -> (Tables, L1) {
        (
            self.tables.clone(),
            L1 {
                memory: self.memory.clone(),
                tables: self.tables.clone(),
                ept01: self.ept01.clone(),
                races: 0,
                exchanges: 0,
                reads: 0,
                end: u64::MAX,
            },
        )
    }
}

/// What a naive walk over tables of Umbra finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub hpa: u64,
    /// Bits 0, 1, 2 and 10.
    pub rights: u64,
    pub entry: u64,
    pub level: u32,
}

/// Walks tables as a CPU does, for one address. `None` if an entry is not
/// present. Asserts that nothing on the way is misconfigured.
pub fn walk_cells(cells: &Cells, eptp: OwnEptp, address: u64) -> Option<Found> {
    let mut table = root(eptp);
    let mut rights = 0x407;
    for level in [4u32, 3, 2, 1] {
        let shift = 12 + 9 * (level - 1);
        let entry = cells.get(table + 8 * (address >> shift & 511));
        if entry & 0x407 == 0 {
            assert!(entry >> 63 == 1, "an empty entry would become a #VE");
            return None;
        }
        rights &= entry;
        assert!(entry & 3 != 2, "write without read: {entry:#x}");
        let mask = (1u64 << shift) - 1;
        if level == 1 || (level < 4 && entry & 0x80 != 0) {
            assert!(matches!(entry >> 3 & 7, 0 | 1 | 4 | 5 | 6));
            assert_eq!(
                entry & 0x000f_ffff_ffff_f000 & mask,
                0,
                "reserved: {entry:#x}"
            );
            let hpa = entry & 0x000f_ffff_ffff_f000 | address & mask;
            return Some(Found {
                hpa,
                rights: rights & 0x407,
                entry,
                level,
            });
        }
        assert_eq!(entry & 0xf8, 0, "reserved: {entry:#x}");
        table = entry & 0x000f_ffff_ffff_f000;
    }
    None
}

/// [`walk_cells`] over the memory behind `tables`.
pub fn walk_own(tables: &Tables, eptp: OwnEptp, address: u64) -> Option<Found> {
    walk_cells(&tables.memory.0.borrow(), eptp, address)
}

//! VT-d units, which keep devices out of Umbra's memory. `umbra_iommu` knows how they are
//! driven; here are the machine's registers and pages, and when each step is taken.
//!
//! Before the plan of memory: [`find`]. Before anything of Umbra's lies at its last place:
//! [`protect`]. Before L1 runs: [`confine`]. From then on nothing is asked of a unit: its
//! tables do not change.

use core::fmt;

use umbra_arch::Gpa1;
use umbra_arch::hpa::Range as Hidden;
use umbra_core::acpi;
use umbra_core::options::Iommu;
use umbra_ept::memtype::MemType;
use umbra_ept::mtrr::Mtrrs;
use umbra_guests::Region;
use umbra_iommu::caps::Unsupported;
use umbra_iommu::command::Stuck;
use umbra_iommu::context::Contexts;
use umbra_iommu::dmar::{self, Dmar, UnitEntry};
use umbra_iommu::mem::{Tables, WORDS};
use umbra_iommu::plan;
use umbra_iommu::ranges::Range;
use umbra_iommu::regs::Registers;
use umbra_iommu::second_level::{Format, NoRoom, SecondLevel};
use umbra_iommu::unit::Unit;

use crate::arch::write_back_line;
use crate::machine::machine;
use crate::mem::{L1Physical, LOW_BYTES, MAX_REGISTERS, OwnedPages, PAGE_BYTES, PagePool};
use crate::mem::{layout, pointer};
#[cfg(feature = "fake-caps")]
use crate::platform::fake_unit;
use crate::sync::BootCell;
use crate::{cannot_start, say};

/// The longest DMAR table that is read, in bytes.
const MAX_TABLE_BYTES: usize = 16 << 10;
/// Pages for the root table and the context table.
const CONTEXT_PAGES: u64 = 2;
/// Bytes that CLFLUSH writes back at least.
const LINE_BYTES: u64 = 32;

/// Why devices are not confined.
#[derive(Debug)]
enum Why {
    /// The command line says so.
    Off,
    NoTable,
    Table(dmar::Error),
    OutOfReach,
    TooLong,
    TooManyUnits,
    /// A unit's registers lie where none can be.
    Registers(UnitEntry),
    Unit(UnitEntry, Unsupported),
    Differ,
    Reach(plan::Error),
    NoRoom,
    Stuck(UnitEntry, Stuck),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |unit: &UnitEntry| unit.registers.start_hpa;
        match self {
            Self::Off => write!(f, "iommu=off"),
            Self::NoTable => write!(f, "the firmware tells of no VT-d unit (no DMAR table)"),
            Self::Table(error) => error.fmt(f),
            Self::OutOfReach => write!(f, "the DMAR table lies out of reach"),
            Self::TooLong => write!(
                f,
                "the DMAR table has more than {} KiB",
                MAX_TABLE_BYTES >> 10
            ),
            Self::TooManyUnits => {
                write!(f, "there are more than {MAX_REGISTERS} VT-d units")
            }
            Self::Registers(unit) => write!(
                f,
                "the VT-d unit at {:#x} has its registers in cacheable memory or above 4 GiB",
                at(unit)
            ),
            Self::Unit(unit, why) => write!(f, "the VT-d unit at {:#x}: {why}", at(unit)),
            Self::Differ => write!(f, "the VT-d units want tables of different depths"),
            Self::Reach(error) => error.fmt(f),
            Self::NoRoom => write!(f, "there is no room for their tables"),
            Self::Stuck(unit, why) => write!(f, "the VT-d unit at {:#x}: {why}", at(unit)),
        }
    }
}

/// The machine's units, found fit.
#[derive(Debug)]
struct Units {
    dmar: Dmar,
    format: Format,
    /// What the tables take.
    pages: u64,
}

static UNITS: BootCell<Result<Units, Why>> = BootCell::new();

fn units() -> Option<&'static Units> {
    UNITS.get().as_ref().ok()
}

/// Looks for units, and changes nothing; once, as soon as the machine is known.
pub fn find(mtrrs: &Mtrrs) {
    UNITS.set(look(mtrrs));
    if let Err(why) = UNITS.get() {
        refuse_if_required(why);
    }
}

fn refuse_if_required(why: &Why) {
    if machine().options.iommu == Iommu::Required {
        cannot_start!(
            "iommu=required, and DMA cannot be confined: {why}; iommu=on starts all the same"
        );
    }
}

fn look(mtrrs: &Mtrrs) -> Result<Units, Why> {
    if machine().options.iommu == Iommu::Off {
        return Err(Why::Off);
    }
    let dmar = read_table()?;
    if dmar.units.len() > MAX_REGISTERS {
        return Err(Why::TooManyUnits);
    }
    let mut format: Option<Format> = None;
    for unit in &dmar.units {
        // An access of L0's must reach the registers, and no cache.
        let is_reached = unit.registers.end_hpa <= LOW_BYTES
            && mtrrs.type_at(unit.registers.start_hpa) == MemType::Uncacheable;
        if !is_reached {
            return Err(Why::Registers(*unit));
        }
        let opened = open(unit).map_err(|why| Why::Unit(*unit, why))?;
        let own = Format::of(opened.caps()).ok_or(Why::Differ)?;
        format = Some(match format {
            None => own,
            Some(others) => others.shared_with(own).ok_or(Why::Differ)?,
        });
    }
    let format = format.ok_or(Why::NoTable)?;
    // One range, which Umbra's block and each unit's registers cut.
    let ranges = 2 + dmar.units.len() as u64 + dmar.reserved.len() as u64;
    let tables = format.pages_at_most(reach_end(), ranges);
    let queues = dmar.units.len() as u64;
    Ok(Units {
        dmar,
        format,
        pages: tables + CONTEXT_PAGES + queues,
    })
}

/// The end of what devices may reach: RAM, and all that lies below 4 GiB.
fn reach_end() -> u64 {
    machine()
        .ram_end
        .next_multiple_of(PAGE_BYTES)
        .max(LOW_BYTES)
}

fn read_table() -> Result<Dmar, Why> {
    let at = machine().acpi.dmar;
    if at == 0 {
        return Err(Why::NoTable);
    }
    let memory = L1Physical::early();
    let read = |at, bytes: &mut [u8]| {
        memory
            .read_bytes(Gpa1::new(at), bytes)
            .map_err(|_| Why::OutOfReach)
    };
    let mut length = [0; 4];
    read(at + 4, &mut length)?;
    let mut table = [0; MAX_TABLE_BYTES];
    let table = table
        .get_mut(..u32::from_le_bytes(length) as usize)
        .ok_or(Why::TooLong)?;
    read(at, table)?;
    Dmar::parse(table).map_err(Why::Table)
}

fn open(unit: &UnitEntry) -> Result<Unit<Window>, Unsupported> {
    // SAFETY: `look` found the registers in uncacheable memory below 4 GiB, or is about
    // to read them for the first time there; L0 maps that, and no Rust object lies there.
    let window = unsafe { Window::new(unit.registers) };
    Unit::open(window, unit.register_bytes())
}

/// How many pages of L0's block the tables take.
pub fn pages() -> u64 {
    units().map_or(0, |units| units.pages)
}

/// The units' registers, which L1 is not to reach.
pub fn registers() -> impl Iterator<Item = Hidden> {
    units().into_iter().flat_map(|units| {
        units.dmar.units.iter().map(|unit| Hidden {
            start: unit.registers.start_hpa,
            end: unit.registers.end_hpa,
        })
    })
}

/// Keeps devices out of the block from now on, as far as the units can without tables.
pub fn protect(block: Region) {
    let Some(units) = units() else { return };
    for unit in &units.dmar.units {
        if let Ok(mut opened) = open(unit) {
            // What comes of it, `confine` sees.
            let _ = opened.protect(range(block.start, block.len));
        }
    }
}

/// Has every device go through tables that leave Umbra out, or says in one line why DMA is not
/// confined; hides the units that were found fit from L1. Once, after the move.
pub fn confine(pool: &mut PagePool) {
    let units = match UNITS.get() {
        Ok(units) => units,
        Err(why) => {
            say!("DMA is not confined: {why}");
            return;
        }
    };
    // Whatever comes of it: L1 does not reach the registers any more, and a unit that got
    // stuck may be translating already.
    hide();
    match switch_on(units, pool) {
        Ok(()) => say!(
            "DMA is confined by {} VT-d unit{}",
            units.dmar.units.len(),
            if units.dmar.units.len() == 1 { "" } else { "s" }
        ),
        Err(why) => {
            refuse_if_required(&why);
            say!("DMA is not confined: {why}");
        }
    }
}

fn switch_on(units: &Units, pool: &mut PagePool) -> Result<(), Why> {
    let hidden = range(layout().hidden_start, layout().hidden_bytes);
    let memory = range(0, reach_end());
    let reach = plan::reach(&units.dmar, [memory], &[hidden]).map_err(Why::Reach)?;
    let mut tables = Pages {
        run: pool.take(units.pages),
        taken: 0,
    };
    let no_room = |_: NoRoom| Why::NoRoom;
    let domain = SecondLevel::identity(&mut tables, units.format, &reach).map_err(no_room)?;
    let contexts = Contexts::all_through(&mut tables, &domain).map_err(no_room)?;
    for unit in &units.dmar.units {
        let mut opened = open(unit).map_err(|why| Why::Unit(*unit, why))?;
        opened
            .confine(&mut tables, &contexts)
            .map_err(|why| Why::Stuck(*unit, why))?;
    }
    Ok(())
}

/// L1 finds no DMAR table.
fn hide() {
    if acpi::hide(&mut L1Physical::new(), machine().acpi.dmar).is_err() {
        say!("the DMAR table cannot be hidden from L1");
    }
}

fn range(start: u64, bytes: u64) -> Range {
    Range {
        start_hpa: start,
        end_hpa: start + bytes,
    }
}

/// A unit's registers.
#[derive(Debug)]
struct Window(Range);

impl Window {
    /// # Safety
    /// L0 maps the range, uncacheable, no Rust object lies there, and reading it has no
    /// effect on memory.
    unsafe fn new(range: Range) -> Self {
        Self(range)
    }

    /// Where `N` bytes of registers at `offset` are.
    fn at<const N: u64>(&self, offset: u32) -> *mut u8 {
        let at = self.0.start_hpa + u64::from(offset);
        // `Caps::read` has seen that all registers lie in the window.
        assert!(at.is_multiple_of(N) && at + N <= self.0.end_hpa);
        pointer(at)
    }
}

/// Whether the registers are made up, for the tests.
#[cfg(feature = "fake-caps")]
fn is_fake() -> bool {
    machine().options.fake_unit.is_some()
}

impl Registers for Window {
    fn read32(&mut self, offset: u32) -> u32 {
        #[cfg(feature = "fake-caps")]
        if is_fake() {
            return fake_unit::read32(offset);
        }
        // SAFETY: `new`'s promise; in the window and aligned.
        unsafe { self.at::<4>(offset).cast::<u32>().read_volatile() }
    }

    fn write32(&mut self, offset: u32, value: u32) {
        #[cfg(feature = "fake-caps")]
        if is_fake() {
            return fake_unit::write32(offset, value);
        }
        // SAFETY: as for `read32`; what the write makes the unit do is the library's to
        // know: no table of its reaches Umbra's memory.
        unsafe { self.at::<4>(offset).cast::<u32>().write_volatile(value) };
    }

    fn read64(&mut self, offset: u32) -> u64 {
        #[cfg(feature = "fake-caps")]
        if is_fake() {
            return fake_unit::read64(offset);
        }
        // SAFETY: as for `read32`.
        unsafe { self.at::<8>(offset).cast::<u64>().read_volatile() }
    }

    fn write64(&mut self, offset: u32, value: u64) {
        #[cfg(feature = "fake-caps")]
        if is_fake() {
            return fake_unit::write64(offset, value);
        }
        // SAFETY: as for `write32`.
        unsafe { self.at::<8>(offset).cast::<u64>().write_volatile(value) };
    }

    fn pause(&mut self) {
        core::hint::spin_loop();
    }
}

/// The pages for the units' tables.
#[derive(Debug)]
struct Pages {
    run: OwnedPages,
    taken: u64,
}

impl Pages {
    fn word(&self, page_hpa: u64, index: usize) -> *mut u64 {
        let first = self.run.base().raw();
        let end = first + self.taken * PAGE_BYTES;
        assert!((first..end).contains(&page_hpa) && index < WORDS);
        pointer(page_hpa).cast::<u64>().wrapping_add(index)
    }
}

impl Tables for Pages {
    fn take(&mut self) -> Option<u64> {
        if self.taken == self.run.count() {
            return None;
        }
        let page = self.run.page(self.taken).raw();
        self.taken += 1;
        Some(page)
    }

    fn read(&self, page_hpa: u64, index: usize) -> u64 {
        // SAFETY: a word of this run's own.
        unsafe { self.word(page_hpa, index).read_volatile() }
    }

    fn write(&mut self, page_hpa: u64, index: usize, value: u64) {
        // SAFETY: as above. Units may be reading it; it is one store.
        unsafe { self.word(page_hpa, index).write_volatile(value) };
    }

    fn write_back(&mut self, page_hpa: u64) {
        let page = self.word(page_hpa, 0).cast::<u8>();
        for at in (0..PAGE_BYTES as usize).step_by(LINE_BYTES as usize) {
            // SAFETY: in a page of this run's own.
            unsafe { write_back_line(page.wrapping_add(at)) };
        }
    }
}

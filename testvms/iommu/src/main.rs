//! iommu: devices that try to reach what they may not. See `README.md` beside this crate.
#![no_std]
#![no_main]

mod devices;
mod mmio;
mod pci;

use devices::{Edu, Nic};
use mmio::{Mmio, Pool};
use rt::lab::{Choice, Stop};
use rt::page::Page;
use rt::{Boot, case, println, report};
use umbra_iommu::context::{Contexts, DOMAIN};
use umbra_iommu::dmar::Dmar;
use umbra_iommu::fault::Fault;
use umbra_iommu::invalidate::What;
use umbra_iommu::plan;
use umbra_iommu::ranges::Range;
use umbra_iommu::second_level::{Format, SecondLevel};
use umbra_iommu::unit::Unit;

rt::entry!(main);

/// What the machine has of memory, as far as this program uses it.
const MEMORY_END: u64 = 1 << 28;

/// Prints what was asked and whether it is so, which it has to be.
fn is(what: &str, right: bool) {
    case!("{what}: {right}");
    report::check(format_args!("{what}"), right);
}

fn main(boot: &Boot) -> Result<(), Stop> {
    Choice::read(boot, &[])?;
    let table = rt::acpi::find(*b"DMAR").ok_or("this machine has no DMAR table")?;
    let dmar = Dmar::parse(table).map_err(|why| {
        println!("iommu: {why}");
        Stop::Machine("the DMAR table cannot be used")
    })?;
    let edu = Edu::find().ok_or("this machine has no edu device")?;
    run(&dmar, &edu)
}

const NO_ROOM: Stop = Stop::Machine("too few pages for the tables");
const STUCK: Stop = Stop::Machine("the unit is stuck");

const MAGIC: u64 = 0x1122_3344_5566_7788;
const SECRET: u64 = 0x5ec2_e75e_c2e7_0000;

/// Pages that stand for Umbra's memory, for L1's, and for what is taken away later.
struct Memory {
    hidden: Page,
    open: Page,
    taken: Page,
}

/// One attempt: what the device wrote, what it read, and what its unit said.
struct Attempt {
    has_written: bool,
    has_read: bool,
    write_fault: Option<Fault>,
    read_fault: Option<Fault>,
}

impl Attempt {
    fn went_through(&self) -> bool {
        self.has_written && self.has_read && self.write_fault.is_none() && self.read_fault.is_none()
    }

    /// Nothing was moved, and each request was told as this device's, with its page and reason.
    fn was_blocked(&self, source: u8, address: u64) -> bool {
        let told = |fault: Option<Fault>, is_read: bool, reason: u8| {
            fault
                == Some(Fault {
                    source: u16::from(source),
                    address,
                    is_read,
                    reason,
                })
        };
        !self.has_written
            && !self.has_read
            && told(self.write_fault, false, 5)
            && told(self.read_fault, true, 6)
    }
}

struct Lab<'a> {
    edu: &'a Edu,
    unit: Unit<Mmio>,
    /// A page that the device may always reach.
    scratch: Page,
}

impl Lab<'_> {
    fn fault(&mut self) -> Option<Fault> {
        let mut last = None;
        self.unit.faults(|fault| last = Some(fault));
        last
    }

    /// Has the device write to a page and read from it.
    fn attempt(&mut self, page: &Page) -> Attempt {
        self.fault();
        self.scratch.write(0, MAGIC);
        self.edu.read(self.scratch.address());
        page.write(0, SECRET);
        self.edu.write(page.address());
        let has_written = page.read::<u64>(0) == MAGIC;
        let write_fault = self.fault();
        page.write(0, SECRET);
        self.edu.read(page.address());
        let read_fault = self.fault();
        self.scratch.write(0, 0_u64);
        self.edu.write(self.scratch.address());
        let has_read = self.scratch.read::<u64>(0) == SECRET;
        Attempt {
            has_written,
            has_read,
            write_fault,
            read_fault,
        }
    }
}

fn run(dmar: &Dmar, edu: &Edu) -> Result<(), Stop> {
    println!(
        "iommu: {} bits, units {}, reserved regions {}",
        dmar.address_bits,
        dmar.units.len(),
        dmar.reserved.len()
    );
    let entry = dmar.units.first().ok_or(Stop::Machine("no unit"))?;
    let registers = Mmio::new(entry.registers.start_hpa);
    let unit = Unit::open(registers, entry.register_bytes()).map_err(|why| {
        println!("iommu: the unit: {why}");
        Stop::Machine("the unit cannot be used")
    })?;
    let caps = *unit.caps();
    let format = Format::of(&caps).ok_or(Stop::Machine("no width"))?;
    println!(
        "iommu: levels {}, bits {}, queue {}, caching mode {}, coherent {}, regions {}",
        format.levels.count(),
        format.address_bits,
        caps.ecap.queue(),
        caps.cap.caching_mode(),
        caps.ecap.coherent(),
        caps.cap.low_region()
    );
    let memory = Memory {
        hidden: Page::alloc(1),
        open: Page::alloc(1),
        taken: Page::alloc(1),
    };
    let hidden = page_range(&memory.hidden)?;
    let mut lab = Lab {
        edu,
        unit,
        scratch: Page::alloc(1),
    };

    is(
        "without translation a device reaches every page",
        lab.attempt(&memory.hidden).went_through(),
    );

    let mut tables = Pool::default();
    let all = Range::touching(0, MEMORY_END - 1).ok_or(Stop::Machine("no memory"))?;
    let reach = plan::reach(dmar, [all], &[hidden]).map_err(|_| Stop::Machine("no plan"))?;
    let domain = SecondLevel::identity(&mut tables, format, &reach).map_err(|_| NO_ROOM)?;
    let contexts = Contexts::all_through(&mut tables, &domain).map_err(|_| NO_ROOM)?;
    if lab.unit.protect(hidden).map_err(|_| STUCK)? {
        is(
            "a protected region keeps it out at once",
            !lab.attempt(&memory.hidden).has_written,
        );
    }
    lab.unit
        .confine(&mut tables, &contexts)
        .map_err(|_| STUCK)?;
    is("the unit translates", lab.unit.is_translating());
    is(
        "a page of L1's is open",
        lab.attempt(&memory.open).went_through(),
    );
    let attempt = lab.attempt(&memory.hidden);
    for fault in [attempt.write_fault, attempt.read_fault]
        .into_iter()
        .flatten()
    {
        println!("iommu: reason {}: {}", fault.reason, fault.reason_name());
    }
    is(
        "a hidden page is closed, and the device named",
        attempt.was_blocked(edu.source, memory.hidden.address()),
    );

    take_away(&mut lab, &mut tables, &domain, &memory)?;
    if let Some(nic) = Nic::find() {
        network(&nic, &mut lab, &memory);
    }
    Ok(())
}

/// A page that the unit knows, taken away and given back.
fn take_away(
    lab: &mut Lab<'_>,
    tables: &mut Pool,
    domain: &SecondLevel,
    memory: &Memory,
) -> Result<(), Stop> {
    let page = &memory.taken;
    let range = page_range(page)?;
    let forget = What::Pages {
        domain: DOMAIN,
        address: page.address(),
        order: 0,
    };
    // Split once, so that the page has an entry of its own to be stale.
    domain.take_away(tables, range).map_err(|_| NO_ROOM)?;
    domain.give_back(tables, range).map_err(|_| NO_ROOM)?;
    lab.unit
        .invalidate(tables, What::Everything)
        .map_err(|_| STUCK)?;
    is("it is open", lab.attempt(page).went_through());
    domain.take_away(tables, range).map_err(|_| NO_ROOM)?;
    is(
        "taken away, it is known until the unit forgets",
        lab.attempt(page).went_through(),
    );
    lab.unit.invalidate(tables, forget).map_err(|_| STUCK)?;
    let attempt = lab.attempt(page);
    is(
        "then it is closed",
        attempt.was_blocked(lab.edu.source, page.address()),
    );
    is(
        "its neighbour is open",
        lab.attempt(&memory.open).went_through(),
    );
    domain.give_back(tables, range).map_err(|_| NO_ROOM)?;
    lab.unit.invalidate(tables, forget).map_err(|_| STUCK)?;
    is("given back, it is open", lab.attempt(page).went_through());
    // By domain and by context, the other two ways to forget.
    for (name, forget) in [
        ("a domain", What::Domain(DOMAIN)),
        ("everything", What::Everything),
    ] {
        lab.attempt(page);
        domain.take_away(tables, range).map_err(|_| NO_ROOM)?;
        lab.unit.invalidate(tables, forget).map_err(|_| STUCK)?;
        let attempt = lab.attempt(page);
        println!("iommu: after {name} is forgotten");
        is(
            "it is closed",
            attempt.was_blocked(lab.edu.source, page.address()),
        );
        domain.give_back(tables, range).map_err(|_| NO_ROOM)?;
        lab.unit.invalidate(tables, forget).map_err(|_| STUCK)?;
    }
    Ok(())
}

/// A second device of another kind.
fn network(nic: &Nic, lab: &mut Lab<'_>, memory: &Memory) {
    lab.fault();
    Nic::prepare(&memory.open);
    nic.send(memory.open.address());
    is(
        "a network card reads its ring in an open page",
        Nic::is_done(&memory.open) && lab.fault().is_none(),
    );
    Nic::prepare(&memory.hidden);
    nic.send(memory.hidden.address());
    let fault = lab.fault();
    is(
        "and not in a hidden one",
        !Nic::is_done(&memory.hidden)
            && fault.is_some_and(|f| {
                f.source == u16::from(nic.source) && f.address == memory.hidden.address()
            }),
    );
}

fn page_range(page: &Page) -> Result<Range, Stop> {
    Range::touching(page.address(), page.address() + 4095).ok_or(Stop::Machine("no page"))
}

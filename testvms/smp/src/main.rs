//! smp: what a machine with several CPUs does when they are started, stopped, started again, and
//! run an L2 each.
//!
//! See `README.md` beside this crate for what it covers.
#![no_std]
#![no_main]

mod abort;
mod interrupts;
mod lab;
mod migrate;
mod posted;
mod restart;
mod types;
mod virtual_init;

use rt::apic;
use rt::gdt::MAX_CPUS;
use rt::lab::{Choice, Kinds, Stop};
use rt::smp::{self, Cpu};
use rt::{Boot, acpi, case, cpu, report};

rt::entry!(main);

/// Pages of conventional memory that neither firmware nor loader uses any more, by their number:
/// the vectors of start-up IPIs.
pub const VECTORS: [u8; 4] = [0x20, 0x33, 0x48, 0x7f];

/// What resets the machine: the word that chooses it, a port, and what is written there.
const RESETS: [(&str, u16, u8); 2] = [(RESET, 0xcf9, 6), (FAST_RESET, 0x92, 1)];

/// The other CPUs, at most [`MAX_CPUS`] less one.
pub struct Others {
    cpus: [Option<Cpu>; MAX_CPUS],
}

impl Others {
    /// Those of the MADT.
    fn find() -> Self {
        let own = cpu::cpuid(1, 0).ebx >> 24;
        let mut cpus = [const { None }; MAX_CPUS];
        let ids = acpi::apic_ids().filter(|id| *id != own).take(MAX_CPUS - 1);
        for (index, id) in (1..).zip(ids) {
            cpus[index] = Some(Cpu::new(index, id));
        }
        Self { cpus }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().flatten()
    }

    /// The first of them.
    pub fn first(&self) -> &Cpu {
        self.iter().next().expect("more than one CPU")
    }
}

const WORDS: Kinds = &[&["pace=", RESET, FAST_RESET, ABORT]];
/// The word for a reset by the chipset's reset control register, and nothing behind it.
const RESET: &str = "reset";
/// The word for a reset by system control port A, and nothing behind it.
const FAST_RESET: &str = "fast-reset";
/// The word for VMX aborts, and nothing behind them.
const ABORT: &str = "abort";

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    case!("cpus by the MADT: {}", acpi::apic_ids().count());
    if acpi::apic_ids().count() < 2 {
        return Err("one CPU: give the machine more (--cpus 4)".into());
    }
    if let Some(times) = choice.number("pace=")? {
        smp::set_pace(times);
    }
    let others = Others::find();
    apic::enable();
    case!(
        "cpus that answer one start-up IPI behind INIT: {}",
        smp::count_in_haste(VECTORS[1], others.iter().map(|cpu| cpu.id)) + 1
    );
    case!(
        "cpus that answer a broadcast: {}",
        smp::count_others(VECTORS[0]) + 1
    );
    let has_vmx = lab::prepare(&others);
    if let Some((_, port, value)) = RESETS.into_iter().find(|(word, ..)| choice.names(word)) {
        case!("resets");
        cpu::outb(port, value);
        cpu::halt();
    }
    if has_vmx && choice.names(ABORT) {
        abort::run(&others);
        return Ok(());
    }
    phase("xapic", &others, has_vmx);
    if cpu::cpuid(1, 0).ecx & 1 << 21 == 0 {
        report::lacks(format_args!("x2APIC"));
    } else {
        apic::enter_x2apic();
        phase("x2apic", &others, has_vmx);
    }
    Ok(())
}

fn phase(mode: &str, others: &Others, has_vmx: bool) {
    report::group(format_args!("{mode}"));
    restart::run(mode, others);
    types::run(others);
    if has_vmx {
        virtual_init::run(mode, others);
        interrupts::run(mode, others);
        migrate::run(others);
        posted::run(others);
    }
}

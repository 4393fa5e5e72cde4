//! bench: what an exit and a page of L2 cost, in ticks.
//!
//! See `README.md` beside this crate for the measures and how to read them.
#![no_std]
#![no_main]

mod cpus;
mod instructions;
mod ledger;
mod measures;
mod rounds;
mod toucher;

use rt::lab::{Choice, Group, Kinds, Stop, names};
use rt::vmx::Vmx;
use rt::vmx::insn::write;
use rt::vmx::vm::{Mode, Vm, layout};
use rt::{Boot, println};
use umbra_vmcs::field;

rt::entry!(main);

const MEASURES: [Group<Bench>; 11] = [
    ("exit", Bench::exit),
    ("instructions", Bench::instructions),
    ("turns", Bench::turns),
    ("violation", Bench::violation),
    ("first-touch", Bench::first_touch),
    ("apart", Bench::apart),
    ("flags", Bench::flags),
    ("invept", Bench::invept),
    ("pages", Bench::pages),
    ("large", Bench::large),
    (LEDGER, Bench::ledger),
];
/// The word for what is no measure: it reads Umbra's ledger.
const LEDGER: &str = "ledger";
/// The word for what needs several CPUs.
const CPUS: &str = "cpus";

const WORDS: Kinds = &[&names(&MEASURES), &[CPUS]];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    if choice.names(CPUS) {
        return cpus::run();
    }
    let mut bench = Bench::new(Vmx::prepare_with_ept()?);
    bench.vmx.enter()?;
    for (name, measure) in MEASURES {
        if choice.has(name) && (name != LEDGER || choice.names(LEDGER)) {
            measure(&mut bench);
        }
    }
    Ok(())
}

/// L1's VMX operation and its L2.
pub struct Bench {
    vmx: Vmx,
    vm: Vm,
}

/// Prints a row.
pub fn print(name: &str, ticks: u64) {
    println!("bench: {name} ticks={ticks}");
}

impl Bench {
    /// An L2 that [`Bench::start`] makes usable.
    pub fn new(vmx: Vmx) -> Self {
        let vm = Vm::new(&vmx);
        Self { vmx, vm }
    }

    /// L2 anew in front of `code`, with EPT flags in its pointer; it runs to its first exit.
    pub fn start(&mut self, code: &[u8], flags: u64, rdi: u64) -> u64 {
        self.vm.reset(Mode::Long, true);
        self.enter_first(code, flags, rdi)
    }

    /// The same with L2's memory as it is, and a VMCS anew.
    fn enter_first(&mut self, code: &[u8], flags: u64, rdi: u64) -> u64 {
        // L2's linear addresses from 1 GiB on are its physical ones, by its own 1 GiB pages.
        for gib in 1..512u64 {
            self.vm
                .memory
                .write(layout::TABLES + 0x1000 + 8 * gib, gib << 30 | 0xe7);
        }
        let pointer = self.vm.ept().pointer() | flags;
        write(field::EPT_POINTER, pointer);
        self.vm.memory.write_bytes(layout::CODE, code);
        self.vm.jump(0);
        self.vm.registers.rdi = rdi;
        let outcome = self.vm.run();
        match outcome {
            rt::vmx::Outcome::Exit(exit) if matches!(exit.basic(), 10 | 18) => self.vm.skip(&exit),
            // L2 touches a page that ept12 lacks.
            rt::vmx::Outcome::Exit(exit) if exit.basic() == 48 => {}
            _ => panic!("L2 did not reach its first exit: {outcome}"),
        }
        pointer
    }
}

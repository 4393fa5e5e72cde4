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

use rt::vmx::Vmx;
use rt::vmx::insn::write;
use rt::vmx::vm::{Mode, Vm, layout};
use rt::{Boot, println};
use umbra_vmcs::field;

rt::entry!(main);

/// A measure: its word on the command line and what it runs.
type Measure = (&'static str, fn(&mut Bench));

const MEASURES: [Measure; 11] = [
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

fn main(boot: &Boot) {
    for word in boot.words() {
        if word != CPUS && !MEASURES.iter().any(|(name, _)| *name == word) {
            println!("bench: unknown word '{word}'; give names of measures");
            return;
        }
    }
    if boot.words().any(|word| word == CPUS) {
        cpus::run();
        println!("bench: done");
        return;
    }
    let vmx = match Vmx::prepare() {
        Ok(vmx) if vmx.has_ept() => vmx,
        Ok(_) => {
            println!("bench: this CPU has no EPT");
            return;
        }
        Err(why) => {
            println!("bench: {why}");
            return;
        }
    };
    let mut bench = Bench::new(vmx);
    bench.enter_vmx();
    for (name, measure) in MEASURES {
        if name != LEDGER && boot.words().next().is_none() || boot.words().any(|word| word == name)
        {
            measure(&mut bench);
        }
    }
    println!("bench: done");
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

    /// VMX operation on the CPU that runs this.
    pub fn enter_vmx(&self) {
        self.vmx.enable();
        self.vmx.on().expect("VMXON with a good region");
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

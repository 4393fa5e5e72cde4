//! What is told of the counters and the exits that were kept: printed at the end of a run, and to L1's kernel when it
//! asks.

use crate::console::{self, print_line_now};
use crate::cpu::counters::{EPT02_NAMES, Level, Why};
use crate::cpu::percpu;
use crate::machine::machine;
use crate::say;
use core::fmt::{self, Display};
use umbra_core::ledger_leaf::{self, Question, REASONS, Sums, cell_of};
use umbra_vmcs::exit::Reason;

/// Prints what CPU `index` keeps of the exit trace and did not print yet.
pub fn trace_of(index: u32) {
    percpu::shared(index).trace.drain(
        |lost| print_line_now(format_args!("trace cpu{index} lost {lost}")),
        |number, record| print_line_now(format_args!("trace cpu{index} {number} {record}")),
    );
}

/// Prints the exit trace of all CPUs, one after the other.
pub fn trace() {
    if machine().options.trace.is_some() {
        (0..machine().cpu_count()).for_each(trace_of);
    }
}

/// What a cell came to on all CPUs.
fn sums(cell: usize) -> Sums {
    percpu::all().fold(Sums::default(), |sums, shared| {
        sums.plus(&shared.ledger.get(cell))
    })
}

/// What the leaf of the ledger answers L1's kernel; the work is bounded by the number of CPUs.
pub fn answer(subleaf: u32) -> umbra_core::cpuid::Words {
    match Question::of(subleaf) {
        Question::What => {
            ledger_leaf::what(cfg!(feature = "ledger-accesses"), machine().cpu_count())
        }
        Question::Exits(cell) => sums(cell).exits(),
        Question::Accesses(cell) => sums(cell).accesses(),
        Question::Unknown => [0; 4],
    }
}

/// A reason's name, or its number.
struct Name(u16);

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Reason::from_number(self.0) {
            Some(reason) => f.write_str(reason.name()),
            None => write!(f, "reason-{}", self.0),
        }
    }
}

/// Every kind of exit that occurred, with what it came to.
fn kinds() -> impl Iterator<Item = (Level, u16, Why, Sums)> {
    Level::ALL.into_iter().flat_map(|level| {
        (0..REASONS as u16).flat_map(move |reason| {
            Why::ALL.into_iter().filter_map(move |why| {
                let sums = sums(cell_of(level, reason, why));
                (sums.count != 0).then_some((level, reason, why, sums))
            })
        })
    })
}

/// Prints one line for each combination that occurred, summed over all CPUs.
pub fn print() {
    for (level, reason, why, sums) in kinds() {
        say!(
            "exits {} {} {} {}",
            level.name(),
            Name(reason),
            why.name(),
            sums.count
        );
    }
    for (row, name) in EPT02_NAMES.iter().enumerate() {
        let sum = ept02(row);
        if sum != 0 {
            say!("{name} {sum}");
        }
    }
    if machine().options.ledger {
        print_yaml();
    }
}

fn ept02(row: usize) -> u64 {
    percpu::all().map(|shared| shared.ept02.get(row)).sum()
}

/// Prints all of it as a YAML document, each line behind `ledger `.
fn print_yaml() {
    say!("ledger ---");
    say!("ledger version: {}", ledger_leaf::VERSION);
    say!("ledger cpus: {}", machine().cpu_count());
    say!(
        "ledger counts_accesses: {}",
        cfg!(feature = "ledger-accesses")
    );
    let (mut trips, mut exits) = (0u64, 0u64);
    say!("ledger exits:");
    for (level, reason, why, sums) in kinds() {
        let [reads, writes, loads] = sums.accesses;
        say!(
            "ledger - {{level: {}, reason: {}, why: {}, count: {}, ticks: {}, vmreads: {reads}, vmwrites: {writes}, vmptrlds: {loads}}}",
            level.name(),
            Name(reason),
            why.name(),
            sums.count,
            sums.ticks,
        );
        exits = exits.wrapping_add(sums.count);
        if (level, why) == (Level::L2, Why::L1Asked) {
            trips = trips.wrapping_add(sums.count);
        }
    }
    say!("ledger exits_to_l0: {exits}");
    say!("ledger exits_of_l2_to_l1: {trips}");
    say!("ledger ept02:");
    for (row, name) in EPT02_NAMES.iter().enumerate() {
        say!(
            "ledger   {}: {}",
            name.trim_start_matches("ept02_"),
            ept02(row)
        );
    }
    console::flush();
}

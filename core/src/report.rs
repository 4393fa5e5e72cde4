//! What is printed at the end of a run: the exits that were kept, and the counters.

use crate::console::print_line_now;
use crate::cpu::counters::{EPT02_NAMES, Level, REASONS, Why};
use crate::cpu::percpu;
use crate::machine::machine;
use crate::say;
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

/// Prints one line for each combination that occurred, summed over all CPUs.
pub fn print() {
    for (level, level_name) in [(Level::L1, "L1"), (Level::L2, "L2")] {
        for row in 0..REASONS {
            for (why, why_name) in [
                (Why::L1Asked, "l1-asked"),
                (Why::L0Needs, "l0-needs"),
                (Why::CacheMiss, "cache-miss"),
            ] {
                let sum: u64 = percpu::all()
                    .map(|shared| shared.ledger.get(level, row, why))
                    .sum();
                if sum == 0 {
                    continue;
                }
                match Reason::from_number(row as u16) {
                    Some(reason) => say!("exits {level_name} {} {why_name} {sum}", reason.name()),
                    None => say!("exits {level_name} reason-{row} {why_name} {sum}"),
                }
            }
        }
    }
    for (row, name) in EPT02_NAMES.iter().enumerate() {
        let sum: u64 = percpu::all().map(|shared| shared.ept02.get(row)).sum();
        if sum != 0 {
            say!("{name} {sum}");
        }
    }
}

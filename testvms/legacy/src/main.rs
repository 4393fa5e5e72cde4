//! legacy: VMX from an L1 that is not in 64-bit mode.
//!
//! See `README.md` beside this crate for what it covers.
#![no_std]
#![no_main]

mod addressing;
mod bench;
mod control;
mod entry;
mod fields;
mod insn;
mod limits;
mod machine;
mod modes;
mod operands;
mod real;
mod segments;
mod tables;
mod values;
mod window;

use bench::Bench;
use rt::Boot;
use rt::lab::{Choice, Kinds, Stop, names};
use rt::vmx::Vmx;

rt::entry!(main);

/// A group of cases: its word on the command line, and what runs it.
type Group = (&'static str, fn(&Bench));

const GROUPS: [Group; 9] = [
    ("modes", modes::run),
    ("real", real::run),
    ("operands", operands::run),
    ("segments", limits::run),
    ("addressing", addressing::run),
    ("values", values::run),
    ("control", control::run),
    ("fields", fields::run),
    ("entry", entry::run),
];

const WORDS: Kinds = &[&names(&GROUPS)];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    let bench = Bench::new(Vmx::prepare()?);
    for (name, run) in GROUPS {
        if choice.has(name) {
            run(&bench);
        }
    }
    Ok(())
}

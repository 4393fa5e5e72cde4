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

use rt::vmx::Vmx;
use rt::{Boot, println};

rt::entry!(main);

type Group = fn(&bench::Bench);

const GROUPS: [(&str, Group); 9] = [
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

fn main(boot: &Boot) {
    let vmx = match Vmx::prepare() {
        Ok(vmx) => vmx,
        Err(why) => {
            println!("legacy: {why}");
            return;
        }
    };
    let bench = bench::Bench::new(vmx);
    // Words of the command line choose groups.
    let chosen = |name: &str| boot.words().any(|word| word == name);
    let is_any = GROUPS.iter().any(|(name, _)| chosen(name));
    for (name, run) in GROUPS {
        if !is_any || chosen(name) {
            run(&bench);
        }
    }
    println!("legacy: {} cases", bench.cases());
}

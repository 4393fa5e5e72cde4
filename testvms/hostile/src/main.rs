//! hostile: an L1 that means harm.
//!
//! See `README.md` beside this crate for what it does and what it expects.
#![no_std]
#![no_main]

#[macro_use]
mod code;

mod fields;
mod lab;
mod lists;
mod machine;
mod msr;
mod operands;
mod own;
mod paging;
mod place;
mod race;
mod random;
mod tables;
mod void;

use lab::Lab;
use rt::vmx::Vmx;
use rt::{Boot, println};

rt::entry!(main);

/// A group of cases: its word on the command line and what it runs.
type Group = (&'static str, fn(&mut Lab));

/// `msr` is last: it leaves the local APIC in x2APIC mode, from which there is no way back.
const GROUPS: [Group; 11] = [
    ("void", void::run),
    ("fields", fields::run),
    ("lists", lists::run),
    ("tables", tables::run),
    ("paging", paging::run),
    ("operands", operands::run),
    ("own", own::run),
    ("machine", machine::run),
    ("random", random::run),
    ("race", race::run),
    ("msr", msr::run),
];

/// Words with which an Umbra for tests spoils its own vmcs01, and what it is asked for.
const SPOIL: [(&str, u32); 2] = [("spoil-state", 0), ("spoil-event", 1)];
const SPOIL_LEAF: u32 = 0x4fff_5350;

fn main(boot: &Boot) {
    for (name, subleaf) in SPOIL {
        if boot.words().any(|word| word == name) {
            core::arch::x86_64::__cpuid_count(SPOIL_LEAF, subleaf);
            println!("hostile: nothing was spoiled");
            return;
        }
    }
    for word in boot.words() {
        if !GROUPS.iter().any(|(name, _)| *name == word) {
            rt::print!("hostile: unknown word '{word}'; the groups are");
            for (name, _) in GROUPS {
                rt::print!(" {name}");
            }
            println!();
            return;
        }
    }
    let vmx = match Vmx::prepare() {
        Ok(vmx) if vmx.has_ept() => vmx,
        Ok(_) => {
            println!("hostile: this CPU has no EPT");
            return;
        }
        Err(why) => {
            println!("hostile: {why}");
            return;
        }
    };
    let hidden = place::hidden(boot);
    match &hidden {
        Some(range) => println!(
            "hidden: {} MiB below the top of memory",
            (range.end - range.start) >> 20
        ),
        None => println!("hidden: nothing"),
    }
    vmx.enable();
    if let Err(error) = vmx.on() {
        println!("hostile: VMXON: {error}");
        return;
    }
    let mut lab = Lab::new(vmx, hidden);
    for (name, run) in GROUPS {
        if boot.words().next().is_none() || boot.words().any(|word| word == name) {
            lab.group(name, run);
        }
    }
    println!("hostile: {} cases, {} wrong", lab.cases, lab.wrong);
}

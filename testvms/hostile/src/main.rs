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
use rt::lab::{Choice, Group, Kinds, Stop, names};
use rt::vmx::Vmx;
use rt::{Boot, case};

rt::entry!(main);

/// `msr` is last: it leaves the local APIC in x2APIC mode, from which there is no way back.
const GROUPS: [Group<Lab>; 11] = [
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

const WORDS: Kinds = &[&names(&GROUPS), &names(&SPOIL)];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    for (name, subleaf) in SPOIL {
        if choice.names(name) {
            core::arch::x86_64::__cpuid_count(SPOIL_LEAF, subleaf);
            return Err(Stop::Machine("nothing was spoiled"));
        }
    }
    let vmx = Vmx::prepare_with_ept()?;
    let hidden = place::hidden(boot);
    match &hidden {
        Some(range) => case!(
            "hidden: {} MiB below the top of memory",
            (range.end - range.start) >> 20
        ),
        None => case!("hidden: nothing"),
    }
    vmx.enter()?;
    let mut lab = Lab::new(vmx, hidden);
    for (name, run) in GROUPS {
        if choice.has(name) {
            lab.group(name, run);
        }
    }
    Ok(())
}

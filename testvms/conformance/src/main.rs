//! conformance: what VM entry and the VMX instructions answer, rule by rule.
//!
//! See `README.md` beside this crate. No expectation is written down here: the bare machine's
//! transcript is the truth.
#![no_std]
#![no_main]

mod addresses;
mod cases;
mod controls;
mod eptp;
mod errata;
mod fields;
mod host;
mod inject;
mod judge;
mod lab;
mod lists;
mod mix;
mod operands;
mod pdpte;
mod registers;
mod segments;
mod show;
mod state;
mod vmxon;

use lab::{Lab, Purpose};
use rt::Boot;
use rt::lab::{Choice, Group, Kinds, Stop, names};
use rt::vmx::Vmx;

rt::entry!(main);

const GROUPS: [Group<Lab>; 15] = [
    ("controls", controls::run),
    ("addresses", addresses::run),
    ("eptp", eptp::run),
    ("inject", inject::run),
    ("host", host::run),
    ("registers", registers::run),
    ("segments", segments::run),
    ("state", state::run),
    ("pdpte", pdpte::run),
    ("lists", lists::run),
    ("fields", fields::run),
    ("operands", operands::run),
    ("vmxon", vmxon::run),
    ("cases", cases::run),
    ("mix", mix::run),
];

/// The words that compare the machine with the rule table, instead of writing a transcript.
const PURPOSES: [(&str, Purpose); 2] = [("errata", Purpose::Errata), ("rules", Purpose::Rules)];

const WORDS: Kinds = &[&names(&GROUPS), &names(&PURPOSES)];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    let vmx = Vmx::prepare()?;
    vmx.enter()?;
    let named = PURPOSES.iter().find(|(name, _)| choice.names(name));
    let purpose = named.map_or(Purpose::Transcript, |(_, purpose)| *purpose);
    let mut lab = Lab::new(vmx, purpose);
    for (name, group) in GROUPS {
        if choice.has(name) {
            group(&mut lab);
        }
    }
    Ok(())
}

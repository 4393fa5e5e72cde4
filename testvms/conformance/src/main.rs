//! conformance: what VM entry and the VMX instructions answer, rule by rule.
//!
//! See `README.md` beside this crate. No expectation is written down here: the bare machine's
//! transcript is the truth.
#![no_std]
#![no_main]

mod addresses;
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
use rt::vmx::Vmx;
use rt::{Boot, println};

rt::entry!(main);

/// A group: its word on the command line and what it runs.
type Group = (&'static str, fn(&mut Lab));

const GROUPS: [Group; 14] = [
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
    ("mix", mix::run),
];

/// The words that compare the machine with the rule table, instead of writing a transcript.
const PURPOSES: [(&str, Purpose); 2] = [("errata", Purpose::Errata), ("rules", Purpose::Rules)];

fn main(boot: &Boot) {
    let is_group = |word: &str| GROUPS.iter().any(|(name, _)| *name == word);
    let is_purpose = |word: &str| PURPOSES.iter().any(|(name, _)| *name == word);
    if let Some(word) = boot
        .words()
        .find(|word| !is_group(word) && !is_purpose(word))
    {
        rt::print!("conformance: unknown word '{word}'; the groups are");
        for (name, _) in GROUPS {
            rt::print!(" {name}");
        }
        println!();
        return;
    }
    let Some(vmx) = Vmx::start("conformance") else {
        return;
    };
    let named = PURPOSES
        .iter()
        .find(|(name, _)| boot.words().any(|word| word == *name));
    let purpose = named.map_or(Purpose::Transcript, |(_, purpose)| *purpose);
    let mut lab = Lab::new(vmx, purpose);
    let names_none = !boot.words().any(is_group);
    for (name, group) in GROUPS {
        if names_none || boot.words().any(|word| word == name) {
            group(&mut lab);
        }
    }
    match purpose {
        Purpose::Transcript => println!("{} cases left out as errata", lab.errata),
        Purpose::Errata => {
            println!(
                "{} errata, {} not as the rules say",
                lab.errata, lab.disagreements
            );
        }
        Purpose::Rules => println!("{} not as the rules say", lab.disagreements),
    }
    println!("conformance: {} cases", lab.cases);
}

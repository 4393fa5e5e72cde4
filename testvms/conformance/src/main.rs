//! conformance: what VM entry and the VMX instructions answer, rule by rule.
//!
//! See `README.md` beside this crate. No expectation is written down here: the bare machine's
//! transcript is the truth.
#![no_std]
#![no_main]

mod addresses;
mod controls;
mod eptp;
mod fields;
mod host;
mod inject;
mod lab;
mod lists;
mod operands;
mod pdpte;
mod registers;
mod segments;
mod show;
mod state;
mod vmxon;

use lab::Lab;
use rt::vmx::Vmx;
use rt::{Boot, println};

rt::entry!(main);

/// A group: its word on the command line and what it runs.
type Group = (&'static str, fn(&mut Lab));

const GROUPS: [Group; 13] = [
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
];

fn main(boot: &Boot) {
    let is_group = |word: &str| GROUPS.iter().any(|(name, _)| *name == word);
    if let Some(word) = boot.words().find(|word| !is_group(word)) {
        rt::print!("conformance: unknown word '{word}'; the groups are");
        for (name, _) in GROUPS {
            rt::print!(" {name}");
        }
        println!();
        return;
    }
    let vmx = match Vmx::prepare() {
        Ok(vmx) => vmx,
        Err(why) => {
            println!("conformance: {why}");
            return;
        }
    };
    vmx.enable();
    if let Err(error) = vmx.on() {
        println!("conformance: VMXON: {error}");
        return;
    }
    let mut lab = Lab::new(vmx);
    for (name, group) in GROUPS {
        if boot.words().next().is_none() || boot.words().any(|word| word == name) {
            group(&mut lab);
        }
    }
    println!("conformance: {} cases", lab.cases);
}

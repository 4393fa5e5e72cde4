//! ept: what EPT does to an L2, case by case.
//!
//! See `README.md` beside this crate for what it covers and how a line reads.
#![no_std]
#![no_main]

mod events;
mod execute;
mod flags;
mod invalidate;
mod lab;
mod log;
mod misconfigure;
mod path;
mod pdpte;
mod rights;
mod show;
mod switch;
mod ve;
mod walk;

use lab::Lab;
use rt::vmx::Vmx;
use rt::{Boot, println};

rt::entry!(main);

/// A group of cases: its word on the command line and what it runs.
type Group = (&'static str, fn(&mut Lab));

const GROUPS: [Group; 11] = [
    ("rights", rights::run),
    ("misconfigure", misconfigure::run),
    ("walk", walk::run),
    ("events", events::run),
    ("flags", flags::run),
    ("log", log::run),
    ("ve", ve::run),
    ("switch", switch::run),
    ("pdpte", pdpte::run),
    ("invalidate", invalidate::run),
    ("execute", execute::run),
];

fn main(boot: &Boot) {
    for word in boot.words() {
        if !GROUPS.iter().any(|(name, _)| *name == word) {
            println!("ept: unknown word '{word}'; give names of groups");
            return;
        }
    }
    let vmx = match Vmx::prepare() {
        Ok(vmx) if vmx.has_ept() => vmx,
        Ok(_) => {
            println!("ept: this CPU has no EPT");
            return;
        }
        Err(why) => {
            println!("ept: {why}");
            return;
        }
    };
    vmx.enable();
    if let Err(error) = vmx.on() {
        println!("ept: VMXON: {error}");
        return;
    }
    let mut lab = Lab::new(vmx);
    for (name, run) in GROUPS {
        if boot.words().next().is_none() || boot.words().any(|word| word == name) {
            println!("== {name}");
            run(&mut lab);
        }
    }
    println!("ept: {} cases, {} wrong", lab.cases, lab.wrong);
}

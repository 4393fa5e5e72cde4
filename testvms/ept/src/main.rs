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
use rt::lab::{Choice, Group, Kinds, Stop, names};
use rt::vmx::Vmx;
use rt::{Boot, report};

rt::entry!(main);

const GROUPS: [Group<Lab>; 11] = [
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

const WORDS: Kinds = &[&names(&GROUPS)];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    let vmx = Vmx::prepare_with_ept()?;
    vmx.enter()?;
    let mut lab = Lab::new(vmx);
    for (name, run) in GROUPS {
        if choice.has(name) {
            report::group(format_args!("{name}"));
            run(&mut lab);
        }
    }
    Ok(())
}

//! nmi: who gets an NMI, and when.
//!
//! See `README.md` beside this crate for what it covers and how a line reads.
#![no_std]
#![no_main]

mod apic;
mod code;
mod faults;
mod flood;
mod injection;
mod interrupts;
mod l1;
mod lab;
mod plain;
mod policies;

use lab::Lab;
use rt::Boot;
use rt::lab::{Choice, Stop};
use rt::vmx::Vmx;

rt::entry!(main);

fn main(boot: &Boot) -> Result<(), Stop> {
    Choice::read(boot, &[])?;
    let vmx = Vmx::prepare_with_ept()?;
    vmx.enable();
    apic::init();
    l1::init();
    let mut lab = Lab::new(&vmx);
    plain::run(&mut lab, &vmx)?;
    policies::run(&mut lab);
    injection::run(&mut lab);
    interrupts::run(&mut lab);
    faults::run(&mut lab);
    flood::run(&mut lab);
    Ok(())
}

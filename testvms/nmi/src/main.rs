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
use rt::vmx::Vmx;
use rt::{Boot, println};

rt::entry!(main);

fn main(_: &Boot) {
    let vmx = match Vmx::prepare() {
        Ok(vmx) if vmx.has_ept() => vmx,
        Ok(_) => {
            println!("nmi: this CPU has no EPT");
            return;
        }
        Err(why) => {
            println!("nmi: {why}");
            return;
        }
    };
    vmx.enable();
    apic::init();
    l1::init();
    let mut lab = Lab::new(&vmx);
    if let Err(error) = plain::run(&mut lab, &vmx) {
        println!("nmi: VMXON or VMXOFF: {error}");
        return;
    }
    policies::run(&mut lab);
    injection::run(&mut lab);
    interrupts::run(&mut lab);
    faults::run(&mut lab);
    flood::run(&mut lab);
    println!("{} experiments left out as errata", lab.errata);
    println!("nmi: {} experiments, {} wrong", lab.count, lab.wrong);
}

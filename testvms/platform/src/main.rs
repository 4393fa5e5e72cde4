//! platform: what a CPU and its firmware show a kernel, register by register.
//!
//! See `README.md` beside this crate for what it covers.
#![no_std]
#![no_main]

mod acpi;
mod apic;
mod control;
mod cpuid;
mod memory;
mod modes;
mod msr;
mod mtrr;
mod probe;
mod step;
mod string_io;
mod tasks;
mod xcr;

use rt::lab::{Choice, Stop};
use rt::vmx::Vmx;
use rt::{Boot, report};

rt::entry!(main);

fn main(boot: &Boot) -> Result<(), Stop> {
    Choice::read(boot, &[])?;
    memory::run(boot);
    acpi::run();
    cpuid::run();
    msr::run();
    mtrr::run();
    control::run("outside VMX");
    xcr::run("outside VMX");
    modes::run();
    step::run();
    string_io::run();
    tasks::run();
    match Vmx::prepare() {
        Ok(vmx) => in_vmx_operation(&vmx)?,
        Err(why) => report::lacks(format_args!("VMX operation: {why}")),
    }
    // Last: a local APIC that was switched off stays off on some machines.
    apic::run();
    Ok(())
}

/// The same registers once more in VMX operation, which fixes some of their bits.
fn in_vmx_operation(vmx: &Vmx) -> Result<(), Stop> {
    vmx.enter()?;
    control::run("in VMX operation");
    xcr::run("in VMX operation");
    step::run_in_vmx_operation();
    Vmx::leave()?;
    control::run("after VMXOFF");
    Ok(())
}

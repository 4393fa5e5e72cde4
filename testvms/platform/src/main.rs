//! platform: what a CPU and its firmware show a kernel, register by register.
//!
//! See `README.md` beside this crate for what it covers.
#![no_std]
#![no_main]

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

use rt::vmx::{Vmx, insn};
use rt::{Boot, println};

rt::entry!(main);

fn main(boot: &Boot) {
    memory::run(boot);
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
        Ok(vmx) => in_vmx_operation(&vmx),
        Err(why) => println!("platform: {why}"),
    }
    // Last: a local APIC that was switched off stays off on some machines.
    apic::run();
    println!("platform: {} lines", probe::lines());
}

/// The same registers once more in VMX operation, which fixes some of their bits.
fn in_vmx_operation(vmx: &Vmx) {
    vmx.enable();
    if let Err(error) = vmx.on() {
        println!("platform: VMXON: {error}");
        return;
    }
    control::run("in VMX operation");
    xcr::run("in VMX operation");
    step::run_in_vmx_operation();
    if let Err(error) = insn::vmxoff() {
        println!("platform: VMXOFF: {error}");
    }
    // SAFETY: outside VMX operation the bit has no use here.
    unsafe { rt::cpu::set_cr4(rt::cpu::cr4() & !rt::vmx::CR4_VMXE) };
    control::run("after VMXOFF");
}

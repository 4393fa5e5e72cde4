//! What every test VM needs and none should write twice.
//!
//! A test VM is an L1: a small freestanding kernel that GRUB, or Umbra, loads by multiboot 1.
//! This crate brings it from the 32-bit entry point to 64-bit Rust, gives it a console, traps that
//! can be expected, VMX operation, and an end of the run that the machine notices.
//!
//! A program uses [`entry!`] once, prints by [`println!`], and returns from its main function to
//! end the run. Nothing here prints anything that depends on the memory map, on time, or on
//! whether a hypervisor is underneath: transcripts are compared byte for byte.
#![no_std]

mod boot;
mod mem;

pub mod acpi;
pub mod apic;
pub mod cmdline;
pub mod console;
pub mod cpu;
pub mod end;
pub mod gdt;
pub mod page;
pub mod random;
pub mod run;
pub mod smp;
pub mod trap;
pub mod trip;
pub mod vmx;
pub mod window;

pub use boot::{Boot, StartState};

/// Names the program's main function: `fn(&rt::Boot)`. When it returns the run ends.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Called by the run-time once the machine is in 64-bit mode.
        #[unsafe(no_mangle)]
        fn testvm_main(boot: &$crate::Boot) {
            let main: fn(&$crate::Boot) = $main;
            main(boot)
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("testvm: stopped: {info}");
    end::end_run()
}

//! What every test VM needs and none should write twice.
//!
//! A test VM is an L1: a small freestanding kernel that GRUB, or Umbra, loads by multiboot 1.
//! This crate brings it from the 32-bit entry point to 64-bit Rust, gives it a console, traps that
//! can be expected, VMX operation, and an end of the run that the machine notices.
//!
//! A program uses [`entry!`] once, prints by the macros and functions of [`report`], and returns
//! from its main function to end the run, with the line that [`lab`] makes. Nothing here prints anything that depends on the memory map, on time, or on
//! whether a hypervisor is underneath: transcripts are compared byte for byte.
#![no_std]

mod boot;
mod mem;
mod stop;

pub mod acpi;
pub mod apic;
pub mod cmdline;
pub mod console;
pub mod cpu;
pub mod end;
pub mod gdt;
pub mod lab;
pub mod page;
pub mod random;
pub mod report;
pub mod run;
pub mod smp;
pub mod trap;
pub mod trip;
pub mod vmx;
pub mod window;

pub use boot::{Boot, StartState};

/// Names the program's main function: `fn(&rt::Boot) -> Result<(), rt::lab::Stop>`. When it returns
/// the last line is printed, and the run ends.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Called by the run-time once the machine is in 64-bit mode.
        #[unsafe(no_mangle)]
        fn testvm_main(boot: &$crate::Boot) {
            $crate::lab::conclude(env!("CARGO_BIN_NAME"), $main(boot));
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("testvm: stopped: {info}");
    end::end_run()
}

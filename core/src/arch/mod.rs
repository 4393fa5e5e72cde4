//! The CPU: instructions, registers and tables. Everything here is a thin
//! wrapper; no decision is taken.

pub mod cpuid;
pub mod cr;
pub mod desc;
pub mod fixup;
pub mod intrinsics;
pub mod io;
pub mod msr;
pub mod vmx;
pub mod xmm;

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: CLI and HLT touch no memory; an NMI or SMI wakes the CPU,
        // and the loop puts it to sleep again.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

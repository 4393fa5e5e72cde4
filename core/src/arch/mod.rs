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

/// Writes the cache line that holds this byte back to memory: CLFLUSH.
///
/// # Safety
/// L0 maps the byte.
pub unsafe fn write_back_line(at: *const u8) {
    // SAFETY: the caller's promise; CLFLUSH changes no memory.
    unsafe {
        core::arch::asm!("clflush [{at}]", at = in(reg) at, options(nostack, preserves_flags));
    }
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: CLI and HLT touch no memory; an NMI or SMI wakes the CPU,
        // and the loop puts it to sleep again.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

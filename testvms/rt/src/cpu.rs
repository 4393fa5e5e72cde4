//! The CPU's own registers and ports, one small function each.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, CpuidResult};

/// Reads a byte from a port.
pub fn inb(port: u16) -> u8 {
    let value: u8;
    // SAFETY: a test VM owns the whole machine; port reads change no memory that Rust knows of.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nostack, preserves_flags)) };
    value
}

/// Writes a byte to a port.
pub fn outb(port: u16, value: u8) {
    // SAFETY: as for `inb`; no device here is told to write to memory.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nostack, preserves_flags)) };
}

/// Writes a 16-bit word to a port.
pub fn outw(port: u16, value: u16) {
    // SAFETY: as for `outb`.
    unsafe { asm!("out dx, ax", in("ax") value, in("dx") port, options(nostack, preserves_flags)) };
}

/// Reads a 32-bit word from a port.
pub fn inl(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as for `inb`.
    unsafe {
        asm!("in eax, dx", out("eax") value, in("dx") port, options(nostack, preserves_flags));
    }
    value
}

/// Writes a 32-bit word to a port.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as for `outb`.
    unsafe {
        asm!("out dx, eax", in("eax") value, in("dx") port, options(nostack, preserves_flags));
    }
}

/// Masks every line of the two legacy interrupt controllers: nothing interrupts a test VM that it
/// has not asked for.
pub(crate) fn mask_legacy_interrupts() {
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

/// Executes CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// The number of physical-address bits, by CPUID leaf 80000008H.
pub fn maxphyaddr() -> u32 {
    if cpuid(0x8000_0000, 0).eax < 0x8000_0008 {
        return 36;
    }
    cpuid(0x8000_0008, 0).eax & 0xff
}

/// Reads an MSR that is known to exist.
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDMSR touches no memory. A missing MSR ends in the trap handler's report.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
/// The MSR must not be one that moves the ground under running Rust code (EFER.LME, FS base and
/// the like), unless the value is one under which that code runs on.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: by this function's contract.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// The time-stamp counter, in ticks.
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDTSC touches nothing but its result. The fences keep it in program order.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

macro_rules! control_register {
    ($($read:ident $write:ident $name:literal;)*) => {$(
        #[doc = concat!("Reads ", $name, ".")]
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading a control register at CPL 0 has no effect.
            unsafe {
                asm!(concat!("mov {}, ", $name), out(reg) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $name, ".")]
        ///
        /// # Safety
        /// The running code must stay mapped, at the same address, and be executable under the
        /// new value.
        pub unsafe fn $write(value: u64) {
            // SAFETY: by this function's contract.
            unsafe {
                asm!(concat!("mov ", $name, ", {}"), in(reg) value,
                    options(nostack, preserves_flags));
            }
        }
    )*};
}

control_register! {
    cr0 set_cr0 "cr0";
    cr2 set_cr2 "cr2";
    cr3 set_cr3 "cr3";
    cr4 set_cr4 "cr4";
    cr8 set_cr8 "cr8";
    dr6 set_dr6 "dr6";
    dr7 set_dr7 "dr7";
}

/// Stops this CPU for ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: halting with interrupts off is what was asked for.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

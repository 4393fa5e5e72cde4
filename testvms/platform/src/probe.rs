//! Accesses that may fault.

use core::arch::asm;
use core::fmt;

use rt::trap::{self, Fault};

/// A value or the exception that came instead.
pub struct Shown<T>(pub Result<T, Fault>);

impl<T: fmt::LowerHex> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(value) => write!(f, "{value:x}"),
            Err(fault) => fault.fmt(f),
        }
    }
}

fn outcome<T>(value: T) -> Result<T, Fault> {
    trap::take().map_or(Ok(value), Err)
}

/// RDMSR.
pub fn rdmsr(msr: u32) -> Result<u64, Fault> {
    let (mut low, mut high) = (0u32, 0u32);
    // SAFETY: guarded; RDMSR touches no memory.
    unsafe {
        asm!("lea {t}, [rip + 77f]", "mov [rip + RT_RECOVER_RIP], {t}",
            "rdmsr",
            "77:", "mov qword ptr [rip + RT_RECOVER_RIP], 0",
            t = out(reg) _, in("ecx") msr, inout("eax") low, inout("edx") high);
    }
    outcome(u64::from(high) << 32 | u64::from(low))
}

/// WRMSR.
///
/// # Safety
/// If the CPU takes the value, Rust code must run on under it.
pub unsafe fn wrmsr(msr: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: guarded; the rest by this function's contract.
    unsafe {
        asm!("lea {t}, [rip + 77f]", "mov [rip + RT_RECOVER_RIP], {t}",
            "wrmsr",
            "77:", "mov qword ptr [rip + RT_RECOVER_RIP], 0",
            t = out(reg) _, in("ecx") msr, in("eax") value as u32,
            in("edx") (value >> 32) as u32);
    }
    outcome(())
}

/// Writes an MSR, reads it back, and writes what it held before.
///
/// # Safety
/// As [`wrmsr`].
pub unsafe fn try_msr(msr: u32, value: u64) -> Result<u64, Fault> {
    let before = rdmsr(msr)?;
    // SAFETY: by this function's contract.
    unsafe { wrmsr(msr, value) }?;
    let after = rdmsr(msr)?;
    // SAFETY: the value that it held all the time.
    unsafe { wrmsr(msr, before) }?;
    Ok(after)
}

macro_rules! try_control_register {
    ($($name:ident $register:literal;)*) => {$(
        /// Writes the control register, reads it back, and restores it, with nothing in between:
        /// code that the compiler makes may need the bits that are tried.
        ///
        /// # Safety
        /// The code that runs must stay mapped, in the same mode, under the new value.
        pub unsafe fn $name(value: u64) -> Result<u64, Fault> {
            let after: u64;
            // SAFETY: guarded, and by this function's contract. A fault comes at the first write,
            // and leaves the register as it was.
            unsafe {
                asm!("lea {t}, [rip + 77f]", "mov [rip + RT_RECOVER_RIP], {t}",
                    concat!("mov {before}, ", $register),
                    "mov {after}, {before}",
                    concat!("mov ", $register, ", {value}"),
                    concat!("mov {after}, ", $register),
                    concat!("mov ", $register, ", {before}"),
                    "77:", "mov qword ptr [rip + RT_RECOVER_RIP], 0",
                    t = out(reg) _, value = in(reg) value, before = out(reg) _,
                    after = out(reg) after);
            }
            outcome(after)
        }
    )*};
}

try_control_register! {
    try_cr0 "cr0";
    try_cr3 "cr3";
    try_cr4 "cr4";
}

/// XSETBV.
///
/// # Safety
/// Rust code must run on under the value: no state that it uses may go.
pub unsafe fn xsetbv(index: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: guarded; the rest by this function's contract.
    unsafe {
        asm!("lea {t}, [rip + 77f]", "mov [rip + RT_RECOVER_RIP], {t}",
            "xsetbv",
            "77:", "mov qword ptr [rip + RT_RECOVER_RIP], 0",
            t = out(reg) _, in("ecx") index, in("eax") value as u32,
            in("edx") (value >> 32) as u32);
    }
    outcome(())
}

/// XGETBV.
pub fn xgetbv(index: u32) -> Result<u64, Fault> {
    let (mut low, mut high) = (0u32, 0u32);
    // SAFETY: guarded; XGETBV touches no memory.
    unsafe {
        asm!("lea {t}, [rip + 77f]", "mov [rip + RT_RECOVER_RIP], {t}",
            "xgetbv",
            "77:", "mov qword ptr [rip + RT_RECOVER_RIP], 0",
            t = out(reg) _, in("ecx") index, inout("eax") low, inout("edx") high);
    }
    outcome(u64::from(high) << 32 | u64::from(low))
}

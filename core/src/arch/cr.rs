//! Control registers and XCR0.

use crate::fixup_row;
use core::arch::asm;
use umbra_arch::Cr4;

/// DR0 to DR3, which are L1's while L0 runs.
pub fn breakpoint_addresses() -> [u64; 4] {
    let (dr0, dr1, dr2, dr3);
    // SAFETY: reads registers; DR7.GD is 0 after a VM exit.
    unsafe {
        core::arch::asm!(
            "mov {}, dr0",
            "mov {}, dr1",
            "mov {}, dr2",
            "mov {}, dr3",
            out(reg) dr0,
            out(reg) dr1,
            out(reg) dr2,
            out(reg) dr3,
            options(nomem, nostack, preserves_flags)
        );
    }
    [dr0, dr1, dr2, dr3]
}

macro_rules! reader {
    ($read:ident, $name:literal) => {
        #[doc = concat!("Reads ", $name, ".")]
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reads a register.
            unsafe {
                asm!(
                    concat!("mov {}, ", $name),
                    out(reg) value,
                    options(nomem, nostack, preserves_flags)
                );
            }
            value
        }
    };
}

macro_rules! writer {
    ($write:ident, $name:literal) => {
        #[doc = concat!("Writes ", $name, ".")]
        ///
        /// # Safety
        /// L0 must be able to go on with the new value.
        pub unsafe fn $write(value: u64) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    concat!("mov ", $name, ", {}"),
                    in(reg) value,
                    options(nostack, preserves_flags)
                );
            }
        }
    };
}

reader!(cr0, "cr0");
reader!(cr3, "cr3");
reader!(cr4, "cr4");
writer!(set_cr0, "cr0");
writer!(set_cr3, "cr3");
writer!(set_cr4, "cr4");

/// Executes XSETBV; `false` when the CPU answers with #GP.
///
/// # Safety
/// CR4.OSXSAVE must be set, and L0 must not depend on XCR0.
pub unsafe fn xsetbv_safe(index: u32, value: u64) -> bool {
    let failed: u32;
    // SAFETY: changes which state components are enabled and no memory; a #GP
    // lands at 3 with `failed` = 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: xsetbv",
            "mov {failed:e}, 0",
            "3:",
            fixup_row!(),
            failed = out(reg) failed,
            in("ecx") index,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
    failed == 0
}

/// Writes back and invalidates this CPU's caches.
pub fn wbinvd() {
    // SAFETY: loses nothing.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) }
}

/// Writes CR2, which L0 itself does not use: it takes no page faults.
pub fn set_cr2(value: u64) {
    // SAFETY: no code of L0's reads CR2.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// PKRU, which L0 runs with as L1 left it; 0 (all allowed) where L1 has not
/// turned protection keys on in XCR0.
pub fn pkru() -> u32 {
    let value: u32;
    let pke = Cr4::PKE.bits();
    // SAFETY: only called for an L1 whose CR4.PKE is set, so the CPU has the
    // bit; L0's pages are supervisor pages, which protection keys for user
    // pages leave alone. CR4 is put back at once.
    unsafe { set_cr4(cr4() | pke) };
    // SAFETY: CR4.PKE is set; RDPKRU touches no memory.
    unsafe {
        asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nomem, nostack));
    }
    // SAFETY: as it was.
    unsafe { set_cr4(cr4() & !pke) };
    value
}

/// The time-stamp counter, in ticks.
pub fn tsc() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Its low half alone, in fewer instructions.
#[inline(always)]
pub fn tsc_low() -> u32 {
    let low;
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") _, options(nomem, nostack)) };
    low
}

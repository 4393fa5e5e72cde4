//! The XMM registers that L1's or L2's values stay in while L0 runs.

use core::arch::asm;

/// Runs `f`, which may use XMM8 to XMM15, and leaves them as they were. The stub
/// around VM exits does so for the others alone.
pub fn keep<R>(f: impl FnOnce() -> R) -> R {
    let mut kept = [[0u64; 2]; 8];
    // SAFETY: writes the local array alone.
    unsafe {
        asm!("movups [{at}], xmm8", "movups [{at} + 16], xmm9",
             "movups [{at} + 32], xmm10", "movups [{at} + 48], xmm11",
             "movups [{at} + 64], xmm12", "movups [{at} + 80], xmm13",
             "movups [{at} + 96], xmm14", "movups [{at} + 112], xmm15",
             at = in(reg) kept.as_mut_ptr(),
             options(nostack, preserves_flags));
    }
    let result = f();
    // SAFETY: reads the local array alone.
    unsafe {
        asm!("movups xmm8, [{at}]", "movups xmm9, [{at} + 16]",
             "movups xmm10, [{at} + 32]", "movups xmm11, [{at} + 48]",
             "movups xmm12, [{at} + 64]", "movups xmm13, [{at} + 80]",
             "movups xmm14, [{at} + 96]", "movups xmm15, [{at} + 112]",
             at = in(reg) kept.as_ptr(),
             out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
             out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
             options(nostack, preserves_flags, readonly));
    }
    result
}

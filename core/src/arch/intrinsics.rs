//! What the compiler expects a C library to have.

use core::arch::asm;

/// Copies `bytes` bytes between places that do not overlap.
///
/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    let (words, rest) = (bytes / 8, bytes % 8);
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) rest,
             inout("rdi") to => _, inout("rsi") from => _, inout("rcx") words => _,
             options(nostack, preserves_flags));
    }
    to
}

/// Copies `bytes` bytes between places that may overlap.
///
/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= bytes {
        // SAFETY: the destination does not begin inside the source.
        return unsafe { memcpy(to, from, bytes) };
    }
    // SAFETY: the caller vouches for both ranges; from the end downwards no
    // byte is overwritten before it is read. `bytes` is above 0 here.
    unsafe {
        asm!("std", "rep movsb", "cld",
             inout("rdi") to.wrapping_add(bytes - 1) => _,
             inout("rsi") from.wrapping_add(bytes - 1) => _,
             inout("rcx") bytes => _,
             options(nostack));
    }
    to
}

/// Fills `bytes` bytes.
///
/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8 {
    let (words, rest) = (bytes / 8, bytes % 8);
    let pattern = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: the caller vouches for the range.
    unsafe {
        asm!("rep stosq", "mov rcx, {rest}", "rep stosb", rest = in(reg) rest,
             inout("rdi") to => _, in("rax") pattern, inout("rcx") words => _,
             options(nostack, preserves_flags));
    }
    to
}

/// Compares two ranges.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    let mut at = 0;
    while at < bytes {
        // SAFETY: `at` is inside the first range.
        let left = unsafe { a.wrapping_add(at).read_volatile() };
        // SAFETY: `at` is inside the second range.
        let right = unsafe { b.wrapping_add(at).read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
        at += 1;
    }
    0
}

/// As [`memcmp`]; compilers use it where only equality counts.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    // SAFETY: handed on to the caller.
    unsafe { memcmp(a, b, bytes) }
}

/// The length of a C string.
///
/// # Safety
/// As C's `strlen`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller vouches for a terminating zero.
    while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

//! `ticks`: prints the time-stamp counter, for l1-init. It needs no library, so
//! that it starts within a few thousand instructions.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

// The kernel starts a program with RSP on a 16-byte boundary, and a function
// is entered 8 bytes below one: the call makes the difference.
global_asm!(".globl _start", "_start:", "call {main}", "ud2", main = sym main);

extern "C" fn main() -> ! {
    let low: u32;
    let high: u32;
    // SAFETY: RDTSC changes EAX and EDX alone, and Linux allows it to programs.
    unsafe {
        asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack));
    }
    let mut left = u64::from(high) << 32 | u64::from(low);
    // The largest u64 has 20 digits. They are written from the last to the first.
    let mut text = [b'\n'; 21];
    let mut first = 20;
    for (at, digit) in text.iter_mut().enumerate().take(20).rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        first = at;
        if left == 0 {
            break;
        }
    }
    const SYS_WRITE: u64 = 1;
    const SYS_EXIT: u64 = 60;
    const STDOUT: u64 = 1;
    // SAFETY: `write` reads the part of `text` from `first` to its end, and
    // SYSCALL changes RAX, RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_WRITE => _,
            in("rdi") STDOUT,
            in("rsi") text.as_ptr().wrapping_add(first),
            in("rdx") text.len().wrapping_sub(first),
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    // SAFETY: `exit` does not return.
    unsafe {
        asm!("syscall", in("rax") SYS_EXIT, in("rdi") 0, options(noreturn));
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing above can panic; the linker still wants a handler.
    loop {}
}

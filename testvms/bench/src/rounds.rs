//! Rounds between L1 and L2 with nothing in L1 but what is measured.
//!
//! The entry stub of `rt` reads a dozen fields after each exit; here the host RIP leads to one of the
//! handlers below, and only RAX and RCX change between an exit and the next entry.

use core::arch::global_asm;

use rt::{gdt, trap};

/// What L1 does between an exit and the next entry.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Handler {
    /// Nothing: L2 executes the same instruction again.
    Bare = 0,
    /// Reads the reason and RIP, writes RIP behind the instruction.
    Skip = 1,
    /// The same, and INVEPT of one context.
    SkipAndInvept = 2,
}

global_asm!(
    r#"
    .section .bss.bench, "aw", @nobits
    .balign 8
bench_count: .skip 8
bench_length: .skip 8
bench_descriptor: .skip 8
bench_start: .skip 8

    .section .data.bench, "aw"
    .balign 8
bench_handlers: .quad bench_bare, bench_skip, bench_invept
    .text

    .macro bench_tsc to
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov \to, rax
    .endm

    .macro bench_next
    dec qword ptr [rip + bench_count]
    jz bench_done
    vmresume
    ud2
    .endm

    .macro bench_step
    mov eax, 0x4402
    vmread rcx, rax
    mov eax, 0x681e
    vmread rcx, rax
    add rcx, [rip + bench_length]
    vmwrite rax, rcx
    .endm

    .globl bench_rounds
bench_rounds:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov [rip + bench_count], rdi
    mov [rip + bench_length], rdx
    mov [rip + bench_descriptor], rcx
    mov rdi, r8
    mov eax, 0x6c14
    vmwrite rax, rsp
    lea rcx, [rip + bench_handlers]
    mov rcx, [rcx + 8 * rsi]
    mov eax, 0x6c16
    vmwrite rax, rcx
    bench_tsc [rip + bench_start]
    vmresume
    ud2

bench_bare:
    bench_next

bench_skip:
    bench_step
    bench_next

bench_invept:
    bench_step
    mov rcx, [rip + bench_descriptor]
    mov eax, 1
    invept rax, [rcx]
    bench_next

bench_done:
    bench_tsc rcx
    mov rax, rcx
    sub rax, [rip + bench_start]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    cld
    ret
    "#
);

unsafe extern "C" {
    fn bench_rounds(
        rounds: u64,
        handler: u64,
        length: u64,
        descriptor: *const [u64; 2],
        rdi: u64,
    ) -> u64;
}

/// Enters a launched L2 `rounds` times and returns the ticks for all of them. L2 starts with `rdi`;
/// its other registers are undefined, and RAX and RCX are after each exit. `length` is that of the instruction
/// that exits, in bytes.
pub fn rounds(rounds: u64, handler: Handler, length: u64, eptp: u64, rdi: u64) -> u64 {
    let descriptor = [eptp, 0];
    // SAFETY: the function keeps the C calling convention; L2 is one of this program's, which exits by the
    // instruction that is measured and reaches nothing of L1's.
    let ticks = unsafe { bench_rounds(rounds, handler as u64, length, &raw const descriptor, rdi) };
    // An exit leaves limits of 0xffff.
    gdt::reload();
    trap::reload();
    ticks
}

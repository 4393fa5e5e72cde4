//! Runs a piece of machine code in another code segment or at another privilege level.
//!
//! The piece ends with INT3, or in whatever exception it meets: either brings control back.

use core::arch::global_asm;

use crate::gdt;
use crate::trap::{self, Fault};
use crate::vmx::stub::Registers;

global_asm!(
    r#"
    .globl rt_run_at
rt_run_at:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    lea rax, [rip + 2f]
    mov [rip + RT_RECOVER_RIP], rax
    mov [rip + RT_RECOVER_RSP], rsp
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov eax, [rsi + 40]
    mov fs, eax
    push qword ptr [rsi + 32]
    push qword ptr [rsi + 24]
    push qword ptr [rsi + 16]
    push qword ptr [rsi + 8]
    push qword ptr [rsi]
    mov rax, [rdi]
    mov rbx, [rdi + 8]
    mov rcx, [rdi + 16]
    mov rdx, [rdi + 24]
    mov rsi, [rdi + 32]
    mov rbp, [rdi + 48]
    mov rdi, [rdi + 40]
    iretq
2:
    mov eax, {kernel}
    mov ds, eax
    mov es, eax
    xor eax, eax
    mov fs, eax
    cld
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
    "#,
    data = const gdt::USER_DATA,
    kernel = const gdt::DATA,
);

unsafe extern "C" {
    fn rt_run_at(registers: *const Registers, frame: *const [u64; 6]);
}

/// Where a piece runs.
#[derive(Clone, Copy)]
pub struct Place {
    /// The code segment, with its RPL.
    pub code: u16,
    /// The stack segment.
    pub stack: u16,
    /// The linear address of the code; the code segment's base is 0.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// What FS is loaded with.
    pub fs: u16,
}

/// Jumps there with these registers (R8 to R15 excepted) and returns the exception that ended it.
/// DS and ES are flat data of privilege level 3.
pub fn run(place: &Place, registers: &Registers) -> Fault {
    let frame = [
        place.rip,
        place.code.into(),
        2,
        place.rsp,
        place.stack.into(),
        place.fs.into(),
    ];
    // SAFETY: every vector of the table leads back to the stub while a recovery address is set, on
    // a stack of its own, and the stub keeps the C calling convention. Interrupts are off; a piece
    // that loops for ever is a mistake of the test.
    unsafe { rt_run_at(registers, &frame) };
    trap::take().unwrap_or_else(|| panic!("code under test came back without an exception"))
}

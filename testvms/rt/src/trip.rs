//! Out of 64-bit mode and back.
//!
//! A test that has to run outside IA-32e mode gets flat 32-bit protected mode without paging, where it
//! may do what it likes to control registers, descriptor tables and segments: on the way back
//! everything is loaded anew.
//!
//! SDM "Initializing IA-32e Mode", "IA-32e Mode Initialization, Exiting".

use core::arch::global_asm;

use crate::{gdt, trap};

global_asm!(
    r#"
    .globl rt_call32
rt_call32:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    cli
    mov [rip + rt_trip_rsp], rsp
    mov rax, cr0
    mov [rip + rt_trip_cr0], rax
    mov rax, cr3
    mov [rip + rt_trip_cr3], rax
    mov rax, cr4
    mov [rip + rt_trip_cr4], rax
    sgdt [rip + rt_trip_gdtr]
    sidt [rip + rt_trip_idtr]
    mov ebx, edi
    mov ebp, esi
    push {code32}
    lea rax, [rip + 2f]
    push rax
    retfq

    .code32
2:  mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, offset rt_trip_stack_top
    // Paging off: IA-32e mode is left. Then LME off.
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    mov [rt_trip_efer], eax
    and eax, 0xfffffeff
    wrmsr
    mov eax, ebp
    call ebx
    mov ebx, eax
    mov eax, [rt_trip_cr4]
    mov cr4, eax
    mov eax, [rt_trip_cr3]
    mov cr3, eax
    mov ecx, 0xc0000080
    xor edx, edx
    mov eax, [rt_trip_efer]
    and eax, 0xfffffbff
    wrmsr
    mov eax, [rt_trip_cr0]
    mov cr0, eax
    lgdt [rt_trip_gdtr]
    .byte 0xea
    .long 3f
    .short {code64}

    .code64
3:  mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    lidt [rip + rt_trip_idtr]
    mov rsp, [rip + rt_trip_rsp]
    mov eax, ebx
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .section .data.rt_trip, "aw"
    .balign 16
rt_trip_rsp: .quad 0
rt_trip_cr0: .quad 0
rt_trip_cr3: .quad 0
rt_trip_cr4: .quad 0
    .balign 16
rt_trip_gdtr: .skip 10
    .balign 16
rt_trip_idtr: .skip 10
    .balign 4
rt_trip_efer: .long 0
    .skip 1024
    .balign 16
rt_trip_stack_top:
    .text
    "#,
    code32 = const gdt::CODE32,
    code64 = const gdt::CODE64,
    data = const gdt::DATA,
);

unsafe extern "C" {
    fn rt_call32(function: u32, argument: u32) -> u32;
}

/// Leaves 64-bit mode, calls the 32-bit code at `function`, and comes back with what it left in EAX.
///
/// The code finds flat segments of this CPU's descriptor table, paging and IA32_EFER.LME off, the rest
/// of CR0 and CR4 as in 64-bit mode, `argument` in EAX, interrupts off, and IDTR as it was, of no use to
/// it: an exception ends in a shutdown unless the code loads a table of its own. Its stack has 1 KiB.
///
/// # Safety
/// The CPU is not in VMX operation. The code returns by a near RET in the same mode: paging off, flat
/// segments, the stack pointer where it was. It may change every register but that, and no memory that
/// Rust knows of.
pub unsafe fn call32(function: u32, argument: u32) -> u32 {
    // SAFETY: the code below keeps the C calling convention as long as the function keeps its contract.
    let result = unsafe { rt_call32(function, argument) };
    // The code may have left another task register, and FS and GS.
    gdt::reload();
    trap::reload();
    result
}

//! VM entry and VM exit.
//!
//! 1. Callee-saved registers go onto the stack, then the address of the register block.
//! 2. HOST_RSP is written, and HOST_RIP unless the caller has its own there.
//! 3. L1's control registers are kept on the stack too: a host state under test may change them, and
//!    Rust code must not run before they are as they were.
//! 4. L2's registers are loaded, VMLAUNCH or VMRESUME is executed.
//! 5. A VM exit arrives at `rt_vm_exit` with that stack; L2's registers are saved.
//!
//! An exception between 4 and 5 (a host RIP that cannot be fetched, say) goes on at step 5 too.

use core::arch::global_asm;

use crate::gdt;
use crate::trap::{self, Fault};

/// L2's general registers, less RSP, which the VMCS holds.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

global_asm!(
    r#"
    .globl rt_vm_enter
rt_vm_enter:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov rax, cr0
    push rax
    mov rax, cr3
    push rax
    mov rax, cr4
    push rax
    push rdi
    mov eax, 0x6c14
    vmwrite rax, rsp
    test edx, edx
    jnz 2f
    lea rcx, [rip + rt_vm_exit]
    mov eax, 0x6c16
    vmwrite rax, rcx
2:
    lea rcx, [rip + rt_vm_exit]
    mov [rip + RT_RECOVER_RIP], rcx
    mov [rip + RT_RECOVER_RSP], rsp
    test esi, esi
    mov rax, [rdi]
    mov rbx, [rdi + 8]
    mov rcx, [rdi + 16]
    mov rdx, [rdi + 24]
    mov rsi, [rdi + 32]
    mov rbp, [rdi + 48]
    mov r8, [rdi + 56]
    mov r9, [rdi + 64]
    mov r10, [rdi + 72]
    mov r11, [rdi + 80]
    mov r12, [rdi + 88]
    mov r13, [rdi + 96]
    mov r14, [rdi + 104]
    mov r15, [rdi + 112]
    mov rdi, [rdi + 40]
    jz 3f
    vmlaunch
    jmp 4f
3:  vmresume
4:  mov eax, 0
    setc al
    setz ah
    add rsp, 32
    jmp 5f

    .globl rt_vm_exit
rt_vm_exit:
    xchg rdi, [rsp]
    mov [rdi], rax
    mov [rdi + 8], rbx
    mov [rdi + 16], rcx
    mov [rdi + 24], rdx
    mov [rdi + 32], rsi
    mov [rdi + 48], rbp
    mov [rdi + 56], r8
    mov [rdi + 64], r9
    mov [rdi + 72], r10
    mov [rdi + 80], r11
    mov [rdi + 88], r12
    mov [rdi + 96], r13
    mov [rdi + 104], r14
    mov [rdi + 112], r15
    pop rax
    mov [rdi + 40], rax
    pop rcx
    mov rax, cr4
    cmp rax, rcx
    je 6f
    mov cr4, rcx
6:  pop rcx
    mov rax, cr3
    cmp rax, rcx
    je 6f
    mov cr3, rcx
6:  pop rcx
    mov rax, cr0
    cmp rax, rcx
    je 6f
    mov cr0, rcx
6:  mov eax, 0x10000
5:  mov qword ptr [rip + RT_RECOVER_RIP], 0
    mov qword ptr [rip + RT_RECOVER_RSP], 0
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
    fn rt_vm_enter(registers: *mut Registers, launch: u32, keep_host_rip: u32) -> u32;
    static rt_vm_exit: u8;
}

/// How an attempt to enter came back.
#[derive(Clone, Copy, Debug)]
pub enum Return {
    /// A VM exit, or a failed entry that loaded the host state.
    Exited,
    /// The instruction after VMLAUNCH or VMRESUME was executed: CF and ZF.
    Failed {
        /// CF.
        carry: bool,
        /// ZF.
        zero: bool,
    },
    /// An exception in L1, at VMLAUNCH itself or at the host RIP.
    Fault(Fault),
}

/// The address that HOST_RIP gets.
pub fn exit_address() -> u64 {
    &raw const rt_vm_exit as u64
}

/// Executes VMLAUNCH (or VMRESUME) with the current VMCS and L2's registers.
///
/// With `keep_host_rip` the host RIP of the VMCS stays as it is: the CPU must then fault there.
/// After a VM exit GDTR, IDTR, the segment registers and TR are loaded anew.
pub fn enter(registers: &mut Registers, launch: bool, keep_host_rip: bool) -> Return {
    // SAFETY: the stub keeps the C calling convention and comes back whatever happens in L2: the
    // host state leads to `rt_vm_exit`, and an exception is caught by the guard.
    let code = unsafe { rt_vm_enter(registers, launch.into(), keep_host_rip.into()) };
    let fault = trap::take();
    if code == 0x10000 {
        // An exit leaves limits of 0xffff and whatever bases the host state had.
        gdt::reload();
        trap::reload();
    }
    match fault {
        Some(fault) => Return::Fault(fault),
        None if code == 0x10000 => Return::Exited,
        None => Return::Failed {
            carry: code & 1 != 0,
            zero: code & 0x100 != 0,
        },
    }
}

# The way out to L1 or L2 and the way back in. AT&T syntax.
#
# Each CPU has one fixed HOST_RSP, 16-byte aligned, for every VMCS. GS is the
# base of its PerCpu. The registers that the VMCS does not hold are kept in
# PerCpu.cpu.regs.
#
#   1. VM exit: the CPU comes to `umbra_vm_exit`, the guest's registers still
#      in place but for RSP, RIP and RFLAGS.
#   2. All of them are stored, then umbra_handle_exit(PerCpu, outcome) decides.
#   3. It returns 0 for VMRESUME, 1 for VMLAUNCH; the registers are loaded
#      from the same place, and the CPU goes out.
#   4. Should the instruction fail, the CPU is still here, RSP untouched; the
#      registers were only loaded, so what is stored is still the truth.
#      The outcome is 1 for VMfailValid, 2 for VMfailInvalid; on to step 2,
#      without storing anything.

.section .text
.code64

.macro store_registers
    mov %rax, %gs:{REGS}+0
    mov %rcx, %gs:{REGS}+8
    mov %rdx, %gs:{REGS}+16
    mov %rbx, %gs:{REGS}+24
    mov %rbp, %gs:{REGS}+40
    mov %rsi, %gs:{REGS}+48
    mov %rdi, %gs:{REGS}+56
    mov %r8,  %gs:{REGS}+64
    mov %r9,  %gs:{REGS}+72
    mov %r10, %gs:{REGS}+80
    mov %r11, %gs:{REGS}+88
    mov %r12, %gs:{REGS}+96
    mov %r13, %gs:{REGS}+104
    mov %r14, %gs:{REGS}+112
    mov %r15, %gs:{REGS}+120
    # Rust code uses XMM0-7 here (the upper halves of YMM stay, too): a test over
    # the image holds it. Text is formatted with more of them, and keeps those.
    movaps %xmm0, %gs:{XMM}+0
    movaps %xmm1, %gs:{XMM}+16
    movaps %xmm2, %gs:{XMM}+32
    movaps %xmm3, %gs:{XMM}+48
    movaps %xmm4, %gs:{XMM}+64
    movaps %xmm5, %gs:{XMM}+80
    movaps %xmm6, %gs:{XMM}+96
    movaps %xmm7, %gs:{XMM}+112
.endm

.balign 16
.global umbra_vm_exit
umbra_vm_exit:
    store_registers
    xor %esi, %esi
handle:
    xor %ebp, %ebp
    mov %gs:{THIS}, %rdi
    call umbra_handle_exit

# RAX: 0 to resume, 1 to launch.
.global umbra_vm_enter
umbra_vm_enter:
    # Between here and the VM entry an NMI sends the CPU to
    # `umbra_decide_again_stub` (see `nmi_stub`): what is loaded below stays in
    # memory as well.
    cmpb $0, %gs:{INBOX}
    jne umbra_decide_again_stub
    test %eax, %eax                          # the moves below keep ZF
    movaps %gs:{XMM}+0, %xmm0
    movaps %gs:{XMM}+16, %xmm1
    movaps %gs:{XMM}+32, %xmm2
    movaps %gs:{XMM}+48, %xmm3
    movaps %gs:{XMM}+64, %xmm4
    movaps %gs:{XMM}+80, %xmm5
    movaps %gs:{XMM}+96, %xmm6
    movaps %gs:{XMM}+112, %xmm7
    mov %gs:{REGS}+0, %rax
    mov %gs:{REGS}+8, %rcx
    mov %gs:{REGS}+16, %rdx
    mov %gs:{REGS}+24, %rbx
    mov %gs:{REGS}+40, %rbp
    mov %gs:{REGS}+48, %rsi
    mov %gs:{REGS}+56, %rdi
    mov %gs:{REGS}+64, %r8
    mov %gs:{REGS}+72, %r9
    mov %gs:{REGS}+80, %r10
    mov %gs:{REGS}+88, %r11
    mov %gs:{REGS}+96, %r12
    mov %gs:{REGS}+104, %r13
    mov %gs:{REGS}+112, %r14
    mov %gs:{REGS}+120, %r15
    jnz 1f
    vmresume
    jmp 2f
.global umbra_last_entry
umbra_last_entry:
1:  vmlaunch
2:  mov $2, %esi                             # keeps the flags
    jc handle
    mov $1, %esi
    jmp handle

# An NMI came in at the last moment: where does it go?
.global umbra_decide_again_stub
umbra_decide_again_stub:
    xor %ebp, %ebp
    mov %gs:{THIS}, %rdi
    call umbra_decide_again
    jmp umbra_vm_enter

# umbra_first_entry(RDI: HOST_RSP, RSI: 0 or 1): leaves the boot stack for good, and
# nothing of L0's in registers that are not loaded.
.global umbra_first_entry
umbra_first_entry:
    xorps %xmm8, %xmm8
    xorps %xmm9, %xmm9
    xorps %xmm10, %xmm10
    xorps %xmm11, %xmm11
    xorps %xmm12, %xmm12
    xorps %xmm13, %xmm13
    xorps %xmm14, %xmm14
    xorps %xmm15, %xmm15
    mov %rdi, %rsp
    mov %rsi, %rax
    jmp umbra_vm_enter

# VM exit with the exit trace on: the HOST_RIP of every VMCS then. An entry that
# fails at step 4 is no VM exit and goes the ordinary way.
.balign 16
.global umbra_vm_exit_traced
umbra_vm_exit_traced:
    store_registers
    xor %ebp, %ebp
    mov %gs:{THIS}, %rdi
    call umbra_handle_exit_traced
    jmp umbra_vm_enter

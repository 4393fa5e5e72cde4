# Exceptions and NMIs that arrive while L0 runs. AT&T syntax.
# Interrupts are always off in L0 and it has no red zone.
#
# Nothing here ends with IRET: IRET would let NMIs through again, and from the
# first NMI in L0 until the next VM entry they are to stay blocked, so that the
# CPU itself holds a second one back. `resume_interrupted` goes back by RET.

.section .text
.code64

# One stub a vector. Those without an error code push a zero in its place.
.macro stub vector, has_error
.balign 16
.if \has_error == 0
    push $0
.endif
    push $\vector
    jmp exception_common
.endm

.balign 16
.global exception_stubs
exception_stubs:
stub 0, 0
stub 1, 0
stub 2, 0
stub 3, 0
stub 4, 0
stub 5, 0
stub 6, 0
stub 7, 0
stub 8, 1
stub 9, 0
stub 10, 1
stub 11, 1
stub 12, 1
stub 13, 1
stub 14, 1
stub 15, 0
stub 16, 0
stub 17, 1
stub 18, 0
stub 19, 0
stub 20, 0
stub 21, 1
stub 22, 0
stub 23, 0
stub 24, 0
stub 25, 0
stub 26, 0
stub 27, 0
stub 28, 0
stub 29, 1
stub 30, 1
stub 31, 0

# Stack from here: vector, error code, RIP, CS, RFLAGS, RSP, SS.
exception_common:
    cmpq $13, (%rsp)
    jne 2f
    # #GP: is there a fix-up for this instruction?
    push %rax
    push %rcx
    mov 32(%rsp), %rax                       # RIP
    mov $fixups_start, %rcx
1:  cmp $fixups_end, %rcx
    jae 3f
    cmp %rax, (%rcx)
    je 4f
    add $16, %rcx
    jmp 1b
4:  mov 8(%rcx), %rax                        # its landing
    mov %rax, 32(%rsp)
    pop %rcx
    pop %rax
    add $16, %rsp                            # vector, error code
    jmp resume_interrupted
3:  pop %rcx
    pop %rax
2:  # L0's own bug: hand everything over and never come back.
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    and $-16, %rsp
    cld
    call umbra_exception
    ud2

# An NMI, on its own stack: leaves word, and goes on with NMIs still blocked.
# The way out to L1 or L2 decides where it goes (`nmi.rs`). If that way is
# already behind its look at the inbox, it is sent back to look again.
.balign 16
.global nmi_stub
nmi_stub:
    movb $1, %gs:{INBOX}
    push %rax
    mov 8(%rsp), %rax                        # RIP
    cmp $umbra_vm_enter, %rax
    jb 1f
    cmp $umbra_last_entry, %rax
    ja 1f
    movq $umbra_decide_again_stub, 8(%rsp)
1:  pop %rax
    # falls through

# Goes back to what was interrupted, without IRET.
# Stack: RIP, CS, RFLAGS, RSP, SS. CS and SS are L0's one pair.
resume_interrupted:
    push %rax
    push %rcx
    push %rdx
    mov 48(%rsp), %rax                       # RSP
    mov 24(%rsp), %rcx                       # RIP
    mov 40(%rsp), %rdx                       # RFLAGS
    # Below the interrupted RSP: RIP, RFLAGS, RAX. This may overwrite RFLAGS,
    # RSP and SS of the frame, all read by now, and nothing below them.
    mov %rcx, -8(%rax)
    mov %rdx, -16(%rax)
    mov 16(%rsp), %rcx                       # the interrupted RAX
    mov %rcx, -24(%rax)
    pop %rdx
    pop %rcx
    lea -24(%rax), %rsp
    pop %rax
    popfq
    ret

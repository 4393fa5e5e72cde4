// See machine.rs.
    .text
    .code32
    .globl legacy_main
legacy_main:
    mov [legacy_esp], esp
    lgdt [legacy_job + {gdtr}]
    lidt [legacy_job + {idtr}]
    mov eax, [legacy_job + {cr4}]
    mov cr4, eax
    mov eax, [legacy_job + {cr3}]
    mov cr3, eax
    mov ecx, 0xc0000080
    xor edx, edx
    mov eax, [legacy_job + {efer}]
    wrmsr
    mov eax, [legacy_job + {cr0}]
    mov cr0, eax
    jmp 2f
2:  mov eax, [legacy_job + {task}]
    ltr ax
    xor eax, eax
    lldt ax
    mov dword ptr [legacy_resume], 0
    mov dword ptr [legacy_job + {setup_failed}], 0
    cmp dword ptr [legacy_job + {setup}], 0
    je 3f
    vmxon qword ptr [legacy_job + {region}]
    setbe byte ptr [legacy_job + {setup_failed}]
    vmclear qword ptr [legacy_job + {other}]
    setbe al
    or [legacy_job + {setup_failed}], al
    vmclear qword ptr [legacy_job + {own}]
    setbe al
    or [legacy_job + {setup_failed}], al
    cmp dword ptr [legacy_job + {setup}], 1
    je 3f
    vmptrld qword ptr [legacy_job + {own}]
    setbe al
    or [legacy_job + {setup_failed}], al
3:  xor eax, eax
    mov cr2, eax
    mov dword ptr [legacy_job + {exits}], 0
    mov dword ptr [legacy_job + {resume_flags}], 0

    // The frame for IRETD: on the stack of the case where the privilege level stays 0.
    test dword ptr [legacy_job + {frame} + {eflags}], 0x20000
    jnz 4f
    test dword ptr [legacy_job + {frame} + {cs}], 3
    jnz 5f
    lss esp, [legacy_job + {frame} + {esp}]
    jmp 6f
4:  push dword ptr [legacy_job + {frame} + {gs}]
    push dword ptr [legacy_job + {frame} + {fs}]
    push dword ptr [legacy_job + {frame} + {ds}]
    push dword ptr [legacy_job + {frame} + {es}]
5:  push dword ptr [legacy_job + {frame} + {ss}]
    push dword ptr [legacy_job + {frame} + {esp}]
6:  push dword ptr [legacy_job + {frame} + {eflags}]
    push dword ptr [legacy_job + {frame} + {cs}]
    push dword ptr [legacy_job + {frame} + {eip}]
    mov ebx, [legacy_job + {gprs} + {ebx}]
    mov ecx, [legacy_job + {gprs} + {ecx}]
    mov edx, [legacy_job + {gprs} + {edx}]
    mov esi, [legacy_job + {gprs} + {esi}]
    mov edi, [legacy_job + {gprs} + {edi}]
    mov ebp, [legacy_job + {gprs} + {ebp}]
    test dword ptr [legacy_job + {frame} + {eflags}], 0x20000
    jnz 7f
    mov eax, [legacy_job + {frame} + {es}]
    mov es, eax
    mov eax, [legacy_job + {frame} + {fs}]
    mov fs, eax
    mov eax, [legacy_job + {frame} + {gs}]
    mov gs, eax
    mov eax, [legacy_job + {frame} + {ds}]
    mov ds, eax
7:  .byte 0x2e, 0xa1
    .long legacy_job + {gprs} + {eax}
    iretd

    // One handler a vector. Vectors with an error code leave it on the stack, others push 0.
    .balign 16
    .globl legacy_stubs
legacy_stubs:
    .set legacy_vector, 0
    .rept 32
    .balign 16
    .if (legacy_vector == 8) || (legacy_vector == 10) || (legacy_vector == 11) || (legacy_vector == 12) || (legacy_vector == 13) || (legacy_vector == 14) || (legacy_vector == 17) || (legacy_vector == 21)
    .else
    push 0
    .endif
    push legacy_vector
    jmp legacy_common
    .set legacy_vector, legacy_vector + 1
    .endr

legacy_common:
    // PUSH DS of 32 bits; the assembler takes the mnemonic for the 16-bit one.
    .byte 0x1e
    push eax
    mov eax, {flat}
    mov ds, eax
    cmp dword ptr [legacy_resume], 0
    je 2f
    mov eax, {flat}
    mov ss, eax
    mov esp, [legacy_esp]
    mov eax, [legacy_resume]
    mov dword ptr [legacy_resume], 0
    jmp eax
2:  mov [legacy_job + {out_gprs} + {ebx}], ebx
    mov [legacy_job + {out_gprs} + {ecx}], ecx
    mov [legacy_job + {out_gprs} + {edx}], edx
    mov [legacy_job + {out_gprs} + {esi}], esi
    mov [legacy_job + {out_gprs} + {edi}], edi
    mov [legacy_job + {out_gprs} + {ebp}], ebp
    mov eax, es
    mov [legacy_job + {out_frame} + {es}], eax
    mov eax, fs
    mov [legacy_job + {out_frame} + {fs}], eax
    mov eax, gs
    mov [legacy_job + {out_frame} + {gs}], eax
    // POP goes by the width of the stack segment, whatever the case has made of it.
    pop dword ptr [legacy_job + {out_gprs} + {eax}]
    pop dword ptr [legacy_job + {out_frame} + {ds}]
    pop dword ptr [legacy_job + {vector}]
    pop dword ptr [legacy_job + {error}]
    pop dword ptr [legacy_job + {out_frame} + {eip}]
    pop dword ptr [legacy_job + {out_frame} + {cs}]
    pop dword ptr [legacy_job + {out_frame} + {eflags}]
    mov [legacy_job + {out_frame} + {esp}], esp
    mov eax, ss
    mov [legacy_job + {out_frame} + {ss}], eax
    test dword ptr [legacy_job + {out_frame} + {eflags}], 0x20000
    jnz 3f
    test dword ptr [legacy_job + {out_frame} + {cs}], 3
    jz 4f
3:  pop dword ptr [legacy_job + {out_frame} + {esp}]
    pop dword ptr [legacy_job + {out_frame} + {ss}]
    test dword ptr [legacy_job + {out_frame} + {eflags}], 0x20000
    jz 4f
    pop dword ptr [legacy_job + {out_frame} + {es}]
    pop dword ptr [legacy_job + {out_frame} + {ds}]
    pop dword ptr [legacy_job + {out_frame} + {fs}]
    pop dword ptr [legacy_job + {out_frame} + {gs}]
4:

legacy_finish:
    mov eax, {flat}
    mov ss, eax
    mov es, eax
    mov esp, [legacy_esp]
    xor eax, eax
    mov fs, eax
    mov gs, eax
    cld
    mov eax, cr2
    mov [legacy_job + {cr2}], eax
    mov eax, cr0
    mov [legacy_job + {out_cr0}], eax
    mov eax, cr3
    mov [legacy_job + {out_cr3}], eax
    mov eax, cr4
    mov [legacy_job + {out_cr4}], eax
    mov dword ptr [legacy_job + {is_on}], 0
    mov dword ptr [legacy_job + {error_number}], -1
    mov dword ptr [legacy_resume], offset legacy_after
    vmptrst qword ptr [legacy_job + {current}]
    mov dword ptr [legacy_job + {is_on}], 1
    mov eax, 0x4400
    vmread [legacy_job + {error_number}], eax
    vmclear qword ptr [legacy_job + {own}]
    vmclear qword ptr [legacy_job + {other}]
    vmxoff
legacy_after:
    mov dword ptr [legacy_resume], 0
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp 6f
6:  ret

    // A VM exit: the segments are those that the exit made, the stack is the one above.
    .globl legacy_exit
legacy_exit:
    mov [legacy_job + {out_gprs} + {eax}], eax
    mov [legacy_job + {out_gprs} + {ebx}], ebx
    mov [legacy_job + {out_gprs} + {ecx}], ecx
    mov [legacy_job + {out_gprs} + {edx}], edx
    mov [legacy_job + {out_gprs} + {esi}], esi
    mov [legacy_job + {out_gprs} + {edi}], edi
    mov [legacy_job + {out_gprs} + {ebp}], ebp
    mov [legacy_job + {out_frame} + {esp}], esp
    pushfd
    pop dword ptr [legacy_job + {out_frame} + {eflags}]
    call 2f
2:  pop eax
    mov [legacy_job + {out_frame} + {eip}], eax
    mov eax, cs
    mov [legacy_job + {out_frame} + {cs}], eax
    mov eax, ss
    mov [legacy_job + {out_frame} + {ss}], eax
    mov eax, ds
    mov [legacy_job + {out_frame} + {ds}], eax
    mov eax, es
    mov [legacy_job + {out_frame} + {es}], eax
    mov eax, fs
    mov [legacy_job + {out_frame} + {fs}], eax
    mov eax, gs
    mov [legacy_job + {out_frame} + {gs}], eax
    mov dword ptr [legacy_job + {probes}], 0xffffffff
    mov dword ptr [legacy_job + {probes} + 4], 0xffffffff
    mov dword ptr [legacy_job + {probes} + 8], 0xffffffff
    // A segment with a null selector cannot be used.
    mov eax, fs
    test eax, eax
    jz 2f
    mov eax, fs:[0]
    mov [legacy_job + {probes}], eax
2:  mov eax, gs
    test eax, eax
    jz 2f
    mov eax, gs:[0]
    mov [legacy_job + {probes} + 4], eax
2:  mov eax, es
    test eax, eax
    jz 2f
    mov eax, es:[legacy_job + {exits}]
    mov [legacy_job + {probes} + 8], eax
2:  sgdt [legacy_job + {out_gdtr}]
    sidt [legacy_job + {out_idtr}]
    sldt eax
    mov [legacy_job + {ldtr}], eax
    str eax
    mov [legacy_job + {out_task}], eax
    mov eax, dr7
    mov [legacy_job + {dr7}], eax
    mov ecx, 0xc0000080
    rdmsr
    mov [legacy_job + {out_efer}], eax
    mov ecx, 0x174
    rdmsr
    mov [legacy_job + {sysenter}], eax
    mov ecx, 0x175
    rdmsr
    mov [legacy_job + {sysenter} + 4], eax
    mov ecx, 0x176
    rdmsr
    mov [legacy_job + {sysenter} + 8], eax
    mov dword ptr [legacy_job + {vector}], 0x100
    mov dword ptr [legacy_job + {error}], 0

    mov edi, [legacy_job + {exits}]
    cmp edi, {logged}
    jae legacy_finish
    shl edi, 5
    add edi, offset legacy_job + {log}
    mov eax, 0x4402
    vmread [edi], eax
    mov eax, 0x6400
    vmread [edi + 4], eax
    mov eax, 0x4404
    vmread [edi + 8], eax
    mov eax, 0x4406
    vmread [edi + 12], eax
    mov eax, 0x440c
    vmread [edi + 16], eax
    mov eax, 0x681e
    vmread [edi + 20], eax
    mov eax, [legacy_job + {out_gprs} + {eax}]
    mov [edi + 24], eax
    mov eax, [legacy_job + {out_gprs} + {ebx}]
    mov [edi + 28], eax
    mov eax, [legacy_job + {exits}]
    inc dword ptr [legacy_job + {exits}]
    cmp eax, [legacy_job + {passes}]
    jae legacy_finish
    mov eax, [edi + 20]
    add eax, [edi + 16]
    mov ecx, 0x681e
    vmwrite ecx, eax
    mov eax, [legacy_job + {out_gprs} + {eax}]
    mov ebx, [legacy_job + {out_gprs} + {ebx}]
    mov ecx, [legacy_job + {out_gprs} + {ecx}]
    mov edx, [legacy_job + {out_gprs} + {edx}]
    mov esi, [legacy_job + {out_gprs} + {esi}]
    mov edi, [legacy_job + {out_gprs} + {edi}]
    mov ebp, [legacy_job + {out_gprs} + {ebp}]
    vmresume
    pushfd
    pop dword ptr [legacy_job + {resume_flags}]
    jmp legacy_finish

    .section .data.legacy, "aw"
    .balign 16
    .globl legacy_job
legacy_job: .skip {job_bytes}
legacy_esp: .long 0
legacy_resume: .long 0
    .skip 4096
    .balign 16
    .globl legacy_stack_top
legacy_stack_top:
    .text
    .code64

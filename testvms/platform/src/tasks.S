    // Task switches of every kind, in 32-bit code. Intel syntax.
    //
    // tasks_go is called with paging off: EAX bits 1:0 choose JMP, CALL, INT and IRET, bit 2 turns
    // paging on, bit 3 starts with an exception instead of a switch. What came of it is in tasks_out.
    .code32
    .globl tasks_go
tasks_go:
    mov [tasks_how], eax
    mov [tasks_esp], esp
    lgdt [tasks_gdtr]
    lidt [tasks_idtr]
    .byte 0xea
    .long 1f
    .short 0x18
1:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov eax, 0x20
    ltr ax
    test dword ptr [tasks_how], 4
    jz 2f
    mov eax, cr4
    or eax, 0x10
    and eax, 0xffffffdf
    mov cr4, eax
    mov eax, [tasks_directory]
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xeb, 0
2:  mov eax, cr0
    and eax, 0xfffffff7
    mov cr0, eax
    mov eax, 0xffff0ff0
    mov dr6, eax
    mov eax, 0x455
    mov dr7, eax
    mov ebp, 0x1234
    mov eax, [tasks_how]
    test eax, 8
    jnz 7f
    and eax, 3
    jz 3f
    cmp eax, 2
    jb 4f
    je 5f
    // IRET to the task that the back link names.
    mov word ptr [tasks_old], 0x28
    pushfd
    or dword ptr [esp], 0x4000
    popfd
    iretd
    jmp 6f
3:  .byte 0xea
    .long 0
    .short 0x28
    jmp 6f
4:  .byte 0x9a
    .long 0
    .short 0x28
    jmp 6f
5:  int 0x30
6:  // Back in the old task.
    pushfd
    pop dword ptr [tasks_out + 28]
    jmp tasks_end
    // The exception that tasks_vector names, through whatever its gate is.
7:  cmp dword ptr [tasks_vector], 14
    je 8f
    cmp dword ptr [tasks_vector], 6
    je 9f
    xor eax, eax
    mov eax, 0x58
    mov fs, eax
    jmp 6b
8:  mov eax, [0x40001000]
    jmp 6b
9:  ud2
    jmp 6b

    // The new task.
    .globl tasks_new
tasks_new:
    pushfd
    pop dword ptr [tasks_out]
    mov dword ptr [tasks_out + 24], esp
    xor eax, eax
    str ax
    mov [tasks_out + 4], eax
    mov eax, cr0
    and eax, 8
    mov [tasks_out + 8], eax
    mov eax, dr7
    mov [tasks_out + 12], eax
    movzx eax, word ptr [tasks_next]
    mov [tasks_out + 16], eax
    mov eax, [tasks_old + 0x24]
    mov [tasks_out + 20], eax
    // A nested task goes back the way it came.
    pushfd
    test dword ptr [esp], 0x4000
    jnz 1f
    add esp, 4
    .byte 0xea
    .long 0
    .short 0x20
1:  add esp, 4
    iretd

    // Exceptions with an error code, and without one. EAX, EDX: what came.
    .irp n, 8, 10, 11, 12, 13, 14
tasks_v\n: push \n
    jmp tasks_fault
    .endr
tasks_v6: push 0
    push 6
    jmp tasks_fault
tasks_fault:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    pop eax
    mov [tasks_out + 32], eax
    pop eax
    mov [tasks_out + 36], eax
    mov eax, [esp]
    sub eax, offset tasks_new
    mov [tasks_out + 40], eax
    mov eax, [esp + 8]
    mov [tasks_out + 44], eax
    xor eax, eax
    str ax
    mov [tasks_out + 48], eax
    jmp tasks_end

    // #DB: noted, and on.
tasks_v1:
    push eax
    mov eax, dr6
    mov [tasks_out + 52], eax
    mov eax, [esp + 12]
    mov [tasks_out + 56], eax
    mov eax, [esp + 4]
    sub eax, offset tasks_new
    mov [tasks_out + 60], eax
    mov eax, 0xffff0ff0
    mov dr6, eax
    pop eax
    iretd

tasks_end:
    cli
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [tasks_esp]
    pushfd
    and dword ptr [esp], 0xffffbeff
    popfd
    mov eax, cr0
    and eax, 0x7ffffff7
    mov cr0, eax
    mov eax, 0x400
    mov dr7, eax
    // 64-bit mode does not take a 16-bit TSS along.
    mov byte ptr [tasks_gdt + 0x25], 0x89
    mov eax, 0x20
    ltr ax
    // The caller's code and data segments are as wide.
    ret
    .code64

    .section .data.tasks, "aw"
    .balign 16
    .globl tasks_gdt
tasks_gdt: .skip 128
    .globl tasks_idt
tasks_idt: .skip 0x188
    .balign 16
    .globl tasks_old
tasks_old: .skip 0x68
    .balign 16
    .globl tasks_next
tasks_next: .skip 0x68
    .globl tasks_out
tasks_out: .skip 64
    .globl tasks_directory
tasks_directory: .long 0
    .globl tasks_vector
tasks_vector: .long 0
tasks_how: .long 0
tasks_esp: .long 0
tasks_gdtr: .short 127
    .long tasks_gdt
tasks_idtr: .short 0x187
    .long tasks_idt
    .globl tasks_handlers
    .balign 4
tasks_handlers:
    .long 1, tasks_v1, 6, tasks_v6, 8, tasks_v8, 10, tasks_v10, 11, tasks_v11, 12, tasks_v12
    .long 13, tasks_v13, 14, tasks_v14
    .text

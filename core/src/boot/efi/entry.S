# From the firmware to Rust, and back. AT&T syntax.
#
# The firmware has loaded the image anywhere, one byte of it after the other as
# it is linked (`umbra.efi` is the image with another head), and calls
# umbra_efi_entry with its own tables and stack. The code here runs at two
# linear addresses: where it was loaded, which the firmware's tables map one to
# one, and where it is linked.
.set UNSUPPORTED, 0x8000000000000003

.section .boot.text, "ax"
.code64
# In: RCX = image handle, RDX = system table (UEFI Specification, "Handoff
#     State"). Out: RAX = status, if Umbra or what it starts comes back.
.global umbra_efi_entry
umbra_efi_entry:
    push %rbx
    push %rbp
    push %rdi
    push %rsi
    push %r12
    push %r13
    push %r14
    push %r15
    sub $168, %rsp                           # XMM6-XMM15; a multiple of 16
    movaps %xmm6, 0(%rsp)
    movaps %xmm7, 16(%rsp)
    movaps %xmm8, 32(%rsp)
    movaps %xmm9, 48(%rsp)
    movaps %xmm10, 64(%rsp)
    movaps %xmm11, 80(%rsp)
    movaps %xmm12, 96(%rsp)
    movaps %xmm13, 112(%rsp)
    movaps %xmm14, 128(%rsp)
    movaps %xmm15, 144(%rsp)
    cld
    mov %rcx, %r12
    mov %rdx, %r13

    movabs $UNSUPPORTED, %rax
    mov %cr4, %rcx
    test $(1 << 12), %ecx                    # five levels of tables
    jnz umbra_efi_leave

    lea image_start(%rip), %rbx
    # 2 MiB pages over the low 4 GiB, for PHYSMAP.
    lea early_pd(%rip), %rdi
    mov %rdi, %rdx
    mov $0x83, %eax
    mov $2048, %ecx
1:  stosq
    add $0x200000, %rax
    loop 1b
    lea early_pdpt(%rip), %rdi
    lea 3(%rdx), %rax
    mov $4, %ecx
2:  stosq
    add $0x1000, %rax
    loop 2b
    # 4 KiB pages over the image.
    lea efi_image_pt(%rip), %rdi
    lea 3(%rdi), %rdx
    lea 3(%rbx), %rax
    mov $512, %ecx
3:  stosq
    add $0x1000, %rax
    loop 3b
    lea efi_image_pd(%rip), %rdi
    mov %rdx, 8(%rdi)                        # the second 2 MiB
    lea 3(%rdi), %rax
    lea early_pdpt_image(%rip), %rdi
    mov %rax, 510 * 8(%rdi)
    lea 3(%rdi), %rdx
    # The firmware's root, with PHYSMAP and the image besides.
    mov %cr3, %rsi
    mov %rsi, efi_firmware_cr3(%rip)
    and $~0xfff, %rsi
    lea early_pml4(%rip), %rdi
    mov %rdi, %rax
    mov $512, %ecx
    rep movsq
    lea early_pdpt + 3(%rip), %rcx
    mov %rcx, 256 * 8(%rax)
    mov %rdx, 511 * 8(%rax)
    mov %rsp, efi_frame(%rip)
    mov %rbx, efi_loaded_at(%rip)
    mov %rax, %cr3
    movabs $4f, %rax
    jmp *%rax
4:  mov %r12, %rdi
    mov %r13, %rsi
    xor %ebp, %ebp
    call umbra_efi_main
    ud2

# In: RDI = status. Back to the firmware from anywhere on its stack, with its
# tables.
.global umbra_efi_refuse
umbra_efi_refuse:
    mov efi_frame(%rip), %rsp
    mov efi_firmware_cr3(%rip), %rcx
    lea umbra_efi_leave(%rip), %rdx          # to where it was loaded
    lea image_start(%rip), %rax
    sub %rax, %rdx
    add efi_loaded_at(%rip), %rdx
    lea umbra_efi_switch(%rip), %rbx
    sub %rax, %rbx
    add efi_loaded_at(%rip), %rbx
    mov %rdi, %rax
    jmp *%rbx
umbra_efi_switch:
    mov %rcx, %cr3
    jmp *%rdx

# L1 begins here, where the image was loaded, with the firmware's tables and
# stack. RAX = StartImage, RCX = the next image's handle, RDX = R8 = 0.
.global umbra_efi_l1
umbra_efi_l1:
    sub $32, %rsp
    call *%rax
    add $32, %rsp
umbra_efi_leave:
    movaps 0(%rsp), %xmm6
    movaps 16(%rsp), %xmm7
    movaps 32(%rsp), %xmm8
    movaps 48(%rsp), %xmm9
    movaps 64(%rsp), %xmm10
    movaps 80(%rsp), %xmm11
    movaps 96(%rsp), %xmm12
    movaps 112(%rsp), %xmm13
    movaps 128(%rsp), %xmm14
    movaps 144(%rsp), %xmm15
    add $168, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rsi
    pop %rdi
    pop %rbp
    pop %rbx
    ret

# Leaves the firmware's stack, segments and control registers: calls
# umbra_efi_launch on the boot stack. Does not return.
.global umbra_efi_to_boot_stack
umbra_efi_to_boot_stack:
    cli
    cld
    mov %cr0, %rax
    and $0x60000000, %eax                    # CD and NW stay (entry.S)
    or $0x80010033, %eax
    mov %rax, %cr0
    mov $0x620, %eax                         # PAE, OSFXSR, OSXMMEXCPT
    mov %rax, %cr4
    movabs $boot_stack_top, %rsp
    movabs $efi_gdt_pointer, %rax
    lgdt (%rax)
    pushq $8
    movabs $5f, %rax
    push %rax
    lretq
5:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    xor %ebp, %ebp
    call umbra_efi_launch
    ud2

.section .rodata, "a"
.balign 8
efi_gdt_pointer:
    .short early_gdt_pointer - early_gdt - 1
    .quad early_gdt

.section .data, "aw"
.balign 8
.global efi_frame, efi_firmware_cr3, efi_loaded_at
efi_frame:        .quad 0                    # RSP of the firmware at the frame
efi_firmware_cr3: .quad 0
efi_loaded_at:    .quad 0                    # physical address of image_start

.section .bss.pages, "aw", @nobits
.balign 4096
efi_image_pd:     .skip 4096
efi_image_pt:     .skip 4096

# From the boot loader to Rust. AT&T syntax.
#
# In:  32-bit protected mode, paging off, interrupts off, at physical
#      (umbra_entry - IMAGE_VIRTUAL_BASE); EAX = magic, EBX = boot information.
# Out: 64-bit mode at the linked address, RSP = boot_stack_top, and the early
#      tables: identity and `PHYSMAP` over the low 4 GiB, the image at its
#      linked address. Calls umbra_boot(magic, boot information).
#
# Symbols are linked high; P(x) is where the loader put x.
.set IMAGE_VIRTUAL_BASE, 0xffffffff80000000
.set MULTIBOOT2_MAGIC, 0x36d76289
.set COM1, 0x3f8

.section .multiboot2, "a"
.balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0                                  # i386
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + 0 + (multiboot2_header_end - multiboot2_header))
    # Entry address: physical.
    .balign 8
    .short 3, 0
    .long 12
    .long umbra_entry - IMAGE_VIRTUAL_BASE
    # Modules on page boundaries.
    .balign 8
    .short 6, 0
    .long 8
    # End.
    .balign 8
    .short 0, 0
    .long 8
multiboot2_header_end:

.section .boot.text, "ax"
.code32
.global umbra_entry
umbra_entry:
    cli
    cld
    mov $(boot_stack_top - IMAGE_VIRTUAL_BASE), %esp
    mov %eax, %edi                           # both kept to the end
    mov %ebx, %esi

    cmp $MULTIBOOT2_MAGIC, %edi
    jne not_multiboot2

    # CPUID exists when EFLAGS.ID can be changed.
    pushfl
    pop %eax
    mov %eax, %ecx
    xor $(1 << 21), %eax
    push %eax
    popfl
    pushfl
    pop %eax
    xor %ecx, %eax
    test $(1 << 21), %eax
    jz no_long_mode

    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb no_long_mode
    mov $0x80000001, %eax
    cpuid
    test $(1 << 29), %edx                    # LM
    jz no_long_mode

    # Four page directories: 2 MiB pages over the low 4 GiB.
    mov $(early_pd - IMAGE_VIRTUAL_BASE), %edx
    mov $0x83, %eax                          # present, writable, 2 MiB
    xor %ecx, %ecx
1:  mov %eax, (%edx, %ecx, 8)
    movl $0, 4(%edx, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jb 1b
    # A directory-pointer table with those four, and one for the image.
    mov $(early_pdpt - IMAGE_VIRTUAL_BASE), %ecx
    lea 3(%edx), %eax
    mov %eax, 0(%ecx)
    add $0x1000, %eax
    mov %eax, 8(%ecx)
    add $0x1000, %eax
    mov %eax, 16(%ecx)
    add $0x1000, %eax
    mov %eax, 24(%ecx)
    lea 3(%edx), %eax
    mov %eax, (early_pdpt_image + 510 * 8 - IMAGE_VIRTUAL_BASE)
    # The root: identity (0), PHYSMAP (256), the image (511).
    mov $(early_pml4 - IMAGE_VIRTUAL_BASE), %edx
    lea 3(%ecx), %eax
    mov %eax, (%edx)
    mov %eax, 256 * 8(%edx)
    movl $(early_pdpt_image - IMAGE_VIRTUAL_BASE + 3), 511 * 8(%edx)

    mov %edx, %cr3
    mov $0x620, %eax                         # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $0xc0000080, %ecx                    # EFER.LME
    rdmsr
    or $0x100, %eax
    wrmsr
    # VM entry and exit leave CD and NW alone: L1 is to find them as they are.
    mov %cr0, %eax
    and $0x60000000, %eax                    # CD, NW
    or $0x80010033, %eax                     # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    lgdt (early_gdt_pointer - IMAGE_VIRTUAL_BASE)
    ljmp $8, $(long_mode - IMAGE_VIRTUAL_BASE)

not_multiboot2:
    mov $(text_not_multiboot2 - IMAGE_VIRTUAL_BASE), %esi
    jmp refuse
no_long_mode:
    mov $(text_no_long_mode - IMAGE_VIRTUAL_BASE), %esi
refuse:
    # COM1 at 115200 8n1: (port offset, value) pairs.
    mov $(com1_settings - IMAGE_VIRTUAL_BASE), %ebx
    mov $6, %ecx
2:  movzbl (%ebx), %edx
    add $COM1, %edx
    mov 1(%ebx), %al
    out %al, %dx
    add $2, %ebx
    loop 2b
3:  lodsb
    test %al, %al
    jz 5f
    mov %al, %bl
    mov $0x100000, %ecx                      # a UART that is not there
    mov $(COM1 + 5), %dx
4:  in %dx, %al
    test $0x20, %al
    loopz 4b
    mov $COM1, %dx
    mov %bl, %al
    out %al, %dx
    jmp 3b
5:  hlt
    jmp 5b

.code64
long_mode:
    movabs $6f, %rax
    jmp *%rax
6:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    movabs $boot_stack_top, %rsp
    xor %ebp, %ebp
    mov %edi, %edi                           # upper halves are undefined
    mov %esi, %esi
    call umbra_boot
    ud2

.section .rodata, "a"
text_no_long_mode:
    .asciz "umbra: cannot start: this CPU has no 64-bit mode\r\n"
text_not_multiboot2:
    .asciz "umbra: cannot start: the boot loader did not use multiboot2 (GRUB: `multiboot2`)\r\n"
com1_settings:
    .byte 1, 0x00, 3, 0x80, 0, 0x01, 1, 0x00, 3, 0x03, 2, 0x07
.balign 8
early_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                 # 64-bit code
    .quad 0x00cf93000000ffff                 # data
early_gdt_pointer:
    .short early_gdt_pointer - early_gdt - 1
    .long early_gdt - IMAGE_VIRTUAL_BASE

.section .bss.pages, "aw", @nobits
.balign 4096
early_pml4:       .skip 4096
early_pdpt:       .skip 4096
early_pdpt_image: .skip 4096
early_pd:         .skip 4 * 4096
boot_stack:       .skip 128 * 1024
.global boot_stack_top
boot_stack_top:

# From a start-up IPI to Rust. AT&T syntax.
#
# `ap_trampoline` to `ap_trampoline_end` is copied to a page below 1 MiB,
# which the start-up IPI names: CS:IP is that page's segment and 0. The
# parameters at its end are filled in by `smp.rs`.

.section .rodata, "a"
.balign 16
.global ap_trampoline
ap_trampoline:
.code16
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movzwl %ax, %ebx
    shl $4, %ebx                             # kept: the page's address
    lgdtl (ap_gdt_pointer - ap_trampoline)
    mov %cr0, %eax
    and $0x60000000, %eax                    # CD and NW stay L1's (entry.S)
    or $0x11, %eax                           # PE, ET
    mov %eax, %cr0
    ljmpl *(ap_far_32 - ap_trampoline)

.code32
ap_protected:
    mov $24, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x620, %eax                         # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov (ap_cr3 - ap_trampoline)(%ebx), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx                    # EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80010033, %eax                     # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmpl *(ap_far_64 - ap_trampoline)(%ebx)

.code64
ap_long:
    mov $24, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %ebx, %ebx
    mov (ap_stack - ap_trampoline)(%rbx), %rsp
    mov (ap_index - ap_trampoline)(%rbx), %rdi
    mov (ap_entry - ap_trampoline)(%rbx), %rax
    xor %ebp, %ebp
    call *%rax
    ud2

.balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                 # 8: 64-bit code
    .quad 0x00cf9b000000ffff                 # 16: 32-bit code
    .quad 0x00cf93000000ffff                 # 24: data
ap_gdt_pointer:
    .short ap_gdt_pointer - ap_gdt - 1
    .global ap_gdt_base
ap_gdt_base:
    .long ap_gdt - ap_trampoline             # plus the page's address
    .global ap_far_32
ap_far_32:
    .long ap_protected - ap_trampoline       # plus the page's address
    .short 16
    .global ap_far_64
ap_far_64:
    .long ap_long - ap_trampoline            # plus the page's address
    .short 8
.balign 8
    .global ap_cr3
ap_cr3:   .quad 0
    .global ap_stack
ap_stack: .quad 0
    .global ap_index
ap_index: .quad 0
    .global ap_entry
ap_entry: .quad 0
    .global ap_trampoline_end
ap_trampoline_end:

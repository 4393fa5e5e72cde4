// See real.rs.
    .text
    .code32
    .globl legacy_real
legacy_real:
    mov [legacy_real_esp], esp
    .byte 0xea
    .long {low} + {code}
    .short {code16}
legacy_real_back:
    mov eax, {flat}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [legacy_real_esp]
    ret

    // Copied to the low page: still protected mode, with 16-bit segments of base 0.
    .code16
    .globl legacy_low
legacy_low:
    mov ax, {data16}
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and eax, 0xfffffffe
    mov cr0, eax
    .byte 0xea
    .word {code} + 2f - legacy_low
    .word {low} >> 4
2:  mov ax, {low} >> 4
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x1000
    .byte 0x66, 0x0f, 0x01, 0x1e
    .word {code} + legacy_real_idtr - legacy_low
    mov cx, [{in_out} + 4]
    mov bx, [{in_out} + 8]
    push dword ptr [{in_out}]
    popfd
    .byte 0xe9
    .word {cell} - {code} - (3f - legacy_low)
3:

    // One handler a vector, 8 bytes apart; no vector has an error code here.
    .balign 8
legacy_real_stubs:
    .set legacy_vector, 0
    .rept 32
    .balign 8
    .byte 0x6a, legacy_vector
    .byte 0xe9
    .word legacy_real_common - (. + 2)
    .set legacy_vector, legacy_vector + 1
    .endr
legacy_real_common:
    pop word ptr [{in_out}]
    pop word ptr [{in_out} + 4]
    pop word ptr [{in_out} + 8]
    pop word ptr [{in_out} + 12]
    mov [{in_out} + 16], esp
    .byte 0x66, 0x0f, 0x01, 0x16
    .word {code} + legacy_real_gdtr - legacy_low
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long legacy_real_back
    .word {code32}
legacy_real_idtr:
    .word 0x7f
    .long {low}
    .globl legacy_real_gdtr
legacy_real_gdtr:
    .word 0
    .long 0
    .globl legacy_low_end
legacy_low_end:
    .code64

    .section .data.legacy_real, "aw"
    .balign 4
legacy_real_esp: .long 0
    .text

//! Out of 64-bit mode and back: what control registers do on the way, and the BIOS in real mode.
//!
//! SDM "Initializing IA-32e Mode", "PDPTE Registers", "Switching Back to Real-Address Mode"; INT 15h
//! function E820h of the ACPI Specification, "Int 15H, E820H - Query System Address Map".

use core::arch::{asm, global_asm};
use rt::case;

use rt::page::Page;
use rt::trip;

use crate::memory::{Range, describe};

/// A page of conventional memory that neither firmware nor loader uses any more.
const LOW: u64 = 0x8000;
/// Where the BIOS puts an entry of its map, within that page.
const ENTRY: u64 = LOW + 0x800;

global_asm!(
    r#"
    .code32
    // #GP: goes on where modes_resume says, and counts.
modes_gp32:
    add esp, 4
    inc dword ptr [modes_faults]
    mov eax, [modes_resume]
    mov [esp], eax
    iretd

    .globl modes_pae
    // For each PDPT of modes_tables: PAE on, CR3 there, paging on; bit n of EAX: it faulted. Then the
    // same by MOV to CR3 while paging is on.
modes_pae:
    lidt [modes_idtr32]
    mov ecx, 0xc0000080
    rdmsr
    mov [modes_efer_off], eax
    mov eax, 0x20
    mov cr4, eax
    mov dword ptr [modes_result], 0
    xor esi, esi
modes_l6:  mov eax, [modes_tables + esi * 4]
    mov cr3, eax
    mov dword ptr [modes_resume], offset modes_l7
    mov edi, [modes_faults]
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
modes_l7:  // Off again, for the next.
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    cmp edi, [modes_faults]
    je modes_l8
    bts dword ptr [modes_result], esi
modes_l8:  inc esi
    cmp esi, 8
    jb modes_l6
    // The first is a good one: paging on with it, and the others by MOV to CR3.
    mov eax, [modes_tables]
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    xor esi, esi
modes_l9:  mov dword ptr [modes_resume], offset modes_l20
    mov edi, [modes_faults]
    mov eax, [modes_tables + esi * 4]
    mov cr3, eax
modes_l20: cmp edi, [modes_faults]
    je modes_l21
    lea ecx, [esi + 8]
    bts dword ptr [modes_result], ecx
modes_l21: inc esi
    cmp esi, 8
    jb modes_l9
    // PAE off and on again loads them anew; then LME with paging on faults.
    mov dword ptr [modes_resume], offset modes_l12
    mov edi, [modes_faults]
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
modes_l12: cmp edi, [modes_faults]
    je modes_l13
    bts dword ptr [modes_result], 16
modes_l13: mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    // Paging without protection faults; and NW without CD.
    mov dword ptr [modes_resume], offset modes_l14
    mov edi, [modes_faults]
    mov eax, cr0
    and eax, 0xfffffffe
    or eax, 0x80000000
    mov cr0, eax
modes_l14: cmp edi, [modes_faults]
    je modes_l15
    bts dword ptr [modes_result], 17
modes_l15: // LME and no PAE: paging on faults.
    mov dword ptr [modes_resume], offset modes_l16
    xor eax, eax
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov edi, [modes_faults]
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
modes_l16: cmp edi, [modes_faults]
    je modes_l17
    bts dword ptr [modes_result], 18
modes_l17: mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    mov eax, [modes_result]
    ret

    .globl modes_bios
    // Real mode, one call of INT 15h, and back: registers in and out at the low page.
modes_bios:
    mov [modes_esp], esp
    .byte 0xea
    .long 0x8000
    .short 0x20
modes_bios_back:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [modes_esp]
    xor eax, eax
    ret

    // Copied to the low page, and run there with CS base 0 first.
    .code16
modes_low:
    mov eax, 0x28
    mov ds, ax
    mov es, ax
    mov ss, ax
    // CR4 0: real mode as the BIOS knows it.
    xor eax, eax
    mov cr4, eax
    mov eax, cr0
    and eax, 0xfffffffe
    mov cr0, eax
    .byte 0xea
    .word modes_real - modes_low
    .word 0x800
modes_real:
    mov ax, 0x800
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x1000
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x1e
    .word modes_ivt - modes_low
    mov eax, dword ptr [0x700]
    mov ebx, dword ptr [0x704]
    mov ecx, dword ptr [0x70c]
    mov edx, dword ptr [0x710]
    mov edi, 0x800
    int 0x15
    pushfd
    cli
    mov dword ptr [0x720], eax
    mov dword ptr [0x724], ebx
    mov dword ptr [0x728], ecx
    mov dword ptr [0x72c], esp
    pop eax
    mov dword ptr [0x730], eax
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x16
    .word modes_low_gdtr - modes_low
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long modes_bios_back
    .word 0x18
modes_ivt:
    .word 0x3ff
    .long 0
modes_low_gdtr:
    .word 0
    .long 0
modes_low_end:
    .code64

    .section .data.modes, "aw"
    .balign 16
modes_esp: .long 0
    .globl modes_efer_off
modes_efer_off: .long 0
modes_faults: .long 0
modes_resume: .long 0
modes_result: .long 0
    .globl modes_tables
modes_tables: .skip 32
    .globl modes_idt32
modes_idt32: .skip 256
modes_idtr32:
    .short 255
    .long modes_idt32
    .text
    "#
);

unsafe extern "C" {
    static modes_pae: u8;
    static modes_bios: u8;
    static modes_low: u8;
    static modes_low_end: u8;
    static modes_low_gdtr: u8;
    static modes_gp32: u8;
    static mut modes_tables: [u32; 8];
    static mut modes_idt32: [u64; 32];
    static modes_efer_off: u32;
}

/// PDPTEs with what is wrong in them: the second entry of each table.
const SECOND: [(u64, &str); 8] = [
    (0, "not present"),
    (0x1e6, "not present, reserved bits"),
    (1, "present"),
    (3, "bit 1"),
    (5, "bit 2"),
    (0x21, "bit 5"),
    (0x101, "bit 8"),
    (1 | 1 << 63, "bit 63"),
];

fn pae() {
    let directory = Page::alloc(4);
    // The first 2 MiB and the next, one to one, as large pages.
    for entry in 0..4u64 {
        directory.write(entry * 8, entry << 21 | 0x83);
    }
    // SAFETY: statics of the code above, used by nobody else; a 32-bit interrupt gate for #GP.
    unsafe {
        for (n, (second, _)) in SECOND.into_iter().enumerate() {
            let table = Page::alloc(1);
            table.write(0, directory.address() | 1);
            table.write(8, second);
            modes_tables[n] = table.address() as u32;
        }
        let handler = &raw const modes_gp32 as u64;
        modes_idt32[13] = handler & 0xffff | 0x18 << 16 | 0x8e00 << 32 | (handler >> 16) << 48;
    }
    // SAFETY: the code returns as it was called, with paging off.
    let result = unsafe { trip::call32(&raw const modes_pae as u32, 0) };
    for (n, (_, what)) in SECOND.into_iter().enumerate() {
        case!(
            "pdpte {what}: #GP by CR0 {}, by CR3 {}",
            result >> n & 1,
            result >> (n + 8) & 1
        );
    }
    case!("LME while paging is on: #GP {}", result >> 16 & 1);
    case!("paging without protection: #GP {}", result >> 17 & 1);
    case!("paging with LME without PAE: #GP {}", result >> 18 & 1);
    // SAFETY: written by the trip.
    case!("EFER out of long mode: {:x}", unsafe {
        (&raw const modes_efer_off).read_volatile()
    });
}

/// EAX, EBX, ECX, ESP (with the flags pushed) and EFLAGS after an INT 15h.
fn bios(eax: u32, ebx: u32, ecx: u32, edx: u32) -> [u32; 5] {
    let low = LOW as *mut u8;
    let start = &raw const modes_low;
    // SAFETY: the low page is free memory, mapped one to one; the code is shorter than 0x700 bytes.
    unsafe {
        let length = &raw const modes_low_end as usize - start as usize;
        core::ptr::copy_nonoverlapping(start, low, length);
        let gdtr = low.add(&raw const modes_low_gdtr as usize - start as usize);
        gdtr.cast::<u16>().write_unaligned(rt::gdt::LIMIT);
        gdtr.add(2)
            .cast::<u32>()
            .write_unaligned(rt::gdt::base() as u32);
        for (offset, value) in [(0x700, eax), (0x704, ebx), (0x70c, ecx), (0x710, edx)] {
            low.add(offset).cast::<u32>().write_volatile(value);
        }
        trip::call32(&raw const modes_bios as u32, 0);
        [0x720, 0x724, 0x728, 0x72c, 0x730]
            .map(|offset: usize| low.add(offset).cast::<u32>().read_volatile())
    }
}

fn e820() {
    const SMAP: u32 = 0x534d_4150;
    let mut ranges = [Range {
        start: 0,
        bytes: 0,
        kind: 0,
    }; 64];
    let (mut count, mut next) = (0, 0);
    let mut is_ended = false;
    while count < ranges.len() {
        let [eax, ebx, ecx, esp, eflags] = bios(0xe820, next, 20, SMAP);
        if eflags & 1 != 0 || eax != SMAP {
            case!("e820: stops with CF {} EAX {eax:x}", eflags & 1);
            is_ended = true;
            break;
        }
        if count == 0 {
            case!("e820: {ecx} bytes, stack moved by {}", 0x1000 - esp);
        }
        // SAFETY: the BIOS wrote it into the low page.
        ranges[count] = unsafe {
            Range {
                start: (ENTRY as *const u64).read_volatile(),
                bytes: ((ENTRY + 8) as *const u64).read_volatile(),
                kind: ((ENTRY + 16) as *const u32).read_volatile(),
            }
        };
        count += 1;
        next = ebx;
        if next == 0 {
            is_ended = true;
            break;
        }
    }
    case!("e820 ends: {is_ended}");
    describe("e820", &ranges[..count]);
    let [_, _, _, _, eflags] = bios(0xe820, 0, 20, 0x1234_5678);
    case!("e820 with a wrong signature: CF {}", eflags & 1);
    let [eax, ..] = bios(0xc000, 0, 0, 0);
    case!("int 15h, c0: AH {:x}", eax >> 8 & 0xff);
}

/// Makes the trips.
pub fn run() {
    pae();
    e820();
    // SAFETY: the BIOS may have unmasked lines of the interrupt controllers.
    unsafe { asm!("cli", options(nomem, nostack)) };
    for port in [0x21, 0xa1] {
        rt::cpu::outb(port, 0xff);
    }
}

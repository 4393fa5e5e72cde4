//! From the multiboot 1 entry point to 64-bit Rust.
//!
//! The header carries the address fields (flag bit 16), so a loader copies the file to 1 MiB
//! without looking at its ELF class. Section title: "The layout of Multiboot header" of the
//! Multiboot Specification 0.6.96.

use core::arch::global_asm;

use crate::{cmdline::Words, console, cpu, end, gdt, println, trap};

/// EAX at the entry point of a kernel loaded by multiboot 1.
const MULTIBOOT_MAGIC: u32 = 0x2bad_b002;
/// "flags" bit 2 of the multiboot information: the command line is there.
const INFO_CMDLINE: u32 = 1 << 2;

global_asm!(
    r#"
    .section .multiboot, "a"
    .balign 4
mb_header:
    .long 0x1badb002
    .long 0x00010003
    .long -(0x1badb002 + 0x00010003)
    .long mb_header
    .long image_start
    .long image_load_end
    .long image_bss_end
    .long boot32

    .section .text.boot, "ax"
    .code32
    .globl boot32
boot32:
    // What the loader left, before anything changes it: EAX, EBX, CR0, EFLAGS.
    mov [boot_state], eax
    mov [boot_state + 4], ebx
    mov esp, offset boot_stack_top
    pushfd
    pop dword ptr [boot_state + 12]
    mov eax, cr0
    mov [boot_state + 8], eax
    cli
    cld
    mov esi, [boot_state]
    mov ebp, ebx
    mov edi, offset image_bss_start
    mov ecx, offset image_bss_end
    sub ecx, edi
    xor eax, eax
    rep stosb
    mov esp, offset boot_stack_top

    // Identity map of the first 4 GiB by 2 MiB pages: four directories, one after another.
    mov edi, offset boot_pd
    mov eax, 0x83
    xor edx, edx
    mov ecx, 2048
2:  mov [edi], eax
    mov [edi + 4], edx
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    mov edi, offset boot_pdpt
    mov eax, offset boot_pd
    or eax, 3
    mov ecx, 4
3:  mov [edi], eax
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 3b
    mov eax, offset boot_pdpt
    or eax, 3
    mov [boot_pml4], eax

    // CR4: PAE, OSFXSR, OSXMMEXCPT. CR0 keeps nothing of the loader's: PE, MP, ET, NE, WP, PG.
    mov eax, 0x620
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    xor edx, edx
    mov eax, 0x100
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    lgdt [boot_gdtr]
    .byte 0xea
    .long boot64
    .short 0x08

    .code64
boot64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset boot_stack_top
    mov edi, esi
    mov esi, ebp
    xor ebp, ebp
    call {start}
    ud2

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdtr:
    .short 23
    .long boot_gdt
    .balign 4
boot_state: .skip 16

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .globl boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
    .skip 65536
boot_stack_top:
    .text
    "#,
    start = sym start,
);

/// Registers at the entry point.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StartState {
    pub eax: u32,
    pub ebx: u32,
    pub cr0: u32,
    pub eflags: u32,
}

/// What the boot loader left for the program.
pub struct Boot {
    cmdline: &'static [u8],
}

unsafe extern "C" {
    static boot_state: StartState;
}

impl Boot {
    /// The registers at the entry point; EBX holds the physical address of the multiboot
    /// information.
    pub fn start_state(&self) -> StartState {
        // SAFETY: written once, by the first instructions of the program.
        unsafe { (&raw const boot_state).read_volatile() }
    }

    /// The words of the command line, without the kernel's own path if the loader put it first.
    pub fn words(&self) -> Words {
        Words::new(self.cmdline)
    }
}

unsafe extern "Rust" {
    fn testvm_main(boot: &Boot);
}

/// The first Rust code: `magic` and `info_address` are EAX and EBX of the entry point.
extern "C" fn start(magic: u32, info_address: u32) -> ! {
    console::init();
    gdt::init();
    trap::init();
    cpu::mask_legacy_interrupts();
    let boot = Boot {
        cmdline: find_cmdline(magic, info_address),
    };
    // SAFETY: defined by `entry!` in the program with this very signature.
    unsafe { testvm_main(&boot) };
    end::end_run()
}

/// The command line of the multiboot information, or nothing.
fn find_cmdline(magic: u32, info_address: u32) -> &'static [u8] {
    if magic != MULTIBOOT_MAGIC {
        println!(
            "testvm: EAX is {magic:#x} at the entry point, not multiboot 1's {MULTIBOOT_MAGIC:#x}"
        );
        end::end_run()
    }
    let info = info_address as usize as *const u32;
    // SAFETY: the loader says that EBX addresses the multiboot information, whose first five words
    // always exist; the first 4 GiB are mapped one to one.
    let (flags, cmdline) = unsafe { (info.read_unaligned(), info.add(4).read_unaligned()) };
    if flags & INFO_CMDLINE == 0 {
        return &[];
    }
    let start = cmdline as usize as *const u8;
    // SAFETY: the information says that a C string starts there; nothing writes to it afterwards.
    // At most 4 KiB of it are looked at.
    unsafe {
        let mut length = 0;
        while length < 4096 && start.add(length).read() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(start, length)
    }
}

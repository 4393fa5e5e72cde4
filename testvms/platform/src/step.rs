//! Single steps and breakpoints on instructions that a hypervisor carries out itself: each gives
//! the one debug exception that a CPU gives, at the same place.
//!
//! SDM "Debug Exceptions", "Masking Exceptions and Interrupts When Switching Stacks".

use core::arch::{asm, global_asm};
use rt::case;

use rt::page::Page;
use rt::run::{Place, run as run_piece};
use rt::trap::vector_name;
use rt::vmx::stub::Registers;
use rt::{cpu, gdt};

/// Defines pieces of code, each with `addresses()`: its start and the label `3` inside it.
macro_rules! pieces {
    ($($name:ident $text:literal $($line:literal),+;)*) => {
        global_asm!($(
            ".section .text.pieces, \"ax\"",
            concat!("step_", stringify!($name), ":"),
            $($line,)+
            "int3",
            concat!("step_", stringify!($name), "_at = 3b"),
            ".text",
        )*);
        $(
            fn $name() -> Piece {
                let (start, at): (u64, u64);
                // SAFETY: takes two addresses.
                unsafe {
                    asm!(concat!("lea {}, [rip + step_", stringify!($name), "]"),
                        concat!("lea {}, [rip + step_", stringify!($name), "_at]"),
                        out(reg) start, out(reg) at, options(nomem, nostack, preserves_flags));
                }
                Piece { name: $text, start, at }
            }
        )*
    };
}

struct Piece {
    name: &'static str,
    start: u64,
    at: u64,
}

// Each sets TF, and meets the trap behind the instruction that follows.
pieces! {
    nop "NOP" "pushfq", "or qword ptr [rsp], 0x100", "popfq", "3: nop", "nop", "nop";
    do_cpuid "CPUID" "mov eax, 1", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: cpuid", "nop", "nop";
    do_rdmsr "RDMSR" "mov ecx, 0x3a", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: rdmsr", "nop", "nop";
    do_wrmsr "WRMSR" "mov ecx, 0x2ff", "rdmsr", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: wrmsr", "nop", "nop";
    do_out "OUT" "mov edx, 0x3fb", "mov al, 3", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: out dx, al", "nop", "nop";
    do_in "IN" "mov edx, 0x3fb", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: in al, dx", "nop", "nop";
    do_ins "REP INS" "mov edx, 0x3fb", "mov ecx, 3", "lea rdi, [rsp - 64]", "pushfq",
        "or qword ptr [rsp], 0x100", "popfq", "3: rep insb", "nop", "nop";
    do_outs "REP OUTS" "mov edx, 0x3fb", "mov ecx, 3", "lea rsi, [rip + 4f]", "pushfq",
        "or qword ptr [rsp], 0x100", "popfq", "3: rep outsb", "nop", "int3", "4: .byte 3, 3, 3";
    do_cr0 "MOV to CR0" "mov rax, cr0", "xor eax, 0x20", "pushfq", "or qword ptr [rsp], 0x100",
        "popfq", "3: mov cr0, rax", "nop", "nop";
    do_cr4 "MOV to CR4" "mov rax, cr4", "xor eax, 0x2000", "pushfq", "or qword ptr [rsp], 0x100",
        "popfq", "3: mov cr4, rax", "nop", "nop";
    do_wbinvd "WBINVD" "pushfq", "or qword ptr [rsp], 0x100", "popfq", "3: wbinvd", "nop", "nop";
    do_rdtsc "RDTSC" "pushfq", "or qword ptr [rsp], 0x100", "popfq", "3: rdtsc", "nop", "nop";
    bad_wrmsr "WRMSR that faults" "mov ecx, 0x480", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: wrmsr", "nop", "nop";
    ss_cpuid "MOV SS, CPUID" "mov ecx, 0x10", "mov eax, 1", "pushfq", "or qword ptr [rsp], 0x100",
        "popfq", "mov ss, ecx", "3: cpuid", "nop", "nop";
    ss_out "MOV SS, OUT" "mov ecx, 0x10", "mov edx, 0x3fb", "mov al, 3", "pushfq",
        "or qword ptr [rsp], 0x100", "popfq", "mov ss, ecx", "3: out dx, al", "nop", "nop";
    sti_cpuid "STI, CPUID" "mov eax, 1", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop",
        "3: sti", "cpuid", "nop";
    vm_read "VMREAD" "mov ecx, 0x4400", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        "3: vmread rax, rcx", "nop", "nop";
    vm_store "VMPTRST" "pushfq", "or qword ptr [rsp], 0x100", "popfq", "3: vmptrst [rsp - 64]", "nop",
        "nop";
    break_cpuid "a breakpoint at CPUID" "mov eax, 1", "nop", "3: cpuid", "nop";
    break_ss_cpuid "MOV SS and a breakpoint at CPUID" "mov ecx, 0x10", "mov eax, 1",
        "mov ss, ecx", "3: cpuid", "nop";
    resume_cpuid "RF at a breakpoint at CPUID" "mov r8, rsp", "mov eax, ss", "push rax", "push r8",
        "push 0x10002", "mov eax, cs", "push rax", "lea rax, [rip + 3f]", "push rax",
        "xor ebp, ebp", "iretq",
        "3: cpuid", "inc ebp", "cmp ebp, 2", "jb 3b";
    resume_out "RF at a breakpoint at OUT" "mov r8, rsp", "mov eax, ss", "push rax", "push r8",
        "push 0x10002", "mov eax, 0x08", "push rax", "lea rax, [rip + 3f]", "push rax",
        "xor ebp, ebp", "mov edx, 0x3fb", "mov eax, 3", "iretq",
        "3: out dx, al", "inc ebp", "cmp ebp, 2", "jb 3b";
}

// With a breakpoint on what they access: RSI and RDI point to it.
pieces! {
    watch_out "a port breakpoint at OUT" "mov edx, 0x3fb", "mov al, 3", "nop", "3: out dx, al", "nop", "nop";
    watch_in "a port breakpoint at IN" "mov edx, 0x3fb", "nop", "3: in al, dx", "nop", "nop";
    watch_outs "a data breakpoint at REP OUTS" "mov edx, 0x3fb", "mov ecx, 3", "3: rep outsb", "nop", "nop";
    watch_ins "a data breakpoint at REP INS" "mov edx, 0x3fb", "mov ecx, 3", "3: rep insb", "nop", "nop";
    watch_vmptrst "a data breakpoint at VMPTRST" "nop", "3: vmptrst [rdi]", "nop", "nop";
    watch_vmwrite "a data breakpoint at VMWRITE" "mov eax, 0x6800", "nop", "3: vmwrite rax, [rdi]", "nop", "nop";
    watch_mov "a data breakpoint at MOV" "nop", "3: mov [rdi + 1], al", "nop", "nop";
}

/// Breakpoints on accesses, of which the second byte or the port is watched.
fn watch(stack: &Page, in_vmx_operation: bool) {
    let buffer = Page::alloc(1);
    buffer.fill(3);
    let cr4 = cpu::cr4();
    const DE: u64 = 1 << 3;
    let all = [
        (watch_vmptrst(), buffer.address() + 1, 0x1_0402, 0),
        (watch_vmptrst(), buffer.address() + 7, 0x3_0402, 0),
        (watch_vmptrst(), buffer.address() + 8, 0x3_0402, 0),
        (watch_vmwrite(), buffer.address() + 1, 0x1_0402, 0),
        (watch_vmwrite(), buffer.address() + 1, 0x3_0402, 0),
        (watch_out(), 0x3fb, 0x2_0402, DE),
        (watch_out(), 0x3fb, 0x2_0402, 0),
        (watch_in(), 0x3fb, 0x2_0402, DE),
        (watch_outs(), buffer.address() + 1, 0x3_0402, 0),
        (watch_outs(), buffer.address() + 1, 0x1_0402, 0),
        (watch_outs(), 0x3fb, 0x2_0402, DE),
        (watch_ins(), buffer.address() + 1, 0x1_0402, 0),
        (watch_ins(), buffer.address() + 4, 0x1_0402, 0),
        (watch_mov(), buffer.address() + 1, 0x1_0402, 0),
    ];
    let (vmx, other) = all.split_at(5);
    for &(ref piece, address, dr7, de) in if in_vmx_operation { vmx } else { other } {
        // SAFETY: DE means nothing to this program.
        unsafe { cpu::set_cr4(cr4 & !DE | de) };
        set_breakpoint(address, dr7);
        let registers = Registers {
            rsi: buffer.address(),
            rdi: buffer.address(),
            ..Registers::default()
        };
        let place = Place {
            code: gdt::CODE64,
            stack: gdt::DATA,
            rip: piece.start,
            rsp: stack.address() + 2048,
            fs: 0,
        };
        let fault = run_piece(&place, &registers);
        let dr6 = dr6();
        set_breakpoint(0, 0x400);
        let offset = fault.rip.wrapping_sub(piece.at) as i64;
        case!(
            "step {}, DR7 {dr7:x}, DE {}: {} at {offset:+}, DR6 {dr6:x}",
            piece.name,
            de != 0,
            vector_name(fault.vector)
        );
    }
    // SAFETY: as it was.
    unsafe { cpu::set_cr4(cr4) };
}

fn set_breakpoint(address: u64, dr7: u64) {
    // SAFETY: a breakpoint on the piece alone; the trap table is ready for it.
    unsafe {
        asm!("mov dr0, {}", "mov dr6, {}", "mov dr7, {}", in(reg) address, in(reg) 0xffff_0ff0u64,
            in(reg) dr7, options(nostack, preserves_flags));
    }
}

fn dr6() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nostack, preserves_flags)) };
    value
}

fn show(place: &str, stack: &Page, piece: &Piece, breaks: bool) {
    set_breakpoint(piece.at, if breaks { 0x402 } else { 0x400 });
    let fault = run_piece(
        &Place {
            code: gdt::CODE64,
            stack: gdt::DATA,
            rip: piece.start,
            rsp: stack.address() + 2048,
            fs: 0,
        },
        &Registers::default(),
    );
    let dr6 = dr6();
    set_breakpoint(0, 0x400);
    let offset = fault.rip.wrapping_sub(piece.at) as i64;
    case!(
        "step {place}, {}: {} at {offset:+}, DR6 {:x}, RF {}",
        piece.name,
        vector_name(fault.vector),
        dr6,
        fault.rflags >> 16 & 1
    );
}

/// Steps outside VMX operation.
pub fn run() {
    let stack = Page::alloc(1);
    let cr0 = cpu::cr0();
    let cr4 = cpu::cr4();
    for piece in [
        nop(),
        do_cpuid(),
        do_rdmsr(),
        do_wrmsr(),
        do_out(),
        do_in(),
        do_ins(),
        do_outs(),
        do_cr0(),
        do_cr4(),
        do_wbinvd(),
        do_rdtsc(),
        bad_wrmsr(),
        ss_cpuid(),
        ss_out(),
        sti_cpuid(),
        vm_read(),
    ] {
        show("outside VMX", &stack, &piece, false);
        // SAFETY: as they were before the piece.
        unsafe {
            cpu::set_cr0(cr0);
            cpu::set_cr4(cr4);
        }
    }
    for piece in [
        break_cpuid(),
        break_ss_cpuid(),
        resume_cpuid(),
        resume_out(),
    ] {
        show("outside VMX", &stack, &piece, true);
    }
    watch(&stack, false);
}

/// Steps in VMX root operation.
pub fn run_in_vmx_operation() {
    let stack = Page::alloc(1);
    for piece in [do_cpuid(), do_out(), vm_read(), vm_store(), ss_cpuid()] {
        show("in VMX operation", &stack, &piece, false);
    }
    watch(&stack, true);
}

//! What L2 executes. CPUID ends a piece, VMCALL shows L1 where L2 is.

use rt::l2_code;

/// A piece of code, by the function that returns it.
pub type Code = fn() -> rt::vmx::vm::Code;

/// The linear address of the local APIC in L2.
pub const APIC: u64 = 0x3_f000;

/// VMCALL.
pub const VMCALL: [u8; 3] = [0x0f, 0x01, 0xc1];
/// A handler: NOP, VMCALL, IRET. The NOP is there because Bochs gets RIP wrong where the first
/// instruction of an NMI handler exits (`docs/errata.md`).
pub const HANDLER: [u8; 6] = [0x90, 0x0f, 0x01, 0xc1, 0x48, 0xcf];
/// Where L2's handler [`COUNTING`] counts.
pub const COUNTER: u64 = 0x9000;
/// A handler without an exit: INC of [`COUNTER`], IRET.
pub const COUNTING: [u8; 9] = [0xff, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, 0x48, 0xcf];
/// A handler that meets INT3 on its way: NOP, VMCALL, INT3, VMCALL, IRET.
pub const NESTING: [u8; 10] = [0x90, 0x0f, 0x01, 0xc1, 0xcc, 0x0f, 0x01, 0xc1, 0x48, 0xcf];
/// A handler that ends the experiment: NOP, VMCALL, CPUID.
pub const ENDING: [u8; 6] = [0x90, 0x0f, 0x01, 0xc1, 0x0f, 0xa2];
/// A handler that sends an NMI first.
pub const SENDING: [u8; 16] = [
    0xc7, 0x04, 0x25, 0x00, 0xf3, 0x03, 0x00, 0x00, 0x44, 0x00, 0x00, 0x0f, 0x01, 0xc1, 0x48, 0xcf,
];

/// Defines code for 64-bit mode alone.
macro_rules! code {
    ($($(#[$m:meta])* $name:ident = $($line:literal),+;)*) => {
        l2_code! { $($(#[$m])* fn $name { 64 = $($line),+; 32 = "nop"; 16 = "nop"; })* }
        /// The pieces by name.
        pub mod piece {
            $($(#[$m])* pub fn $name() -> rt::vmx::vm::Code { super::$name() })*
        }
    };
}

code! {
    /// A few instructions.
    idle = "nop", "nop", "nop", "nop", "cpuid";
    /// A VMCALL in the middle.
    call = "nop", "nop", "vmcall", "nop", "nop", "cpuid";
    /// Sends an NMI.
    send = "nop", "mov dword ptr [0x3f300], 0x4400", "nop", "nop", "vmcall", "nop", "cpuid";
    /// Sends two.
    send_two = "mov dword ptr [0x3f300], 0x4400", "mov dword ptr [0x3f300], 0x4400", "nop", "nop", "cpuid";
    /// Executes IRET to the next instruction.
    iret = "nop", "vmcall", "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8",
        "lea rbx, [rip + 2f]", "push rbx", "iretq", "2: nop", "nop", "vmcall", "cpuid";
    /// Sends an NMI, then does so.
    send_iret = "mov dword ptr [0x3f300], 0x4400", "nop", "vmcall", "mov rax, rsp", "push 0x10",
        "push rax", "pushfq", "push 8", "lea rbx, [rip + 2f]", "push rbx", "iretq",
        "2: nop", "nop", "vmcall", "cpuid";
    /// Sends two NMIs, then does so.
    send_two_iret = "mov dword ptr [0x3f300], 0x4400", "mov dword ptr [0x3f300], 0x4400", "nop",
        "vmcall", "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8",
        "lea rbx, [rip + 2f]", "push rbx", "iretq", "2: nop", "nop", "vmcall", "cpuid";
    /// Stops between the last PUSH of the frame and the IRET that pops it.
    framed_iret = "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8",
        "lea rbx, [rip + 2f]", "push rbx", "vmcall", "iretq", "2: nop", "nop", "vmcall", "cpuid";
    /// Executes IRET twice.
    iret_twice = "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8",
        "lea rbx, [rip + 2f]", "push rbx", "iretq", "2: nop", "vmcall",
        "mov rax, rsp", "push 0x10", "push rax", "pushfq", "push 8",
        "lea rbx, [rip + 3f]", "push rbx", "iretq", "3: nop", "vmcall", "cpuid";
    /// Halts.
    halt = "nop", "hlt", "nop", "vmcall", "cpuid";
    /// Halts with interrupts on.
    sti_halt = "sti", "hlt", "nop", "vmcall", "cpuid";
    /// Lets interrupts in.
    sti = "nop", "nop", "sti", "nop", "nop", "vmcall", "cpuid";
    /// Sends an NMI in the instruction after STI.
    sti_send = "sti", "mov dword ptr [0x3f300], 0x4400", "nop", "nop", "cpuid";
    /// Sends an NMI in the instruction after MOV SS.
    mov_ss_send = "mov eax, ss", "mov ss, eax", "mov dword ptr [0x3f300], 0x4400", "nop", "nop", "cpuid";
    /// Sends the maskable interrupt and an NMI, then lets interrupts in.
    send_both = "mov dword ptr [0x3f300], 0x44051", "nop", "mov dword ptr [0x3f300], 0x4400", "nop",
        "vmcall", "sti", "nop", "nop", "cpuid";
    /// Runs for ever.
    spin = "2: jmp 2b";
    /// Runs for ever, with exits.
    calls = "2: nop", "nop", "vmcall", "nop", "jmp 2b";
}

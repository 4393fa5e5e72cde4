//! VMX instructions, 32 in a row.

use core::arch::asm;

use rt::page::Page;
use rt::vmx::insn;

/// Instructions in one row.
pub const ROW: u64 = 32;

/// Ticks for a row of VMREAD.
pub fn vmread() -> u64 {
    let ticks: u64;
    // SAFETY: there is a current VMCS and the field exists; nothing but registers changes.
    unsafe {
        asm!(
            "rdtsc", "shl rdx, 32", "lea {start}, [rdx + rax]",
            ".rept 32", "vmread {value}, {field}", ".endr",
            "rdtsc", "shl rdx, 32", "add rax, rdx", "sub rax, {start}",
            start = out(reg) _, value = out(reg) _, field = in(reg) 0x681eu64,
            out("rax") ticks, out("rdx") _,
        );
    }
    ticks
}

/// Ticks for a row of VMWRITE.
pub fn vmwrite() -> u64 {
    let ticks: u64;
    // SAFETY: as for `vmread`; guest RIP is written again before L2 is entered.
    unsafe {
        asm!(
            "rdtsc", "shl rdx, 32", "lea {start}, [rdx + rax]",
            ".rept 32", "vmwrite {field}, {value}", ".endr",
            "rdtsc", "shl rdx, 32", "add rax, rdx", "sub rax, {start}",
            start = out(reg) _, value = in(reg) 0x8000u64, field = in(reg) 0x681eu64,
            out("rax") ticks, out("rdx") _,
        );
    }
    ticks
}

/// Ticks for a row of VMPTRLD, of two VMCSs in turn; the first is current at the end.
pub fn vmptrld(first: Page, second: Page) -> u64 {
    let (first, second) = (first.address(), second.address());
    let ticks: u64;
    // SAFETY: both are regions of this program's with the right revision.
    unsafe {
        asm!(
            "rdtsc", "shl rdx, 32", "lea {start}, [rdx + rax]",
            ".rept 16", "vmptrld [{second}]", "vmptrld [{first}]", ".endr",
            "rdtsc", "shl rdx, 32", "add rax, rdx", "sub rax, {start}",
            start = out(reg) _, first = in(reg) &raw const first, second = in(reg) &raw const second,
            out("rax") ticks, out("rdx") _,
        );
    }
    ticks
}

/// Makes a second VMCS usable.
pub fn prepare(second: Page) {
    insn::vmclear(&second.address()).expect("VMCLEAR of a good VMCS");
}

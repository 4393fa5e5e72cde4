//! Instructions of L1, 32 in a row or one by one.

use core::arch::asm;

use rt::page::Page;
use rt::vmx::insn;

/// Instructions in one row.
pub const ROW: u64 = 32;

/// Ticks for what stands between two reads of the TSC.
macro_rules! timed {
    ($text:expr $(, $($operand:tt)*)?) => {{
        let ticks: u64;
        asm!(
            "rdtsc", "shl rdx, 32", "lea {start}, [rdx + rax]",
            $text,
            "rdtsc", "shl rdx, 32", "add rax, rdx", "sub rax, {start}",
            start = out(reg) _, out("rax") ticks, out("rdx") _,
            $($($operand)*)?
        );
        ticks
    }};
}

/// Ticks that a read of the TSC takes itself.
fn overhead() -> u64 {
    // SAFETY: nothing but registers changes.
    unsafe { timed!("") }
}

/// Ticks for a row of VMREAD.
pub fn vmread() -> u64 {
    // SAFETY: there is a current VMCS and the field exists; nothing but registers changes.
    unsafe {
        timed!(".rept 32\nvmread {value}, {field}\n.endr", value = out(reg) _, field = in(reg) 0x681eu64)
    }
}

/// Ticks for a row of VMWRITE.
pub fn vmwrite() -> u64 {
    // SAFETY: as for `vmread`; guest RIP is written again before L2 is entered.
    unsafe {
        timed!(".rept 32\nvmwrite {field}, {value}\n.endr", value = in(reg) 0x8000u64, field = in(reg) 0x681eu64)
    }
}

/// Ticks for a row of VMREAD of a field that no hypervisor reads often, of the host state.
pub fn vmread_rare() -> u64 {
    // SAFETY: as for `vmread`.
    unsafe {
        timed!(".rept 32\nvmread {value}, {field}\n.endr", value = out(reg) _, field = in(reg) 0x6c0au64)
    }
}

/// Ticks for a row of VMWRITE of that field.
pub fn vmwrite_rare() -> u64 {
    // SAFETY: as for `vmread`; the host's TR base is written with what it is.
    unsafe {
        timed!(
            "vmread {value}, {field}\n.rept 32\nvmwrite {field}, {value}\n.endr",
            value = out(reg) _, field = in(reg) 0x6c0au64
        )
    }
}

/// Ticks for a row of CPUID.
pub fn cpuid() -> u64 {
    // SAFETY: CPUID changes four registers, of which the compiler keeps RBX for itself.
    unsafe {
        timed!(
            "mov {rbx}, rbx\n.rept 32\nxor eax, eax\ncpuid\n.endr\nmov rbx, {rbx}",
            rbx = out(reg) _, out("rcx") _
        )
    }
}

/// Ticks for a row of INVEPT of one context.
pub fn invept(pointer: u64) -> u64 {
    let descriptor = [pointer, 0];
    // SAFETY: forgets translations, which are found again.
    unsafe {
        timed!(
            ".rept 32\ninvept {kind}, [{descriptor}]\n.endr",
            kind = in(reg) 1u64, descriptor = in(reg) &raw const descriptor
        )
    }
}

/// Ticks for a row of INVVPID of one context.
pub fn invvpid(vpid: u16) -> u64 {
    let descriptor = [u64::from(vpid), 0];
    // SAFETY: as for `invept`.
    unsafe {
        timed!(
            ".rept 32\ninvvpid {kind}, [{descriptor}]\n.endr",
            kind = in(reg) 1u64, descriptor = in(reg) &raw const descriptor
        )
    }
}

/// Ticks for a row of VMPTRLD, of two VMCSs in turn; the first is current at the end.
pub fn vmptrld(first: Page, second: Page) -> u64 {
    let (first, second) = (first.address(), second.address());
    // SAFETY: both are regions of this program's with the right revision.
    unsafe {
        timed!(
            ".rept 16\nvmptrld [{second}]\nvmptrld [{first}]\n.endr",
            first = in(reg) &raw const first, second = in(reg) &raw const second
        )
    }
}

/// Ticks for one VMCLEAR of the current VMCS, and for the VMPTRLD behind it.
pub fn clear_and_load(vmcs: Page) -> (u64, u64) {
    let pointer = vmcs.address();
    // SAFETY: a region of this program's with the right revision; it is current again at the end.
    let (clear, load) = unsafe {
        (
            timed!("vmclear [{p}]", p = in(reg) &raw const pointer),
            timed!("vmptrld [{p}]", p = in(reg) &raw const pointer),
        )
    };
    let overhead = overhead();
    (
        clear.saturating_sub(overhead),
        load.saturating_sub(overhead),
    )
}

/// Makes a second VMCS usable.
pub fn prepare(second: Page) {
    insn::vmclear(&second.address()).expect("VMCLEAR of a good VMCS");
}

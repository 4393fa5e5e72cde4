//! An L2 that changes its own mode: into PAE paging, into IA-32e mode and 64-bit code, into protected mode,
//! and back.
//!
//! SDM "Saving Control Registers, Debug Registers, and MSRs" (the "IA-32e mode guest" control of an
//! unrestricted guest), "Loading Page-Directory-Pointer-Table Entries".

use rt::l2_code;
use rt::vmx::Outcome;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Mode, layout};
use rt::{case, more};
use umbra_vmcs::controls::{Entry, Proc};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    /// CR4.PAE, CR3, paging; and off again.
    fn mode_pae { 64 = "vmcall"; 32 = "mov eax, cr4", "or eax, 0x20", "mov cr4, eax", "mov eax, 0x4800", "mov cr3, eax", "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax", "vmcall", "mov eax, 0x4800", "mov cr3, eax", "vmcall", "mov eax, cr0", "and eax, 0x7fffffff", "mov cr0, eax", "vmcall"; 16 = "vmcall"; }
    /// EFER.LME, CR4.PAE, CR3, paging: compatibility mode; 64-bit mode; and back.
    fn mode_long { 64 = "vmcall"; 32 = "mov ecx, 0xc0000080", "rdmsr", "or eax, 0x100", "wrmsr", "vmcall", "mov eax, cr4", "or eax, 0x20", "mov cr4, eax", "mov eax, 0x4000", "mov cr3, eax", "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax", "vmcall", "push 0x28", "call 3f", "3: add dword ptr [esp], 5", "retf", "vmcall", ".byte 0x6a, 0x08", "call 4f", "4: .byte 0x48, 0x83, 0x04, 0x24, 0x07", ".byte 0x48, 0xcb", "vmcall", "mov eax, cr0", "and eax, 0x7fffffff", "mov cr0, eax", "vmcall", "mov ecx, 0xc0000080", "rdmsr", "and eax, 0xfffffeff", "wrmsr", "vmcall"; 16 = "vmcall"; }
    /// With EFER.LME set by L1: paging alone.
    fn mode_paging { 64 = "vmcall"; 32 = "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax", "vmcall", "mov eax, cr0", "and eax, 0x7fffffff", "mov cr0, eax", "vmcall"; 16 = "vmcall"; }
    /// Protected mode and back.
    fn mode_protected { 64 = "vmcall"; 32 = "vmcall"; 16 = "mov eax, cr0", "or al, 1", "mov cr0, eax", "vmcall", "mov ax, 0x10", "mov ds, ax", "mov ss, ax", "vmcall", "mov eax, cr0", "and al, 0xfe", "mov cr0, eax", "vmcall"; }
    /// 64-bit mode, from which paging cannot be left.
    fn mode_stay { 64 = "mov rax, cr0", "btr rax, 31", "mov cr0, rax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    /// 64-bit mode: PAE cannot be cleared, LME not changed.
    fn mode_keep { 64 = "mov rax, cr4", "btr rax, 5", "mov cr4, rax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn mode_lme { 64 = "mov ecx, 0xc0000080", "rdmsr", "btr eax, 8", "wrmsr", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
}

/// Page-directory pointers for PAE paging: inside the page that is the PML4 for IA-32e mode, whose lower
/// entries alone that uses.
const PDPT: u64 = layout::TABLES + 0x800;
/// A slot of L2's descriptor table, and a descriptor of 64-bit code.
const CODE64_SLOT: u64 = layout::GDT + 0x28;
const CODE64: u64 = 0x00af_9b00_0000_ffff;
/// EFER.LME and CR4.PAE.
const LME: u64 = 1 << 8;
const PAE: u64 = 1 << 5;
/// #GP and #PF in the exception bitmap.
const FAULTS: u64 = 1 << 13 | 1 << 14;

/// Runs the family, with EPT alone.
pub fn run(t: &mut Tester) {
    let can_switch = t.with_ept && t.vm.can(Mode::Flat32, true);
    for is_stepped in [false, true] {
        if can_switch {
            flat(t, "pae", &mode_pae(), is_stepped, |_| {});
            flat(t, "long", &mode_long(), is_stepped, |_| {});
            flat(t, "long, LME by L1", &mode_paging(), is_stepped, |_| {
                write(field::GUEST_IA32_EFER, LME);
                write(field::GUEST_CR4, read(field::GUEST_CR4) | PAE);
                write(field::GUEST_CR3, layout::TABLES);
            });
            flat(
                t,
                "paging without PAE, LME",
                &mode_paging(),
                is_stepped,
                |_| {
                    write(field::GUEST_IA32_EFER, LME);
                },
            );
            for (name, bits) in [
                ("pae, a reserved bit", 1u64 << 5),
                ("pae, not present", 1),
                ("pae, beyond the width", 1 << 51),
            ] {
                flat(t, name, &mode_pae(), is_stepped, |t| {
                    let entry: u64 = t.vm.memory.read(PDPT);
                    t.vm.memory.write(PDPT, entry ^ bits);
                });
            }
            start(t, Mode::Real, &mode_protected());
            go_on(t, "protected", is_stepped);
        }
        for (name, code) in [
            ("64-bit, paging off", mode_stay as fn() -> Code),
            ("64-bit, PAE off", mode_keep),
            ("64-bit, LME off", mode_lme),
        ] {
            start(t, Mode::Long, &code());
            go_on(t, name, is_stepped);
        }
    }
    t.mode = Mode::Long;
}

fn start(t: &mut Tester, mode: Mode, code: &Code) {
    t.mode = mode;
    t.fresh(code);
    t.vm.entry_controls(Entry::LOAD_EFER, Entry::empty());
    write(field::EXCEPTION_BITMAP, FAULTS);
}

/// From 32-bit code without paging, with tables for both kinds.
fn flat(t: &mut Tester, name: &str, code: &Code, is_stepped: bool, change: impl Fn(&mut Tester)) {
    start(t, Mode::Flat32, code);
    let tables = layout::TABLES;
    let memory = &t.vm.memory;
    memory.write(tables, (tables + 0x1000) | 7);
    memory.write(tables + 0x1000, (tables + 0x2000) | 7);
    memory.write(tables + 0x2000, layout::PAGE_TABLE | 7);
    memory.write(PDPT, (tables + 0x2000) | 1);
    for page in 0..512 {
        memory.write(layout::PAGE_TABLE + 8 * page, (page * 4096) | 7);
    }
    memory.write(CODE64_SLOT, CODE64);
    change(t);
    go_on(t, name, is_stepped);
}

/// To the end, with what L1 finds in the VMCS after each exit.
fn go_on(t: &mut Tester, name: &str, is_stepped: bool) {
    if is_stepped && !t.vm.proc(Proc::MONITOR_TRAP_FLAG, Proc::empty()) {
        return;
    }
    for round in 0..60 {
        let outcome = t.vm.run();
        case!("{name}, stepped {is_stepped}, {round}: {outcome}");
        more!(
            "cr0 {:x} cr3 {:x} cr4 {:x} efer {:x} ia-32e {} cs {:x} {:x} ss {:x}",
            read(field::GUEST_CR0),
            read(field::GUEST_CR3),
            read(field::GUEST_CR4),
            read(field::GUEST_IA32_EFER),
            read(field::VM_ENTRY_CONTROLS) as u32 & Entry::IA32E_MODE_GUEST.bits() != 0,
            read(field::GUEST_CS_SELECTOR),
            read(field::GUEST_CS_ACCESS_RIGHTS),
            read(field::GUEST_SS_ACCESS_RIGHTS),
        );
        let is_pae = read(field::GUEST_CR0) >> 31 != 0
            && read(field::GUEST_CR4) & PAE != 0
            && read(field::GUEST_IA32_EFER) & LME == 0;
        if t.with_ept && is_pae {
            more!(
                "pdptes {:x} {:x} {:x} {:x}",
                read(field::GUEST_PDPTE0),
                read(field::GUEST_PDPTE1),
                read(field::GUEST_PDPTE2),
                read(field::GUEST_PDPTE3)
            );
        }
        let Outcome::Exit(exit) = outcome else { break };
        match exit.known() {
            Some(Reason::Vmcall) if !exit.is_entry_failure() => {
                t.vm.skip(&exit);
                // Nothing but zeroes behind the last one.
                let at = read(field::GUEST_CS_BASE) + exit.rip + 3;
                if t.vm.memory.read::<u32>(at) == 0 {
                    break;
                }
            }
            Some(Reason::MonitorTrapFlag) => {}
            _ => break,
        }
    }
}

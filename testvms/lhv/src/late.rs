//! What changes or waits behind the back of a VM entry: a virtual TPR that L2 lowers by its own mapping
//! of the virtual-APIC page while a hypervisor below resumes it, and INITs that VMX root operation
//! blocks until the entry.
//!
//! SDM "TPR Virtualization", "VMX Controls for APIC Virtualization", "Event Injection", "Monitor Trap
//! Flag".

use rt::page::Page;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use rt::vmx::{ept, vm::Code};
use rt::{apic, case, l2_code};
use umbra_vmcs::controls::{Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    // VTPR to EAX, then pages that a hypervisor below may have to map first, then CR8 from RDX.
    fn late_tpr {
        64 = "mov [0x100080], eax", "mov dword ptr [0x30000], 1", "mov dword ptr [0x38000], 2", "mov dword ptr [0x9000], 0x600d", "mov cr8, rdx", "mov rbx, cr8", "cpuid", "vmcall";
        32 = "vmcall"; 16 = "vmcall";
    }
    fn late_nops = "nop", "nop", "nop", "vmcall";
}

/// Where L2 finds its virtual-APIC page.
const PAGE: u64 = 0x10_0000;
const TPR: u64 = 0x80;
const VALID: u64 = 1 << 31;

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    if t.with_ept {
        let page = Page::alloc(1);
        for on in [Proc2::empty(), Proc2::VIRTUALIZE_APIC_ACCESSES] {
            for vtpr in [0, 0x40, 0x50] {
                for cr8 in [3, 5, 6] {
                    lowered(t, &page, on, vtpr, cr8);
                }
            }
        }
    }
    blocked(t);
}

fn fresh(t: &mut Tester, code: &Code) {
    t.mode = Mode::Long;
    t.fresh(code);
}

/// The threshold is 5, and so is the class of VTPR at the entry.
fn lowered(t: &mut Tester, page: &Page, on: Proc2, vtpr: u64, cr8: u64) {
    fresh(t, &late_tpr());
    if !t.vm.proc(
        Proc::USE_TPR_SHADOW,
        Proc::CR8_LOAD_EXITING | Proc::CR8_STORE_EXITING,
    ) || !t.vm.proc2(on, Proc2::empty())
    {
        t.skip("TPR shadow");
        return;
    }
    page.fill(0);
    page.write(TPR, 0x50u32);
    write(field::VIRTUAL_APIC_ADDRESS, page.address());
    write(field::TPR_THRESHOLD, 5);
    if on.contains(Proc2::VIRTUALIZE_APIC_ACCESSES) {
        write(field::APIC_ACCESS_ADDRESS, t.vm.memory.address() + 0xc000);
    }
    t.vm.ept().map(PAGE, page.address(), ept::ALL);
    t.vm.forget_translations();
    t.vm.registers.rax = vtpr;
    t.vm.registers.rdx = cr8;
    t.vm.registers.r10 = 0x1111_2222_3333_4444;
    for _ in 0..4 {
        let outcome = t.vm.run();
        case!(
            "vtpr {vtpr:x}, cr8 {cr8}: {outcome}, rbx {:x}, vtpr {:x}, wrote {:x}",
            t.vm.registers.rbx,
            page.read::<u32>(TPR),
            t.vm.memory.read::<u32>(layout::DATA)
        );
        let rt::vmx::vm::Outcome::Exit(exit) = outcome else {
            break;
        };
        if exit.known() == Some(Reason::Vmcall) {
            break;
        }
        if exit.known() == Some(Reason::Cpuid) {
            t.vm.skip(&exit);
        }
    }
    t.check("L1 keeps its registers", true);
}

/// An INIT that waits for the entry, and an event that the entry injects.
fn blocked(t: &mut Tester) {
    let id = apic::read(apic::register::ID) >> 24;
    for trap in [false, true] {
        for (name, event, length) in [
            ("nothing", 0, 0),
            ("#UD", VALID | 3 << 8 | 6, 0),
            ("#GP", VALID | 3 << 8 | 1 << 11 | 13, 0),
            ("an interrupt", VALID | 0x40, 0),
            ("INT", VALID | 4 << 8 | 0x41, 2),
            ("#BP", VALID | 6 << 8 | 3, 1),
            ("a pending MTF exit", VALID | 7 << 8, 0),
        ] {
            fresh(t, &late_nops());
            if event >> 8 & 7 == 7 && !t.vmx.caps.offers_proc(Proc::MONITOR_TRAP_FLAG) {
                t.skip(name);
                continue;
            }
            if trap && !t.vm.proc(Proc::MONITOR_TRAP_FLAG, Proc::empty()) {
                t.skip(name);
                continue;
            }
            write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | 1 << 9);
            write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
            write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, 0x58);
            write(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
            apic::send(id, apic::Ipi::Init);
            t.exit(name, Reason::Init);
            case!("RFLAGS {:x}", read(field::GUEST_RFLAGS));
            let outcome = t.vm.run();
            case!("then {outcome}");
            let _ = t.vm.proc(Proc::empty(), Proc::MONITOR_TRAP_FLAG);
            t.reach_end("and on");
        }
    }
}

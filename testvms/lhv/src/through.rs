//! The local APIC itself, which L1 leaves to L2: in xAPIC mode by its page, in x2APIC mode by its MSRs.
//!
//! SDM "Virtualizing MSR-Based APIC Accesses", "External-Interrupt Exiting".

use rt::page::Page;
use rt::vmx::ept;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Outcome, layout};
use rt::{apic, case, cpu, l2_code, more};
use umbra_vmcs::controls::{Pin, Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;
use crate::timing::{VECTOR, let_in, open_apic, send_self, taken};

l2_code! {
    fn through_load { 64 = "mov eax, [rbx]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn through_store { 64 = "mov [rbx], eax", "nop", "nop", "nop", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn through_cr8 { 64 = "mov rbx, cr8", "mov cr8, rax", "nop", "nop", "nop", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn through_rdmsr { 64 = "rdmsr", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn through_wrmsr { 64 = "wrmsr", "nop", "nop", "nop", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
}

/// Where L2 finds the APIC's page, and where it lies.
const PAGE: u64 = 0xc000;
const APIC: u64 = 0xfee0_0000;
/// Page-table bits: present, writable, user, cache disabled.
const DEVICE: u64 = 0x17;
/// Registers.
const TPR: u64 = 0x80;
const COMMAND: u64 = 0x300;
/// A command: this vector to this CPU.
const TO_SELF: u64 = 0x4_0000 | VECTOR as u64;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;

/// Runs the xAPIC part, once with and once without EPT.
pub fn run(t: &mut Tester) {
    open_apic();
    for offset in [0x30u64, TPR, 0xd0, 0xe0, 0xf0, 0x320, 0x350, 0x360] {
        fresh(t, through_load(), offset);
        t.reach_end("APIC register read by L2");
        let value = apic::read(offset as u32);
        t.equal("it", t.vm.registers.rax as u32, value);
    }
    // The task priority, by its page and by CR8.
    fresh(t, through_store(), TPR);
    t.vm.registers.rax = 0x35;
    t.reach_end("TPR written by L2");
    t.equal("CR8 of L1", cpu::cr8(), 3);
    fresh(t, through_cr8(), 0);
    t.vm.registers.rax = 6;
    t.reach_end("CR8 written by L2");
    t.equal("CR8 read by L2", t.vm.registers.rbx, 3);
    t.equal("CR8 of L1", cpu::cr8(), 6);
    // SAFETY: no interrupt waits.
    unsafe { cpu::set_cr8(0) };
    interrupts(t, "page", |t| {
        fresh(t, through_store(), COMMAND);
        t.vm.registers.rax = TO_SELF;
    });
    // An interrupt that L1's priority holds back.
    for is_exiting in [true, false] {
        fresh(t, through_cr8(), 0);
        // SAFETY: what is sent below waits.
        unsafe { cpu::set_cr8(u64::from(VECTOR >> 4) + 1) };
        send_self();
        set_flags(IF);
        if is_exiting {
            t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
        }
        show(t, "priority lowered by L2");
        let_in();
        more!("L1 takes {:x}", taken());
        // One that L2 took is still in service.
        apic::end_of_interrupt();
        // SAFETY: nothing waits any more.
        unsafe { cpu::set_cr8(0) };
    }
    close();
}

/// L2 anew, with the APIC's page at [`PAGE`], RBX pointing to one of its registers.
fn fresh(t: &mut Tester, code: rt::vmx::vm::Code, offset: u64) {
    t.fresh(&code);
    if t.with_ept {
        t.vm.ept().set_entry(PAGE, 1, APIC | ept::ALL);
    } else {
        let entry = layout::PAGE_TABLE + 8 * (PAGE >> 12);
        t.vm.memory.write(entry, APIC | DEVICE);
    }
    t.vm.registers.rbx = PAGE + offset;
}

fn set_flags(flags: u64) {
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | flags);
}

fn show(t: &mut Tester, what: &str) -> Outcome {
    let outcome = t.vm.run();
    case!(
        "{what}: {outcome} flags={:x} rax={:x} rdx={:x}",
        read(field::GUEST_RFLAGS),
        t.vm.registers.rax & 0xffff_ffff,
        t.vm.registers.rdx & 0xffff_ffff
    );
    outcome
}

/// L2 sends this CPU an interrupt.
fn interrupts(t: &mut Tester, name: &str, prepare: impl Fn(&mut Tester)) {
    for (what, flags, is_exiting) in [
        ("exiting", 0, true),
        ("exiting, IF set", IF, true),
        ("not exiting", 0, false),
        ("not exiting, IF set", IF, false),
    ] {
        prepare(t);
        set_flags(flags);
        if is_exiting {
            t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
        }
        case!("interrupt sent by L2, by {name}, {what}");
        show(t, "L2");
        let_in();
        more!("L1 takes {:x}", taken());
        apic::end_of_interrupt();
        if is_exiting {
            t.reach_end("and L2 goes on");
        }
    }
    // L2 ends an interrupt that L1 has in service.
    prepare(t);
    set_flags(IF);
    show(t, "interrupt taken by L2");
    let in_service = || apic::read(0x100 + 0x10 * (u32::from(VECTOR) / 32)) >> (VECTOR % 32) & 1;
    more!("in service {}", in_service());
    apic::end_of_interrupt();
    more!("in service {}", in_service());
}

fn close() {
    apic::write(apic::register::SPURIOUS, 0xff);
}

/// Runs the x2APIC part: the last of all, since the mode cannot be left.
pub fn x2apic(t: &mut Tester) {
    if cpu::cpuid(1, 0).ecx & 1 << 21 == 0 {
        return t.skip("x2APIC");
    }
    apic::enter_x2apic();
    apic::enable();
    let page = Page::alloc(1);
    for (name, shadow, on) in [
        ("given", false, Proc2::empty()),
        ("given, TPR shadow", true, Proc2::empty()),
        ("virtualized", true, Proc2::VIRTUALIZE_X2APIC_MODE),
        (
            "registers virtualized",
            true,
            Proc2::VIRTUALIZE_X2APIC_MODE.union(Proc2::APIC_REGISTER_VIRTUALIZATION),
        ),
        // Without "virtualize x2APIC mode" these change no MSR.
        (
            "registers virtualized, by memory alone",
            true,
            Proc2::APIC_REGISTER_VIRTUALIZATION,
        ),
    ] {
        let start = |t: &mut Tester, code, index: u64| {
            page.fill(0);
            page.write(TPR, 0x20u32);
            t.fresh(&code);
            write(field::EXCEPTION_BITMAP, 1 << 13);
            t.vm.registers.rcx = index;
            if !shadow {
                return true;
            }
            write(field::VIRTUAL_APIC_ADDRESS, page.address());
            write(field::TPR_THRESHOLD, 0);
            t.vm.proc(
                Proc::USE_TPR_SHADOW,
                Proc::CR8_LOAD_EXITING | Proc::CR8_STORE_EXITING,
            ) && t.vm.proc2(on, Proc2::empty())
        };
        if !start(t, through_rdmsr(), 0) {
            t.skip(name);
            continue;
        }
        for index in 0x800..0x840u64 {
            start(t, through_rdmsr(), index);
            case!("{name}, read {index:x}");
            show(t, "then");
        }
        for (index, high, low) in [
            (0x808u64, 0, 0x30u64),
            (0x808, 0, 0x130),
            (0x80b, 0, 0),
            (0x80b, 0, 1),
            (0x80f, 0, 0x1ff),
            (0x828, 0, 0),
            (0x832, 0, 0x1_0051),
            (0x838, 0, 0),
            (0x802, 0, 0),
            (0x80d, 0, 0),
            (0x83f, 1, 0x51),
            (0x831, 0, 0),
        ] {
            start(t, through_wrmsr(), index);
            t.vm.registers.rdx = high;
            t.vm.registers.rax = low;
            case!("{name}, write {index:x} {high:x}:{low:x}");
            show(t, "then");
            more!(
                "priority {:x}, virtual {:x}",
                apic::read(apic::register::TASK_PRIORITY),
                page.read::<u32>(TPR)
            );
        }
        apic::write(apic::register::TASK_PRIORITY, 0);
        for (by, index, command) in [
            ("ICR", 0x830u64, TO_SELF),
            ("self IPI", 0x83f, u64::from(VECTOR)),
        ] {
            interrupts(t, by, |t| {
                start(t, through_wrmsr(), index);
                t.vm.registers.rax = command;
            });
        }
    }
    // A bit of L1's bitmap makes the exit, whatever the mode.
    t.fresh(&through_wrmsr());
    t.vm.msr_bitmap.write(0x800 + 0x830 / 8, 1u8 << (0x830 % 8));
    t.vm.registers.rcx = 0x830;
    t.vm.registers.rax = TO_SELF;
    t.exit("ICR, its bit", Reason::Wrmsr);
    close();
}

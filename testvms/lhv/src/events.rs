//! Event injection, delivery through L2's table, failures of it, and the windows.
//!
//! SDM "Event Injection", "VM Exits During Event Injection", "Information for VM Exits That Occur
//! During Event Delivery".

use rt::l2_code;
use rt::vmx::ept;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::{Pin, Proc};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn nops = "nop", "nop", "nop", "vmcall";
    fn enable = "sti", "nop", "nop", "vmcall";
}

/// A valid event.
const VALID: u32 = 1 << 31;
/// With an error code.
const ERROR: u32 = 1 << 11;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;

/// Name, interruption information, instruction length.
const EVENTS: [(&str, u32, u64); 8] = [
    ("external interrupt", VALID | 0x40, 0),
    ("NMI", VALID | 2 << 8 | 2, 0),
    (
        "hardware exception with error code",
        VALID | 3 << 8 | ERROR | 13,
        0,
    ),
    ("hardware exception", VALID | 3 << 8 | 6, 0),
    ("software interrupt", VALID | 4 << 8 | 0x41, 2),
    ("privileged software exception", VALID | 5 << 8 | 1, 1),
    ("#BP", VALID | 6 << 8 | 3, 1),
    ("#OF", VALID | 6 << 8 | 4, 1),
];

/// The error code that goes with those that have one.
const ERROR_CODE: u64 = 0x58;

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    for (name, information, length) in EVENTS {
        if information & ERROR != 0 && t.mode == Mode::Real {
            continue;
        }
        inject(t, information, length);
        t.reach_end(name);
        check_handler(t, information as u8);
        let left = read(field::VM_ENTRY_INTERRUPTION_INFORMATION) as u32 & VALID;
        t.equal("valid bit after the entry", left, 0);
        failing(t, name, information, length);
    }
    refused(t);
    windows(t);
}

/// L2 anew with an event to come.
fn inject(t: &mut Tester, information: u32, length: u64) {
    t.fresh(&nops());
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | IF);
    write(field::VM_ENTRY_INTERRUPTION_INFORMATION, information.into());
    write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, ERROR_CODE);
    write(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
}

/// L2 stands at the VMCALL of a vector's handler: shows what lies on its stack.
pub fn check_handler(t: &mut Tester, vector: u8) {
    let linear = read(field::GUEST_CS_BASE) + read(field::GUEST_RIP);
    t.equal("handler", linear, layout::HANDLERS + 16 * u64::from(vector));
    let stack = read(field::GUEST_SS_BASE) + read(field::GUEST_RSP);
    // The frame as words of the size that the mode pushes.
    let (size, count) = match t.mode {
        Mode::Long | Mode::Compat => (8, 6),
        Mode::Real => (2, 3),
        Mode::V86 => (4, 10),
        _ => (4, 4),
    };
    rt::print!("  stack {stack:x}:");
    for word in 0..count {
        let at = stack + word * size;
        if at + size > layout::STACK_TOP {
            break;
        }
        let value = match size {
            8 => t.vm.memory.read::<u64>(at),
            4 => t.vm.memory.read::<u32>(at).into(),
            _ => t.vm.memory.read::<u16>(at).into(),
        };
        rt::print!(" {value:x}");
    }
    rt::println!();
}

/// The same event when its delivery fails: first in L2's table, then on its stack.
fn failing(t: &mut Tester, name: &str, information: u32, length: u64) {
    if t.with_ept {
        let table = if t.mode == Mode::Real {
            layout::IVT
        } else {
            layout::IDT
        };
        for (place, page) in [("table", table), ("stack", layout::STACK_TOP - 0x1000)] {
            inject(t, information, length);
            t.vm.ept().map(page, t.vm.memory.address() + page, 0);
            rt::print!("{name}, no {place}: ");
            let exit = t.exit("exit", Reason::EptViolation);
            t.equal(
                "vectoring event",
                exit.vectoring & !ERROR,
                information & !ERROR,
            );
            // What a hypervisor does: mend, and inject what was being delivered.
            t.vm.ept().map(page, t.vm.memory.address() + page, ept::ALL);
            write(
                field::VM_ENTRY_INTERRUPTION_INFORMATION,
                exit.vectoring.into(),
            );
            write(
                field::VM_ENTRY_EXCEPTION_ERROR_CODE,
                exit.vectoring_error.into(),
            );
            write(field::VM_ENTRY_INSTRUCTION_LENGTH, exit.length.into());
            rt::print!("{name} again: ");
            t.reach_end("exit");
            check_handler(t, information as u8);
        }
    } else {
        inject(t, information, length);
        write(field::GUEST_IDTR_LIMIT, 0);
        write(field::EXCEPTION_BITMAP, 1 << 13 | 1 << 8);
        rt::print!("{name}, no table: ");
        let exit = t.exit("exit", Reason::ExceptionOrNmi);
        t.equal(
            "vectoring event",
            exit.vectoring & !ERROR,
            information & !ERROR,
        );
    }
}

/// Events that the state of L2 forbids.
fn refused(t: &mut Tester) {
    inject(t, VALID | 0x40, 0);
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) & !IF);
    t.entry_failure("external interrupt, IF clear", 33, 0);
    for (name, information, blocking) in [
        ("external interrupt, blocked by STI", VALID | 0x40, 1),
        ("external interrupt, blocked by MOV SS", VALID | 0x40, 2),
        ("NMI, blocked by MOV SS", VALID | 2 << 8 | 2, 2),
    ] {
        inject(t, information, 0);
        write(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
        t.entry_failure(name, 33, 0);
    }
}

/// Interrupt window, NMI window, monitor trap flag.
fn windows(t: &mut Tester) {
    t.fresh(&nops());
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | IF);
    t.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty());
    t.exit("interrupt window, open", Reason::InterruptWindow);
    t.vm.proc(Proc::empty(), Proc::INTERRUPT_WINDOW_EXITING);
    t.reach_end("interrupt window, off");

    t.fresh(&enable());
    t.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty());
    t.exit("interrupt window, opened by STI", Reason::InterruptWindow);

    t.fresh(&nops());
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | IF);
    write(field::GUEST_INTERRUPTIBILITY_STATE, 1);
    t.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty());
    t.exit(
        "interrupt window, after blocking by STI",
        Reason::InterruptWindow,
    );

    t.fresh(&nops());
    if t.vm.pin(Pin::NMI_EXITING | Pin::VIRTUAL_NMIS, Pin::empty())
        && t.vm.proc(Proc::NMI_WINDOW_EXITING, Proc::empty())
    {
        t.exit("NMI window, open", Reason::NmiWindow);
    } else {
        t.skip("NMI window");
    }

    t.fresh(&nops());
    if t.vm.proc(Proc::MONITOR_TRAP_FLAG, Proc::empty()) {
        t.exit("monitor trap flag", Reason::MonitorTrapFlag);
        t.exit("monitor trap flag", Reason::MonitorTrapFlag);
        write(
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            (VALID | 7 << 8).into(),
        );
        t.exit("monitor trap flag, injected", Reason::MonitorTrapFlag);
    } else {
        t.skip("monitor trap flag");
    }
}

//! Violations during IRET and during the delivery of an event.
//!
//! SDM "Exit Qualification for EPT Violations" (NMI unblocking due to IRET), "Information for VM Exits
//! That Occur During Event Delivery".

use rt::report;
use rt::vmx::ept::{ALL, WRITE_BACK};
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::Pin;
use umbra_vmcs::field;

use crate::lab::{LINEAR, Lab};

const IRETQ: [u8; 2] = [0x48, 0xcf];
const PUSH: [u8; 4] = [0x50, 0x0f, 0x01, 0xc1];
const BLOCKED_BY_NMI: u64 = 1 << 3;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    iret(lab);
    delivery(lab);
    push(lab);
    lab.reset(Mode::Long);
}

/// The frame that IRET pops lies in a page that is absent, write-only or misconfigured.
fn iret(lab: &mut Lab) {
    for (pins, name) in [
        (Pin::empty(), "no NMI controls"),
        (Pin::NMI_EXITING, "NMI exiting"),
        (Pin::NMI_EXITING.union(Pin::VIRTUAL_NMIS), "virtual NMIs"),
    ] {
        for blocking in [0, BLOCKED_BY_NMI] {
            for (what, bits) in [("absent", 0), ("misconfigured", 7 << 3 | ALL)] {
                lab.reset(Mode::Long);
                if !lab.vm.pin(pins, Pin::empty()) {
                    report::lacks(format_args!("{name}"));
                    return;
                }
                let frame = [layout::CODE + 0x20, 8, 2, layout::STACK_TOP, 0x10];
                for (slot, value) in frame.into_iter().enumerate() {
                    lab.target.write(0x800 + 8 * slot as u64, value);
                }
                lab.vm
                    .memory
                    .write_bytes(layout::CODE + 0x20, &[0x0f, 0x01, 0xc1]);
                write(field::GUEST_RSP, LINEAR + 0x800);
                write(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
                lab.set(1, lab.path.leaf_entry(WRITE_BACK & !bits | bits));
                let answer = lab.execute(&IRETQ);
                let after = read(field::GUEST_INTERRUPTIBILITY_STATE);
                lab.record(
                    format_args!("IRET {what}, {name}, blocking {blocking}"),
                    format_args!("{answer} blocking {after}"),
                );
                lab.mend();
                let answer = lab.resume();
                let after = read(field::GUEST_INTERRUPTIBILITY_STATE);
                lab.record(
                    format_args!("mended"),
                    format_args!("{answer} blocking {after}"),
                );
            }
        }
    }
}

/// An event that VM entry injects is pushed onto a page, or comes from a table, without rights.
fn delivery(lab: &mut Lab) {
    let idt = layout::IDT;
    for (name, information, error) in [
        ("interrupt 32", 0x8000_0020u64, None),
        ("NMI", 0x8000_0202, None),
        ("#PF", 0x8000_0b0e, Some(2u64)),
        ("INT 48", 0x8000_0430, None),
    ] {
        for what in [
            "stack absent",
            "stack read-only",
            "stack type 2",
            "table absent",
        ] {
            lab.reset(Mode::Long);
            write(field::GUEST_RSP, LINEAR + 0x800);
            write(field::GUEST_RFLAGS, 0x202);
            write(field::VM_ENTRY_INTERRUPTION_INFORMATION, information);
            write(field::VM_ENTRY_INSTRUCTION_LENGTH, 2);
            write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, error.unwrap_or(0));
            match what {
                "stack absent" => lab.set(1, 0),
                "stack read-only" => lab.set(1, lab.path.leaf_entry(WRITE_BACK | 1)),
                "stack type 2" => lab.set(1, lab.path.leaf_entry(2 << 3 | ALL)),
                _ => lab.ept().map(idt, lab.vm.memory.address() + idt, 0),
            }
            let answer = lab.execute(&[0x0f, 0x01, 0xc1]);
            lab.record(format_args!("{name}, {what}"), &answer);
            let vectoring = read(field::IDT_VECTORING_INFORMATION);
            // The event again, as a hypervisor does it, once the page is good.
            lab.ept().map(idt, lab.vm.memory.address() + idt, ALL);
            lab.mend();
            write(field::VM_ENTRY_INTERRUPTION_INFORMATION, vectoring);
            write(field::VM_ENTRY_INSTRUCTION_LENGTH, 2);
            let answer = lab.resume();
            let rip = read(field::GUEST_RIP);
            let rsp = read(field::GUEST_RSP);
            lab.record(
                format_args!("again"),
                format_args!("{answer} rip={rip:x} rsp={rsp:x}"),
            );
        }
    }
}

/// A push at the boundary of two pages, the lower one without rights.
fn push(lab: &mut Lab) {
    lab.reset(Mode::Long);
    for rsp in [LINEAR + 8, LINEAR + 0x1000, LINEAR + 0x1004] {
        lab.set(1, 0);
        write(field::GUEST_RSP, rsp);
        let answer = lab.execute(&PUSH);
        lab.record(format_args!("push at +{:x}", rsp - LINEAR), answer);
        lab.mend();
    }
}

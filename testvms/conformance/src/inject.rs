//! Event injection: the interruption information, the error code, the instruction length.
//!
//! SDM "VM-Entry Control Fields" of the chapter on checks of VMX controls, "Event Injection".

use rt::vmx::vm::Mode;
use umbra_vmcs::field;

use crate::lab::Lab;

const VALID: u64 = 1 << 31;
const ERROR: u64 = 1 << 11;
const IF: u64 = 1 << 9;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (mode, with_ept) in [
        (Mode::Long, true),
        (Mode::Prot32, false),
        (Mode::Real, true),
        (Mode::V86, false),
    ] {
        if lab.begin("inject", mode, with_ept) {
            types(lab);
            lengths(lab);
            bits(lab);
            lab.end();
        }
    }
}

/// L2 may take interrupts, so that an external interrupt can be injected.
fn event(lab: &mut Lab, information: u64, length: u64) {
    lab.add(field::GUEST_RFLAGS, IF);
    lab.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, information);
    lab.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, 0x18);
    lab.set(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
}

/// Every type with every exception vector and a few others, with and without an error code.
fn types(lab: &mut Lab) {
    for kind in 0..8 {
        for vector in (0..33).chain([0x40, 0xff]) {
            for error in [0, ERROR] {
                // An error code is forbidden with most: one vector tells for those that never push one.
                if error != 0 && kind != 3 && !matches!(vector, 2 | 8 | 13 | 14) {
                    continue;
                }
                event(lab, VALID | kind << 8 | vector | error, 1);
                lab.run(format_args!(
                    "{kind} {vector:02x}{}",
                    if error != 0 { "e" } else { "" }
                ));
            }
        }
    }
    // Without the valid bit nothing of it counts.
    event(lab, 7 << 8 | 0x7fff_f000 | 13, 20);
    lab.run(format_args!("not valid"));
}

fn lengths(lab: &mut Lab) {
    for (kind, vector) in [(4u64, 0x41u64), (5, 1), (6, 3), (3, 6), (0, 0x40)] {
        for length in (0..18).chain([0x100, 0xffff_ffff]) {
            event(lab, VALID | kind << 8 | vector, length);
            lab.run(format_args!("{kind} length {length:x}"));
        }
    }
}

fn bits(lab: &mut Lab) {
    for bit in 12..31 {
        event(lab, VALID | 3 << 8 | 6 | 1 << bit, 1);
        lab.run(format_args!("reserved {bit}"));
    }
    for bit in 0..32 {
        event(lab, VALID | 3 << 8 | ERROR | 13, 1);
        lab.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, 1 << bit);
        lab.run(format_args!("error code {bit}"));
    }
    event(lab, VALID | 3 << 8 | 6, 1);
    lab.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, 0xffff_ffff);
    lab.run(format_args!("error code not used"));
    event(lab, VALID | 3 << 8 | ERROR | 13, 1);
    lab.remove(field::GUEST_CR0, 1);
    lab.run(format_args!("error code, PE clear"));
    event(lab, VALID | 0x40, 0);
    lab.remove(field::GUEST_RFLAGS, IF);
    lab.run(format_args!("interrupt, IF clear"));
}

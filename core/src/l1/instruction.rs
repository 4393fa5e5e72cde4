//! The end of an instruction of L1's that L0 dealt with: it is skipped, it
//! raises a fault, or what it interrupted is delivered anew.

use crate::action::Event;
use crate::arch::cr;
use crate::vmcs::current::{read, write};
use umbra_core::breakpoints::{self, Kind};
use umbra_core::control_registers::{cr0, cr4};
use umbra_nmi::{Interruptibility, Policy, blocking};
use umbra_vmcs::field;

/// The next entry delivers a fault of the instruction that exited, as the CPU
/// would: the image of RFLAGS has RF set.
pub fn raise(event: Event) {
    const RFLAGS_RF: u64 = 1 << 16;

    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | RFLAGS_RF);
    deliver(event);
}

/// The next entry delivers an exception; in real mode there is no error code,
/// which VM entry insists on.
pub fn deliver(event: Event) {
    let in_real_mode = read(field::GUEST_CR0) & cr0::PE == 0;
    inject(event.delivered_in(in_real_mode));
}

/// The next entry delivers `event`.
fn inject(event: Event) {
    write(
        field::VM_ENTRY_INTERRUPTION_INFORMATION,
        u64::from(event.information),
    );
    if event.information & Event::HAS_ERROR_CODE != 0 {
        write(
            field::VM_ENTRY_EXCEPTION_ERROR_CODE,
            u64::from(event.error_code),
        );
    }
    // Software interrupts and exceptions: types 4, 5 and 6.
    if matches!(event.information >> 8 & 7, 4..=6) {
        write(
            field::VM_ENTRY_INSTRUCTION_LENGTH,
            u64::from(event.instruction_bytes),
        );
    }
}

/// Delivers anew what the exit interrupted. SDM "Information for VM Exits That
/// Occur During Event Delivery".
pub fn redeliver() {
    let vectoring = read(field::IDT_VECTORING_INFORMATION) as u32;
    let now = Interruptibility(read(field::GUEST_INTERRUPTIBILITY_STATE) as u32);
    let Some((information, after)) = blocking::before_reinjection(Policy::Direct, now, vectoring)
    else {
        return;
    };
    if after != now {
        write(field::GUEST_INTERRUPTIBILITY_STATE, u64::from(after.0));
    }
    inject(Event {
        information,
        error_code: read(field::IDT_VECTORING_ERROR_CODE) as u32,
        instruction_bytes: read(field::VM_EXIT_INSTRUCTION_LENGTH) as u32,
    });
}

/// Moves L1 behind the instruction that exited, as if it had been executed. For L2
/// `nested` does it, on vmcs02.
pub fn skip_instruction() {
    // Bit 13: CS.L.
    const LONG_CODE: u64 = 1 << 13;

    let mut rip = read(field::GUEST_RIP).wrapping_add(read(field::VM_EXIT_INSTRUCTION_LENGTH));
    if rip >> 32 != 0 {
        let is_64_bit = read(field::GUEST_CS_ACCESS_RIGHTS) & LONG_CODE != 0
            && read(field::GUEST_IA32_EFER) & 1 << 10 != 0;
        if !is_64_bit {
            rip &= 0xffff_ffff;
        }
    }
    write(field::GUEST_RIP, rip);
    end_of_instruction();
}

/// L0 has made an access for L1: a breakpoint on it is a trap behind the
/// instruction, or behind the turn of a repeated one.
pub fn note_access(kind: Kind, address: u64, bytes: u64) {
    /// An enabled breakpoint was met.
    const PENDING_ENABLED: u64 = 1 << 12;

    let dr7 = read(field::GUEST_DR7);
    if !breakpoints::any_enabled(dr7) {
        return;
    }
    if kind == Kind::Port && read(field::GUEST_CR4) & cr4::DE == 0 {
        return;
    }
    let met = breakpoints::hit(dr7, cr::breakpoint_addresses(), kind, address, bytes);
    if met != 0 {
        let pending = read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        let now = pending | met | PENDING_ENABLED;
        write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, now);
    }
}

/// An instruction of L1, or one turn of a repeated one, was executed for it:
/// blocking by STI and MOV SS ends, and a single step is due.
pub fn end_of_instruction() {
    const RFLAGS_TF: u64 = 1 << 8;
    const RFLAGS_RF: u64 = 1 << 16;
    const DEBUGCTL_BTF: u64 = 1 << 1;
    const PENDING_BS: u64 = 1 << 14;
    const STI_OR_MOV_SS: u64 = 3;

    let state = read(field::GUEST_INTERRUPTIBILITY_STATE);
    if state & STI_OR_MOV_SS != 0 {
        write(field::GUEST_INTERRUPTIBILITY_STATE, state & !STI_OR_MOV_SS);
    }
    let rflags = read(field::GUEST_RFLAGS);
    if rflags & RFLAGS_RF != 0 {
        write(field::GUEST_RFLAGS, rflags & !RFLAGS_RF);
    }
    if rflags & RFLAGS_TF != 0 && read(field::GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF == 0 {
        let pending = read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | PENDING_BS);
    }
}

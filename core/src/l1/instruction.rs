//! The end of an instruction of L1's that L0 dealt with: it raises a fault, or what it
//! interrupted is delivered anew. What is skipped is `umbra_nested::step`'s.

use crate::action::Event;
use crate::arch::cr;
use crate::vmcs::current::{change, read, write};
use umbra_arch::{Cr0, Cr4, EventInfo, PendingDebug, Rflags};
use umbra_core::breakpoints::{self, Kind};
use umbra_nmi::{Interruptibility, Policy, blocking};
use umbra_vmcs::field;

/// The next entry delivers a fault of the instruction that exited, as the CPU
/// would: the image of RFLAGS has RF set.
pub fn raise(event: Event) {
    change(field::GUEST_RFLAGS, Rflags::RF.bits(), 0);
    deliver(event);
}

/// The next entry delivers an exception; in real mode there is no error code,
/// which VM entry insists on.
pub fn deliver(event: Event) {
    let in_real_mode = !Cr0::PE.is_in(read(field::GUEST_CR0));
    inject(event.delivered_in(in_real_mode));
}

/// The next entry delivers `event`.
fn inject(event: Event) {
    write(
        field::VM_ENTRY_INTERRUPTION_INFORMATION,
        event.information.into_bits().into(),
    );
    if event.information.has_error_code() {
        write(
            field::VM_ENTRY_EXCEPTION_ERROR_CODE,
            u64::from(event.error_code),
        );
    }
    if event.information.kind().is_of_instruction() {
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
        information: EventInfo::from_bits(information),
        error_code: read(field::IDT_VECTORING_ERROR_CODE) as u32,
        instruction_bytes: read(field::VM_EXIT_INSTRUCTION_LENGTH) as u32,
    });
}

/// L0 has made an access for L1: a breakpoint on it is a trap behind the
/// instruction, or behind the turn of a repeated one.
pub fn note_access(kind: Kind, address: u64, bytes: u64) {
    let dr7 = read(field::GUEST_DR7);
    if !breakpoints::any_enabled(dr7) {
        return;
    }
    if kind == Kind::Port && !Cr4::DE.is_in(read(field::GUEST_CR4)) {
        return;
    }
    let met = breakpoints::hit(dr7, cr::breakpoint_addresses(), kind, address, bytes);
    if met != 0 {
        let pending = read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        let now = pending | met | PendingDebug::ENABLED_BREAKPOINT.bits();
        write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, now);
    }
}

//! The event that VM entry injects.

use umbra_arch::event::vector;
use umbra_arch::{Cr0, EventInfo, EventType};

use super::{CONTROLS_ANSWER, Ctx, rules};
use crate::controls::Proc;
use crate::field;

const SECTION: &str = "VM-Entry Control Fields";

/// The event that VM entry is to inject.
#[inline(always)]
pub(super) fn event(c: &Ctx<'_>) -> EventInfo {
    EventInfo::from_bits(c.get32(field::VM_ENTRY_INTERRUPTION_INFORMATION))
}

/// Whether the instruction length counts.
#[inline(always)]
fn has_length(event: EventInfo) -> bool {
    event.valid() && event.kind().is_of_instruction()
}

rules! {
    /// Event injection.
    injection: "event injection";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VM_ENTRY_INTERRUPTION_INFORMATION, VM_ENTRY_EXCEPTION_ERROR_CODE,
        VM_ENTRY_INSTRUCTION_LENGTH, GUEST_CR0,
    ];
    kind_reserved = "ctl.event.type",
        "the interruption type is not 1, and 7 only where the CPU offers \"monitor trap flag\"",
        |c| {
            let event = event(c);
            !event.is(EventType::Reserved)
                && (!event.is(EventType::Other) || c.caps.offers_proc(Proc::MONITOR_TRAP_FLAG))
        };
    nmi_vector = "ctl.event.vector.nmi",
        "the vector of an NMI is 2",
        |c| !event(c).is(EventType::Nmi) || event(c).vector() == vector::NMI;
    exception_vector = "ctl.event.vector.exception",
        "the vector of a hardware exception is at most 31",
        |c| !event(c).is(EventType::HardwareException) || event(c).vector() <= 31;
    other_vector = "ctl.event.vector.other",
        "the vector of an event of type 7 is 0 (a pending MTF VM exit)",
        |c| !event(c).is(EventType::Other) || event(c).vector() == 0;
    code_kind = "ctl.event.error-code.type",
        "deliver-error-code is 0 unless the type is hardware exception",
        |c| {
            let event = event(c);
            !event.valid() || !event.has_error_code() || event.kind() == EventType::HardwareException
        };
    code_real = "ctl.event.error-code.unprotected",
        "deliver-error-code is 0 where \"unrestricted guest\" is 1 and the guest's CR0.PE is 0",
        |c| {
            let event = event(c);
            !event.valid() || !event.has_error_code() || !c.unrestricted() || protected(c)
        };
    code_missing = "ctl.event.error-code.missing",
        "deliver-error-code is 1 for a hardware exception of vector 8, 10-14 or 17 in protected mode, unless IA32_VMX_BASIC[56] is 1",
        |c| {
            let event = event(c);
            !event.is(EventType::HardwareException)
                || event.has_error_code()
                || c.caps.any_error_code_delivery()
                || (c.unrestricted() && !protected(c))
                || !vector::has_error_code(event.vector())
        };
    code_extra = "ctl.event.error-code.vector",
        "deliver-error-code is 0 for a hardware exception of another vector, unless IA32_VMX_BASIC[56] is 1",
        |c| {
            let event = event(c);
            !event.is(EventType::HardwareException)
                || !event.has_error_code()
                || c.caps.any_error_code_delivery()
                || vector::has_error_code(event.vector())
        };
    reserved = "ctl.event.reserved",
        "bits 30:12 of the interruption information of a valid event are 0",
        |c| {
            let event = event(c);
            !event.valid() || event.reserved_clear()
        };
    code_bits = "ctl.event.error-code.reserved",
        "where an error code is delivered, bits 31:16 of it are 0",
        |c| {
            let event = event(c);
            !event.valid()
                || !event.has_error_code()
                || c.get32(field::VM_ENTRY_EXCEPTION_ERROR_CODE) >> 16 == 0
        };
    length = "ctl.event.length",
        "the instruction length of a software interrupt or exception is at most 15",
        |c| !has_length(event(c)) || c.get32(field::VM_ENTRY_INSTRUCTION_LENGTH) <= 15;
    length_zero = "ctl.event.length-zero",
        "the instruction length of a software interrupt or exception is not 0, unless IA32_VMX_MISC[30] is 1",
        |c| !has_length(event(c))
            || c.get32(field::VM_ENTRY_INSTRUCTION_LENGTH) != 0
            || c.caps.zero_length_injection();
}

#[inline(always)]
fn protected(c: &Ctx<'_>) -> bool {
    Cr0::PE.is_in(c.get(field::GUEST_CR0))
}

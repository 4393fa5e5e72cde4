//! The event that VM entry injects.

use super::{CONTROLS_ANSWER, Ctx, rules};
use crate::controls::Proc;
use crate::field;

const SECTION: &str = "VM-Entry Control Fields";

/// Interruption types, bits 10:8 of the interruption-information fields. SDM
/// "VM-Entry Controls for Event Injection".
pub mod kind {
    /// External interrupt.
    pub const EXTERNAL: u32 = 0;
    /// Reserved.
    pub const RESERVED: u32 = 1;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 2;
    /// Hardware exception.
    pub const HARDWARE_EXCEPTION: u32 = 3;
    /// Software interrupt.
    pub const SOFTWARE_INTERRUPT: u32 = 4;
    /// Privileged software exception.
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: u32 = 5;
    /// Software exception.
    pub const SOFTWARE_EXCEPTION: u32 = 6;
    /// Other event: a pending MTF VM exit.
    pub const OTHER: u32 = 7;
}

/// The vectors that push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC.
const WITH_ERROR_CODE: u32 = 1 << 8 | 0b1_1111 << 10 | 1 << 17;

/// The VM-entry interruption information.
#[derive(Clone, Copy)]
pub(super) struct Event(u32);

impl Event {
    #[inline(always)]
    pub(super) fn of(c: &Ctx<'_>) -> Self {
        Self(c.get32(field::VM_ENTRY_INTERRUPTION_INFORMATION))
    }

    #[inline(always)]
    pub(super) const fn valid(self) -> bool {
        self.0 & 1 << 31 != 0
    }

    #[inline(always)]
    pub(super) const fn kind(self) -> u32 {
        self.0 >> 8 & 7
    }

    #[inline(always)]
    pub(super) const fn vector(self) -> u32 {
        self.0 & 0xff
    }

    #[inline(always)]
    const fn error_code(self) -> bool {
        self.0 & 1 << 11 != 0
    }

    /// Whether an event of this type is injected.
    #[inline(always)]
    pub(super) const fn is(self, kind: u32) -> bool {
        self.valid() && self.kind() == kind
    }

    /// Whether the instruction length counts.
    #[inline(always)]
    const fn has_length(self) -> bool {
        self.is(kind::SOFTWARE_INTERRUPT)
            || self.is(kind::PRIVILEGED_SOFTWARE_EXCEPTION)
            || self.is(kind::SOFTWARE_EXCEPTION)
    }
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
            let event = Event::of(c);
            !event.is(kind::RESERVED)
                && (!event.is(kind::OTHER) || c.caps.offers_proc(Proc::MONITOR_TRAP_FLAG))
        };
    nmi_vector = "ctl.event.vector.nmi",
        "the vector of an NMI is 2",
        |c| !Event::of(c).is(kind::NMI) || Event::of(c).vector() == 2;
    exception_vector = "ctl.event.vector.exception",
        "the vector of a hardware exception is at most 31",
        |c| !Event::of(c).is(kind::HARDWARE_EXCEPTION) || Event::of(c).vector() <= 31;
    other_vector = "ctl.event.vector.other",
        "the vector of an event of type 7 is 0 (a pending MTF VM exit)",
        |c| !Event::of(c).is(kind::OTHER) || Event::of(c).vector() == 0;
    code_kind = "ctl.event.error-code.type",
        "deliver-error-code is 0 unless the type is hardware exception",
        |c| {
            let event = Event::of(c);
            !event.valid() || !event.error_code() || event.kind() == kind::HARDWARE_EXCEPTION
        };
    code_real = "ctl.event.error-code.unprotected",
        "deliver-error-code is 0 where \"unrestricted guest\" is 1 and the guest's CR0.PE is 0",
        |c| {
            let event = Event::of(c);
            !event.valid() || !event.error_code() || !c.unrestricted() || protected(c)
        };
    code_missing = "ctl.event.error-code.missing",
        "deliver-error-code is 1 for a hardware exception of vector 8, 10-14 or 17 in protected mode, unless IA32_VMX_BASIC[56] is 1",
        |c| {
            let event = Event::of(c);
            !event.is(kind::HARDWARE_EXCEPTION)
                || event.error_code()
                || c.caps.any_error_code_delivery()
                || (c.unrestricted() && !protected(c))
                || !pushes_code(event.vector())
        };
    code_extra = "ctl.event.error-code.vector",
        "deliver-error-code is 0 for a hardware exception of another vector, unless IA32_VMX_BASIC[56] is 1",
        |c| {
            let event = Event::of(c);
            !event.is(kind::HARDWARE_EXCEPTION)
                || !event.error_code()
                || c.caps.any_error_code_delivery()
                || pushes_code(event.vector())
        };
    reserved = "ctl.event.reserved",
        "bits 30:12 of the interruption information of a valid event are 0",
        |c| {
            let information = c.get32(field::VM_ENTRY_INTERRUPTION_INFORMATION);
            !Event::of(c).valid() || information & 0x7fff_f000 == 0
        };
    code_bits = "ctl.event.error-code.reserved",
        "where an error code is delivered, bits 31:16 of it are 0",
        |c| {
            let event = Event::of(c);
            !event.valid()
                || !event.error_code()
                || c.get32(field::VM_ENTRY_EXCEPTION_ERROR_CODE) >> 16 == 0
        };
    length = "ctl.event.length",
        "the instruction length of a software interrupt or exception is at most 15",
        |c| !Event::of(c).has_length() || c.get32(field::VM_ENTRY_INSTRUCTION_LENGTH) <= 15;
    length_zero = "ctl.event.length-zero",
        "the instruction length of a software interrupt or exception is not 0, unless IA32_VMX_MISC[30] is 1",
        |c| !Event::of(c).has_length()
            || c.get32(field::VM_ENTRY_INSTRUCTION_LENGTH) != 0
            || c.caps.zero_length_injection();
}

#[inline(always)]
fn protected(c: &Ctx<'_>) -> bool {
    c.get(field::GUEST_CR0) & 1 != 0
}

#[inline(always)]
const fn pushes_code(vector: u32) -> bool {
    vector < 32 && WITH_ERROR_CODE >> vector & 1 != 0
}

//! Exceptions, interrupts and how the VMCS writes them down. SDM "VM-Entry Controls
//! for Event Injection", "Information for VM Exits Due to Vectored Events",
//! "Information for VM Exits During Event Delivery".

use crate::address::Linear;
use bitfield_struct::bitfield;

/// The vectors of exceptions. SDM "Exception and Interrupt Vectors".
#[allow(missing_docs)]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
    pub const VE: u8 = 20;
    pub const CP: u8 = 21;

    /// Whether VM entry may deliver an error code with the exception, on a CPU
    /// that asks (bit 56 of IA32_VMX_BASIC is 0): #DF, #TS, #NP, #SS, #GP, #PF, #AC.
    #[inline]
    #[must_use]
    pub const fn has_error_code(vector: u8) -> bool {
        matches!(vector, DF | TS | NP | SS | GP | PF | AC)
    }
}

/// The kinds of events, bits 10:8 of the interruption-information fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventType {
    /// External interrupt.
    ExternalInterrupt = 0,
    /// Reserved; nothing has it.
    Reserved = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// Hardware exception.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3, INTO.
    SoftwareException = 6,
    /// In the VM-entry field: a pending MTF VM exit. In IDT-vectoring information:
    /// not defined without FRED.
    Other = 7,
}

impl EventType {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::ExternalInterrupt,
            1 => Self::Reserved,
            2 => Self::Nmi,
            3 => Self::HardwareException,
            4 => Self::SoftwareInterrupt,
            5 => Self::PrivilegedSoftwareException,
            6 => Self::SoftwareException,
            _ => Self::Other,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }

    /// Whether an instruction causes it, so that its length counts.
    #[inline]
    #[must_use]
    pub const fn is_of_instruction(self) -> bool {
        matches!(
            self,
            Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException
        )
    }
}

/// The VM-entry interruption information, the VM-exit interruption information and
/// the IDT-vectoring information, which have one layout.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventInfo {
    /// The vector.
    pub vector: u8,
    /// The kind.
    #[bits(3, default = EventType::ExternalInterrupt)]
    pub kind: EventType,
    /// There is an error code.
    pub has_error_code: bool,
    /// VM-exit interruption information: IRET had unblocked NMIs. Undefined or
    /// reserved in the others.
    pub nmi_unblocking: bool,
    #[bits(18)]
    __: u32,
    /// The rest counts.
    pub valid: bool,
}

impl EventInfo {
    /// An NMI, as VM entry injects it and VM exit reports it.
    pub const NMI: Self = Self::of(EventType::Nmi, vector::NMI);

    /// A valid event without an error code.
    #[must_use]
    pub const fn of(kind: EventType, vector: u8) -> Self {
        Self::new()
            .with_valid(true)
            .with_kind(kind)
            .with_vector(vector)
    }

    /// Bits 30:12, which are reserved at VM entry, are 0.
    #[inline]
    #[must_use]
    pub const fn reserved_clear(self) -> bool {
        self.into_bits() & 0x7fff_f000 == 0
    }

    /// Whether this is a valid event of the kind.
    #[inline]
    #[must_use]
    pub const fn is(self, kind: EventType) -> bool {
        self.valid() && self.kind() as u8 == kind as u8
    }
}

/// An exception that a level is to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code, for the vectors that have one.
    pub error_code: Option<u32>,
    /// The linear address that goes to CR2, for a page fault.
    pub cr2: Option<u64>,
}

impl Exception {
    /// #UD.
    pub const UD: Self = Self::plain(vector::UD);
    /// #GP(0).
    pub const GP: Self = Self::with_code(vector::GP, 0);
    /// #SS(0).
    pub const SS: Self = Self::with_code(vector::SS, 0);

    /// One without an error code.
    #[must_use]
    pub const fn plain(vector: u8) -> Self {
        Self {
            vector,
            error_code: None,
            cr2: None,
        }
    }

    /// One with an error code.
    #[must_use]
    pub const fn with_code(vector: u8, error_code: u32) -> Self {
        Self {
            vector,
            error_code: Some(error_code),
            cr2: None,
        }
    }

    /// One about a selector, whose index and table are the error code. SDM "Error
    /// Code".
    #[must_use]
    pub const fn of_selector(vector: u8, selector: u16) -> Self {
        Self::with_code(vector, selector as u32 & 0xfffc)
    }

    /// #PF at a linear address.
    #[must_use]
    pub const fn page(linear: Linear, error_code: u32) -> Self {
        Self {
            vector: vector::PF,
            error_code: Some(error_code),
            cr2: Some(linear.raw()),
        }
    }

    /// The information of the event. In real mode no exception has an error code.
    #[must_use]
    pub const fn information(self, protected_mode: bool) -> EventInfo {
        EventInfo::of(EventType::HardwareException, self.vector)
            .with_has_error_code(self.error_code.is_some() && protected_mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nmi_reads_as_the_sdm_writes_it() {
        assert_eq!(EventInfo::NMI.into_bits(), 0x8000_0202);
    }

    #[test]
    fn a_page_fault_has_its_code_in_protected_mode_alone() {
        let fault = Exception::page(Linear::new(0x1000), 2);
        assert_eq!(fault.information(true).into_bits(), 0x8000_0b0e);
        assert_eq!(fault.information(false).into_bits(), 0x8000_030e);
    }

    #[test]
    fn a_value_from_the_cpu_keeps_its_reserved_bits() {
        for raw in [0u32, !0, 0x1234_5678, 0x7fff_f000] {
            assert_eq!(EventInfo::from_bits(raw).into_bits(), raw);
        }
        assert!(!EventInfo::from_bits(1 << 12).reserved_clear());
    }
}

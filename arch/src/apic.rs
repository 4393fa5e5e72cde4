//! The local APIC. SDM "Advanced Programmable Interrupt Controller (APIC)".

use bitfield_struct::bitfield;

/// Offsets of registers in the page of an xAPIC, in bytes. In x2APIC mode the MSR
/// of a register is 800H plus its offset divided by 16.
#[allow(missing_docs)]
pub mod register {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const END_OF_INTERRUPT: u32 = 0xb0;
    pub const LOGICAL_DESTINATION: u32 = 0xd0;
    pub const DESTINATION_FORMAT: u32 = 0xe0;
    pub const SPURIOUS: u32 = 0xf0;
    /// The first of eight, 16 bytes apart.
    pub const IN_SERVICE: u32 = 0x100;
    pub const ERROR_STATUS: u32 = 0x280;
    pub const LVT_CMCI: u32 = 0x2f0;
    pub const ICR_LOW: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_THERMAL: u32 = 0x330;
    pub const LVT_PERFORMANCE: u32 = 0x340;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL_COUNT: u32 = 0x380;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
}

/// Bit 16 of an entry of the local vector table: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// Bit 24 of the version register: ends of interrupts need not be broadcast.
pub const VERSION_CAN_SUPPRESS_EOI: u32 = 1 << 24;
/// Bit 12 of the spurious-interrupt vector register: an end of interrupt is not told
/// to the I/O APICs.
pub const SPURIOUS_SUPPRESS_EOI: u32 = 1 << 12;

/// Delivery modes of an interprocessor interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// To the vector.
    Fixed = 0,
    /// To the vector, at the CPU of the lowest priority.
    LowestPriority = 1,
    /// SMI.
    Smi = 2,
    /// Reserved.
    Reserved = 3,
    /// NMI.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up, at the page that the vector names.
    StartUp = 6,
    /// Not for interprocessor interrupts.
    ExtInt = 7,
}

impl Delivery {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            _ => Self::ExtInt,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// The low half of the interrupt command register. SDM "Interrupt Command Register
/// (ICR)".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IcrLow {
    /// The vector.
    pub vector: u8,
    /// The delivery mode.
    #[bits(3, default = Delivery::Fixed)]
    pub delivery: Delivery,
    /// The destination is logical.
    pub is_logical: bool,
    /// xAPIC: the one before is still on its way.
    pub is_pending: bool,
    __: bool,
    /// Level: asserted.
    pub is_assert: bool,
    /// Level-triggered.
    pub is_level: bool,
    #[bits(2)]
    __: u8,
    /// Destination shorthand: none, self, all, all but the sender.
    #[bits(2)]
    pub shorthand: u8,
    #[bits(12)]
    __: u16,
}

impl IcrLow {
    /// The shorthand for all but the sender.
    pub const ALL_BUT_SELF: u8 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_as_the_sdm_writes_them() {
        let init = IcrLow::new()
            .with_delivery(Delivery::Init)
            .with_is_assert(true);
        assert_eq!(init.into_bits(), 0x4500);
        let start = IcrLow::new()
            .with_delivery(Delivery::StartUp)
            .with_is_assert(true)
            .with_vector(0x9f)
            .with_shorthand(IcrLow::ALL_BUT_SELF);
        assert_eq!(start.into_bits(), 0xc_469f);
        assert!(IcrLow::from_bits(1 << 12).is_pending());
    }
}

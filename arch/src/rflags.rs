//! RFLAGS. SDM "EFLAGS Register".

use crate::flags::on_raw_values;
use bitflags::bitflags;

bitflags! {
    /// RFLAGS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rflags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Always 1.
        const FIXED = 1 << 1;
        /// Parity.
        const PF = 1 << 2;
        /// Auxiliary carry.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap: a single step.
        const TF = 1 << 8;
        /// Interrupts are enabled.
        const IF = 1 << 9;
        /// Strings go downwards.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// The two bits of the I/O privilege level.
        const IOPL = 3 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume: instruction breakpoints are ignored for one instruction.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check, or access control.
        const AC = 1 << 18;
        /// Virtual interrupt flag.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// CPUID can be used.
        const ID = 1 << 21;
    }
}

on_raw_values!(Rflags: u64);

impl Rflags {
    /// The status flags that VMX instructions set: CF, PF, AF, ZF, SF, OF. SDM
    /// "Conventions".
    pub const STATUS: Self = Self::CF
        .union(Self::PF)
        .union(Self::AF)
        .union(Self::ZF)
        .union(Self::SF)
        .union(Self::OF);
}

//! Control registers. SDM "Control Registers".

use crate::flags::on_raw_values;
use bitflags::bitflags;

bitflags! {
    /// CR0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr0: u64 {
        /// Protection enable.
        const PE = 1 << 0;
        /// Monitor coprocessor.
        const MP = 1 << 1;
        /// Emulation.
        const EM = 1 << 2;
        /// Task switched.
        const TS = 1 << 3;
        /// Extension type, always 1.
        const ET = 1 << 4;
        /// Numeric error.
        const NE = 1 << 5;
        /// Write protect.
        const WP = 1 << 16;
        /// Alignment mask.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disable.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
    }

    /// CR3: the bits beside the address.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr3: u64 {
        /// Page-level write-through.
        const PWT = 1 << 3;
        /// Page-level cache disable.
        const PCD = 1 << 4;
        /// Linear-address masking of user addresses, 57 bits wide.
        const LAM_U57 = 1 << 61;
        /// Linear-address masking of user addresses, 48 bits wide.
        const LAM_U48 = 1 << 62;
        /// In what MOV to CR3 takes with CR4.PCIDE: nothing is invalidated.
        const NO_FLUSH = 1 << 63;
    }

    /// CR4.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr4: u64 {
        /// Virtual-8086 mode extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// RDTSC for the kernel alone.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// Page-size extensions.
        const PSE = 1 << 4;
        /// Physical-address extension.
        const PAE = 1 << 5;
        /// Machine-check enable.
        const MCE = 1 << 6;
        /// Page global enable.
        const PGE = 1 << 7;
        /// RDPMC for everyone.
        const PCE = 1 << 8;
        /// FXSAVE, FXRSTOR and SSE.
        const OSFXSR = 1 << 9;
        /// Unmasked SIMD floating-point exceptions.
        const OSXMMEXCPT = 1 << 10;
        /// SGDT and the like for the kernel alone.
        const UMIP = 1 << 11;
        /// Linear addresses of 57 bits.
        const LA57 = 1 << 12;
        /// VMX enable.
        const VMXE = 1 << 13;
        /// SMX enable.
        const SMXE = 1 << 14;
        /// RDFSBASE and the like.
        const FSGSBASE = 1 << 16;
        /// Process-context identifiers.
        const PCIDE = 1 << 17;
        /// XSAVE.
        const OSXSAVE = 1 << 18;
        /// Key locker.
        const KL = 1 << 19;
        /// No execution of user pages by the kernel.
        const SMEP = 1 << 20;
        /// No access to user pages by the kernel.
        const SMAP = 1 << 21;
        /// Protection keys of user pages.
        const PKE = 1 << 22;
        /// Control-flow enforcement.
        const CET = 1 << 23;
        /// Protection keys of supervisor pages.
        const PKS = 1 << 24;
        /// User interrupts.
        const UINTR = 1 << 25;
        /// Linear-address space separation.
        const LASS = 1 << 27;
        /// Linear-address masking of supervisor addresses.
        const LAM_SUP = 1 << 28;
        /// Flexible return and event delivery.
        const FRED = 1 << 32;
    }
}

on_raw_values!(Cr0: u64, Cr3: u64, Cr4: u64);

impl Cr0 {
    /// The bits that VM entry and VM exit leave to VMX operation: NW and CD. SDM
    /// "Checks on Host Control Registers, MSRs, and SSP".
    pub const CACHING: Self = Self::NW.union(Self::CD);
}

bitflags! {
    /// XCR0. SDM "Enabling the XSAVE Feature Set and XSAVE-Enabled Features".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Xcr0: u64 {
        /// x87, always 1.
        const X87 = 1 << 0;
        /// XMM registers and MXCSR.
        const SSE = 1 << 1;
        /// The upper halves of YMM registers.
        const AVX = 1 << 2;
        /// MPX's bound registers.
        const BNDREGS = 1 << 3;
        /// MPX's configuration.
        const BNDCSR = 1 << 4;
        /// AVX-512's mask registers.
        const OPMASK = 1 << 5;
        /// The upper halves of ZMM0 to ZMM15.
        const ZMM_HI256 = 1 << 6;
        /// ZMM16 to ZMM31.
        const HI16_ZMM = 1 << 7;
        /// PKRU.
        const PKRU = 1 << 9;
        /// AMX's tile configuration.
        const TILECFG = 1 << 17;
        /// AMX's tiles.
        const TILEDATA = 1 << 18;
    }
}

on_raw_values!(Xcr0: u64);

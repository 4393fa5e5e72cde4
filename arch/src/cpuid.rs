//! What CPUID says of a CPU, as far as more than one place asks. SDM "CPUID—CPU
//! Identification".

use crate::flags::on_raw_values;
use bitflags::bitflags;

/// The leaf of [`Leaf80000001Edx`].
pub const EXTENDED_FEATURES: u32 = 0x8000_0001;

bitflags! {
    /// CPUID.01H:ECX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf1Ecx: u32 {
        /// Virtual-machine extensions.
        const VMX = 1 << 5;
        /// IA32_PERF_CAPABILITIES exists.
        const PDCM = 1 << 15;
        /// XSAVE, XGETBV and CR4.OSXSAVE.
        const XSAVE = 1 << 26;
        /// CR4.OSXSAVE is 1.
        const OSXSAVE = 1 << 27;
        /// A hypervisor is below, and answers leaves of its own (reserved in the SDM, set by
        /// hypervisors).
        const HYPERVISOR = 1 << 31;
    }

    /// CPUID.01H:EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf1Edx: u32 {
        /// Machine checks are exceptions, and CR4.MCE.
        const MCE = 1 << 7;
        /// Memory-type range registers.
        const MTRR = 1 << 12;
    }

    /// CPUID.(EAX=07H,ECX=0):EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf7Edx: u32 {
        /// IA32_SPEC_CTRL and IA32_PRED_CMD.
        const IBRS_IBPB = 1 << 26;
        /// IA32_ARCH_CAPABILITIES exists.
        const ARCH_CAPABILITIES = 1 << 29;
    }

    /// CPUID.80000001H:EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Leaf80000001Edx: u32 {
        /// Execute-disable pages.
        const NX = 1 << 20;
        /// Pages of 1 GiB.
        const GIB_PAGES = 1 << 26;
        /// RDTSCP and IA32_TSC_AUX.
        const RDTSCP = 1 << 27;
    }
}

on_raw_values!(
    Leaf1Ecx: u32,
    Leaf1Edx: u32,
    Leaf7Edx: u32,
    Leaf80000001Edx: u32,
);

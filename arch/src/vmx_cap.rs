//! VMX capabilities beside the controls, and the mark of a shadow VMCS. SDM "VMX Capability
//! Reporting Facility".

use crate::flags::on_raw_values;
use bitflags::bitflags;

/// In the first word of a VMCS region, beside the revision: it is a shadow VMCS. SDM "Format of
/// the VMCS Region".
pub const SHADOW_VMCS_INDICATOR: u32 = 1 << 31;

bitflags! {
    /// IA32_VMX_BASIC: the bits beside its numbers. SDM "Basic VMX Information".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmxBasic: u64 {
        /// Addresses of VMX regions and what they point at are below 4 GiB.
        const ADDRESSES_32_BIT = 1 << 48;
        /// The TRUE capability MSRs exist.
        const TRUE_CONTROLS = 1 << 55;
        /// Hardware exceptions are injected with or without an error code, whatever the vector.
        const ANY_ERROR_CODE = 1 << 56;
    }

    /// IA32_VMX_MISC: the bits beside its numbers. SDM "Miscellaneous Data".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmxMisc: u64 {
        /// VM exits store EFER.LMA into "IA-32e mode guest".
        const STORES_LMA = 1 << 5;
        /// VM entry to HLT.
        const HLT = 1 << 6;
        /// VM entry to shutdown.
        const SHUTDOWN = 1 << 7;
        /// VM entry to wait-for-SIPI.
        const WAIT_FOR_SIPI = 1 << 8;
        /// Processor trace works in VMX operation.
        const PROCESSOR_TRACE = 1 << 14;
        /// VMWRITE to any field, those of exit information included.
        const VMWRITE_ANY_FIELD = 1 << 29;
        /// Events with instruction length 0 are injected.
        const ZERO_LENGTH_INJECTION = 1 << 30;
    }

    /// IA32_VMX_VMFUNC. SDM "VM-Function Controls".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmFunctions: u64 {
        /// EPTP switching.
        const EPTP_SWITCHING = 1 << 0;
    }
}

on_raw_values!(VmxBasic: u64, VmxMisc: u64, VmFunctions: u64);

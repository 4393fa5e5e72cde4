//! VM-instruction error numbers. SDM "VM Instruction Error Numbers".

/// What VMfailValid leaves in the VM-instruction error field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum InsnError {
    /// VMCALL executed in VMX root operation.
    VmcallInRoot = 1,
    /// VMCLEAR with an invalid physical address.
    VmclearInvalidAddress = 2,
    /// VMCLEAR with the VMXON pointer.
    VmclearVmxonPointer = 3,
    /// VMLAUNCH with a VMCS that is not clear.
    VmlaunchNotClear = 4,
    /// VMRESUME with a VMCS that is not launched.
    VmresumeNotLaunched = 5,
    /// VMRESUME after VMXOFF.
    VmresumeAfterVmxoff = 6,
    /// VM entry with invalid control fields.
    EntryInvalidControls = 7,
    /// VM entry with invalid host-state fields.
    EntryInvalidHostState = 8,
    /// VMPTRLD with an invalid physical address.
    VmptrldInvalidAddress = 9,
    /// VMPTRLD with the VMXON pointer.
    VmptrldVmxonPointer = 10,
    /// VMPTRLD with an incorrect VMCS revision identifier.
    VmptrldIncorrectRevision = 11,
    /// VMREAD or VMWRITE from or to an unsupported VMCS component.
    UnsupportedComponent = 12,
    /// VMWRITE to a read-only VMCS component.
    VmwriteReadOnly = 13,
    /// VMXON executed in VMX root operation.
    VmxonInRoot = 15,
    /// VM entry with an invalid executive-VMCS pointer.
    EntryInvalidExecutivePointer = 16,
    /// VM entry with a non-launched executive VMCS.
    EntryNonLaunchedExecutive = 17,
    /// VM entry with an executive-VMCS pointer that is not the VMXON pointer.
    EntryExecutiveNotVmxon = 18,
    /// VMCALL with a VMCS that is not clear.
    VmcallNotClear = 19,
    /// VMCALL with invalid VM-exit control fields.
    VmcallInvalidExitControls = 20,
    /// VMCALL with an incorrect MSEG revision identifier.
    VmcallIncorrectMseg = 22,
    /// VMXOFF under dual-monitor treatment of SMIs and SMM.
    VmxoffDualMonitor = 23,
    /// VMCALL with invalid SMM-monitor features.
    VmcallInvalidSmmFeatures = 24,
    /// VM entry with invalid VM-execution control fields in the executive VMCS.
    EntryInvalidExecutiveControls = 25,
    /// VM entry with events blocked by MOV SS.
    EntryBlockedByMovSs = 26,
    /// Invalid operand to INVEPT or INVVPID.
    InvalidInvalidationOperand = 28,
}

impl InsnError {
    /// The number as the VM-instruction error field holds it.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The SDM's words for a number; for one that has no meaning, that.
    pub const fn describe(number: u32) -> &'static str {
        match number {
            1 => "VMCALL executed in VMX root operation",
            2 => "VMCLEAR with invalid physical address",
            3 => "VMCLEAR with VMXON pointer",
            4 => "VMLAUNCH with non-clear VMCS",
            5 => "VMRESUME with non-launched VMCS",
            6 => "VMRESUME after VMXOFF",
            7 => "VM entry with invalid control field(s)",
            8 => "VM entry with invalid host-state field(s)",
            9 => "VMPTRLD with invalid physical address",
            10 => "VMPTRLD with VMXON pointer",
            11 => "VMPTRLD with incorrect VMCS revision identifier",
            12 => "VMREAD/VMWRITE from/to unsupported VMCS component",
            13 => "VMWRITE to read-only VMCS component",
            15 => "VMXON executed in VMX root operation",
            16 => "VM entry with invalid executive-VMCS pointer",
            17 => "VM entry with non-launched executive VMCS",
            18 => "VM entry with executive-VMCS pointer not VMXON pointer",
            19 => "VMCALL with non-clear VMCS",
            20 => "VMCALL with invalid VM-exit control fields",
            22 => "VMCALL with incorrect MSEG revision identifier",
            23 => "VMXOFF under dual-monitor treatment of SMIs and SMM",
            24 => "VMCALL with invalid SMM-monitor features",
            25 => "VM entry with invalid VM-execution control fields in executive VMCS",
            26 => "VM entry with events blocked by MOV SS",
            28 => "invalid operand to INVEPT/INVVPID",
            _ => "no VM-instruction error of this number",
        }
    }
}

//! The VMX instructions' own conditions, in the order of the SDM's pseudo-code.
//! SDM "VMX Instruction Reference".
//!
//! The rows about L1's registers carry their predicate; the others (operand,
//! VMCS pointers, memory) are for the code that executes the instruction to
//! evaluate, which refers to the rows by their constants.

use umbra_arch::msr::FeatureControl;
use umbra_arch::{Cr0, Cr4, Efer, EptVpidCap, Rflags};

use crate::caps::VmxCaps;
use crate::error::InsnError;
use crate::rules::host::fixed_bits_ok;

/// What a VMX instruction does when a condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsnAnswer {
    /// #UD.
    InvalidOpcode,
    /// #GP(0).
    GeneralProtection,
    /// What a memory operand gives: #GP(0), #SS(0), #PF or #AC.
    OperandFault,
    /// VMfailInvalid.
    FailInvalid,
    /// VMfail: VMfailValid with the number where there is a current VMCS,
    /// VMfailInvalid where there is none.
    Fail(InsnError),
    /// A VM exit, with the instruction's own reason.
    VmExit,
}

/// Where the CPU stands with VMX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VmxOperation {
    /// Before VMXON, after VMXOFF.
    #[default]
    Off,
    /// VMX root operation.
    Root,
    /// VMX non-root operation.
    NonRoot,
}

/// The registers that a VMX instruction looks at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// CR0, as the CPU has it.
    pub cr0: u64,
    /// CR4, as the CPU has it.
    pub cr4: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// L of CS.
    pub cs_l: bool,
    /// The current privilege level.
    pub cpl: u8,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// In SMX operation.
    pub smx: bool,
    /// A20M is asserted.
    pub a20_masked: bool,
    /// VMX operation.
    pub vmx: VmxOperation,
}

impl Registers {
    #[inline]
    const fn protected(&self) -> bool {
        Cr0::PE.is_in(self.cr0)
    }

    #[inline]
    const fn v8086(&self) -> bool {
        Rflags::VM.is_in(self.rflags)
    }

    #[inline]
    const fn compatibility(&self) -> bool {
        Efer::LMA.is_in(self.efer) && !self.cs_l
    }

    /// Protected mode or 64-bit mode: where VMX instructions exist.
    #[inline]
    const fn vmx_mode(&self) -> bool {
        self.protected() && !self.v8086() && !self.compatibility()
    }

    #[inline]
    const fn in_vmx(&self) -> bool {
        !matches!(self.vmx, VmxOperation::Off)
    }

    #[inline]
    const fn in_root(&self) -> bool {
        matches!(self.vmx, VmxOperation::Root)
    }

    /// What CR0, CR4 and IA32_FEATURE_CONTROL have to be for VMXON.
    fn vmxon_allowed(&self, caps: &VmxCaps) -> bool {
        let enable = if self.smx {
            FeatureControl::VMX_IN_SMX
        } else {
            FeatureControl::VMX_OUTSIDE_SMX
        };
        self.cpl == 0
            && !self.a20_masked
            && fixed_bits_ok(
                self.cr0,
                caps.cr0_fixed0 & !Cr0::CACHING.bits(),
                caps.cr0_fixed1 | Cr0::CACHING.bits(),
            )
            && fixed_bits_ok(self.cr4, caps.cr4_fixed0, caps.cr4_fixed1)
            && FeatureControl::LOCK
                .union(enable)
                .is_in(self.feature_control)
    }
}

/// A predicate over registers.
type Predicate = fn(&Registers, &VmxCaps) -> bool;

/// A condition of a VMX instruction.
pub struct InsnRule {
    /// A stable name: instruction, detail.
    pub id: &'static str,
    /// The instruction's page in the SDM.
    pub instruction: &'static str,
    /// What has to hold.
    pub what: &'static str,
    /// What the instruction does when it does not.
    pub answer: InsnAnswer,
    holds: Option<Predicate>,
}

impl InsnRule {
    /// Whether the registers keep to the rule; `None` where it is not about
    /// registers.
    pub fn holds(&self, registers: &Registers, caps: &VmxCaps) -> Option<bool> {
        self.holds.map(|holds| holds(registers, caps))
    }
}

impl core::fmt::Debug for InsnRule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.id)
    }
}

impl PartialEq for InsnRule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for InsnRule {}

/// The first rule about registers that they break. The rules about registers
/// stand before all others in each table.
pub fn first_broken(
    rules: &'static [&'static InsnRule],
    registers: &Registers,
    caps: &VmxCaps,
) -> Option<&'static InsnRule> {
    rules
        .iter()
        .copied()
        .find(|rule| rule.holds(registers, caps) == Some(false))
}

/// The SDM's pages, for one rule in many tables.
macro_rules! instruction {
    (
        $(#[$doc:meta])*
        $table:ident = $page:literal;
        $($name:ident = $id:literal, $what:expr, $answer:expr $(, $holds:expr)?;)*
    ) => {
        $(
            #[doc = concat!("`", $id, "`")]
            pub static $name: InsnRule = InsnRule {
                id: $id,
                instruction: $page,
                what: $what,
                answer: $answer,
                holds: instruction!(@holds $($holds)?),
            };
        )*
        $(#[$doc])*
        pub static $table: &[&InsnRule] = &[$(&$name),*];
    };
    (@holds) => { None };
    (@holds $holds:expr) => { Some($holds) };
}

use InsnAnswer::{Fail, FailInvalid, GeneralProtection, InvalidOpcode, OperandFault, VmExit};

const MODE: &str = "VMX operation, CR0.PE 1, RFLAGS.VM 0, and CS.L 1 where IA32_EFER.LMA is 1";
const NOT_NON_ROOT: &str = "not in VMX non-root operation";
const CPL: &str = "CPL is 0";
const OPERAND: &str = "the memory operand can be read";
const MEMORY_FORM: &str = "the operand is in memory";

const fn in_vmx_mode(r: &Registers, _: &VmxCaps) -> bool {
    r.in_vmx() && r.vmx_mode()
}
const fn root(r: &Registers, _: &VmxCaps) -> bool {
    !matches!(r.vmx, VmxOperation::NonRoot)
}
const fn cpl_0(r: &Registers, _: &VmxCaps) -> bool {
    r.cpl == 0
}

instruction! {
    /// VMXON.
    VMXON = "VMXON--Enter VMX Operation";
    VMXON_MODE = "vmxon.mode",
        "CR0.PE 1, CR4.VMXE 1, RFLAGS.VM 0, and CS.L 1 where IA32_EFER.LMA is 1",
        InvalidOpcode, |r, _| r.vmx_mode() && Cr4::VMXE.is_in(r.cr4);
    VMXON_NON_ROOT = "vmxon.non-root", NOT_NON_ROOT, VmExit, root;
    VMXON_CPL_IN_ROOT = "vmxon.cpl-in-root",
        "CPL is 0, in VMX root operation",
        GeneralProtection, |r, _| !r.in_root() || r.cpl == 0;
    VMXON_IN_ROOT = "vmxon.in-root",
        "not in VMX root operation",
        Fail(InsnError::VmxonInRoot), |r, _| !r.in_root();
    VMXON_STATE = "vmxon.state",
        "outside VMX operation: CPL 0, A20M not asserted, CR0 and CR4 as IA32_VMX_CR0_FIXED0/1 and IA32_VMX_CR4_FIXED0/1 ask, IA32_FEATURE_CONTROL locked with VMXON enabled (inside or outside SMX)",
        GeneralProtection, |r, caps| r.in_vmx() || r.vmxon_allowed(caps);
    VMXON_OPERAND = "vmxon.operand", OPERAND, OperandFault;
    VMXON_ADDRESS = "vmxon.address",
        "the address is page-aligned and within the physical-address width",
        FailInvalid;
    VMXON_REVISION = "vmxon.revision",
        "bits 30:0 of the region's first 4 bytes are the VMCS revision identifier and bit 31 is 0",
        FailInvalid;
}

instruction! {
    /// VMXOFF.
    VMXOFF = "VMXOFF--Leave VMX Operation";
    VMXOFF_MODE = "vmxoff.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMXOFF_NON_ROOT = "vmxoff.non-root", NOT_NON_ROOT, VmExit, root;
    VMXOFF_CPL = "vmxoff.cpl", CPL, GeneralProtection, cpl_0;
    VMXOFF_DUAL_MONITOR = "vmxoff.dual-monitor",
        "the dual-monitor treatment of SMIs and SMM is not active",
        Fail(InsnError::VmxoffDualMonitor);
}

instruction! {
    /// VMCLEAR.
    VMCLEAR = "VMCLEAR--Clear Virtual-Machine Control Structure";
    VMCLEAR_FORM = "vmclear.form", MEMORY_FORM, InvalidOpcode;
    VMCLEAR_MODE = "vmclear.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMCLEAR_NON_ROOT = "vmclear.non-root", NOT_NON_ROOT, VmExit, root;
    VMCLEAR_CPL = "vmclear.cpl", CPL, GeneralProtection, cpl_0;
    VMCLEAR_OPERAND = "vmclear.operand", OPERAND, OperandFault;
    VMCLEAR_ADDRESS = "vmclear.address",
        "the address is page-aligned and within the physical-address width",
        Fail(InsnError::VmclearInvalidAddress);
    VMCLEAR_VMXON = "vmclear.vmxon-pointer",
        "the address is not the VMXON pointer",
        Fail(InsnError::VmclearVmxonPointer);
}

instruction! {
    /// VMPTRLD.
    VMPTRLD = "VMPTRLD--Load Pointer to Virtual-Machine Control Structure";
    VMPTRLD_FORM = "vmptrld.form", MEMORY_FORM, InvalidOpcode;
    VMPTRLD_MODE = "vmptrld.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMPTRLD_NON_ROOT = "vmptrld.non-root", NOT_NON_ROOT, VmExit, root;
    VMPTRLD_CPL = "vmptrld.cpl", CPL, GeneralProtection, cpl_0;
    VMPTRLD_OPERAND = "vmptrld.operand", OPERAND, OperandFault;
    VMPTRLD_ADDRESS = "vmptrld.address",
        "the address is page-aligned and within the physical-address width",
        Fail(InsnError::VmptrldInvalidAddress);
    VMPTRLD_VMXON = "vmptrld.vmxon-pointer",
        "the address is not the VMXON pointer",
        Fail(InsnError::VmptrldVmxonPointer);
    VMPTRLD_REVISION = "vmptrld.revision",
        "bits 30:0 of the region's first 4 bytes are the VMCS revision identifier, and bit 31 is 0 where the CPU does not offer \"VMCS shadowing\"",
        Fail(InsnError::VmptrldIncorrectRevision);
}

instruction! {
    /// VMPTRST.
    VMPTRST = "VMPTRST--Store Pointer to Virtual-Machine Control Structure";
    VMPTRST_FORM = "vmptrst.form", MEMORY_FORM, InvalidOpcode;
    VMPTRST_MODE = "vmptrst.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMPTRST_NON_ROOT = "vmptrst.non-root", NOT_NON_ROOT, VmExit, root;
    VMPTRST_CPL = "vmptrst.cpl", CPL, GeneralProtection, cpl_0;
    VMPTRST_OPERAND = "vmptrst.operand",
        "the memory operand can be written", OperandFault;
}

instruction! {
    /// VMREAD.
    VMREAD = "VMREAD--Read Field from Virtual-Machine Control Structure";
    VMREAD_MODE = "vmread.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMREAD_NON_ROOT = "vmread.non-root",
        "in VMX non-root operation: \"VMCS shadowing\" is 1, bits 63:15 of the encoding are 0 and its bit in the VMREAD bitmap is 0",
        VmExit;
    VMREAD_CPL = "vmread.cpl", CPL, GeneralProtection, cpl_0;
    VMREAD_POINTER = "vmread.pointer",
        "in VMX root operation there is a current VMCS; in VMX non-root operation the VMCS link pointer is valid",
        FailInvalid;
    VMREAD_FIELD = "vmread.field",
        "the encoding (64 bits of it in 64-bit mode) is that of a field the CPU has",
        Fail(InsnError::UnsupportedComponent);
    VMREAD_OPERAND = "vmread.operand",
        "the memory operand can be written", OperandFault;
}

instruction! {
    /// VMWRITE.
    VMWRITE = "VMWRITE--Write Field to Virtual-Machine Control Structure";
    VMWRITE_MODE = "vmwrite.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMWRITE_NON_ROOT = "vmwrite.non-root",
        "in VMX non-root operation: \"VMCS shadowing\" is 1, bits 63:15 of the encoding are 0 and its bit in the VMWRITE bitmap is 0",
        VmExit;
    VMWRITE_CPL = "vmwrite.cpl", CPL, GeneralProtection, cpl_0;
    VMWRITE_POINTER = "vmwrite.pointer",
        "in VMX root operation there is a current VMCS; in VMX non-root operation the VMCS link pointer is valid",
        FailInvalid;
    VMWRITE_OPERAND = "vmwrite.operand", OPERAND, OperandFault;
    VMWRITE_FIELD = "vmwrite.field",
        "the encoding (64 bits of it in 64-bit mode) is that of a field the CPU has",
        Fail(InsnError::UnsupportedComponent);
    VMWRITE_READ_ONLY = "vmwrite.read-only",
        "the field is not one of VM-exit information, unless IA32_VMX_MISC[29] is 1",
        Fail(InsnError::VmwriteReadOnly);
}

instruction! {
    /// VMLAUNCH.
    VMLAUNCH = "VMLAUNCH/VMRESUME--Launch/Resume Virtual Machine";
    VMLAUNCH_MODE = "vmlaunch.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMLAUNCH_NON_ROOT = "vmlaunch.non-root", NOT_NON_ROOT, VmExit, root;
    VMLAUNCH_CPL = "vmlaunch.cpl", CPL, GeneralProtection, cpl_0;
    VMLAUNCH_POINTER = "vmlaunch.pointer",
        "there is a current VMCS, and it is not a shadow VMCS",
        FailInvalid;
    VMLAUNCH_MOV_SS = "vmlaunch.mov-ss",
        "events are not blocked by MOV SS",
        Fail(InsnError::EntryBlockedByMovSs);
    VMLAUNCH_STATE = "vmlaunch.launch-state",
        "the launch state of the current VMCS is clear",
        Fail(InsnError::VmlaunchNotClear);
}

instruction! {
    /// VMRESUME.
    VMRESUME = "VMLAUNCH/VMRESUME--Launch/Resume Virtual Machine";
    VMRESUME_MODE = "vmresume.mode", MODE, InvalidOpcode, in_vmx_mode;
    VMRESUME_NON_ROOT = "vmresume.non-root", NOT_NON_ROOT, VmExit, root;
    VMRESUME_CPL = "vmresume.cpl", CPL, GeneralProtection, cpl_0;
    VMRESUME_POINTER = "vmresume.pointer",
        "there is a current VMCS, and it is not a shadow VMCS",
        FailInvalid;
    VMRESUME_MOV_SS = "vmresume.mov-ss",
        "events are not blocked by MOV SS",
        Fail(InsnError::EntryBlockedByMovSs);
    VMRESUME_STATE = "vmresume.launch-state",
        "the launch state of the current VMCS is launched",
        Fail(InsnError::VmresumeNotLaunched);
}

instruction! {
    /// INVEPT.
    INVEPT = "INVEPT--Invalidate Translations Derived from EPT";
    INVEPT_FORM = "invept.form", MEMORY_FORM, InvalidOpcode;
    INVEPT_SUPPORT = "invept.support",
        "the CPU offers \"enable EPT\" and IA32_VMX_EPT_VPID_CAP[20] is 1",
        InvalidOpcode, |_, caps| offers_invept(caps);
    INVEPT_MODE = "invept.mode", MODE, InvalidOpcode, in_vmx_mode;
    INVEPT_NON_ROOT = "invept.non-root", NOT_NON_ROOT, VmExit, root;
    INVEPT_CPL = "invept.cpl", CPL, GeneralProtection, cpl_0;
    INVEPT_TYPE = "invept.type",
        "the type is 1 or 2 and IA32_VMX_EPT_VPID_CAP (bits 25, 26) offers it",
        Fail(InsnError::InvalidInvalidationOperand);
    INVEPT_OPERAND = "invept.operand", OPERAND, OperandFault;
    INVEPT_EPTP = "invept.eptp",
        "for type 1, VM entry would accept the descriptor's EPTP",
        Fail(InsnError::InvalidInvalidationOperand);
}

instruction! {
    /// INVVPID.
    INVVPID = "INVVPID--Invalidate Translations Based on VPID";
    INVVPID_FORM = "invvpid.form", MEMORY_FORM, InvalidOpcode;
    INVVPID_SUPPORT = "invvpid.support",
        "the CPU offers \"enable VPID\" and IA32_VMX_EPT_VPID_CAP[32] is 1",
        InvalidOpcode, |_, caps| offers_invvpid(caps);
    INVVPID_MODE = "invvpid.mode", MODE, InvalidOpcode, in_vmx_mode;
    INVVPID_NON_ROOT = "invvpid.non-root", NOT_NON_ROOT, VmExit, root;
    INVVPID_CPL = "invvpid.cpl", CPL, GeneralProtection, cpl_0;
    INVVPID_TYPE = "invvpid.type",
        "the type is 0 to 3 and IA32_VMX_EPT_VPID_CAP (bits 43:40) offers it",
        Fail(InsnError::InvalidInvalidationOperand);
    INVVPID_OPERAND = "invvpid.operand", OPERAND, OperandFault;
    INVVPID_RESERVED = "invvpid.reserved",
        "bits 63:16 of the descriptor are 0",
        Fail(InsnError::InvalidInvalidationOperand);
    INVVPID_ZERO = "invvpid.zero",
        "for types 0, 1 and 3, the VPID is not 0",
        Fail(InsnError::InvalidInvalidationOperand);
    INVVPID_LINEAR = "invvpid.linear-address",
        "for type 0, the linear address is canonical",
        Fail(InsnError::InvalidInvalidationOperand);
}

instruction! {
    /// VMCALL.
    VMCALL = "VMCALL--Call to VM Monitor";
    VMCALL_VMX = "vmcall.vmx", "VMX operation", InvalidOpcode, |r, _| r.in_vmx();
    VMCALL_NON_ROOT = "vmcall.non-root", NOT_NON_ROOT, VmExit, root;
    VMCALL_MODE = "vmcall.mode",
        "RFLAGS.VM 0, and CS.L 1 where IA32_EFER.LMA is 1",
        InvalidOpcode, |r, _| !r.v8086() && !r.compatibility();
    VMCALL_CPL = "vmcall.cpl", CPL, GeneralProtection, cpl_0;
    VMCALL_IN_ROOT = "vmcall.in-root",
        "the CPU supports the dual-monitor treatment of SMIs and SMM and IA32_SMM_MONITOR_CTL is valid",
        Fail(InsnError::VmcallInRoot);
}

instruction! {
    /// VMFUNC.
    VMFUNC = "VMFUNC--Invoke VM function";
    VMFUNC_NON_ROOT = "vmfunc.non-root",
        "VMX non-root operation",
        InvalidOpcode, |r, _| matches!(r.vmx, VmxOperation::NonRoot);
    VMFUNC_ENABLED = "vmfunc.enabled",
        "\"enable VM functions\" is 1 and EAX is below 64",
        InvalidOpcode;
    VMFUNC_CONTROL = "vmfunc.control",
        "the bit of EAX is 1 in the VM-function controls",
        VmExit;
    VMFUNC_INDEX = "vmfunc.eptp-switching.index",
        "for function 0, ECX is below 512",
        VmExit;
    VMFUNC_EPTP = "vmfunc.eptp-switching.eptp",
        "for function 0, VM entry would accept the EPTP that the list has",
        VmExit;
}

/// The tables of all instructions.
pub static ALL: &[&[&InsnRule]] = &[
    VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST, VMREAD, VMWRITE, VMLAUNCH, VMRESUME, INVEPT, INVVPID,
    VMCALL, VMFUNC,
];

/// Whether the CPU has INVEPT.
pub const fn offers_invept(caps: &VmxCaps) -> bool {
    caps.offers_proc2(crate::controls::Proc2::ENABLE_EPT) && EptVpidCap::INVEPT.is_in(caps.ept_vpid)
}

/// Whether the CPU has INVVPID.
pub const fn offers_invvpid(caps: &VmxCaps) -> bool {
    caps.offers_proc2(crate::controls::Proc2::ENABLE_VPID)
        && EptVpidCap::INVVPID.is_in(caps.ept_vpid)
}

/// Whether INVEPT takes the type.
pub const fn invept_type_ok(kind: u64, caps: &VmxCaps) -> bool {
    match kind {
        1 => EptVpidCap::INVEPT_SINGLE.is_in(caps.ept_vpid),
        2 => EptVpidCap::INVEPT_ALL.is_in(caps.ept_vpid),
        _ => false,
    }
}

/// Whether INVVPID takes the type.
pub const fn invvpid_type_ok(kind: u64, caps: &VmxCaps) -> bool {
    kind <= 3 && caps.ept_vpid & EptVpidCap::INVVPID_ADDRESS.bits() << kind != 0
}

//! The VMX instructions, one function each.
//!
//! CF and ZF are taken in the same `asm!` block as the instruction. Each block is guarded, so that
//! a fault is a result and not the end.

// The macro's operands have to be inside the block: they are those of `asm!`.
#![allow(clippy::macro_metavars_in_unsafe)]

use core::arch::asm;
use core::fmt;

use umbra_vmcs::field::{self, Field};

use crate::trap::{self, Fault, GUARD, UNGUARD};

/// How a VMX instruction can fail. SDM "Conventions" of the VMX instruction reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmxError {
    /// VMfailInvalid: CF.
    Invalid,
    /// VMfailValid: ZF, with the VM-instruction error number.
    Valid(u32),
    /// An exception.
    Fault(Fault),
}

impl fmt::Display for VmxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("VMfailInvalid"),
            Self::Valid(number) => write!(f, "VMfailValid {number}"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

/// The word for a result in transcripts.
pub struct Shown(pub Result<(), VmxError>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(()) => f.write_str("VMsucceed"),
            Err(error) => error.fmt(f),
        }
    }
}

/// What CF, ZF and the trap handler say of the instruction just executed.
pub fn outcome(carry: u8, zero: u8) -> Result<(), VmxError> {
    if let Some(fault) = trap::take() {
        return Err(VmxError::Fault(fault));
    }
    if carry != 0 {
        return Err(VmxError::Invalid);
    }
    if zero != 0 {
        // Read by hand: `vmread` would come back here if it failed.
        let mut number: u64 = 0;
        let encoding = u64::from(field::VM_INSTRUCTION_ERROR.encoding());
        // SAFETY: VMfailValid says that there is a current VMCS, so VMREAD of this field works.
        unsafe {
            asm!("vmread {number}, {encoding}", number = inout(reg) number,
                encoding = in(reg) encoding, options(nostack));
        }
        return Err(VmxError::Valid(number as u32));
    }
    Ok(())
}

/// One guarded VMX instruction. The operands are those of `asm!`.
#[macro_export]
macro_rules! vmx_insn {
    ($text:literal, $second:literal $(, $($operand:tt)*)?) => {
        $crate::vmx_insn!(@lines ($text, $second) $($($operand)*)?)
    };
    ($text:literal $(, $($operand:tt)*)?) => {
        $crate::vmx_insn!(@lines ($text) $($($operand)*)?)
    };
    (@lines ($($text:literal),*) $($operand:tt)*) => {{
        let (carry, zero): (u8, u8);
        // SAFETY: the block restores control behind the instruction whether it faults or not, and
        // the caller of the macro answers for what the operands name.
        unsafe {
            core::arch::asm!(
                $crate::vmx_insn!(@guard), $($text,)* $crate::vmx_insn!(@unguard),
                "setc {carry}", "setz {zero}",
                t = out(reg) _, carry = out(reg_byte) carry, zero = out(reg_byte) zero,
                $($operand)*
            );
        }
        $crate::vmx::insn::outcome(carry, zero)
    }};
    (@guard) => { "lea {t}, [rip + 77f]\nmov [rip + RT_RECOVER_RIP], {t}" };
    (@unguard) => { "77:\nmov qword ptr [rip + RT_RECOVER_RIP], 0" };
}

/// One guarded VMX instruction directly behind a MOV to SS, whose blocking it meets.
#[macro_export]
macro_rules! vmx_insn_movss {
    ($text:literal) => {
        $crate::vmx_insn!("mov ss, {s:e}", $text, s = in(reg) u32::from($crate::gdt::DATA))
    };
}

/// VMXON with the region at `*pointer`.
pub fn vmxon(pointer: &u64) -> Result<(), VmxError> {
    vmx_insn!("vmxon [{p}]", p = in(reg) pointer)
}

/// VMXOFF.
pub fn vmxoff() -> Result<(), VmxError> {
    vmx_insn!("vmxoff")
}

/// VMCLEAR of the VMCS at `*pointer`.
pub fn vmclear(pointer: &u64) -> Result<(), VmxError> {
    vmx_insn!("vmclear [{p}]", p = in(reg) pointer)
}

/// VMPTRLD of the VMCS at `*pointer`.
pub fn vmptrld(pointer: &u64) -> Result<(), VmxError> {
    vmx_insn!("vmptrld [{p}]", p = in(reg) pointer)
}

/// VMPTRST.
pub fn vmptrst() -> Result<u64, VmxError> {
    let mut value = 0u64;
    vmx_insn!("vmptrst [{p}]", p = in(reg) &raw mut value)?;
    Ok(value)
}

/// VMCALL in VMX root operation.
pub fn vmcall() -> Result<(), VmxError> {
    vmx_insn!("vmcall")
}

/// VMLAUNCH without the entry stub: for the cases in which it is expected to fail.
pub fn vmlaunch_expecting_failure() -> Result<(), VmxError> {
    vmx_insn!("vmlaunch")
}

/// VMRESUME without the entry stub: for the cases in which it is expected to fail.
pub fn vmresume_expecting_failure() -> Result<(), VmxError> {
    vmx_insn!("vmresume")
}

/// VMREAD by a raw encoding.
pub fn vmread_raw(encoding: u64) -> Result<u64, VmxError> {
    let mut value = 0u64;
    vmx_insn!("vmread {v}, {e}", v = inout(reg) value, e = in(reg) encoding)?;
    Ok(value)
}

/// VMWRITE by a raw encoding.
pub fn vmwrite_raw(encoding: u64, value: u64) -> Result<(), VmxError> {
    vmx_insn!("vmwrite {e}, {v}", e = in(reg) encoding, v = in(reg) value)
}

/// VMREAD of a field that exists.
pub fn read(field: Field) -> u64 {
    match vmread_raw(u64::from(field.encoding())) {
        Ok(value) => value,
        Err(error) => panic!("VMREAD of {}: {error}", field.name()),
    }
}

/// VMWRITE of a field that exists.
pub fn write(field: Field, value: u64) {
    if let Err(error) = vmwrite_raw(u64::from(field.encoding()), value) {
        panic!("VMWRITE of {}: {error}", field.name());
    }
}

/// INVEPT with a type and a descriptor.
pub fn invept(kind: u64, descriptor: [u64; 2]) -> Result<(), VmxError> {
    vmx_insn!("invept {k}, [{d}]", k = in(reg) kind, d = in(reg) &raw const descriptor)
}

/// INVVPID with a type and a descriptor.
pub fn invvpid(kind: u64, descriptor: [u64; 2]) -> Result<(), VmxError> {
    vmx_insn!("invvpid {k}, [{d}]", k = in(reg) kind, d = in(reg) &raw const descriptor)
}

/// The guard lines, for blocks that programs write themselves.
pub const fn guard_lines() -> (&'static str, &'static str) {
    (GUARD, UNGUARD)
}

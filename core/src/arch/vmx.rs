//! The VMX instructions. Each takes its verdict (CF, ZF) in the same `asm!`
//! block as the instruction. SDM "VMX Instruction Reference", "Conventions".

use core::arch::asm;
use umbra_arch::{Hpa, Linear};
use umbra_vmcs::Field;
use umbra_vmcs::field;

/// How a VMX instruction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFail {
    /// VMfailInvalid: there is no current VMCS.
    Invalid,
    /// VMfailValid, with the VM-instruction error number.
    Valid(u32),
}

/// What a result is made of where an instruction left ZF set.
#[cold]
fn valid() -> VmFail {
    VmFail::Valid(instruction_error())
}

/// Makes a result of the flags that an instruction left.
fn verdict(carry: u8, zero: u8) -> Result<(), VmFail> {
    match (carry, zero) {
        (0, 0) => Ok(()),
        (1, _) => Err(VmFail::Invalid),
        _ => Err(valid()),
    }
}

/// The current VMCS's VM-instruction error field; 0 when it cannot be read.
pub fn instruction_error() -> u32 {
    let (value, failed): (u64, u8);
    // SAFETY: VMREAD with a register operand touches no memory.
    unsafe {
        asm!("vmread {value}, {encoding}", "setbe {failed}",
             value = out(reg) value,
             encoding = in(reg) u64::from(field::VM_INSTRUCTION_ERROR.encoding()),
             failed = out(reg_byte) failed,
             options(nomem, nostack));
    }
    if failed != 0 { 0 } else { value as u32 }
}

/// VMCALL with a number in EAX and an argument in ECX, whose answer is not looked at.
///
/// # Safety
/// A hypervisor below must take it for a call that does L0 no harm and changes no
/// register but RAX, RBX, RCX and RDX.
pub unsafe fn vmcall(number: u32, argument: u32) {
    // SAFETY: the caller's promise; RBX, which the compiler keeps, is put back.
    unsafe {
        asm!("mov {kept}, rbx", "vmcall", "mov rbx, {kept}",
             kept = out(reg) _,
             inout("rax") u64::from(number) => _,
             inout("rcx") u64::from(argument) => _,
             out("rdx") _,
             options(nostack));
    }
}

macro_rules! with_address {
    ($(#[$doc:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The CPU's VMfail.
        ///
        /// # Safety
        /// `region` must be the physical address of a page that is L0's own and
        /// used for nothing else, and CR4.VMXE must be set.
        #[inline]
        pub unsafe fn $name(region: Hpa) -> Result<(), VmFail> {
            // SAFETY: the operand is a live local; the region is the caller's promise.
            unsafe {
                asm!(concat!($mnemonic, " [{at}]"), "jc {invalid}", "jz {valid}",
                     at = in(reg) &raw const region,
                     invalid = label { return Err(VmFail::Invalid) },
                     valid = label { return Err(valid()) },
                     options(nostack));
            }
            Ok(())
        }
    };
}

with_address!(
    /// VMXON: enters VMX root operation.
    vmxon, "vmxon");
with_address!(
    /// VMCLEAR: writes a VMCS to memory and makes its launch state "clear".
    vmclear, "vmclear");
with_address!(
    /// VMPTRLD: makes a VMCS current.
    vmptrld, "vmptrld");

/// VMREAD.
///
/// # Errors
/// No current VMCS, or a field that this CPU lacks.
#[inline]
pub fn vmread(from: Field) -> Result<u64, VmFail> {
    let value: u64;
    let (carry, zero): (u8, u8);
    // SAFETY: a register operand: no memory but the VMCS is read.
    unsafe {
        asm!("vmread {value}, {encoding}", "setc {carry}", "setz {zero}",
             value = out(reg) value,
             encoding = in(reg) u64::from(from.encoding()),
             carry = out(reg_byte) carry,
             zero = out(reg_byte) zero,
             options(nomem, nostack));
    }
    verdict(carry, zero).map(|()| value)
}

/// VMWRITE.
///
/// # Errors
/// No current VMCS, a field that this CPU lacks, or a read-only one.
///
/// # Safety
/// A wrong value in the current VMCS can make the next VM entry or exit
/// break L0's isolation; the caller vouches for the field and the value.
#[inline]
pub unsafe fn vmwrite(to: Field, value: u64) -> Result<(), VmFail> {
    let (carry, zero): (u8, u8);
    // SAFETY: touches the current VMCS alone.
    unsafe {
        asm!("vmwrite {encoding}, {value}", "setc {carry}", "setz {zero}",
             value = in(reg) value,
             encoding = in(reg) u64::from(to.encoding()),
             carry = out(reg_byte) carry,
             zero = out(reg_byte) zero,
             options(nostack));
    }
    verdict(carry, zero)
}

/// VMREAD of a field that is known to exist, of a VMCS that is known to be current:
/// [`vmread`] in fewer instructions. Where it fails all the same, `umbra_vmread_failed`
/// is called with the field's encoding, and nothing comes back.
#[inline(always)]
pub fn vmread_known(from: Field) -> u64 {
    let value: u64;
    // SAFETY: a register operand: no memory but the VMCS is read. A VMREAD that fails
    // leaves its destination, which may be the encoding's register. The code behind it
    // takes a stack of its own alignment and does not return.
    unsafe {
        asm!("vmread {value}, {encoding}",
             "jbe 77f",
             ".pushsection .text.unlikely.vmread_failed, \"ax\", @progbits",
             "77:",
             "mov edi, {encoding:e}",
             "and rsp, -16",
             "call umbra_vmread_failed",
             "ud2",
             ".popsection",
             value = lateout(reg) value,
             encoding = in(reg) u64::from(from.encoding()),
             options(nomem, nostack));
    }
    value
}

/// VMWRITE, likewise; whether it succeeded.
///
/// # Safety
/// As for [`vmwrite`].
#[inline(always)]
pub unsafe fn vmwrite_known(to: Field, value: u64) -> bool {
    // SAFETY: touches the current VMCS alone.
    unsafe {
        asm!("vmwrite {encoding}, {value}", "jbe {failed}",
             value = in(reg) value,
             encoding = in(reg) u64::from(to.encoding()),
             failed = label { return false },
             options(nostack));
    }
    true
}

/// VMWRITE of the 64-bit member at `OFFSET` of a struct, straight from memory, without
/// a look at what became of it: for one of a row of fields that every CPU has, of which
/// the last is written by [`vmwrite_known`]. Without a current VMCS that one fails, too.
///
/// # Safety
/// As for [`vmwrite`]; and at `OFFSET` there is a `u64`.
#[inline(always)]
pub unsafe fn vmwrite_member<const OFFSET: usize, T>(to: Field, all: &T) {
    const { assert!(OFFSET + 8 <= size_of::<T>()) };
    // SAFETY: reads a member of a live object, and touches the current VMCS besides.
    unsafe {
        asm!("vmwrite {encoding}, qword ptr [{all} + {offset}]",
             all = in(reg) all,
             offset = const OFFSET,
             encoding = in(reg) u64::from(to.encoding()),
             options(nostack, readonly));
    }
}

/// The operand of INVEPT and INVVPID.
#[repr(C, align(16))]
struct Descriptor([u64; 2]);

/// Which mappings INVEPT drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum InveptType {
    /// Those of one EPTP.
    SingleContext = 1,
    /// Those of every EPTP.
    AllContexts = 2,
}

/// INVEPT.
///
/// # Errors
/// A type that this CPU lacks, or an EPTP that it would not accept.
#[inline]
pub fn invept(kind: InveptType, eptp: u64) -> Result<(), VmFail> {
    let descriptor = Descriptor([eptp, 0]);
    // SAFETY: drops cached translations; the operand is a live local.
    unsafe {
        asm!("invept {kind}, [{at}]", "jc {invalid}", "jz {valid}",
             kind = in(reg) kind as u64,
             at = in(reg) &raw const descriptor,
             invalid = label { return Err(VmFail::Invalid) },
             valid = label { return Err(valid()) },
             options(nostack));
    }
    Ok(())
}

/// Which mappings INVVPID drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum InvvpidType {
    /// One linear address of one VPID.
    IndividualAddress = 0,
    /// One VPID.
    SingleContext = 1,
    /// Every VPID but 0.
    AllContexts = 2,
    /// One VPID, except global translations.
    SingleContextRetainingGlobals = 3,
}

/// INVVPID.
///
/// # Errors
/// A type that this CPU lacks, VPID 0, or an address that is not canonical.
#[inline]
pub fn invvpid(kind: InvvpidType, vpid: u16, linear: Linear) -> Result<(), VmFail> {
    let descriptor = Descriptor([u64::from(vpid), linear.raw()]);
    // SAFETY: drops cached translations; the operand is a live local.
    unsafe {
        asm!("invvpid {kind}, [{at}]", "jc {invalid}", "jz {valid}",
             kind = in(reg) kind as u64,
             at = in(reg) &raw const descriptor,
             invalid = label { return Err(VmFail::Invalid) },
             valid = label { return Err(valid()) },
             options(nostack));
    }
    Ok(())
}

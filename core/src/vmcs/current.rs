//! Reading and writing the current VMCS from L0's own code.
//!
//! A failure here is a bug of L0's: the field was checked to exist, and a
//! VMCS is current. L1's VMREAD and VMWRITE do not come this way.

use crate::arch::vmx;
use umbra_vmcs::Field;
use umbra_vmcs::field::Area;

/// Reads a field.
#[inline]
pub fn read(field: Field) -> u64 {
    match vmx::vmread(field) {
        Ok(value) => value,
        Err(fail) => panic!("VMREAD of {}: {fail:?}", field.name()),
    }
}

/// Writes a guest-state or control field.
#[inline]
pub fn write(field: Field, value: u64) {
    assert!(
        matches!(field.area(), Area::Guest | Area::Control),
        "{} is written only when a VMCS is made",
        field.name()
    );
    // SAFETY: guest state cannot break out of EPT; the control fields are
    // L0's own decisions, made in few places, with addresses of L0's pages.
    if let Err(fail) = unsafe { vmx::vmwrite(field, value) } {
        panic!("VMWRITE of {value:#x} to {}: {fail:?}", field.name());
    }
}

/// Writes a host-state field.
///
/// # Safety
/// L0 must be able to run on from the next VM exit with the new value.
pub unsafe fn write_host(field: Field, value: u64) {
    // SAFETY: the caller's promise.
    if let Err(fail) = unsafe { vmx::vmwrite(field, value) } {
        panic!("VMWRITE of {value:#x} to {}: {fail:?}", field.name());
    }
}

/// Sets and clears bits of a control field.
pub fn change(field: Field, set: u64, clear: u64) {
    write(field, (read(field) | set) & !clear);
}

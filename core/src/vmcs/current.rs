//! Reading and writing the current VMCS from L0's own code.
//!
//! A failure here is a bug of L0's: the field was checked to exist, and a
//! VMCS is current. L1's VMREAD and VMWRITE do not come this way.

use crate::arch::vmx;
#[cfg(feature = "ledger-accesses")]
use crate::cpu::{counters::Access, percpu};
use crate::fake_caps;
use core::mem::offset_of;
use umbra_nested::HostImage;
use umbra_vmcs::Field;
use umbra_vmcs::field::{self, Area};

/// Reads a field.
#[inline(always)]
pub fn read(field: Field) -> u64 {
    fake_caps::used(field, None);
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Read);
    match vmx::vmread_known(field) {
        Some(value) => value,
        None => read_failed(field),
    }
}

#[cold]
#[inline(never)]
fn read_failed(field: Field) -> ! {
    panic!(
        "VMREAD of {}: error {}",
        field.name(),
        vmx::instruction_error()
    )
}

/// Writes a field of guest state, controls, or, where the CPU writes any field, exit
/// information.
#[inline(always)]
pub fn write(field: Field, value: u64) {
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Write);
    if matches!(field.area(), Area::Host) {
        wrong_area(field);
    }
    fake_caps::used(field, Some(value));
    // SAFETY: guest state cannot break out of EPT, and exit information does
    // nothing; the control fields are L0's own decisions, made in few places, with
    // addresses of L0's pages.
    if !unsafe { vmx::vmwrite_known(field, value) } {
        write_failed(field, value);
    }
}

/// Writes L1's state after an exit of L2: guest state of vmcs01.
#[inline(always)]
pub fn write_host_image(image: &HostImage) {
    macro_rules! write_each {
        ($($name:ident),* $(,)?) => {$({
            #[cfg(feature = "ledger-accesses")]
            percpu::count_access(Access::Write);
            const { assert!(matches!(field::$name.area(), Area::Guest | Area::Control)) };
            fake_caps::used(field::$name, Some(image.$name));
            // SAFETY: guest state and read shadows, as for `write`.
            let is_written = unsafe {
                vmx::vmwrite_member::<{ offset_of!(HostImage, $name) }, _>(field::$name, image)
            };
            if !is_written {
                image_failed(field::$name);
            }
        })*};
    }
    umbra_nested::host_image_fields!(write_each);
}

#[cold]
#[inline(never)]
fn wrong_area(field: Field) -> ! {
    panic!("{} is written only when a VMCS is made", field.name())
}

#[cold]
#[inline(never)]
fn write_failed(field: Field, value: u64) -> ! {
    panic!(
        "VMWRITE of {value:#x} to {}: error {}",
        field.name(),
        vmx::instruction_error()
    )
}

#[cold]
#[inline(never)]
fn image_failed(field: Field) -> ! {
    panic!(
        "VMWRITE of L1's {}: error {}",
        field.name(),
        vmx::instruction_error()
    )
}

/// Writes a host-state field.
///
/// # Safety
/// L0 must be able to run on from the next VM exit with the new value.
pub unsafe fn write_host(field: Field, value: u64) {
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Write);
    fake_caps::used(field, Some(value));
    // SAFETY: the caller's promise.
    if let Err(fail) = unsafe { vmx::vmwrite(field, value) } {
        panic!("VMWRITE of {value:#x} to {}: {fail:?}", field.name());
    }
}

/// Sets and clears bits of a control field.
pub fn change(field: Field, set: u64, clear: u64) {
    write(field, (read(field) | set) & !clear);
}

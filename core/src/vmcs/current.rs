//! Reading and writing the current VMCS from L0's own code.
//!
//! A failure here is a bug of L0's: the field was checked to exist, and a
//! VMCS is current. L1's VMREAD and VMWRITE do not come this way.

use crate::arch::vmx;
#[cfg(feature = "ledger-accesses")]
use crate::cpu::{counters::Access, percpu};
use crate::fake_caps;
use core::mem::offset_of;
use umbra_arch::Hpa;
use umbra_ept::eptp::OwnEptp;
use umbra_nested::HostImage;
use umbra_vmcs::Field;
use umbra_vmcs::field::{self, Area, FieldSet, flow};
use umbra_vmcs::needs::Needs;

/// Reads a field.
#[inline(always)]
pub fn read(field: Field) -> u64 {
    fake_caps::used(field, None);
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Read);
    vmx::vmread_known(field)
}

/// A VMREAD of [`vmx::vmread_known`] failed.
#[cold]
#[unsafe(no_mangle)]
extern "C" fn umbra_vmread_failed(encoding: u32) -> ! {
    let name = Field::from_encoding(encoding.into()).map_or("a field", |(field, _)| field.name());
    panic!(
        "VMREAD of {name} ({encoding:#x}): error {}",
        vmx::instruction_error()
    )
}

/// What is not written with just any number.
const NO_NUMBERS: FieldSet = flow::area(Area::Host).union(flow::ADDRESSES);

/// Writes a field of guest state, a control that is no address, or, where the CPU writes
/// any field, exit information.
#[inline(always)]
pub fn write(field: Field, value: u64) {
    if NO_NUMBERS.contains(field) {
        wrong_kind(field);
    }
    // SAFETY: guest state cannot break out of EPT, and exit information does nothing; nor
    // can the controls while L0 keeps EPT on, which is its own decision.
    unsafe { write_any(field, value) };
}

/// Writes a field that takes the address of a page with data.
#[inline(always)]
pub fn write_address(field: Field, address: Hpa) {
    if !flow::DATA_ADDRESSES.contains(field) {
        wrong_kind(field);
    }
    // SAFETY: whoever made the `Hpa` says that the CPU may be given it.
    unsafe { write_any(field, address.raw()) };
}

/// Writes the EPT pointer.
#[inline(always)]
pub fn write_ept_pointer(pointer: OwnEptp) {
    // SAFETY: it names tables of L0's own, which map what L1 may have.
    unsafe { write_any(field::EPT_POINTER, pointer.raw()) };
}

/// Writes any field.
///
/// # Safety
/// An address is that of a page that L0 keeps for the CPU to use so; host state is as for
/// [`write_host`].
#[inline(always)]
pub unsafe fn write_any(field: Field, value: u64) {
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Write);
    fake_caps::used(field, Some(value));
    // SAFETY: the caller's promise.
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
            // Every CPU has them, and they are no exit information.
            const {
                assert!(matches!(field::$name.area(), Area::Guest | Area::Control));
                assert!(matches!(field::$name.needs(), Needs::Nothing));
            };
            fake_caps::used(field::$name, Some(image.$name));
            // SAFETY: guest state and read shadows, as for `write`.
            unsafe {
                vmx::vmwrite_member::<{ offset_of!(HostImage, $name) }, _>(field::$name, image);
            }
        })*};
    }
    umbra_nested::host_image_fields!(write_each);
    // Another write of L1's state follows, with a look at its verdict: CR0.
}

#[cold]
#[inline(never)]
fn wrong_kind(field: Field) -> ! {
    panic!("{} is not written with such a value", field.name())
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

//! Catching the use of what the command line took away from the CPU. Without the
//! feature `fake-caps` there is nothing here.

use umbra_vmcs::Field;

/// Whether this field was taken away.
#[cfg(not(feature = "fake-caps"))]
#[inline(always)]
pub fn lacks(_: Field) -> bool {
    false
}

/// Whether this field was taken away.
#[cfg(feature = "fake-caps")]
pub fn lacks(field: Field) -> bool {
    crate::machine::machine()
        .options
        .lacks
        .is_some_and(|lack| lack.is_field(field))
}

/// Stops where a field is used that was taken away, or a control that was.
#[cfg(not(feature = "fake-caps"))]
#[inline(always)]
pub fn used(_: Field, _: Option<u64>) {}

/// Stops where a field is used that was taken away, or a control that was.
#[cfg(feature = "fake-caps")]
pub fn used(field: Field, written: Option<u64>) {
    assert!(!lacks(field), "{} was taken away", field.name());
    if let Some(value) = written {
        assert!(
            umbra_core::fake_caps::permits(&crate::machine::machine().vmx, field, value),
            "{value:#x} in {} needs a control that was taken away",
            field.name()
        );
    }
}

/// Stops where INVEPT or INVVPID, or a type of them, was taken away; `bit` is that of
/// IA32_VMX_EPT_VPID_CAP.
#[cfg(not(feature = "fake-caps"))]
#[inline(always)]
pub fn invalidates(_: u32) {}

/// Stops where INVEPT or INVVPID, or a type of them, was taken away; `bit` is that of
/// IA32_VMX_EPT_VPID_CAP.
#[cfg(feature = "fake-caps")]
pub fn invalidates(bit: u32) {
    assert!(
        crate::machine::machine().vmx.ept_vpid >> bit & 1 != 0,
        "the invalidation of bit {bit} was taken away"
    );
}

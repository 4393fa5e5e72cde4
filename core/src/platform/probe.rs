//! Is this a machine that Umbra can run on?

use crate::arch::{cpuid, msr};
use crate::cannot_start;
use umbra_arch::cpuid::{EXTENDED_FEATURES, Leaf7Edx};
use umbra_arch::msr::{ArchCapabilities, FeatureControl};
use umbra_core::features;
use umbra_core::options::Options;
use umbra_vmcs::VmxCaps;

/// Stops with one line unless the CPU has all that Umbra needs. Gives the VMX
/// capabilities, and IA32_FEATURE_CONTROL as the firmware left it.
pub fn require_features(options: &Options) -> (VmxCaps, u64) {
    let leaf_1 = cpuid::cpuid(1, 0);
    let extended = cpuid::cpuid_or_zero(EXTENDED_FEATURES, 0);
    if let Err(what) = features::check_cpuid(leaf_1.ecx, extended.edx) {
        cannot_start!("this CPU has no {what}");
    }
    let control = msr::read(msr::IA32_FEATURE_CONTROL);
    if features::vmx_is_locked_off(control) {
        cannot_start!(
            "the firmware has locked VMX off (IA32_FEATURE_CONTROL is {control:#x}): switch virtualization on in its set-up"
        );
    }
    let caps = VmxCaps::read(|number| capability(options, number));
    if let Err(what) = features::check_vmx(&caps) {
        cannot_start!("this CPU has no {what}");
    }
    (caps, control)
}

/// A capability MSR.
#[cfg(not(feature = "fake-caps"))]
fn capability(_: &Options, number: u32) -> u64 {
    msr::read(number)
}

/// A capability MSR, less what the command line takes away.
#[cfg(feature = "fake-caps")]
fn capability(options: &Options, number: u32) -> u64 {
    let value = msr::read(number);
    match options.lacks {
        Some(lack) => lack.shown(number, value),
        None => value,
    }
}

/// Whether the CPU keeps the branch predictions of VMX root and non-root
/// operation apart by itself.
pub fn has_enhanced_ibrs() -> bool {
    (Leaf7Edx::IBRS_IBPB | Leaf7Edx::ARCH_CAPABILITIES).is_in(cpuid::cpuid_or_zero(7, 0).edx)
        && msr::read_safe(msr::IA32_ARCH_CAPABILITIES)
            .is_some_and(|value| ArchCapabilities::IBRS_ALL.is_in(value))
}

/// Allows VMXON outside SMX on this CPU, if the firmware left that open.
pub fn unlock_vmx() {
    let control = msr::read(msr::IA32_FEATURE_CONTROL);
    if !FeatureControl::LOCK.is_in(control) {
        let value = control | (FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX).bits();
        // SAFETY: allows VMXON and forbids further changes.
        unsafe { msr::write(msr::IA32_FEATURE_CONTROL, value) };
    }
}

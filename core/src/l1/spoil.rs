//! For the tests alone: vmcs01 spoilt, to see what becomes of L1 where the CPU refuses
//! it. Without the feature `fake-caps` there is nothing here.

/// Spoils vmcs01 where L1 asks for it by this CPUID leaf.
#[cfg(not(feature = "fake-caps"))]
#[inline(always)]
pub fn vmcs01(_: u32, _: u32) {}

/// Spoils vmcs01 where L1 asks for it by this CPUID leaf: its guest state, or the event
/// that the entry injects.
#[cfg(feature = "fake-caps")]
pub fn vmcs01(leaf: u32, subleaf: u32) {
    use crate::vmcs::current::write;
    use umbra_vmcs::field;

    const LEAF: u32 = 0x4fff_5350;
    /// Type 1 is reserved.
    const BAD_EVENT: u64 = 0x8000_0100;
    match (leaf, subleaf) {
        (LEAF, 0) => write(field::GUEST_RFLAGS, 0),
        (LEAF, 1) => write(field::VM_ENTRY_INTERRUPTION_INFORMATION, BAD_EVENT),
        _ => {}
    }
}

//! CPUID.

pub use core::arch::x86_64::CpuidResult;

use umbra_arch::cpuid::{EXTENDED_FEATURES, Leaf80000001Edx};

/// Executes CPUID with EAX = `leaf`, ECX = `subleaf`.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// As [`cpuid`], with zeros for a leaf above the highest one of its range.
pub fn cpuid_or_zero(leaf: u32, subleaf: u32) -> CpuidResult {
    let max = cpuid(leaf & 0x8000_0000, 0).eax;
    if leaf > max || max & 0x8000_0000 != leaf & 0x8000_0000 {
        return CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
    }
    cpuid(leaf, subleaf)
}

/// Whether the CPU has pages of 1 GiB.
pub fn has_gib_pages() -> bool {
    Leaf80000001Edx::GIB_PAGES.is_in(cpuid_or_zero(EXTENDED_FEATURES, 0).edx)
}

/// The number of this CPU's physical-address bits, of which L1 is shown fewer if
/// they are more than ept01 can map.
pub fn physical_address_bits() -> u32 {
    let bits = cpuid_or_zero(0x8000_0008, 0).eax & 0xff;
    if bits == 0 { 36 } else { bits.min(52) }
}

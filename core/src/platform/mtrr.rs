//! L1's MTRRs begin as the CPU's own.

use crate::arch::{cpuid, msr};
use umbra_arch::cpuid::Leaf1Edx;
use umbra_ept::mtrr::Mtrrs;

/// The MTRRs of the CPU that runs this.
pub fn of_this_cpu() -> Mtrrs {
    let has_mtrrs = Leaf1Edx::MTRR.is_in(cpuid::cpuid(1, 0).edx);
    let capability = if has_mtrrs {
        msr::read(msr::IA32_MTRRCAP)
    } else {
        0
    };
    let mut mtrrs = Mtrrs::new(capability, cpuid::physical_address_bits() as u8);
    if has_mtrrs {
        for index in mtrrs.msrs() {
            let value = msr::read(index);
            if mtrrs.write_msr(index, value).is_err() {
                // A type that the model does not know: leave the register at
                // 0, which can only make memory less cacheable for L1.
                crate::say!("MTRR {index:#x} holds {value:#x}, which is reserved: ignored");
            }
        }
    }
    mtrrs
}

//! The machine below L1, as far as L0 has a say in it.

pub mod apic;
pub mod ept01;
#[cfg(feature = "fake-caps")]
mod fake_unit;
pub mod iommu;
pub mod msr_policy;
pub mod mtrr;
pub mod probe;
pub mod reset;
pub mod smram;
pub mod timer;

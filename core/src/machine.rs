//! What was found out about the machine at boot; the same for all CPUs.

use crate::sync::BootCell;
use umbra_core::acpi;
use umbra_core::options::Options;
use umbra_ept::caps::Caps;
use umbra_vmcs::VmxCaps;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// Umbra's command line.
    pub options: Options,
    /// The CPUs' VMX capabilities.
    pub vmx: VmxCaps,
    /// Their EPT capabilities.
    pub ept: Caps,
    /// Physical-address bits that L1 is shown.
    pub physical_address_bits: u32,
    /// IA32_FEATURE_CONTROL as the firmware left it.
    pub feature_control: u64,
    /// What the ACPI tables say. The first APIC id is that of the CPU that
    /// booted.
    pub acpi: acpi::Machine,
    /// The end of the highest RAM, in bytes.
    pub ram_end: u64,
    /// VM exits keep a guest's branch predictions from its host on this CPU
    /// (enhanced IBRS), and L1 counts on that.
    pub has_enhanced_ibrs: bool,
    /// Another hypervisor is below and says so in CPUID.
    pub has_hypervisor: bool,
    /// The highest basic and extended leaves of CPUID.
    pub cpuid_most: [u32; 2],
    /// L0's CR4 while L1 runs.
    pub host_cr4: u64,
}

impl Machine {
    /// How many CPUs there are.
    pub fn cpu_count(&self) -> u32 {
        self.acpi.apic_ids.len() as u32
    }
}

static MACHINE: BootCell<Machine> = BootCell::new();

/// Settles what the machine is; once.
pub fn set(machine: Machine) {
    MACHINE.set(machine);
}

/// The machine.
pub fn machine() -> &'static Machine {
    MACHINE.get()
}

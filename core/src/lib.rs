//! The part of Umbra's core that needs no hardware: decisions as plain
//! functions over plain data, tested on any host.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[path = "policy/acpi.rs"]
pub mod acpi;
#[path = "policy/acpi_sleep.rs"]
pub mod acpi_sleep;
#[path = "policy/breakpoints.rs"]
pub mod breakpoints;
#[path = "policy/control_registers.rs"]
pub mod control_registers;
#[path = "policy/cpuid.rs"]
pub mod cpuid;
#[path = "policy/cpuid_list.rs"]
pub mod cpuid_list;
#[path = "policy/efi_config.rs"]
pub mod efi_config;
#[path = "policy/ending.rs"]
pub mod ending;
#[path = "policy/fake_caps.rs"]
pub mod fake_caps;
#[path = "policy/features.rs"]
pub mod features;
#[path = "policy/hypercall.rs"]
pub mod hypercall;
#[path = "policy/ledger_leaf.rs"]
pub mod ledger_leaf;
#[path = "policy/line.rs"]
pub mod line;
#[path = "policy/local_apic.rs"]
pub mod local_apic;
#[path = "policy/msr_announced.rs"]
pub mod msr_announced;
#[path = "policy/msr_list.rs"]
pub mod msr_list;
#[path = "policy/options.rs"]
pub mod options;
#[path = "policy/pm_timer.rs"]
pub mod pm_timer;
#[path = "policy/smram.rs"]
pub mod smram;
#[path = "policy/task_switch.rs"]
pub mod task_switch;
#[path = "policy/trace/mod.rs"]
pub mod trace;
#[path = "policy/vmcs_state.rs"]
pub mod vmcs_state;

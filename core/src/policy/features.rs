//! What a CPU must have for Umbra to start on it, one line each.

use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};

/// CPUID.1:ECX bit 5.
pub const CPUID_VMX: u32 = 1 << 5;
/// CPUID.80000001H:EDX bit 20.
pub const CPUID_NX: u32 = 1 << 20;

/// IA32_FEATURE_CONTROL.
pub mod feature_control {
    /// Bit 0: no further writes.
    pub const LOCK: u64 = 1 << 0;
    /// Bit 2: VMXON works outside SMX operation.
    pub const VMX_OUTSIDE_SMX: u64 = 1 << 2;
}

/// Bits of IA32_VMX_EPT_VPID_CAP.
mod ept_vpid {
    pub const WALK_4_LEVELS: u64 = 1 << 6;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGES_2M: u64 = 1 << 16;
    pub const INVEPT: u64 = 1 << 20;
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    pub const INVEPT_ALL: u64 = 1 << 26;
    pub const INVVPID: u64 = 1 << 32;
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    pub const INVVPID_ALL: u64 = 1 << 42;
}

/// Checks what CPUID says.
///
/// # Errors
/// What is missing, to follow "this CPU has no ".
pub fn check_cpuid(leaf_1_ecx: u32, leaf_80000001_edx: u32) -> Result<(), &'static str> {
    if leaf_1_ecx & CPUID_VMX == 0 {
        return Err("VMX (Intel's virtualization extensions)");
    }
    if leaf_80000001_edx & CPUID_NX == 0 {
        return Err("execute-disable pages (NX)");
    }
    Ok(())
}

/// Whether the firmware left VMX usable.
pub fn vmx_is_locked_off(feature_control: u64) -> bool {
    feature_control & feature_control::LOCK != 0
        && feature_control & feature_control::VMX_OUTSIDE_SMX == 0
}

/// Checks the VMX capabilities.
///
/// # Errors
/// What is missing, to follow "this CPU has no ".
pub fn check_vmx(caps: &VmxCaps) -> Result<(), &'static str> {
    let needed: [(bool, &str); 27] = [
        (
            caps.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS),
            "secondary processor-based VM-execution controls",
        ),
        (
            caps.offers_proc2(Proc2::ENABLE_EPT),
            "extended page tables (EPT)",
        ),
        (
            caps.offers_proc2(Proc2::UNRESTRICTED_GUEST),
            "unrestricted guest mode",
        ),
        (
            caps.offers_proc2(Proc2::ENABLE_VPID),
            "virtual-processor identifiers (VPID)",
        ),
        (caps.offers_proc(Proc::USE_MSR_BITMAPS), "MSR bitmaps"),
        (caps.offers_proc(Proc::USE_IO_BITMAPS), "I/O bitmaps"),
        (caps.offers_pin(Pin::NMI_EXITING), "NMI exiting"),
        (caps.offers_pin(Pin::VIRTUAL_NMIS), "virtual NMIs"),
        (
            caps.offers_proc(Proc::NMI_WINDOW_EXITING),
            "NMI-window exiting",
        ),
        (
            caps.offers_proc(Proc::MONITOR_TRAP_FLAG),
            "monitor trap flag",
        ),
        (
            caps.proc().must_be_one()
                & (Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING | Proc::INVLPG_EXITING).bits()
                == 0,
            "way to run a guest without CR3 and INVLPG exits",
        ),
        (
            caps.offers_exit(Exit::HOST_ADDRESS_SPACE_SIZE),
            "64-bit mode on VM exit",
        ),
        (
            caps.offers_entry(Entry::IA32E_MODE_GUEST),
            "64-bit mode on VM entry",
        ),
        (
            caps.offers_exit(Exit::SAVE_EFER | Exit::LOAD_EFER),
            "IA32_EFER switch on VM exit",
        ),
        (
            caps.offers_entry(Entry::LOAD_EFER),
            "IA32_EFER switch on VM entry",
        ),
        (
            caps.offers_exit(Exit::SAVE_PAT | Exit::LOAD_PAT),
            "IA32_PAT switch on VM exit",
        ),
        (
            caps.offers_entry(Entry::LOAD_PAT),
            "IA32_PAT switch on VM entry",
        ),
        (
            caps.offers_exit(Exit::SAVE_DEBUG_CONTROLS),
            "saving of debug controls on VM exit",
        ),
        (
            caps.offers_entry(Entry::LOAD_DEBUG_CONTROLS),
            "loading of debug controls on VM entry",
        ),
        (caps.ept_vpid & ept_vpid::WALK_4_LEVELS != 0, "4-level EPT"),
        (
            caps.ept_vpid & ept_vpid::WRITE_BACK != 0,
            "write-back EPT tables",
        ),
        (caps.ept_vpid & ept_vpid::PAGES_2M != 0, "2 MiB EPT pages"),
        (caps.ept_vpid & ept_vpid::INVEPT != 0, "INVEPT"),
        (
            caps.ept_vpid & ept_vpid::INVEPT_ALL != 0
                && caps.ept_vpid & ept_vpid::INVEPT_SINGLE != 0,
            "INVEPT of both types",
        ),
        (caps.ept_vpid & ept_vpid::INVVPID != 0, "INVVPID"),
        (
            caps.ept_vpid & ept_vpid::INVVPID_SINGLE != 0
                && caps.ept_vpid & ept_vpid::INVVPID_ALL != 0,
            "INVVPID of one and of all contexts",
        ),
        // HLT, shutdown and wait-for-SIPI: IA32_VMX_MISC bits 6, 7 and 8.
        (
            caps.misc & 0x1c0 == 0x1c0,
            "VM entry to the HLT, shutdown and wait-for-SIPI states",
        ),
    ];
    match needed.iter().find(|(has, _)| !has) {
        Some((_, what)) => Err(what),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_vmcs::caps::Allowed;

    /// A CPU that may set everything and must set nothing.
    fn everything() -> VmxCaps {
        let all = Allowed(0xffff_ffff_0000_0000);
        VmxCaps {
            basic: 1 << 55,
            misc: 0x1c0,
            pin_true: all,
            proc_true: all,
            exit_true: all,
            entry_true: all,
            proc2: all,
            ept_vpid: u64::MAX,
            ..VmxCaps::default()
        }
    }

    #[test]
    fn a_full_cpu_passes() {
        assert_eq!(check_vmx(&everything()), Ok(()));
        assert_eq!(check_cpuid(CPUID_VMX, CPUID_NX), Ok(()));
    }

    #[test]
    fn each_missing_feature_is_named() {
        let mut without_ept = everything();
        without_ept.proc2 = without_ept.proc2.without(Proc2::ENABLE_EPT.bits());
        assert_eq!(check_vmx(&without_ept), Err("extended page tables (EPT)"));

        let mut without_secondary = everything();
        without_secondary.proc_true = without_secondary
            .proc_true
            .without(Proc::ACTIVATE_SECONDARY_CONTROLS.bits());
        assert!(check_vmx(&without_secondary).is_err_and(|e| e.starts_with("secondary")));

        let mut old = everything();
        old.proc_true = Allowed(0xffff_ffff_0401_e172);
        assert!(check_vmx(&old).is_err_and(|e| e.contains("CR3")));

        for bit in [6, 14, 16, 20, 25, 26, 32, 41, 42] {
            let mut caps = everything();
            caps.ept_vpid &= !(1 << bit);
            assert!(check_vmx(&caps).is_err(), "bit {bit}");
        }
        assert!(check_cpuid(0, CPUID_NX).is_err());
        assert!(check_cpuid(CPUID_VMX, 0).is_err());
    }

    #[test]
    fn only_a_locked_register_without_vmx_is_off() {
        assert!(!vmx_is_locked_off(0));
        assert!(vmx_is_locked_off(1));
        assert!(!vmx_is_locked_off(5));
        assert!(vmx_is_locked_off(3));
    }
}

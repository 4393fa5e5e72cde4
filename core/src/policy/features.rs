//! What a CPU must have for Umbra to start on it, one line each.

use umbra_arch::EptVpidCap;
use umbra_arch::cpuid::{Leaf1Ecx, Leaf80000001Edx};
use umbra_arch::msr::FeatureControl;
use umbra_arch::vmx_cap::VmxMisc;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, FieldSet};
use umbra_vmcs::needs::Needs;
use umbra_vmcs::{Field, VmxCaps};

/// Checks what CPUID says.
///
/// # Errors
/// What is missing, to follow "this CPU has no ".
pub fn check_cpuid(leaf_1_ecx: u32, leaf_80000001_edx: u32) -> Result<(), &'static str> {
    if !Leaf1Ecx::VMX.is_in(leaf_1_ecx) {
        return Err("VMX (Intel's virtualization extensions)");
    }
    if !Leaf80000001Edx::NX.is_in(leaf_80000001_edx) {
        return Err("execute-disable pages (NX)");
    }
    Ok(())
}

/// Whether the firmware left VMX usable.
pub fn vmx_is_locked_off(feature_control: u64) -> bool {
    FeatureControl::LOCK.is_in(feature_control)
        && !FeatureControl::VMX_OUTSIDE_SMX.is_in(feature_control)
}

/// Checks the VMX capabilities.
///
/// # Errors
/// What is missing, to follow "this CPU has no ".
pub fn check_vmx(caps: &VmxCaps) -> Result<(), &'static str> {
    let needed: [(bool, &str); 28] = [
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
        (EptVpidCap::WALK_4.is_in(caps.ept_vpid), "4-level EPT"),
        (
            EptVpidCap::TABLES_WB.is_in(caps.ept_vpid),
            "write-back EPT tables",
        ),
        (EptVpidCap::PAGE_2M.is_in(caps.ept_vpid), "2 MiB EPT pages"),
        (EptVpidCap::INVEPT.is_in(caps.ept_vpid), "INVEPT"),
        (
            EptVpidCap::INVEPT_ALL.is_in(caps.ept_vpid)
                && EptVpidCap::INVEPT_SINGLE.is_in(caps.ept_vpid),
            "INVEPT of both types",
        ),
        (EptVpidCap::INVVPID.is_in(caps.ept_vpid), "INVVPID"),
        (
            EptVpidCap::INVVPID_SINGLE.is_in(caps.ept_vpid)
                && EptVpidCap::INVVPID_ALL.is_in(caps.ept_vpid),
            "INVVPID of one and of all contexts",
        ),
        // The states that L1 can be in at an exit. Shutdown is none of them: a triple
        // fault exits.
        (VmxMisc::HLT.is_in(caps.misc), "VM entry to the HLT state"),
        (
            VmxMisc::WAIT_FOR_SIPI.is_in(caps.misc),
            "VM entry to the wait-for-SIPI state",
        ),
    ];
    match needed.iter().find(|(has, _)| !has) {
        Some((_, what)) => Err(what),
        None => Ok(()),
    }
}

/// Checks the VMCS's fields. Umbra uses by itself those that any CPU has and those
/// that come with a control that [`check_vmx`] asks for; the others it gives to L1
/// where they are `present`.
///
/// # Errors
/// The first that is missing.
pub fn check_fields(present: &FieldSet) -> Result<(), Field> {
    let used = |field: Field| match field.needs() {
        Needs::Nothing => true,
        Needs::Proc(bits) => {
            (Proc::USE_MSR_BITMAPS | Proc::USE_IO_BITMAPS | Proc::ACTIVATE_SECONDARY_CONTROLS)
                .contains(bits)
        }
        Needs::Proc2(bits) => (Proc2::ENABLE_EPT | Proc2::ENABLE_VPID).contains(bits),
        Needs::Exit(bits) => (Exit::LOAD_EFER | Exit::LOAD_PAT).contains(bits),
        Needs::Entry(bits) => (Entry::LOAD_EFER | Entry::LOAD_PAT).contains(bits),
        Needs::AskCpu | Needs::Never | Needs::Pin(_) | Needs::Proc3(_) | Needs::EptpSwitching => {
            false
        }
    };
    match field::ALL
        .into_iter()
        .find(|&field| used(field) && !present.contains(field))
    {
        Some(missing) => Err(missing),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_arch::vmx_cap::VmxBasic;
    use umbra_vmcs::caps::Allowed;

    const VMX: u32 = Leaf1Ecx::VMX.bits();
    const NX: u32 = Leaf80000001Edx::NX.bits();

    /// A CPU that may set everything and must set nothing.
    fn everything() -> VmxCaps {
        let all = Allowed(0xffff_ffff_0000_0000);
        VmxCaps {
            basic: VmxBasic::TRUE_CONTROLS.bits(),
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
        assert_eq!(check_cpuid(VMX, NX), Ok(()));
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
        for bit in [6, 8] {
            let mut caps = everything();
            caps.misc &= !(1 << bit);
            assert!(check_vmx(&caps).is_err_and(|e| e.contains("state")));
        }
        assert!(check_cpuid(0, NX).is_err());
        assert!(check_cpuid(VMX, 0).is_err());
    }

    #[test]
    fn a_cpu_that_cannot_enter_shutdown_passes() {
        let mut caps = everything();
        caps.misc &= !VmxMisc::SHUTDOWN.bits();
        assert_eq!(check_vmx(&caps), Ok(()));
    }

    #[test]
    fn only_fields_that_umbra_uses_are_needed() {
        let without = |field: Field| {
            let mut present = FieldSet::FULL;
            present.remove(field);
            check_fields(&present)
        };
        assert_eq!(check_fields(&FieldSet::FULL), Ok(()));
        for needed in [
            field::GUEST_RIP,
            field::HOST_RIP,
            field::EPT_POINTER,
            field::VIRTUAL_PROCESSOR_ID,
            field::MSR_BITMAP,
            field::GUEST_PHYSICAL_ADDRESS,
            field::GUEST_LINEAR_ADDRESS,
            field::GUEST_IA32_EFER,
            field::HOST_IA32_PAT,
        ] {
            assert_eq!(without(needed), Err(needed));
        }
        for free in [
            field::IO_RCX,
            field::IO_RIP,
            field::CR3_TARGET_VALUE_0,
            field::EXECUTIVE_VMCS_POINTER,
            field::PLE_GAP,
            field::EPTP_LIST_ADDRESS,
            field::VMX_PREEMPTION_TIMER_VALUE,
            field::TSC_MULTIPLIER,
            field::XSS_EXITING_BITMAP,
        ] {
            assert_eq!(without(free), Ok(()), "{free:?}");
        }
    }

    #[test]
    fn only_a_locked_register_without_vmx_is_off() {
        assert!(!vmx_is_locked_off(0));
        assert!(vmx_is_locked_off(1));
        assert!(!vmx_is_locked_off(5));
        assert!(vmx_is_locked_off(3));
    }
}

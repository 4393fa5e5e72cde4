//! What L1 is offered: the capabilities of the CPU below, less what Umbra does
//! not emulate.
//!
//! Every bit that stays is one whose effect L1 gets, either because vmcs02
//! takes it over from vmcs12 or because `nested` does it in software. Plain
//! and TRUE capability MSRs lose the same bits.

use umbra_arch::vmx_cap::{VmFunctions, VmxMisc};
use umbra_arch::{Cr4, EptVpidCap};
use umbra_vmcs::Vmcs12;
use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field, FieldSet, flow, highest_ordinal};
use umbra_vmcs::needs::Needs;

/// Pin-based controls: all go to vmcs02 as they are.
const PIN: Pin = Pin::EXTERNAL_INTERRUPT_EXITING
    .union(Pin::NMI_EXITING)
    .union(Pin::VIRTUAL_NMIS)
    .union(Pin::ACTIVATE_PREEMPTION_TIMER)
    .union(Pin::PROCESS_POSTED_INTERRUPTS);

/// Primary controls that are not offered: the tertiary controls, none of which
/// is emulated.
const NO_PROC: Proc = Proc::ACTIVATE_TERTIARY_CONTROLS;

/// Secondary controls that are offered where the CPU has them.
const PROC2: Proc2 = Proc2::VIRTUALIZE_APIC_ACCESSES
    .union(Proc2::ENABLE_EPT)
    .union(Proc2::DESCRIPTOR_TABLE_EXITING)
    .union(Proc2::ENABLE_RDTSCP)
    .union(Proc2::VIRTUALIZE_X2APIC_MODE)
    .union(Proc2::ENABLE_VPID)
    .union(Proc2::WBINVD_EXITING)
    .union(Proc2::UNRESTRICTED_GUEST)
    .union(Proc2::APIC_REGISTER_VIRTUALIZATION)
    .union(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
    .union(Proc2::PAUSE_LOOP_EXITING)
    .union(Proc2::RDRAND_EXITING)
    .union(Proc2::ENABLE_INVPCID)
    .union(Proc2::ENABLE_VM_FUNCTIONS)
    .union(Proc2::RDSEED_EXITING)
    .union(Proc2::ENABLE_PML)
    .union(Proc2::EPT_VIOLATION_VE)
    .union(Proc2::VMCS_SHADOWING)
    .union(Proc2::ENABLE_XSAVES_XRSTORS)
    .union(Proc2::MODE_BASED_EXECUTE_CONTROL)
    .union(Proc2::USE_TSC_SCALING)
    .union(Proc2::ENABLE_USER_WAIT_AND_PAUSE);

/// VM-exit controls that are offered where the CPU has them.
const EXIT: Exit = Exit::SAVE_DEBUG_CONTROLS
    .union(Exit::HOST_ADDRESS_SPACE_SIZE)
    .union(Exit::LOAD_PERF_GLOBAL_CTRL)
    .union(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
    .union(Exit::SAVE_PAT)
    .union(Exit::LOAD_PAT)
    .union(Exit::SAVE_EFER)
    .union(Exit::LOAD_EFER)
    .union(Exit::SAVE_PREEMPTION_TIMER)
    .union(Exit::SAVE_PERF_GLOBAL_CTRL);

/// VM-entry controls that are offered where the CPU has them. The two of SMM
/// may be set and fail outside SMM, as on any CPU.
const ENTRY: Entry = Entry::LOAD_DEBUG_CONTROLS
    .union(Entry::IA32E_MODE_GUEST)
    .union(Entry::ENTRY_TO_SMM)
    .union(Entry::DEACTIVATE_DUAL_MONITOR_TREATMENT)
    .union(Entry::LOAD_PERF_GLOBAL_CTRL)
    .union(Entry::LOAD_PAT)
    .union(Entry::LOAD_EFER);

/// IA32_VMX_EPT_VPID_CAP: what the software walk and the VPID mapping know.
/// Not offered: 5-level EPT and supervisor shadow stacks.
const EPT_VPID: u64 = EptVpidCap::EXECUTE_ONLY
    .union(EptVpidCap::WALK_4)
    .union(EptVpidCap::TABLES_UC)
    .union(EptVpidCap::TABLES_WB)
    .union(EptVpidCap::PAGE_2M)
    .union(EptVpidCap::PAGE_1G)
    .union(EptVpidCap::INVEPT)
    .union(EptVpidCap::INVEPT_SINGLE)
    .union(EptVpidCap::INVEPT_ALL)
    .union(EptVpidCap::ACCESSED_DIRTY)
    .union(EptVpidCap::ADVANCED_INFO)
    .union(EptVpidCap::INVVPID)
    .union(EptVpidCap::INVVPID_ADDRESS)
    .union(EptVpidCap::INVVPID_SINGLE)
    .union(EptVpidCap::INVVPID_ALL)
    .union(EptVpidCap::INVVPID_RETAIN_GLOBALS)
    .bits();

/// Where IA32_VMX_BASIC has the size of a VMCS region, in bytes.
const REGION_BYTES_SHIFT: u32 = 32;
const REGION_BYTES_MASK: u64 = 0x1fff << REGION_BYTES_SHIFT;

/// The capabilities that L1 sees on a CPU with `below` and the VMCS fields
/// `present`.
pub fn offer(below: &VmxCaps, present: &FieldSet) -> VmxCaps {
    let mut caps = *below;
    let region_bytes = (below.basic & REGION_BYTES_MASK) >> REGION_BYTES_SHIFT;
    let needed = (Vmcs12::BYTES as u64 + 16).max(region_bytes).min(4096);
    caps.basic = below.basic & !REGION_BYTES_MASK | needed << REGION_BYTES_SHIFT;

    let no_pin = !PIN.bits();
    caps.pin_plain = caps.pin_plain.without(no_pin);
    caps.pin_true = caps.pin_true.without(no_pin);
    caps.proc_plain = caps.proc_plain.without(NO_PROC.bits());
    caps.proc_true = caps.proc_true.without(NO_PROC.bits());
    // GETSEC is not emulated, and CPUID hides SMX.
    caps.cr4_fixed1 &= !(Cr4::SMXE.bits() | Cr4::FRED.bits());
    caps.proc3 = 0;
    caps.proc2 = caps.proc2.without(!PROC2.bits());
    let no_exit = !EXIT.bits();
    caps.exit_plain = caps.exit_plain.without(no_exit);
    caps.exit_true = caps.exit_true.without(no_exit);
    caps.exit2 = 0;
    let no_entry = !ENTRY.bits();
    caps.entry_plain = caps.entry_plain.without(no_entry);
    caps.entry_true = caps.entry_true.without(no_entry);
    caps.ept_vpid &= EPT_VPID;
    caps.misc &= !VmxMisc::PROCESSOR_TRACE.bits();
    caps.vmfunc &= VmFunctions::EPTP_SWITCHING.bits();
    if !caps.vmwrite_any_field() {
        // L0's shadow VMCS is to have L1's read-only fields too.
        caps.withdraw(Needs::Proc2(Proc2::VMCS_SHADOWING));
    }
    // A feature without one of its fields (a hypervisor below may offer that) is
    // of no use to L1.
    for field in field::ALL {
        if flow::known().contains(field) && !present.contains(field) {
            caps.withdraw(field.needs());
        }
    }
    if caps.vmfunc == 0 {
        caps.proc2 = caps.proc2.without(Proc2::ENABLE_VM_FUNCTIONS.bits());
    }
    if !caps.offers_proc2(Proc2::ENABLE_VM_FUNCTIONS) {
        caps.vmfunc = 0;
    }
    caps.vmcs_enum = highest_ordinal(&fields(&caps, present)) << 1;
    caps
}

/// The fields that L1's VMCSs have on a CPU with the fields `present`, where L1
/// sees `caps`.
pub fn fields(caps: &VmxCaps, present: &FieldSet) -> FieldSet {
    caps.fields().intersection(*present)
}

/// The fields that L0 reads and writes whatever L1 asks for: those that every
/// CPU with VMX has, and those of the features without which Umbra does not start.
pub const REQUIRED: FieldSet = required();

#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const fn required() -> FieldSet {
    let mut set = FieldSet::EMPTY;
    let mut n = 0;
    while n < field::FIELD_COUNT {
        let field = field::ALL[n];
        let is_required = match field.needs() {
            Needs::Nothing => true,
            Needs::Proc(b) => {
                b.bits() == Proc::USE_MSR_BITMAPS.bits()
                    || b.bits() == Proc::ACTIVATE_SECONDARY_CONTROLS.bits()
            }
            Needs::Proc2(b) => {
                b.bits() == Proc2::ENABLE_EPT.bits() || b.bits() == Proc2::ENABLE_VPID.bits()
            }
            Needs::Exit(b) => {
                b.bits() == Exit::LOAD_PAT.bits() || b.bits() == Exit::LOAD_EFER.bits()
            }
            Needs::Entry(b) => {
                b.bits() == Entry::LOAD_PAT.bits() || b.bits() == Entry::LOAD_EFER.bits()
            }
            _ => false,
        };
        if is_required {
            set = set.with(field);
        }
        n += 1;
    }
    set
}

/// The first field that Umbra cannot do without and that the CPU lacks.
pub fn missing(present: &FieldSet) -> Option<Field> {
    field::ALL
        .into_iter()
        .find(|f| REQUIRED.contains(*f) && !present.contains(*f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_arch::vmx_cap::VmxBasic;
    use umbra_vmcs::caps::Allowed;

    fn everything() -> VmxCaps {
        let all = Allowed(0xffff_ffff << 32);
        VmxCaps {
            basic: VmxBasic::TRUE_CONTROLS.bits() | 0x400 << 32 | 0x2b,
            pin_plain: all,
            pin_true: all,
            proc_plain: all,
            proc_true: all,
            exit_plain: all,
            exit_true: all,
            entry_plain: all,
            entry_true: all,
            proc2: all,
            proc3: u64::MAX,
            exit2: u64::MAX,
            ept_vpid: u64::MAX,
            misc: u64::MAX,
            vmfunc: u64::MAX,
            ..VmxCaps::default()
        }
    }

    #[test]
    fn what_must_be_one_stays() {
        let mut below = everything();
        below.exit_true = Allowed(0xffff_ffff << 32 | 0x0003_6dff);
        let caps = offer(&below, &FieldSet::FULL);
        assert_eq!(caps.exit_true.must_be_one(), 0x0003_6dff);
        assert_eq!(caps.exit_true.may_be_one() & 0x0003_6dff, 0x0003_6dff);
    }

    #[test]
    fn smx_is_not_offered_in_cr4() {
        let below = VmxCaps {
            cr4_fixed1: 0x1_0076_77ff,
            ..everything()
        };
        assert_eq!(offer(&below, &FieldSet::FULL).cr4_fixed1, 0x76_37ff);
    }

    #[test]
    fn plain_and_true_lose_the_same() {
        let caps = offer(&everything(), &FieldSet::FULL);
        assert_eq!(caps.pin_plain, caps.pin_true);
        assert_eq!(caps.proc_plain, caps.proc_true);
        assert_eq!(caps.exit_plain, caps.exit_true);
        assert_eq!(caps.entry_plain, caps.entry_true);
    }

    #[test]
    fn no_field_without_its_feature() {
        let caps = offer(&everything(), &FieldSet::FULL);
        use umbra_vmcs::field;
        for f in [
            field::SPEC_CTRL_SHADOW,
            field::GUEST_IA32_S_CET,
            field::HLAT_POINTER,
            field::SECONDARY_VM_EXIT_CONTROLS,
        ] {
            assert!(!caps.has_field(f), "{f:?}");
        }
        assert!(caps.has_field(field::EPTP_LIST_ADDRESS));
    }

    /// Whoever offers a field says in its row how it goes to vmcs02 and back.
    #[test]
    fn every_field_offered_has_a_flow() {
        let caps = offer(&everything(), &FieldSet::FULL);
        for f in fields(&caps, &FieldSet::FULL).iter() {
            let needs = f.needs();
            assert!(
                f.flow().is_some(),
                "{f:?} is NO_FLOW, and L1 is offered {needs:?}"
            );
        }
    }

    #[test]
    fn a_feature_goes_with_its_field() {
        for f in field::ALL {
            if f.flow().is_none() || REQUIRED.contains(f) {
                continue;
            }
            let mut present = FieldSet::FULL;
            present.remove(f);
            assert_eq!(missing(&present), None);
            let caps = offer(&everything(), &present);
            if f.needs() != Needs::AskCpu {
                assert!(!caps.has_field(f), "{f:?}");
            }
            assert!(!fields(&caps, &present).contains(f), "{f:?}");
        }
    }

    #[test]
    fn a_region_holds_vmcs12() {
        let caps = offer(&everything(), &FieldSet::FULL);
        let bytes = caps.basic >> 32 & 0x1fff;
        assert!(bytes >= Vmcs12::BYTES as u64 + 16 && bytes <= 4096);
    }
}

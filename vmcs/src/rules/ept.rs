//! EPT, what needs it, and VM functions.

use umbra_arch::EptVpidCap;

use super::{CONTROLS_ANSWER, rules};
use crate::caps::VmxCaps;
use crate::controls::{Entry, Exit, Proc2, Proc3};
use crate::field;

use super::cpu::CpuFacts;

const SECTION: &str = "VM-Execution Control Fields";

/// The memory type in bits 2:0 of an EPTP.
const fn memory_type_ok(eptp: u64, caps: &VmxCaps) -> bool {
    match eptp & 7 {
        0 => EptVpidCap::TABLES_UC.is_in(caps.ept_vpid),
        6 => EptVpidCap::TABLES_WB.is_in(caps.ept_vpid),
        _ => false,
    }
}

/// The page-walk length, less one, in bits 5:3.
const fn walk_length_ok(eptp: u64, caps: &VmxCaps) -> bool {
    match eptp >> 3 & 7 {
        3 => EptVpidCap::WALK_4.is_in(caps.ept_vpid),
        4 => EptVpidCap::WALK_5.is_in(caps.ept_vpid),
        _ => false,
    }
}

const fn accessed_dirty_ok(eptp: u64, caps: &VmxCaps) -> bool {
    eptp & 1 << 6 == 0 || EptVpidCap::ACCESSED_DIRTY.is_in(caps.ept_vpid)
}

const fn shadow_stack_ok(eptp: u64, caps: &VmxCaps) -> bool {
    eptp & 1 << 7 == 0 || EptVpidCap::SUPERVISOR_SHADOW_STACK.is_in(caps.ept_vpid)
}

const fn reserved_ok(eptp: u64, cpu: &CpuFacts) -> bool {
    eptp & (0xf00 | !cpu.physical_mask()) == 0
}

/// Whether VM entry, INVEPT and EPTP switching accept an EPTP. SDM
/// "VM-Execution Control Fields", "EPTP Switching".
#[inline]
pub const fn eptp_valid(eptp: u64, caps: &VmxCaps, cpu: &CpuFacts) -> bool {
    memory_type_ok(eptp, caps)
        && walk_length_ok(eptp, caps)
        && accessed_dirty_ok(eptp, caps)
        && shadow_stack_ok(eptp, caps)
        && reserved_ok(eptp, cpu)
}

rules! {
    /// The EPT pointer.
    eptp: "EPTP";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS, EPT_POINTER,
    ];
    memory_type = "ctl.eptp.memory-type",
        "where \"enable EPT\" is 1, the EPTP's memory type is one that IA32_VMX_EPT_VPID_CAP offers (UC: bit 8, WB: bit 14)",
        |c| !c.proc2(Proc2::ENABLE_EPT) || memory_type_ok(c.get(field::EPT_POINTER), c.caps);
    walk_length = "ctl.eptp.walk-length",
        "where \"enable EPT\" is 1, the EPTP's page-walk length is one that IA32_VMX_EPT_VPID_CAP offers (4: bit 6, 5: bit 7)",
        |c| !c.proc2(Proc2::ENABLE_EPT) || walk_length_ok(c.get(field::EPT_POINTER), c.caps);
    accessed_dirty = "ctl.eptp.accessed-dirty",
        "where \"enable EPT\" is 1, bit 6 of the EPTP is 0 unless IA32_VMX_EPT_VPID_CAP[21] is 1",
        |c| !c.proc2(Proc2::ENABLE_EPT) || accessed_dirty_ok(c.get(field::EPT_POINTER), c.caps);
    shadow_stack = "ctl.eptp.shadow-stack",
        "where \"enable EPT\" is 1, bit 7 of the EPTP is 0 unless IA32_VMX_EPT_VPID_CAP[23] is 1",
        |c| !c.proc2(Proc2::ENABLE_EPT) || shadow_stack_ok(c.get(field::EPT_POINTER), c.caps);
    reserved = "ctl.eptp.reserved",
        "where \"enable EPT\" is 1, bits 11:8 and those beyond the physical-address width of the EPTP are 0",
        |c| !c.proc2(Proc2::ENABLE_EPT) || reserved_ok(c.get(field::EPT_POINTER), c.cpu);
}

rules! {
    /// Controls that need "enable EPT".
    features: "features of EPT";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        TERTIARY_PROCESSOR_BASED_CONTROLS, PRIMARY_VM_EXIT_CONTROLS, VM_ENTRY_CONTROLS,
        PML_ADDRESS, SUB_PAGE_PERMISSION_TABLE_POINTER,
    ];
    pml = "ctl.pml.needs-ept",
        "\"enable EPT\" is 1 where \"enable PML\" is 1",
        |c| !c.proc2(Proc2::ENABLE_PML) || c.proc2(Proc2::ENABLE_EPT);
    pml_address = "ctl.pml.address",
        "where \"enable PML\" is 1, the PML page is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::ENABLE_PML) || c.page_at(c.get(field::PML_ADDRESS));
    unrestricted = "ctl.unrestricted-guest.needs-ept",
        "\"enable EPT\" is 1 where \"unrestricted guest\" is 1",
        |c| !c.proc2(Proc2::UNRESTRICTED_GUEST) || c.proc2(Proc2::ENABLE_EPT);
    mode_based = "ctl.mode-based-execute.needs-ept",
        "\"enable EPT\" is 1 where \"mode-based execute control for EPT\" is 1",
        |c| !c.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL) || c.proc2(Proc2::ENABLE_EPT);
    sub_page = "ctl.sub-page.needs-ept",
        "\"enable EPT\" is 1 where \"sub-page write permissions for EPT\" is 1",
        |c| !c.proc2(Proc2::SUB_PAGE_WRITE_PERMISSIONS) || c.proc2(Proc2::ENABLE_EPT);
    sub_page_table = "ctl.sub-page.table",
        "where \"sub-page write permissions for EPT\" is 1, the table is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::SUB_PAGE_WRITE_PERMISSIONS)
            || c.page_at(c.get(field::SUB_PAGE_PERMISSION_TABLE_POINTER));
    hlat = "ctl.hlat.needs-ept",
        "\"enable EPT\" is 1 where \"enable HLAT\" is 1",
        |c| !c.proc3(Proc3::ENABLE_HLAT) || c.proc2(Proc2::ENABLE_EPT);
    paging_write = "ctl.paging-write.needs-ept",
        "\"enable EPT\" is 1 where \"EPT paging-write control\" is 1",
        |c| !c.proc3(Proc3::EPT_PAGING_WRITE) || c.proc2(Proc2::ENABLE_EPT);
    verification = "ctl.paging-verification.needs-ept",
        "\"enable EPT\" is 1 where \"guest-paging verification\" is 1",
        |c| !c.proc3(Proc3::GUEST_PAGING_VERIFICATION) || c.proc2(Proc2::ENABLE_EPT);
    pt_ept = "ctl.pt-guest-physical.needs-ept",
        "\"enable EPT\" is 1 where \"Intel PT uses guest physical addresses\" is 1",
        |c| !c.proc2(Proc2::PT_USES_GUEST_PHYSICAL_ADDRESSES) || c.proc2(Proc2::ENABLE_EPT);
    pt_load = "ctl.pt-guest-physical.needs-load",
        "\"load IA32_RTIT_CTL\" is 1 where \"Intel PT uses guest physical addresses\" is 1",
        |c| !c.proc2(Proc2::PT_USES_GUEST_PHYSICAL_ADDRESSES) || c.entry(Entry::LOAD_RTIT_CTL);
    pt_clear = "ctl.pt-guest-physical.needs-clear",
        "\"clear IA32_RTIT_CTL\" is 1 where \"Intel PT uses guest physical addresses\" is 1",
        |c| !c.proc2(Proc2::PT_USES_GUEST_PHYSICAL_ADDRESSES) || c.exit(Exit::CLEAR_RTIT_CTL);
}

rules! {
    /// VM functions.
    functions: "VM functions";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VM_FUNCTION_CONTROLS, EPTP_LIST_ADDRESS,
    ];
    reserved = "ctl.vmfunc.reserved",
        "where \"enable VM functions\" is 1, the VM-function controls keep to IA32_VMX_VMFUNC",
        |c| !c.proc2(Proc2::ENABLE_VM_FUNCTIONS)
            || c.get(field::VM_FUNCTION_CONTROLS) & !c.caps.vmfunc == 0;
    switching_ept = "ctl.vmfunc.switching-needs-ept",
        "\"enable EPT\" is 1 where \"enable VM functions\" and \"EPTP switching\" are 1",
        |c| !c.proc2(Proc2::ENABLE_VM_FUNCTIONS)
            || c.get(field::VM_FUNCTION_CONTROLS) & 1 == 0
            || c.proc2(Proc2::ENABLE_EPT);
    eptp_list = "ctl.vmfunc.eptp-list",
        "where \"enable VM functions\" and \"EPTP switching\" are 1, the EPTP list is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::ENABLE_VM_FUNCTIONS)
            || c.get(field::VM_FUNCTION_CONTROLS) & 1 == 0
            || c.page_at(c.get(field::EPTP_LIST_ADDRESS));
}

//! The control words against the capabilities, and the controls that need one
//! another.

use super::{CONTROLS_ANSWER, rules};
use crate::controls::{Pin, Proc, Proc2, Proc3};
use crate::field;

const SECTION: &str = "VM-Execution Control Fields";

rules! {
    /// The words that the capability MSRs bound.
    execution: "execution control words";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PIN_BASED_CONTROLS, PRIMARY_PROCESSOR_BASED_CONTROLS,
        SECONDARY_PROCESSOR_BASED_CONTROLS, TERTIARY_PROCESSOR_BASED_CONTROLS,
        CR3_TARGET_COUNT,
    ];
    pin_reserved = "ctl.pin.reserved",
        "the pin-based controls keep to IA32_VMX_TRUE_PINBASED_CTLS (IA32_VMX_PINBASED_CTLS where there are no TRUE MSRs)",
        |c| c.caps.pin().permits(c.get32(field::PIN_BASED_CONTROLS));
    proc_reserved = "ctl.proc.reserved",
        "the primary processor-based controls keep to IA32_VMX_TRUE_PROCBASED_CTLS (or IA32_VMX_PROCBASED_CTLS)",
        |c| c.caps.proc().permits(c.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS));
    proc2_reserved = "ctl.proc2.reserved",
        "where the secondary controls are activated, they keep to IA32_VMX_PROCBASED_CTLS2",
        |c| !c.proc(Proc::ACTIVATE_SECONDARY_CONTROLS)
            || c.caps.proc2.permits(c.get32(field::SECONDARY_PROCESSOR_BASED_CONTROLS));
    proc3_reserved = "ctl.proc3.reserved",
        "where the tertiary controls are activated, they keep to IA32_VMX_PROCBASED_CTLS3",
        |c| c.proc3_word() & !c.caps.proc3 == 0;
    cr3_targets = "ctl.cr3-target-count",
        "the CR3-target count is at most the number of CR3-target values (IA32_VMX_MISC[24:16])",
        |c| c.get32(field::CR3_TARGET_COUNT) <= c.caps.cr3_targets();
}

rules! {
    /// NMI controls.
    nmi: "NMI controls";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [PIN_BASED_CONTROLS, PRIMARY_PROCESSOR_BASED_CONTROLS];
    virtual_nmis = "ctl.nmi.virtual-needs-exiting",
        "\"virtual NMIs\" is 0 where \"NMI exiting\" is 0",
        |c| c.pin(Pin::NMI_EXITING) || !c.pin(Pin::VIRTUAL_NMIS);
    nmi_window = "ctl.nmi.window-needs-virtual",
        "\"NMI-window exiting\" is 0 where \"virtual NMIs\" is 0",
        |c| c.pin(Pin::VIRTUAL_NMIS) || !c.proc(Proc::NMI_WINDOW_EXITING);
}

rules! {
    /// The processor-based controls with an operand that are neither about
    /// the APIC nor about EPT.
    others: "VPID, TSC scaling, PASID, HLAT, IPIs";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        TERTIARY_PROCESSOR_BASED_CONTROLS, VIRTUAL_PROCESSOR_ID, TSC_MULTIPLIER,
        LOW_PASID_DIRECTORY_ADDRESS, HIGH_PASID_DIRECTORY_ADDRESS, HLAT_POINTER,
        PID_POINTER_TABLE_ADDRESS, LAST_PID_POINTER_INDEX,
    ];
    vpid = "ctl.vpid.zero",
        "where \"enable VPID\" is 1, the VPID is not 0",
        |c| !c.proc2(Proc2::ENABLE_VPID) || c.get(field::VIRTUAL_PROCESSOR_ID) != 0;
    tsc_multiplier = "ctl.tsc-multiplier.zero",
        "where \"use TSC scaling\" is 1, the TSC multiplier is not 0",
        |c| !c.proc2(Proc2::USE_TSC_SCALING) || c.get(field::TSC_MULTIPLIER) != 0;
    pasid_low = "ctl.pasid.low",
        "where \"PASID translation\" is 1, the low PASID directory is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::PASID_TRANSLATION)
            || c.page_at(c.get(field::LOW_PASID_DIRECTORY_ADDRESS));
    pasid_high = "ctl.pasid.high",
        "where \"PASID translation\" is 1, the high PASID directory is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::PASID_TRANSLATION)
            || c.page_at(c.get(field::HIGH_PASID_DIRECTORY_ADDRESS));
    hlat = "ctl.hlat.pointer",
        "where \"enable HLAT\" is 1, bits 2:0, 11:5 and those beyond the physical-address width of the HLAT pointer are 0",
        |c| {
            let pointer = c.get(field::HLAT_POINTER);
            !c.proc3(Proc3::ENABLE_HLAT) || pointer & 0xfe7 == 0 && c.within_width(pointer)
        };
    pid_table = "ctl.ipi.table",
        "where \"IPI virtualization\" is 1, the PID-pointer table is 8-byte aligned and within the physical-address width",
        |c| {
            let table = c.get(field::PID_POINTER_TABLE_ADDRESS);
            !c.proc3(Proc3::IPI_VIRTUALIZATION) || table & 7 == 0 && c.structure_at(table)
        };
    pid_table_end = "ctl.ipi.table-end",
        "where \"IPI virtualization\" is 1, the last byte of the PID-pointer table is within the physical-address width",
        |c| {
            let table = u128::from(c.get(field::PID_POINTER_TABLE_ADDRESS));
            let end = table + u128::from(c.get(field::LAST_PID_POINTER_INDEX)) * 8 + 7;
            !c.proc3(Proc3::IPI_VIRTUALIZATION)
                || u64::try_from(end).is_ok_and(|end| c.structure_at(end))
        };
}

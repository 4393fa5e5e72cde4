//! The controls that virtualise the APIC.

use super::{CONTROLS_ANSWER, rules};
use crate::Vmcs12;
use crate::controls::{Exit, Pin, Proc, Proc2, Proc3};
use crate::field;

const SECTION: &str = "VM-Execution Control Fields";

/// Where the task-priority register lies in the virtual-APIC page.
const VTPR_OFFSET: u64 = 0x80;

rules! {
    /// TPR shadow, APIC accesses, x2APIC mode, interrupt delivery.
    controls: "APIC virtualisation";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PIN_BASED_CONTROLS, PRIMARY_PROCESSOR_BASED_CONTROLS,
        SECONDARY_PROCESSOR_BASED_CONTROLS, TERTIARY_PROCESSOR_BASED_CONTROLS,
        VIRTUAL_APIC_ADDRESS, TPR_THRESHOLD, APIC_ACCESS_ADDRESS,
    ];
    virtual_apic = "ctl.virtual-apic-page",
        "where \"use TPR shadow\" is 1, the virtual-APIC page is page-aligned and within the physical-address width",
        |c| !c.proc(Proc::USE_TPR_SHADOW) || c.page_at(c.get(field::VIRTUAL_APIC_ADDRESS));
    tpr_threshold = "ctl.tpr-threshold.reserved",
        "where \"use TPR shadow\" is 1 and \"virtual-interrupt delivery\" is 0, bits 31:4 of the TPR threshold are 0",
        |c| !c.proc(Proc::USE_TPR_SHADOW)
            || c.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
            || c.get32(field::TPR_THRESHOLD) >> 4 == 0;
    apic_access = "ctl.apic-access-page",
        "where \"virtualize APIC accesses\" is 1, the APIC-access page is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES)
            || c.page_at(c.get(field::APIC_ACCESS_ADDRESS));
    x2apic_shadow = "ctl.apic.x2apic-needs-tpr-shadow",
        "\"virtualize x2APIC mode\" is 0 where \"use TPR shadow\" is 0",
        |c| c.proc(Proc::USE_TPR_SHADOW) || !c.proc2(Proc2::VIRTUALIZE_X2APIC_MODE);
    registers_shadow = "ctl.apic.registers-need-tpr-shadow",
        "\"APIC-register virtualization\" is 0 where \"use TPR shadow\" is 0",
        |c| c.proc(Proc::USE_TPR_SHADOW) || !c.proc2(Proc2::APIC_REGISTER_VIRTUALIZATION);
    delivery_shadow = "ctl.apic.delivery-needs-tpr-shadow",
        "\"virtual-interrupt delivery\" is 0 where \"use TPR shadow\" is 0",
        |c| c.proc(Proc::USE_TPR_SHADOW) || !c.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    ipi_shadow = "ctl.apic.ipi-needs-tpr-shadow",
        "\"IPI virtualization\" is 0 where \"use TPR shadow\" is 0",
        |c| c.proc(Proc::USE_TPR_SHADOW) || !c.proc3(Proc3::IPI_VIRTUALIZATION);
    x2apic_or_xapic = "ctl.apic.x2apic-excludes-accesses",
        "\"virtualize APIC accesses\" is 0 where \"virtualize x2APIC mode\" is 1",
        |c| !c.proc2(Proc2::VIRTUALIZE_X2APIC_MODE)
            || !c.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES);
    delivery_exiting = "ctl.apic.delivery-needs-exiting",
        "\"external-interrupt exiting\" is 1 where \"virtual-interrupt delivery\" is 1",
        |c| !c.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
            || c.pin(Pin::EXTERNAL_INTERRUPT_EXITING);
}

/// Whether the threshold is held against VTPR, which lies in memory. No VTPR is
/// below 0.
#[inline]
pub(super) fn reads_vtpr(vmcs: &Vmcs12) -> bool {
    vmcs.proc(Proc::USE_TPR_SHADOW)
        && !vmcs.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
        && !vmcs.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES)
        && vmcs.get32(field::TPR_THRESHOLD) & 0xf != 0
}

rules! {
    /// The threshold against the VTPR, which lies in memory.
    vtpr: "TPR threshold and VTPR";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: Always;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VIRTUAL_APIC_ADDRESS, TPR_THRESHOLD,
    ];
    below_vtpr = "ctl.tpr-threshold.above-vtpr",
        "where \"use TPR shadow\" is 1, \"virtual-interrupt delivery\" and \"virtualize APIC accesses\" are 0, bits 3:0 of the TPR threshold are at most bits 7:4 of VTPR",
        |c| !c.proc(Proc::USE_TPR_SHADOW)
            || c.proc2_word()
                & (Proc2::VIRTUAL_INTERRUPT_DELIVERY.bits()
                    | Proc2::VIRTUALIZE_APIC_ACCESSES.bits())
                != 0
            // No VTPR is below 0: do not go to memory.
            || c.get32(field::TPR_THRESHOLD) & 0xf == 0
            || c.get32(field::TPR_THRESHOLD) & 0xf
                <= c.mem.read_u32(c.get(field::VIRTUAL_APIC_ADDRESS) | VTPR_OFFSET) >> 4 & 0xf;
}

rules! {
    /// Posted interrupts.
    posted: "posted interrupts";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PIN_BASED_CONTROLS, PRIMARY_PROCESSOR_BASED_CONTROLS,
        SECONDARY_PROCESSOR_BASED_CONTROLS, PRIMARY_VM_EXIT_CONTROLS,
        POSTED_INTERRUPT_NOTIFICATION_VECTOR, POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
    ];
    needs_delivery = "ctl.posted.needs-delivery",
        "\"virtual-interrupt delivery\" is 1 where \"process posted interrupts\" is 1",
        |c| !c.pin(Pin::PROCESS_POSTED_INTERRUPTS)
            || c.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    needs_acknowledge = "ctl.posted.needs-acknowledge",
        "\"acknowledge interrupt on exit\" is 1 where \"process posted interrupts\" is 1",
        |c| !c.pin(Pin::PROCESS_POSTED_INTERRUPTS)
            || c.exit(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    vector = "ctl.posted.vector",
        "where \"process posted interrupts\" is 1, bits 15:8 of the notification vector are 0",
        |c| !c.pin(Pin::PROCESS_POSTED_INTERRUPTS)
            || c.get(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR) <= 0xff;
    descriptor = "ctl.posted.descriptor",
        "where \"process posted interrupts\" is 1, the descriptor is 64-byte aligned and within the physical-address width",
        |c| {
            let address = c.get(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS);
            !c.pin(Pin::PROCESS_POSTED_INTERRUPTS)
                || address & 0x3f == 0 && c.structure_at(address)
        };
}

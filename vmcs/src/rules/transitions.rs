//! The controls of VM exit and VM entry, and the MSR areas.

use super::{CONTROLS_ANSWER, Ctx, rules};
use crate::controls::{Entry, Exit, Pin};
use crate::field::{self, Field};

const EXIT_SECTION: &str = "VM-Exit Control Fields";
const ENTRY_SECTION: &str = "VM-Entry Control Fields";

/// The bytes of an entry of an MSR area.
const MSR_ENTRY_BYTES: u128 = 16;

/// Whether an MSR area begins where one may; any does that has no entry.
#[inline(always)]
fn area_start(c: &Ctx<'_>, address: Field, count: Field) -> bool {
    let start = c.get(address);
    c.get32(count) == 0 || start & 0xf == 0 && c.structure_at(start)
}

/// Whether the last byte of an MSR area is where one may be.
#[inline(always)]
fn area_end(c: &Ctx<'_>, address: Field, count: Field) -> bool {
    let count = c.get32(count);
    if count == 0 {
        return true;
    }
    // More bits than an address has, as the SDM asks for.
    let end = u128::from(c.get(address)) + u128::from(count) * MSR_ENTRY_BYTES - 1;
    u64::try_from(end).is_ok_and(|end| c.structure_at(end))
}

rules! {
    /// The VM-exit control words.
    exit: "exit controls";
    section: EXIT_SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [PIN_BASED_CONTROLS, PRIMARY_VM_EXIT_CONTROLS, SECONDARY_VM_EXIT_CONTROLS];
    reserved = "ctl.exit.reserved",
        "the primary VM-exit controls keep to IA32_VMX_TRUE_EXIT_CTLS (or IA32_VMX_EXIT_CTLS)",
        |c| c.caps.exit().permits(c.get32(field::PRIMARY_VM_EXIT_CONTROLS));
    reserved2 = "ctl.exit2.reserved",
        "where the secondary VM-exit controls are activated, they keep to IA32_VMX_EXIT_CTLS2",
        |c| c.exit2_word() & !c.caps.exit2 == 0;
    timer = "ctl.exit.save-timer-needs-timer",
        "\"save VMX-preemption timer value\" is 0 where \"activate VMX-preemption timer\" is 0",
        |c| c.pin(Pin::ACTIVATE_PREEMPTION_TIMER) || !c.exit(Exit::SAVE_PREEMPTION_TIMER);
}

rules! {
    /// The MSR areas of VM exit.
    exit_msrs: "exit MSR areas";
    section: EXIT_SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_STORE_ADDRESS,
        VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_LOAD_ADDRESS,
    ];
    store = "ctl.exit.msr-store.address",
        "where the VM-exit MSR-store count is not 0, the area is 16-byte aligned and begins within the physical-address width",
        |c| area_start(c, field::VM_EXIT_MSR_STORE_ADDRESS, field::VM_EXIT_MSR_STORE_COUNT);
    store_end = "ctl.exit.msr-store.end",
        "where the VM-exit MSR-store count is not 0, the last byte of the area is within the physical-address width",
        |c| area_end(c, field::VM_EXIT_MSR_STORE_ADDRESS, field::VM_EXIT_MSR_STORE_COUNT);
    load = "ctl.exit.msr-load.address",
        "where the VM-exit MSR-load count is not 0, the area is 16-byte aligned and begins within the physical-address width",
        |c| area_start(c, field::VM_EXIT_MSR_LOAD_ADDRESS, field::VM_EXIT_MSR_LOAD_COUNT);
    load_end = "ctl.exit.msr-load.end",
        "where the VM-exit MSR-load count is not 0, the last byte of the area is within the physical-address width",
        |c| area_end(c, field::VM_EXIT_MSR_LOAD_ADDRESS, field::VM_EXIT_MSR_LOAD_COUNT);
}

rules! {
    /// The VM-entry control word and its MSR area.
    entry: "entry controls";
    section: ENTRY_SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [VM_ENTRY_CONTROLS, VM_ENTRY_MSR_LOAD_COUNT, VM_ENTRY_MSR_LOAD_ADDRESS];
    reserved = "ctl.entry.reserved",
        "the VM-entry controls keep to IA32_VMX_TRUE_ENTRY_CTLS (or IA32_VMX_ENTRY_CTLS)",
        |c| c.caps.entry().permits(c.get32(field::VM_ENTRY_CONTROLS));
    smm = "ctl.entry.smm",
        "\"entry to SMM\" is 0 outside system-management mode",
        |c| !c.entry(Entry::ENTRY_TO_SMM);
    dual_monitor = "ctl.entry.dual-monitor",
        "\"deactivate dual-monitor treatment\" is 0 outside system-management mode",
        |c| !c.entry(Entry::DEACTIVATE_DUAL_MONITOR_TREATMENT);
    load = "ctl.entry.msr-load.address",
        "where the VM-entry MSR-load count is not 0, the area is 16-byte aligned and begins within the physical-address width",
        |c| area_start(c, field::VM_ENTRY_MSR_LOAD_ADDRESS, field::VM_ENTRY_MSR_LOAD_COUNT);
    load_end = "ctl.entry.msr-load.end",
        "where the VM-entry MSR-load count is not 0, the last byte of the area is within the physical-address width",
        |c| area_end(c, field::VM_ENTRY_MSR_LOAD_ADDRESS, field::VM_ENTRY_MSR_LOAD_COUNT);
}

rules! {
    /// Intel PT at the time of the entry.
    tracing: "PT at VM entry";
    section: ENTRY_SECTION;
    answer: CONTROLS_ANSWER;
    runs: Always;
    reads: [VM_ENTRY_CONTROLS];
    rtit = "ctl.entry.rtit-while-tracing",
        "\"load IA32_RTIT_CTL\" is 0 where IA32_RTIT_CTL.TraceEn is 1 at the VM entry",
        |c| !c.l1.pt_enabled || !c.entry(Entry::LOAD_RTIT_CTL);
}

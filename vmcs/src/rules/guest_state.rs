//! RFLAGS, RIP and SSP, non-register state, PDPTEs.

use umbra_arch::event::vector;
use umbra_arch::qualification::entry_failure;
use umbra_arch::state::{Activity, Blocking};
use umbra_arch::vmx_cap::VmxMisc;
use umbra_arch::{Cr0, Cr4, Debugctl, EventType, PendingDebug, Rflags};

use super::event::event;
use super::guest_segments::rights_in;
use super::{Answer, Ctx, GUEST_ANSWER, rules};
use crate::controls::{Entry, Pin, Proc2};
use crate::field;

const RIP_RFLAGS_SSP: &str = "Checks on Guest RIP, RFLAGS, and SSP";
const NON_REGISTER: &str = "Checks on Guest Non-Register State";
const PDPTES: &str = "Checks on Guest Page-Directory-Pointer-Table Entries";

/// Bits 63:22, 15, 5 and 3.
const RFLAGS_RESERVED: u64 = !0 << 22 | 1 << 15 | 1 << 5 | 1 << 3;

/// Bits 10:4, 13, 15 and 63:17 of the pending debug exceptions.
const PENDING_RESERVED: u64 = 0x7f << 4 | 1 << 13 | 1 << 15 | !0 << 17;

/// No VMCS link pointer.
pub(super) const NO_LINK: u64 = u64::MAX;

#[inline(always)]
fn blocked_by(c: &Ctx<'_>, bits: Blocking) -> bool {
    bits.any_in(c.get32(field::GUEST_INTERRUPTIBILITY_STATE))
}

#[inline(always)]
fn activity_is(c: &Ctx<'_>, state: Activity) -> bool {
    c.get32(field::GUEST_ACTIVITY_STATE) == state as u32
}

rules! {
    /// RFLAGS.
    rflags: "guest RFLAGS";
    section: RIP_RFLAGS_SSP;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [GUEST_RFLAGS, VM_ENTRY_CONTROLS, GUEST_CR0];
    reserved = "guest.rflags.reserved",
        "bits 63:22, 15, 5 and 3 of RFLAGS are 0",
        |c| c.get(field::GUEST_RFLAGS) & RFLAGS_RESERVED == 0;
    one = "guest.rflags.fixed",
        "bit 1 of RFLAGS is 1",
        |c| Rflags::FIXED.is_in(c.get(field::GUEST_RFLAGS));
    vm_ia32e = "guest.rflags.vm-ia32e",
        "RFLAGS.VM is 0 where \"IA-32e mode guest\" is 1",
        |c| !c.v8086() || !c.ia32e_guest();
    vm_real = "guest.rflags.vm-real",
        "RFLAGS.VM is 0 where CR0.PE is 0",
        |c| !c.v8086() || Cr0::PE.is_in(c.get(field::GUEST_CR0));
}

rules! {
    /// RIP and SSP.
    rip: "guest RIP and SSP";
    section: RIP_RFLAGS_SSP;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [VM_ENTRY_CONTROLS, GUEST_CS_ACCESS_RIGHTS, GUEST_RIP, GUEST_SSP];
    rip32 = "guest.rip.high",
        "bits 63:32 of RIP are 0 unless \"IA-32e mode guest\" and CS.L are 1",
        |c| c.code64() || c.get(field::GUEST_RIP) >> 32 == 0;
    rip64 = "guest.rip.width",
        "the bits of RIP beyond the linear-address width are all equal where \"IA-32e mode guest\" and CS.L are 1",
        |c| !c.code64() || c.cpu.upper_bits_equal(c.get(field::GUEST_RIP));
    ssp = "guest.ssp.aligned",
        "where \"load CET state\" is 1, bits 1:0 of SSP are 0",
        |c| !c.entry(Entry::LOAD_CET_STATE) || c.get(field::GUEST_SSP) & 3 == 0;
    ssp64 = "guest.ssp.width",
        "where \"load CET state\" is 1, the bits of SSP beyond the linear-address width are all equal",
        |c| !c.entry(Entry::LOAD_CET_STATE)
            || c.cpu.upper_bits_equal(c.get(field::GUEST_SSP));
}

rules! {
    /// The VMCS link pointer and what lies behind it.
    link_pointer: "VMCS link pointer";
    section: NON_REGISTER;
    answer: Answer::GuestState { qualification: entry_failure::LINK_POINTER };
    runs: Always;
    reads: [
        VMCS_LINK_POINTER, PRIMARY_PROCESSOR_BASED_CONTROLS,
        SECONDARY_PROCESSOR_BASED_CONTROLS,
    ];
    address = "guest.link-pointer.address",
        "a VMCS link pointer other than all ones is page-aligned and within the physical-address width",
        |c| {
            let link = c.get(field::VMCS_LINK_POINTER);
            link == NO_LINK || c.page_at(link)
        };
    revision = "guest.link-pointer.revision",
        "bits 30:0 of the 4 bytes behind the VMCS link pointer are the CPU's VMCS revision identifier",
        |c| {
            let link = c.get(field::VMCS_LINK_POINTER);
            link == NO_LINK || c.mem.read_u32(link) & 0x7fff_ffff == c.caps.revision()
        };
    shadow = "guest.link-pointer.shadow",
        "bit 31 of the 4 bytes behind the VMCS link pointer is the setting of \"VMCS shadowing\"",
        |c| {
            let link = c.get(field::VMCS_LINK_POINTER);
            link == NO_LINK
                || (c.mem.read_u32(link) >> 31 != 0) == c.proc2(Proc2::VMCS_SHADOWING)
        };
    current = "guest.link-pointer.current",
        "the VMCS link pointer is not the current-VMCS pointer",
        |c| {
            let link = c.get(field::VMCS_LINK_POINTER);
            link == NO_LINK || link != c.l1.current_vmcs
        };
}

rules! {
    /// RFLAGS and an injected interrupt: with the interruptibility state, behind the link pointer.
    /// The SDM leaves the order open.
    rflags_interrupt: "guest RFLAGS with an injected interrupt";
    section: RIP_RFLAGS_SSP;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [GUEST_RFLAGS, VM_ENTRY_INTERRUPTION_INFORMATION];
    interrupt = "guest.rflags.if-injection",
        "RFLAGS.IF is 1 where an external interrupt is injected",
        |c| Rflags::IF.is_in(c.get(field::GUEST_RFLAGS)) || !event(c).is(EventType::ExternalInterrupt);
}

rules! {
    /// Pending debug exceptions.
    pending_debug: "pending debug exceptions";
    section: NON_REGISTER;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        GUEST_PENDING_DEBUG_EXCEPTIONS, GUEST_INTERRUPTIBILITY_STATE, GUEST_ACTIVITY_STATE,
        GUEST_RFLAGS, GUEST_IA32_DEBUGCTL,
    ];
    reserved = "guest.pending-debug.reserved",
        "bits 10:4, 13, 15 and 63:17 of the pending debug exceptions are 0",
        |c| c.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS) & PENDING_RESERVED == 0;
    bus_lock = "guest.pending-debug.bus-lock",
        "bit 11 of the pending debug exceptions is 0 unless the CPU has OS bus-lock detection",
        |c| !PendingDebug::BUS_LOCK.is_in(c.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS))
            || c.cpu.bus_lock_detection;
    bs_missing = "guest.pending-debug.bs-missing",
        "BS is 1 where STI or MOV SS blocks or the activity state is HLT, RFLAGS.TF is 1 and IA32_DEBUGCTL.BTF is 0",
        |c| !stepping_held(c)
            || !single_stepping(c)
            || PendingDebug::BS.is_in(c.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS));
    bs_extra = "guest.pending-debug.bs-extra",
        "BS is 0 where STI or MOV SS blocks or the activity state is HLT, and RFLAGS.TF is 0 or IA32_DEBUGCTL.BTF is 1",
        |c| !stepping_held(c)
            || single_stepping(c)
            || !PendingDebug::BS.is_in(c.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS));
    rtm_cpu = "guest.pending-debug.rtm-support",
        "RTM is 0 unless the CPU has restricted transactional memory",
        |c| !pending_rtm(c) || c.cpu.rtm;
    rtm_bits = "guest.pending-debug.rtm-bits",
        "where RTM is 1, bits 11:0, 15:13 and 63:17 are 0 and bit 12 is 1",
        |c| !pending_rtm(c)
            || c.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS)
                == (PendingDebug::RTM | PendingDebug::ENABLED_BREAKPOINT).bits();
    rtm_mov_ss = "guest.pending-debug.rtm-mov-ss",
        "MOV SS does not block where RTM is 1",
        |c| !pending_rtm(c) || !blocked_by(c, Blocking::MOV_SS);
}

/// Whether a single-step trap would be held back.
#[inline(always)]
fn stepping_held(c: &Ctx<'_>) -> bool {
    blocked_by(c, Blocking::STI | Blocking::MOV_SS) || activity_is(c, Activity::Hlt)
}

/// Whether the guest traps after each instruction.
#[inline(always)]
fn single_stepping(c: &Ctx<'_>) -> bool {
    Rflags::TF.is_in(c.get(field::GUEST_RFLAGS))
        && !Debugctl::BTF.is_in(c.get(field::GUEST_IA32_DEBUGCTL))
}

#[inline(always)]
fn pending_rtm(c: &Ctx<'_>) -> bool {
    PendingDebug::RTM.is_in(c.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS))
}

rules! {
    /// The activity state.
    activity: "activity state";
    section: NON_REGISTER;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        GUEST_ACTIVITY_STATE, GUEST_SS_ACCESS_RIGHTS, GUEST_INTERRUPTIBILITY_STATE,
        VM_ENTRY_INTERRUPTION_INFORMATION,
    ];
    supported = "guest.activity.supported",
        "the activity state is 0 to 3 and, where not 0, one that IA32_VMX_MISC[8:6] offers",
        |c| match c.get32(field::GUEST_ACTIVITY_STATE) {
            0 => true,
            1 => VmxMisc::HLT.is_in(c.caps.misc),
            2 => VmxMisc::SHUTDOWN.is_in(c.caps.misc),
            3 => VmxMisc::WAIT_FOR_SIPI.is_in(c.caps.misc),
            _ => false,
        };
    hlt_dpl = "guest.activity.hlt-dpl",
        "the activity state is not HLT where DPL of SS is not 0",
        |c| !activity_is(c, Activity::Hlt)
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).dpl() == 0;
    blocked = "guest.activity.blocked",
        "the activity state is active where STI or MOV SS blocks",
        |c| activity_is(c, Activity::Active)
            || !blocked_by(c, Blocking::STI | Blocking::MOV_SS);
    hlt_event = "guest.activity.hlt-event",
        "in HLT, an injected event is an external interrupt, an NMI, #DB, #MC or a pending MTF VM exit",
        |c| {
            let event = event(c);
            !activity_is(c, Activity::Hlt)
                || !event.valid()
                || match event.kind() {
                    EventType::ExternalInterrupt | EventType::Nmi => true,
                    EventType::HardwareException => {
                        event.vector() == vector::DB || event.vector() == vector::MC
                    }
                    EventType::Other => event.vector() == 0,
                    _ => false,
                }
        };
    shutdown_event = "guest.activity.shutdown-event",
        "in shutdown, an injected event is an NMI or #MC",
        |c| {
            let event = event(c);
            !activity_is(c, Activity::Shutdown)
                || !event.valid()
                || event.kind() == EventType::Nmi
                || event.kind() == EventType::HardwareException && event.vector() == vector::MC
        };
    sipi_event = "guest.activity.wait-for-sipi-event",
        "in wait-for-SIPI, no event is injected",
        |c| !activity_is(c, Activity::WaitForSipi) || !event(c).valid();
}

rules! {
    /// The interruptibility state.
    interruptibility: "interruptibility state";
    section: NON_REGISTER;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        GUEST_INTERRUPTIBILITY_STATE, GUEST_RFLAGS, VM_ENTRY_INTERRUPTION_INFORMATION,
        PIN_BASED_CONTROLS,
    ];
    reserved = "guest.interruptibility.reserved",
        "bits 31:5 of the interruptibility state are 0",
        |c| c.get32(field::GUEST_INTERRUPTIBILITY_STATE) & !Blocking::all().bits() == 0;
    both = "guest.interruptibility.sti-and-mov-ss",
        "not both STI and MOV SS block",
        |c| !blocked_by(c, Blocking::STI) || !blocked_by(c, Blocking::MOV_SS);
    sti_if = "guest.interruptibility.sti-needs-if",
        "STI does not block where RFLAGS.IF is 0",
        |c| !blocked_by(c, Blocking::STI) || Rflags::IF.is_in(c.get(field::GUEST_RFLAGS));
    interrupt = "guest.interruptibility.external-interrupt",
        "neither STI nor MOV SS blocks where an external interrupt is injected",
        |c| !blocked_by(c, Blocking::STI | Blocking::MOV_SS)
            || !event(c).is(EventType::ExternalInterrupt);
    nmi_mov_ss = "guest.interruptibility.nmi-mov-ss",
        "MOV SS does not block where an NMI is injected",
        |c| !blocked_by(c, Blocking::MOV_SS) || !event(c).is(EventType::Nmi);
    smi = "guest.interruptibility.smi",
        "SMI blocking is 0 outside system-management mode",
        |c| !blocked_by(c, Blocking::SMI);
    virtual_nmi = "guest.interruptibility.virtual-nmi",
        "NMI blocking is 0 where \"virtual NMIs\" is 1 and an NMI is injected",
        |c| !blocked_by(c, Blocking::NMI)
            || !c.pin(Pin::VIRTUAL_NMIS)
            || !event(c).is(EventType::Nmi);
    enclave_cpu = "guest.interruptibility.enclave-support",
        "enclave interruption is 0 unless the CPU has SGX",
        |c| !blocked_by(c, Blocking::ENCLAVE) || c.cpu.sgx;
    enclave_mov_ss = "guest.interruptibility.enclave-mov-ss",
        "MOV SS does not block where enclave interruption is 1",
        |c| !blocked_by(c, Blocking::ENCLAVE) || !blocked_by(c, Blocking::MOV_SS);
}

rules! {
    /// The one check on interruptibility with a qualification of its own.
    nmi_and_sti: "NMI injection while STI blocks";
    section: NON_REGISTER;
    answer: Answer::GuestState { qualification: entry_failure::NMI_INJECTION };
    runs: OnChange;
    reads: [GUEST_INTERRUPTIBILITY_STATE, VM_ENTRY_INTERRUPTION_INFORMATION];
    nmi_sti = "guest.interruptibility.nmi-sti",
        "STI does not block where an NMI is injected (processors may differ; this one asks for it)",
        |c| !c.cpu.nmi_needs_no_sti_blocking
            || !blocked_by(c, Blocking::STI)
            || !event(c).is(EventType::Nmi);
}

/// Whether the guest uses PAE paging.
#[inline(always)]
fn pae_paging(c: &Ctx<'_>) -> bool {
    !c.ia32e_guest()
        && Cr0::PG.is_in(c.get(field::GUEST_CR0))
        && Cr4::PAE.is_in(c.get(field::GUEST_CR4))
}

/// Whether a PDPTE is one that MOV to CR3 accepts: not present, or bits 2:1,
/// 8:5 and those beyond the physical-address width are 0.
#[inline(always)]
fn pdpte_ok(c: &Ctx<'_>, entry: u64) -> bool {
    entry & 1 == 0 || entry & 0x1e6 == 0 && c.within_width(entry)
}

rules! {
    /// PDPTEs from the guest-state area.
    pdpte_fields: "PDPTE fields";
    section: PDPTES;
    answer: Answer::GuestState { qualification: entry_failure::PDPTE };
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VM_ENTRY_CONTROLS, GUEST_CR0, GUEST_CR4,
        GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3,
    ];
    entry0 = "guest.pdpte.field0",
        "with PAE paging and \"enable EPT\" 1, a present PDPTE0 sets no reserved bit",
        |c| !c.proc2(Proc2::ENABLE_EPT) || !pae_paging(c) || pdpte_ok(c, c.get(field::GUEST_PDPTE0));
    entry1 = "guest.pdpte.field1",
        "with PAE paging and \"enable EPT\" 1, a present PDPTE1 sets no reserved bit",
        |c| !c.proc2(Proc2::ENABLE_EPT) || !pae_paging(c) || pdpte_ok(c, c.get(field::GUEST_PDPTE1));
    entry2 = "guest.pdpte.field2",
        "with PAE paging and \"enable EPT\" 1, a present PDPTE2 sets no reserved bit",
        |c| !c.proc2(Proc2::ENABLE_EPT) || !pae_paging(c) || pdpte_ok(c, c.get(field::GUEST_PDPTE2));
    entry3 = "guest.pdpte.field3",
        "with PAE paging and \"enable EPT\" 1, a present PDPTE3 sets no reserved bit",
        |c| !c.proc2(Proc2::ENABLE_EPT) || !pae_paging(c) || pdpte_ok(c, c.get(field::GUEST_PDPTE3));
}

rules! {
    /// PDPTEs from memory.
    pdpte_memory: "PDPTEs in memory";
    section: PDPTES;
    answer: Answer::GuestState { qualification: entry_failure::PDPTE };
    runs: Always;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VM_ENTRY_CONTROLS, GUEST_CR0, GUEST_CR3, GUEST_CR4,
    ];
    entries = "guest.pdpte.memory",
        "with PAE paging and \"enable EPT\" 0, a present PDPTE behind CR3 sets no reserved bit",
        |c| c.proc2(Proc2::ENABLE_EPT)
            || !pae_paging(c)
            || {
                let table = c.get(field::GUEST_CR3) & 0xffff_ffe0;
                (0..4).all(|n| pdpte_ok(c, c.mem.read_u64(table + n * 8)))
            };
}

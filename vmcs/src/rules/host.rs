//! The checks on the host-state area.

use umbra_arch::memtype::pat_is_valid;
use umbra_arch::{Cr0, Cr4, Efer};

use super::{Ctx, HOST_ANSWER, rules};
use crate::controls::Exit;
use crate::field::{self, Field};

const REGISTERS: &str = "Checks on Host Control Registers, MSRs, and SSP";
const SEGMENTS: &str = "Checks on Host Segment and Descriptor-Table Registers";
const ADDRESS_SPACE: &str = "Checks Related to Address-Space Size";

/// IA32_S_CET's SUPPRESS and TRACKER, not both of which may be 1.
const S_CET_SUPPRESS_TRACKER: u64 = 0b11 << 10;

/// Whether `value` has every bit of `fixed0`, none outside of `fixed1`.
#[inline(always)]
pub(super) const fn fixed_bits_ok(value: u64, fixed0: u64, fixed1: u64) -> bool {
    value & fixed0 == fixed0 && value & !fixed1 == 0
}

/// Whether IA32_S_CET may hold the value.
#[inline(always)]
pub(super) const fn s_cet_ok(value: u64, writable: u64) -> bool {
    value & !writable == 0 && value & S_CET_SUPPRESS_TRACKER != S_CET_SUPPRESS_TRACKER
}

/// Whether EFER.LMA and EFER.LME are as said.
#[inline(always)]
pub(super) const fn efer_lma(efer: u64) -> bool {
    Efer::LMA.is_in(efer)
}

/// EFER.LME.
#[inline(always)]
pub(super) const fn efer_lme(efer: u64) -> bool {
    Efer::LME.is_in(efer)
}

/// Whether the address is canonical in L1 once the VM exit has loaded CR4.
#[inline(always)]
fn canonical_in_host(c: &Ctx<'_>, address: Field) -> bool {
    let bits = if c.cpu.linear_address_bits == 57 && Cr4::LA57.is_in(c.get(field::HOST_CR4)) {
        57
    } else {
        48
    };
    super::CpuFacts::canonical_for(c.get(address), bits)
}

/// Whether a selector has RPL 0 and TI 0.
#[inline(always)]
fn selector_ok(c: &Ctx<'_>, selector: Field) -> bool {
    c.get(selector) & 7 == 0
}

rules! {
    /// L1's mode at the VM entry.
    mode: "host mode";
    section: ADDRESS_SPACE;
    answer: HOST_ANSWER;
    runs: Always;
    reads: [PRIMARY_VM_EXIT_CONTROLS, VM_ENTRY_CONTROLS];
    host_is_ia32e = "host.size.ia32e",
        "\"host address-space size\" is 1 where IA32_EFER.LMA is 1 at the VM entry",
        |c| !c.l1.ia32e_mode || c.ia32e_host();
    host_is_not = "host.size.not-ia32e",
        "\"host address-space size\" is 0 where IA32_EFER.LMA is 0 at the VM entry",
        |c| c.l1.ia32e_mode || !c.ia32e_host();
    guest_is_not = "host.size.guest-not-ia32e",
        "\"IA-32e mode guest\" is 0 where IA32_EFER.LMA is 0 at the VM entry",
        |c| c.l1.ia32e_mode || !c.ia32e_guest();
}

rules! {
    /// Control registers.
    registers: "host control registers";
    section: REGISTERS;
    answer: HOST_ANSWER;
    runs: OnChange;
    reads: [HOST_CR0, HOST_CR3, HOST_CR4];
    cr0 = "host.cr0.fixed",
        "CR0 keeps to IA32_VMX_CR0_FIXED0 and _FIXED1, but for NW and CD",
        |c| fixed_bits_ok(
            c.get(field::HOST_CR0),
            c.caps.cr0_fixed0 & !Cr0::CACHING.bits(),
            c.caps.cr0_fixed1 | Cr0::CACHING.bits(),
        );
    cr3 = "host.cr3.width",
        "CR3 sets no bit beyond the physical-address width, but for bits 62:61 where the CPU has LAM",
        |c| c.cpu.cr3_valid(c.get(field::HOST_CR3));
    cr4 = "host.cr4.fixed",
        "CR4 keeps to IA32_VMX_CR4_FIXED0 and _FIXED1",
        |c| fixed_bits_ok(c.get(field::HOST_CR4), c.caps.cr4_fixed0, c.caps.cr4_fixed1);
    cet = "host.cr4.cet-needs-wp",
        "CR0.WP is 1 where CR4.CET is 1",
        |c| !Cr4::CET.is_in(c.get(field::HOST_CR4)) || Cr0::WP.is_in(c.get(field::HOST_CR0));
}

rules! {
    /// Selectors and bases.
    segments: "host segments and tables";
    section: SEGMENTS;
    answer: HOST_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_VM_EXIT_CONTROLS, HOST_CR4,
        HOST_ES_SELECTOR, HOST_CS_SELECTOR, HOST_SS_SELECTOR, HOST_DS_SELECTOR,
        HOST_FS_SELECTOR, HOST_GS_SELECTOR, HOST_TR_SELECTOR,
        HOST_FS_BASE, HOST_GS_BASE, HOST_TR_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE,
    ];
    es = "host.es.selector", "RPL and TI of the ES selector are 0",
        |c| selector_ok(c, field::HOST_ES_SELECTOR);
    cs = "host.cs.selector", "RPL and TI of the CS selector are 0",
        |c| selector_ok(c, field::HOST_CS_SELECTOR);
    ss = "host.ss.selector", "RPL and TI of the SS selector are 0",
        |c| selector_ok(c, field::HOST_SS_SELECTOR);
    ds = "host.ds.selector", "RPL and TI of the DS selector are 0",
        |c| selector_ok(c, field::HOST_DS_SELECTOR);
    fs = "host.fs.selector", "RPL and TI of the FS selector are 0",
        |c| selector_ok(c, field::HOST_FS_SELECTOR);
    gs = "host.gs.selector", "RPL and TI of the GS selector are 0",
        |c| selector_ok(c, field::HOST_GS_SELECTOR);
    tr = "host.tr.selector", "RPL and TI of the TR selector are 0",
        |c| selector_ok(c, field::HOST_TR_SELECTOR);
    cs_null = "host.cs.null", "the CS selector is not 0",
        |c| c.get(field::HOST_CS_SELECTOR) != 0;
    tr_null = "host.tr.null", "the TR selector is not 0",
        |c| c.get(field::HOST_TR_SELECTOR) != 0;
    ss_null = "host.ss.null",
        "the SS selector is not 0 where \"host address-space size\" is 0",
        |c| c.ia32e_host() || c.get(field::HOST_SS_SELECTOR) != 0;
    fs_base = "host.fs.base", "the FS base is canonical",
        |c| canonical_in_host(c, field::HOST_FS_BASE);
    gs_base = "host.gs.base", "the GS base is canonical",
        |c| canonical_in_host(c, field::HOST_GS_BASE);
    tr_base = "host.tr.base", "the TR base is canonical",
        |c| canonical_in_host(c, field::HOST_TR_BASE);
    gdtr_base = "host.gdtr.base", "the GDTR base is canonical",
        |c| canonical_in_host(c, field::HOST_GDTR_BASE);
    idtr_base = "host.idtr.base", "the IDTR base is canonical",
        |c| canonical_in_host(c, field::HOST_IDTR_BASE);
}

rules! {
    /// MSRs and SSP.
    msrs: "host MSRs";
    section: REGISTERS;
    answer: HOST_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_VM_EXIT_CONTROLS, SECONDARY_VM_EXIT_CONTROLS,
        HOST_IA32_SYSENTER_ESP, HOST_IA32_SYSENTER_EIP, HOST_IA32_PERF_GLOBAL_CTRL,
        HOST_IA32_PAT, HOST_IA32_EFER, HOST_IA32_S_CET, HOST_SSP, HOST_IA32_PKRS,
        HOST_IA32_SPEC_CTRL,
    ];
    sysenter_esp = "host.sysenter-esp", "IA32_SYSENTER_ESP is canonical",
        |c| c.canonical(c.get(field::HOST_IA32_SYSENTER_ESP));
    sysenter_eip = "host.sysenter-eip", "IA32_SYSENTER_EIP is canonical",
        |c| c.canonical(c.get(field::HOST_IA32_SYSENTER_EIP));
    perf = "host.perf-global-ctrl",
        "where \"load IA32_PERF_GLOBAL_CTRL\" is 1, no bit reserved in the MSR is set",
        |c| !c.exit(Exit::LOAD_PERF_GLOBAL_CTRL)
            || c.get(field::HOST_IA32_PERF_GLOBAL_CTRL) & !c.cpu.perf_global_ctrl_writable == 0;
    pat = "host.pat",
        "where \"load IA32_PAT\" is 1, each byte is 0, 1, 4, 5, 6 or 7",
        |c| !c.exit(Exit::LOAD_PAT) || pat_is_valid(c.get(field::HOST_IA32_PAT));
    efer = "host.efer.reserved",
        "where \"load IA32_EFER\" is 1, no bit reserved in the MSR is set",
        |c| !c.exit(Exit::LOAD_EFER)
            || c.get(field::HOST_IA32_EFER) & !c.cpu.efer_writable == 0;
    efer_lma = "host.efer.lma",
        "where \"load IA32_EFER\" is 1, LMA equals \"host address-space size\"",
        |c| !c.exit(Exit::LOAD_EFER)
            || super::efer_lma(c.get(field::HOST_IA32_EFER)) == c.ia32e_host();
    efer_lme = "host.efer.lme",
        "where \"load IA32_EFER\" is 1, LME equals \"host address-space size\"",
        |c| !c.exit(Exit::LOAD_EFER)
            || super::efer_lme(c.get(field::HOST_IA32_EFER)) == c.ia32e_host();
    s_cet = "host.s-cet.reserved",
        "where \"load CET state\" is 1, IA32_S_CET sets no reserved bit and not both SUPPRESS and TRACKER",
        |c| !c.exit(Exit::LOAD_CET_STATE)
            || s_cet_ok(c.get(field::HOST_IA32_S_CET), c.cpu.s_cet_writable);
    ssp = "host.ssp.aligned",
        "where \"load CET state\" is 1, bits 1:0 of SSP are 0",
        |c| !c.exit(Exit::LOAD_CET_STATE) || c.get(field::HOST_SSP) & 3 == 0;
    pkrs = "host.pkrs",
        "where \"load PKRS\" is 1, bits 63:32 of IA32_PKRS are 0",
        |c| !c.exit(Exit::LOAD_PKRS) || c.get(field::HOST_IA32_PKRS) >> 32 == 0;
    spec_ctrl = "host.spec-ctrl",
        "where \"load IA32_SPEC_CTRL\" is 1, no bit reserved in the MSR is set",
        |c| c.exit2_word() & EXIT2_LOAD_SPEC_CTRL == 0
            || c.get(field::HOST_IA32_SPEC_CTRL) & !c.cpu.spec_ctrl_writable == 0;
}

/// "Load IA32_SPEC_CTRL" among the secondary VM-exit controls.
const EXIT2_LOAD_SPEC_CTRL: u64 = 1 << 2;

rules! {
    /// What depends on "host address-space size".
    address_space: "host address-space size";
    section: ADDRESS_SPACE;
    answer: HOST_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_VM_EXIT_CONTROLS, VM_ENTRY_CONTROLS, HOST_CR4, HOST_RIP,
        HOST_IA32_S_CET, HOST_SSP, HOST_IA32_INTERRUPT_SSP_TABLE_ADDR,
    ];
    guest = "host.size.guest-needs-host",
        "\"IA-32e mode guest\" is 0 where \"host address-space size\" is 0",
        |c| c.ia32e_host() || !c.ia32e_guest();
    pcide = "host.cr4.pcide",
        "CR4.PCIDE is 0 where \"host address-space size\" is 0",
        |c| c.ia32e_host() || !Cr4::PCIDE.is_in(c.get(field::HOST_CR4));
    rip32 = "host.rip.high",
        "bits 63:32 of RIP are 0 where \"host address-space size\" is 0",
        |c| c.ia32e_host() || c.get(field::HOST_RIP) >> 32 == 0;
    s_cet32 = "host.s-cet.high",
        "where \"load CET state\" is 1 and \"host address-space size\" is 0, bits 63:32 of IA32_S_CET are 0",
        |c| c.ia32e_host()
            || !c.exit(Exit::LOAD_CET_STATE)
            || c.get(field::HOST_IA32_S_CET) >> 32 == 0;
    ssp32 = "host.ssp.high",
        "where \"load CET state\" is 1 and \"host address-space size\" is 0, bits 63:32 of SSP are 0",
        |c| c.ia32e_host()
            || !c.exit(Exit::LOAD_CET_STATE)
            || c.get(field::HOST_SSP) >> 32 == 0;
    pae = "host.cr4.pae",
        "CR4.PAE is 1 where \"host address-space size\" is 1",
        |c| !c.ia32e_host() || Cr4::PAE.is_in(c.get(field::HOST_CR4));
    rip64 = "host.rip.canonical",
        "RIP is canonical where \"host address-space size\" is 1",
        |c| !c.ia32e_host() || canonical_in_host(c, field::HOST_RIP);
    s_cet64 = "host.s-cet.canonical",
        "where \"load CET state\" and \"host address-space size\" are 1, IA32_S_CET is canonical",
        |c| !c.ia32e_host()
            || !c.exit(Exit::LOAD_CET_STATE)
            || canonical_in_host(c, field::HOST_IA32_S_CET);
    ssp64 = "host.ssp.canonical",
        "where \"load CET state\" and \"host address-space size\" are 1, SSP is canonical",
        |c| !c.ia32e_host()
            || !c.exit(Exit::LOAD_CET_STATE)
            || canonical_in_host(c, field::HOST_SSP);
    ssp_table = "host.ssp-table",
        "where \"load CET state\" is 1, IA32_INTERRUPT_SSP_TABLE_ADDR is canonical",
        |c| !c.exit(Exit::LOAD_CET_STATE)
            || c.canonical(c.get(field::HOST_IA32_INTERRUPT_SSP_TABLE_ADDR));
}

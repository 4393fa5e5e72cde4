//! Guest control registers, debug registers and MSRs.

use umbra_arch::memtype::pat_is_valid;
use umbra_arch::{Cr0, Cr4};

use super::host::{efer_lma, efer_lme, fixed_bits_ok, s_cet_ok};
use super::{GUEST_ANSWER, rules};
use crate::controls::Entry;
use crate::field;

const SECTION: &str = "Checks on Guest Control Registers, Debug Registers, and MSRs";

/// IA32_BNDCFGS's reserved bits.
const BNDCFGS_RESERVED: u64 = 0xffc;

rules! {
    /// CR0, CR3, CR4.
    control_registers: "guest control registers";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VM_ENTRY_CONTROLS, GUEST_CR0, GUEST_CR3, GUEST_CR4,
    ];
    cr0 = "guest.cr0.fixed",
        "CR0 keeps to IA32_VMX_CR0_FIXED0 and _FIXED1, but for NW and CD, and for PE and PG where \"unrestricted guest\" is 1",
        |c| {
            let free = if c.unrestricted() {
                Cr0::PE.union(Cr0::PG).bits()
            } else {
                0
            } | Cr0::CACHING.bits();
            fixed_bits_ok(
                c.get(field::GUEST_CR0),
                c.caps.cr0_fixed0 & !free,
                c.caps.cr0_fixed1 | free,
            )
        };
    cr0_paging = "guest.cr0.pg-needs-pe",
        "CR0.PE is 1 where CR0.PG is 1",
        |c| {
            let cr0 = c.get(field::GUEST_CR0);
            !Cr0::PG.is_in(cr0) || Cr0::PE.is_in(cr0)
        };
    cr3 = "guest.cr3.width",
        "CR3 sets no bit beyond the physical-address width, but for bits 62:61 where the CPU has LAM",
        |c| c.cpu.cr3_valid(c.get(field::GUEST_CR3));
    cr4 = "guest.cr4.fixed",
        "CR4 keeps to IA32_VMX_CR4_FIXED0 and _FIXED1",
        |c| fixed_bits_ok(c.get(field::GUEST_CR4), c.caps.cr4_fixed0, c.caps.cr4_fixed1);
    ia32e_pg = "guest.cr0.ia32e-needs-pg",
        "CR0.PG is 1 where \"IA-32e mode guest\" is 1",
        |c| !c.ia32e_guest() || Cr0::PG.is_in(c.get(field::GUEST_CR0));
    ia32e_pae = "guest.cr4.ia32e-needs-pae",
        "CR4.PAE is 1 where \"IA-32e mode guest\" is 1",
        |c| !c.ia32e_guest() || Cr4::PAE.is_in(c.get(field::GUEST_CR4));
    pcide = "guest.cr4.pcide",
        "CR4.PCIDE is 0 where \"IA-32e mode guest\" is 0",
        |c| c.ia32e_guest() || !Cr4::PCIDE.is_in(c.get(field::GUEST_CR4));
    cet = "guest.cr4.cet-needs-wp",
        "CR0.WP is 1 where CR4.CET is 1",
        |c| !Cr4::CET.is_in(c.get(field::GUEST_CR4)) || Cr0::WP.is_in(c.get(field::GUEST_CR0));
}

rules! {
    /// DR7 and IA32_DEBUGCTL.
    debug: "guest debug controls";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [VM_ENTRY_CONTROLS, GUEST_DR7, GUEST_IA32_DEBUGCTL];
    dr7 = "guest.dr7.high",
        "where \"load debug controls\" is 1, bits 63:32 of DR7 are 0",
        |c| !c.entry(Entry::LOAD_DEBUG_CONTROLS) || c.get(field::GUEST_DR7) >> 32 == 0;
    debugctl = "guest.debugctl.reserved",
        "where \"load debug controls\" is 1, no bit reserved in IA32_DEBUGCTL is set",
        |c| !c.entry(Entry::LOAD_DEBUG_CONTROLS)
            || c.get(field::GUEST_IA32_DEBUGCTL) & !c.cpu.debugctl_writable == 0;
}

rules! {
    /// The other MSRs.
    msrs: "guest MSRs";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        VM_ENTRY_CONTROLS, GUEST_CR0, GUEST_IA32_SYSENTER_ESP, GUEST_IA32_SYSENTER_EIP,
        GUEST_IA32_PERF_GLOBAL_CTRL, GUEST_IA32_PAT, GUEST_IA32_EFER, GUEST_IA32_BNDCFGS,
        GUEST_IA32_RTIT_CTL, GUEST_UINV, GUEST_IA32_S_CET,
        GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR, GUEST_IA32_LBR_CTL, GUEST_IA32_PKRS,
        GUEST_IA32_SPEC_CTRL,
    ];
    sysenter_esp = "guest.sysenter-esp", "IA32_SYSENTER_ESP is canonical",
        |c| c.canonical(c.get(field::GUEST_IA32_SYSENTER_ESP));
    sysenter_eip = "guest.sysenter-eip", "IA32_SYSENTER_EIP is canonical",
        |c| c.canonical(c.get(field::GUEST_IA32_SYSENTER_EIP));
    perf = "guest.perf-global-ctrl",
        "where \"load IA32_PERF_GLOBAL_CTRL\" is 1, no bit reserved in the MSR is set",
        |c| !c.entry(Entry::LOAD_PERF_GLOBAL_CTRL)
            || c.get(field::GUEST_IA32_PERF_GLOBAL_CTRL) & !c.cpu.perf_global_ctrl_writable == 0;
    pat = "guest.pat",
        "where \"load IA32_PAT\" is 1, each byte is 0, 1, 4, 5, 6 or 7",
        |c| !c.entry(Entry::LOAD_PAT) || pat_is_valid(c.get(field::GUEST_IA32_PAT));
    efer = "guest.efer.reserved",
        "where \"load IA32_EFER\" is 1, no bit reserved in the MSR is set",
        |c| !c.entry(Entry::LOAD_EFER)
            || c.get(field::GUEST_IA32_EFER) & !c.cpu.efer_writable == 0;
    lma = "guest.efer.lma",
        "where \"load IA32_EFER\" is 1, LMA equals \"IA-32e mode guest\"",
        |c| !c.entry(Entry::LOAD_EFER)
            || efer_lma(c.get(field::GUEST_IA32_EFER)) == c.ia32e_guest();
    lme = "guest.efer.lme",
        "where \"load IA32_EFER\" and CR0.PG are 1, LMA equals LME",
        |c| {
            let efer = c.get(field::GUEST_IA32_EFER);
            !c.entry(Entry::LOAD_EFER)
                || !Cr0::PG.is_in(c.get(field::GUEST_CR0))
                || efer_lma(efer) == efer_lme(efer)
        };
    bndcfgs = "guest.bndcfgs.reserved",
        "where \"load IA32_BNDCFGS\" is 1, bits 11:2 are 0",
        |c| !c.entry(Entry::LOAD_BNDCFGS)
            || c.get(field::GUEST_IA32_BNDCFGS) & BNDCFGS_RESERVED == 0;
    bndcfgs_base = "guest.bndcfgs.canonical",
        "where \"load IA32_BNDCFGS\" is 1, the linear address in it is canonical",
        |c| !c.entry(Entry::LOAD_BNDCFGS)
            || c.canonical(c.get(field::GUEST_IA32_BNDCFGS) & !0xfff);
    rtit = "guest.rtit-ctl",
        "where \"load IA32_RTIT_CTL\" is 1, no bit reserved in the MSR is set",
        |c| !c.entry(Entry::LOAD_RTIT_CTL)
            || c.get(field::GUEST_IA32_RTIT_CTL) & !c.cpu.rtit_ctl_writable == 0;
    uinv = "guest.uinv",
        "where \"load UINV\" is 1, bits 15:8 of the guest UINV are 0",
        |c| !c.entry(Entry::LOAD_UINV) || c.get(field::GUEST_UINV) <= 0xff;
    s_cet = "guest.s-cet.reserved",
        "where \"load CET state\" is 1, IA32_S_CET sets no reserved bit and not both SUPPRESS and TRACKER",
        |c| !c.entry(Entry::LOAD_CET_STATE)
            || s_cet_ok(c.get(field::GUEST_IA32_S_CET), c.cpu.s_cet_writable);
    s_cet_base = "guest.s-cet.canonical",
        "where \"load CET state\" is 1, IA32_S_CET is canonical",
        |c| !c.entry(Entry::LOAD_CET_STATE) || c.canonical(c.get(field::GUEST_IA32_S_CET));
    ssp_table = "guest.ssp-table",
        "where \"load CET state\" is 1, IA32_INTERRUPT_SSP_TABLE_ADDR is canonical",
        |c| !c.entry(Entry::LOAD_CET_STATE)
            || c.canonical(c.get(field::GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR));
    lbr = "guest.lbr-ctl",
        "where \"load guest IA32_LBR_CTL\" is 1, no bit reserved in the MSR is set",
        |c| !c.entry(Entry::LOAD_LBR_CTL)
            || c.get(field::GUEST_IA32_LBR_CTL) & !c.cpu.lbr_ctl_writable == 0;
    pkrs = "guest.pkrs",
        "where \"load PKRS\" is 1, bits 63:32 of IA32_PKRS are 0",
        |c| !c.entry(Entry::LOAD_PKRS) || c.get(field::GUEST_IA32_PKRS) >> 32 == 0;
    spec_ctrl = "guest.spec-ctrl",
        "where \"load IA32_SPEC_CTRL\" is 1, no bit reserved in the MSR is set",
        |c| !c.entry(Entry::LOAD_SPEC_CTRL)
            || c.get(field::GUEST_IA32_SPEC_CTRL) & !c.cpu.spec_ctrl_writable == 0;
}

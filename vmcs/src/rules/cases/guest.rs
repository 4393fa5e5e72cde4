//! Cases of the checks on guest registers and non-register state.

use super::cases;
use crate::controls::{Entry, Pin, Proc2};
use crate::field;
use umbra_arch::EventType;
use umbra_arch::vmx_cap::VmxMisc;

/// Interruptibility bits.
const STI: u64 = 1;
const MOV_SS: u64 = 2;
const NMI: u64 = 8;
const ENCLAVE: u64 = 16;

const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;
const BS: u64 = 1 << 14;

/// The cases of registers: those written out, and those of every register that
/// has to be canonical.
macro_rules! registers {
    (canonical { $($rule:literal: $field:ident, |$b:ident| $enable:expr;)+ } $($rest:tt)*) => {
        cases! {
            /// Control registers, debug registers, MSRs.
            REGISTERS:
            $($rule => {
                keeps "the end of the lower half", |$b| { $enable; $b.set(field::$field, ($b.non_canonical() - 1) & !0xfff) };
                keeps "the start of the upper half", |$b| { $enable; $b.set(field::$field, $b.upper_half()) };
                breaks "the first that is not canonical", |$b| { $enable; $b.set(field::$field, $b.non_canonical()) };
                breaks "the last that is not canonical", |$b| { $enable; $b.set(field::$field, ($b.upper_half() - 1) & !0xfff) };
                breaks "bit 63 alone", |$b| { $enable; $b.set(field::$field, 1 << 63) };
            })+
            $($rest)*
        }
    };
}

registers! {
    canonical {
        "guest.sysenter-esp": GUEST_IA32_SYSENTER_ESP, |b| b.entry(Entry::empty());
        "guest.sysenter-eip": GUEST_IA32_SYSENTER_EIP, |b| b.entry(Entry::empty());
        "guest.bndcfgs.canonical": GUEST_IA32_BNDCFGS, |b| b.entry(Entry::LOAD_BNDCFGS);
        "guest.s-cet.canonical": GUEST_IA32_S_CET, |b| b.entry(Entry::LOAD_CET_STATE);
        "guest.ssp-table": GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR, |b| b.entry(Entry::LOAD_CET_STATE);
    }
    "guest.cr0.fixed" => {
        keeps "NW and CD", |b| b.or(field::GUEST_CR0, 0b11 << 29);
        keeps "PG clear, unrestricted", |b| {
            b.protected32();
            b.unrestricted();
            b.clear(field::GUEST_CR0, 1 << 31)
        };
        keeps "real mode, unrestricted", |b| b.real();
        breaks "PE clear", |b| b.clear(field::GUEST_CR0, 1);
        breaks "PG clear", |b| b.clear(field::GUEST_CR0, 1 << 31);
        breaks "PE and PG clear", |b| b.clear(field::GUEST_CR0, 1 << 31 | 1);
        breaks "NE clear", |b| b.clear(field::GUEST_CR0, 1 << 5);
        breaks "NE clear, unrestricted", |b| {
            b.real();
            b.clear(field::GUEST_CR0, 1 << 5)
        };
        breaks "bit 32", |b| b.or(field::GUEST_CR0, 1 << 32);
        breaks "bit 63, unrestricted", |b| {
            b.real();
            b.or(field::GUEST_CR0, 1 << 63)
        };
    }
    "guest.cr0.pg-needs-pe" => {
        keeps "both, unrestricted", |b| b.unrestricted();
        breaks "PG alone, unrestricted", |b| {
            b.real();
            b.or(field::GUEST_CR0, 1 << 31)
        };
    }
    "guest.cr3.width" => {
        keeps "the last page", |b| b.set(field::GUEST_CR3, b.top_page());
        keeps "bits 62:61 with LAM", |b| {
            b.cpu.lam = true;
            b.or(field::GUEST_CR3, 0b11 << 61)
        };
        breaks "beyond the width", |b| b.or(field::GUEST_CR3, b.beyond());
        breaks "beyond the width, without paging", |b| {
            b.real();
            b.or(field::GUEST_CR3, b.beyond())
        };
        breaks "bit 62 without LAM", |b| b.or(field::GUEST_CR3, 1 << 62);
        breaks "bit 63", |b| b.or(field::GUEST_CR3, 1 << 63);
    }
    "guest.cr4.fixed" => {
        keeps "PGE", |b| b.or(field::GUEST_CR4, 1 << 7);
        breaks "VMXE clear", |b| b.clear(field::GUEST_CR4, 1 << 13);
        breaks "VMXE clear, unrestricted", |b| {
            b.real();
            b.clear(field::GUEST_CR4, 1 << 13)
        };
        breaks "bit 15", |b| b.or(field::GUEST_CR4, 1 << 15);
        breaks "bit 63", |b| b.or(field::GUEST_CR4, 1 << 63);
    }
    "guest.cr0.ia32e-needs-pg" => {
        keeps "both", |b| b.unrestricted();
        breaks "without PG, unrestricted", |b| {
            b.unrestricted();
            b.clear(field::GUEST_CR0, 1 << 31)
        };
    }
    "guest.cr4.ia32e-needs-pae" => {
        keeps "neither", |b| b.protected32();
        breaks "without PAE", |b| b.clear(field::GUEST_CR4, 1 << 5);
        breaks "without PAE, compatibility mode", |b| {
            b.compatibility();
            b.clear(field::GUEST_CR4, 1 << 5)
        };
    }
    "guest.cr4.pcide" => {
        keeps "in IA-32e mode", |b| b.or(field::GUEST_CR4, 1 << 17);
        breaks "in protected mode", |b| {
            b.protected32();
            b.or(field::GUEST_CR4, 1 << 17)
        };
        breaks "in PAE mode", |b| {
            b.pae();
            b.or(field::GUEST_CR4, 1 << 17)
        };
    }
    "guest.cr4.cet-needs-wp" => {
        keeps "both", |b| b.or(field::GUEST_CR4, 1 << 23);
        breaks "CET without WP", |b| {
            b.or(field::GUEST_CR4, 1 << 23);
            b.clear(field::GUEST_CR0, 1 << 16)
        };
    }
    "guest.dr7.high" => {
        keeps "32 bits", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.set(field::GUEST_DR7, 0xffff_ffff)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_DR7, u64::MAX);
        breaks "bit 32", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.or(field::GUEST_DR7, 1 << 32)
        };
        breaks "bit 63", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.or(field::GUEST_DR7, 1 << 63)
        };
    }
    "guest.debugctl.reserved" => {
        keeps "LBR and BTF", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.set(field::GUEST_IA32_DEBUGCTL, 3)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_DEBUGCTL, u64::MAX);
        breaks "bit 3", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.set(field::GUEST_IA32_DEBUGCTL, 1 << 3)
        };
        breaks "bit 16", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.set(field::GUEST_IA32_DEBUGCTL, 1 << 16)
        };
        breaks "bit 63", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS);
            b.set(field::GUEST_IA32_DEBUGCTL, 1 << 63)
        };
    }
    "guest.perf-global-ctrl" => {
        keeps "every counter", |b| {
            b.entry(Entry::LOAD_PERF_GLOBAL_CTRL);
            b.set(field::GUEST_IA32_PERF_GLOBAL_CTRL, b.cpu.perf_global_ctrl_writable)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_PERF_GLOBAL_CTRL, u64::MAX);
        breaks "bit 31", |b| {
            b.entry(Entry::LOAD_PERF_GLOBAL_CTRL);
            b.set(field::GUEST_IA32_PERF_GLOBAL_CTRL, 1 << 31)
        };
        breaks "bit 63", |b| {
            b.entry(Entry::LOAD_PERF_GLOBAL_CTRL);
            b.set(field::GUEST_IA32_PERF_GLOBAL_CTRL, 1 << 63)
        };
    }
    "guest.pat" => {
        keeps "every type", |b| {
            b.entry(Entry::LOAD_PAT);
            b.set(field::GUEST_IA32_PAT, 0x0007_0605_0401_0006)
        };
        keeps "2, not loaded", |b| b.set(field::GUEST_IA32_PAT, 2);
        breaks "2 in the first", |b| {
            b.entry(Entry::LOAD_PAT);
            b.set(field::GUEST_IA32_PAT, 2)
        };
        breaks "3 in the last", |b| {
            b.entry(Entry::LOAD_PAT);
            b.set(field::GUEST_IA32_PAT, 3 << 56)
        };
        breaks "8 in the fourth", |b| {
            b.entry(Entry::LOAD_PAT);
            b.set(field::GUEST_IA32_PAT, 8 << 24)
        };
        breaks "FFH in the sixth", |b| {
            b.entry(Entry::LOAD_PAT);
            b.set(field::GUEST_IA32_PAT, 0xff << 40)
        };
    }
    "guest.efer.reserved" => {
        keeps "SCE, LME, LMA, NXE", |b| {
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0xd01)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_EFER, u64::MAX);
        breaks "bit 1", |b| {
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x502)
        };
        breaks "bit 9", |b| {
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x700)
        };
        breaks "bit 63", |b| {
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 1 << 63 | 0x500)
        };
    }
    "guest.efer.lma" => {
        keeps "0 in protected mode", |b| {
            b.protected32();
            b.entry(Entry::LOAD_EFER)
        };
        breaks "0 in IA-32e mode", |b| {
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x100)
        };
        breaks "1 in protected mode", |b| {
            b.protected32();
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x500)
        };
        breaks "1 in real mode", |b| {
            b.real();
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x500)
        };
    }
    "guest.efer.lme" => {
        keeps "LME without LMA, no paging", |b| {
            b.real();
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x100)
        };
        breaks "LMA without LME", |b| {
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x400)
        };
        breaks "LME without LMA, paging", |b| {
            b.protected32();
            b.entry(Entry::LOAD_EFER);
            b.set(field::GUEST_IA32_EFER, 0x100)
        };
    }
    "guest.bndcfgs.reserved" => {
        keeps "enabled", |b| {
            b.entry(Entry::LOAD_BNDCFGS);
            b.set(field::GUEST_IA32_BNDCFGS, 0x1003)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_BNDCFGS, u64::MAX);
        breaks "bit 2", |b| {
            b.entry(Entry::LOAD_BNDCFGS);
            b.set(field::GUEST_IA32_BNDCFGS, 1 << 2)
        };
        breaks "bit 11", |b| {
            b.entry(Entry::LOAD_BNDCFGS);
            b.set(field::GUEST_IA32_BNDCFGS, 1 << 11)
        };
    }
    "guest.rtit-ctl" => {
        keeps "every bit that the CPU has", |b| {
            b.entry(Entry::LOAD_RTIT_CTL);
            b.set(field::GUEST_IA32_RTIT_CTL, b.cpu.rtit_ctl_writable)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_RTIT_CTL, u64::MAX);
        breaks "bit 63", |b| {
            b.entry(Entry::LOAD_RTIT_CTL);
            b.set(field::GUEST_IA32_RTIT_CTL, 1 << 63)
        };
    }
    "guest.uinv" => {
        keeps "255", |b| {
            b.entry(Entry::LOAD_UINV);
            b.set(field::GUEST_UINV, 255)
        };
        keeps "256, not loaded", |b| b.set(field::GUEST_UINV, 256);
        breaks "256", |b| {
            b.entry(Entry::LOAD_UINV);
            b.set(field::GUEST_UINV, 256)
        };
    }
    "guest.s-cet.reserved" => {
        keeps "SUPPRESS", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_IA32_S_CET, 1 << 10)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_S_CET, u64::MAX);
        breaks "SUPPRESS and TRACKER", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_IA32_S_CET, 0b11 << 10)
        };
        breaks "bit 9", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_IA32_S_CET, 1 << 9)
        };
    }
    "guest.lbr-ctl" => {
        keeps "every bit that the CPU has", |b| {
            b.entry(Entry::LOAD_LBR_CTL);
            b.set(field::GUEST_IA32_LBR_CTL, b.cpu.lbr_ctl_writable)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_LBR_CTL, u64::MAX);
        breaks "bit 4", |b| {
            b.entry(Entry::LOAD_LBR_CTL);
            b.set(field::GUEST_IA32_LBR_CTL, 1 << 4)
        };
    }
    "guest.pkrs" => {
        keeps "32 bits", |b| {
            b.entry(Entry::LOAD_PKRS);
            b.set(field::GUEST_IA32_PKRS, 0xffff_ffff)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_PKRS, u64::MAX);
        breaks "bit 32", |b| {
            b.entry(Entry::LOAD_PKRS);
            b.set(field::GUEST_IA32_PKRS, 1 << 32)
        };
    }
    "guest.spec-ctrl" => {
        keeps "IBRS, STIBP, SSBD", |b| {
            b.entry(Entry::LOAD_SPEC_CTRL);
            b.set(field::GUEST_IA32_SPEC_CTRL, 0b111)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_IA32_SPEC_CTRL, u64::MAX);
        breaks "bit 9", |b| {
            b.entry(Entry::LOAD_SPEC_CTRL);
            b.set(field::GUEST_IA32_SPEC_CTRL, 1 << 9)
        };
    }
}

cases! {
    /// RFLAGS, RIP, SSP, non-register state, PDPTEs.
    STATE:
    "guest.rflags.reserved" => {
        keeps "every flag but VM", |b| b.set(field::GUEST_RFLAGS, 0x3d_7ed7);
        breaks "bit 3", |b| b.or(field::GUEST_RFLAGS, 1 << 3);
        breaks "bit 5", |b| b.or(field::GUEST_RFLAGS, 1 << 5);
        breaks "bit 15", |b| b.or(field::GUEST_RFLAGS, 1 << 15);
        breaks "bit 22", |b| b.or(field::GUEST_RFLAGS, 1 << 22);
        breaks "bit 31", |b| b.or(field::GUEST_RFLAGS, 1 << 31);
        breaks "bit 32", |b| b.or(field::GUEST_RFLAGS, 1 << 32);
        breaks "bit 63", |b| b.or(field::GUEST_RFLAGS, 1 << 63);
    }
    "guest.rflags.fixed" => {
        keeps "1", |b| b.set(field::GUEST_RFLAGS, 2);
        breaks "0", |b| b.set(field::GUEST_RFLAGS, 0);
    }
    "guest.rflags.vm-ia32e" => {
        keeps "VM in protected mode", |b| b.v8086();
        breaks "VM in 64-bit mode", |b| b.or(field::GUEST_RFLAGS, 1 << 17);
        breaks "VM in compatibility mode", |b| {
            b.compatibility();
            b.or(field::GUEST_RFLAGS, 1 << 17)
        };
    }
    "guest.rflags.vm-real" => {
        keeps "VM, unrestricted, with PE", |b| {
            b.v8086();
            b.unrestricted()
        };
        breaks "VM in real mode", |b| {
            b.real();
            b.or(field::GUEST_RFLAGS, 1 << 17)
        };
    }
    "guest.rflags.if-injection" => {
        keeps "IF 1", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.inject(EventType::ExternalInterrupt, 0x30)
        };
        keeps "IF 0, a software interrupt", |b| {
            b.inject(EventType::SoftwareInterrupt, 0x30);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 2)
        };
        keeps "IF 0, no event", |b| {
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x30)
        };
        breaks "IF 0", |b| b.inject(EventType::ExternalInterrupt, 0x30);
    }
    "guest.rip.high" => {
        keeps "FFFFFFFFH in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_RIP, 0xffff_ffff)
        };
        breaks "bit 32 in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_RIP, 1 << 32)
        };
        breaks "bit 32 in compatibility mode", |b| {
            b.compatibility();
            b.set(field::GUEST_RIP, 1 << 32)
        };
        breaks "bit 63 in real mode", |b| {
            b.real();
            b.or(field::GUEST_RIP, 1 << 63)
        };
        breaks "the upper half, L without IA-32e mode", |b| {
            b.protected32();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
            b.set(field::GUEST_RIP, b.upper_half())
        };
    }
    "guest.rip.width" => {
        keeps "the end of the lower half", |b| b.set(field::GUEST_RIP, b.non_canonical() - 1);
        keeps "the first that is not canonical", |b| b.set(field::GUEST_RIP, b.non_canonical());
        keeps "the last of the width", |b| b.set(field::GUEST_RIP, (b.non_canonical() << 1) - 1);
        keeps "the upper half", |b| b.set(field::GUEST_RIP, b.upper_half());
        keeps "the upper bits alone", |b| b.set(field::GUEST_RIP, b.upper_half() << 1);
        breaks "one beyond the width", |b| b.set(field::GUEST_RIP, b.non_canonical() << 1);
        breaks "bit 63 alone", |b| b.set(field::GUEST_RIP, 1 << 63);
        breaks "bit 63 missing", |b| b.set(field::GUEST_RIP, b.upper_half() & !(1 << 63));
    }
    "guest.ssp.aligned" => {
        keeps "4-byte aligned", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_SSP, 0x1004)
        };
        keeps "all ones, not loaded", |b| b.set(field::GUEST_SSP, u64::MAX);
        breaks "bit 0", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_SSP, 1)
        };
        breaks "bit 1", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_SSP, 2)
        };
    }
    "guest.ssp.width" => {
        keeps "the first that is not canonical", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_SSP, b.non_canonical())
        };
        breaks "one beyond the width", |b| {
            b.entry(Entry::LOAD_CET_STATE);
            b.set(field::GUEST_SSP, b.non_canonical() << 1)
        };
    }
    "guest.link-pointer.address" => {
        keeps "all ones", |b| b.set(field::VMCS_LINK_POINTER, u64::MAX);
        keeps "a VMCS", |b| b.link();
        breaks "bit 0", |b| { b.link(); b.or(field::VMCS_LINK_POINTER, 1) };
        breaks "bit 11", |b| { b.link(); b.or(field::VMCS_LINK_POINTER, 1 << 11) };
        breaks "beyond the width", |b| b.set(field::VMCS_LINK_POINTER, b.beyond());
        breaks "bit 63", |b| { b.link(); b.or(field::VMCS_LINK_POINTER, 1 << 63) };
        breaks "FFFFFFFFH", |b| b.set(field::VMCS_LINK_POINTER, 0xffff_ffff);
        breaks "all ones but bit 0", |b| b.set(field::VMCS_LINK_POINTER, u64::MAX - 1);
    }
    "guest.link-pointer.revision" => {
        keeps "the CPU's", |b| b.link();
        breaks "another", |b| {
            b.link();
            b.poke32(b.pages.link, b.caps.revision() ^ 1)
        };
        breaks "0", |b| b.set(field::VMCS_LINK_POINTER, b.pages.link);
        breaks "another, of a shadow VMCS", |b| {
            b.link();
            b.proc2(Proc2::VMCS_SHADOWING);
            b.poke32(b.pages.link, (b.caps.revision() + 1) | 1 << 31)
        };
    }
    "guest.link-pointer.shadow" => {
        keeps "a shadow VMCS, shadowing", |b| {
            b.link();
            b.proc2(Proc2::VMCS_SHADOWING);
            b.poke32(b.pages.link, b.caps.revision() | 1 << 31)
        };
        breaks "a shadow VMCS", |b| {
            b.link();
            b.poke32(b.pages.link, b.caps.revision() | 1 << 31)
        };
        breaks "an ordinary VMCS, shadowing", |b| {
            b.link();
            b.proc2(Proc2::VMCS_SHADOWING)
        };
    }
    "guest.link-pointer.current" => {
        keeps "another VMCS", |b| b.link();
        breaks "the current VMCS", |b| {
            b.set(field::VMCS_LINK_POINTER, b.l1.current_vmcs);
            b.poke32(b.l1.current_vmcs, b.caps.revision())
        };
    }
    "guest.pending-debug.reserved" => {
        keeps "B0 to B3, enabled", |b| {
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0x100f)
        };
        keeps "BS while active", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS);
        breaks "bit 4", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 4);
        breaks "bit 10", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 10);
        breaks "bit 13", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 13);
        breaks "bit 15", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 15);
        breaks "bit 17", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 17);
        breaks "bit 32", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 32);
        breaks "bit 63", |b| b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 63);
    }
    "guest.pending-debug.bus-lock" => {
        keeps "on a CPU with it", |b| {
            b.cpu.bus_lock_detection = true;
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 11)
        };
        breaks "on a CPU without it", |b| {
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 11)
        };
    }
    "guest.pending-debug.bs-missing" => {
        keeps "STI, TF, BS", |b| {
            b.or(field::GUEST_RFLAGS, TF | IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS)
        };
        keeps "STI, TF, BTF", |b| {
            b.or(field::GUEST_RFLAGS, TF | IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.set(field::GUEST_IA32_DEBUGCTL, 2)
        };
        keeps "TF, nothing blocks", |b| b.or(field::GUEST_RFLAGS, TF);
        breaks "STI, TF", |b| {
            b.or(field::GUEST_RFLAGS, TF | IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI)
        };
        breaks "MOV SS, TF", |b| {
            b.or(field::GUEST_RFLAGS, TF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS)
        };
        breaks "HLT, TF", |b| {
            b.or(field::GUEST_RFLAGS, TF);
            b.set(field::GUEST_ACTIVITY_STATE, 1)
        };
    }
    "guest.pending-debug.bs-extra" => {
        keeps "MOV SS, TF, BS", |b| {
            b.or(field::GUEST_RFLAGS, TF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS)
        };
        keeps "NMI blocking, BS", |b| {
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS)
        };
        breaks "STI, BS", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS)
        };
        breaks "MOV SS, TF, BTF, BS", |b| {
            b.or(field::GUEST_RFLAGS, TF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
            b.set(field::GUEST_IA32_DEBUGCTL, 2);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS)
        };
        breaks "HLT, BS", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, BS)
        };
    }
    "guest.pending-debug.rtm-support" => {
        keeps "on a CPU with it", |b| {
            b.cpu.rtm = true;
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12)
        };
        breaks "on a CPU without it", |b| {
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12)
        };
    }
    "guest.pending-debug.rtm-bits" => {
        keeps "bit 12", |b| {
            b.cpu.rtm = true;
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12)
        };
        breaks "B0", |b| {
            b.cpu.rtm = true;
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12 | 1)
        };
        breaks "BS", |b| {
            b.cpu.rtm = true;
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12 | BS)
        };
        breaks "not bit 12", |b| {
            b.cpu.rtm = true;
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16)
        };
    }
    "guest.pending-debug.rtm-mov-ss" => {
        keeps "STI blocks", |b| {
            b.cpu.rtm = true;
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12)
        };
        breaks "MOV SS blocks", |b| {
            b.cpu.rtm = true;
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
            b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12)
        };
    }
    "guest.activity.supported" => {
        keeps "HLT", |b| b.set(field::GUEST_ACTIVITY_STATE, 1);
        keeps "shutdown", |b| b.set(field::GUEST_ACTIVITY_STATE, 2);
        keeps "wait-for-SIPI", |b| b.set(field::GUEST_ACTIVITY_STATE, 3);
        breaks "4", |b| b.set(field::GUEST_ACTIVITY_STATE, 4);
        breaks "bit 31", |b| b.set(field::GUEST_ACTIVITY_STATE, 1 << 31);
        breaks "FFFFFFFFH", |b| b.set(field::GUEST_ACTIVITY_STATE, 0xffff_ffff);
        breaks "HLT on a CPU without it", |b| {
            b.caps.misc &= !VmxMisc::HLT.bits();
            b.set(field::GUEST_ACTIVITY_STATE, 1)
        };
        breaks "shutdown on a CPU without it", |b| {
            b.caps.misc &= !VmxMisc::SHUTDOWN.bits();
            b.set(field::GUEST_ACTIVITY_STATE, 2)
        };
        breaks "wait-for-SIPI on a CPU without it", |b| {
            b.caps.misc &= !VmxMisc::WAIT_FOR_SIPI.bits();
            b.set(field::GUEST_ACTIVITY_STATE, 3)
        };
    }
    "guest.activity.hlt-dpl" => {
        keeps "shutdown with DPL 3", |b| {
            b.user();
            b.set(field::GUEST_ACTIVITY_STATE, 2)
        };
        breaks "HLT with DPL 3", |b| {
            b.user();
            b.set(field::GUEST_ACTIVITY_STATE, 1)
        };
        breaks "HLT in virtual-8086 mode", |b| {
            b.v8086();
            b.set(field::GUEST_ACTIVITY_STATE, 1)
        };
    }
    "guest.activity.blocked" => {
        keeps "HLT, NMIs blocked", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI)
        };
        breaks "HLT, STI", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI)
        };
        breaks "shutdown, MOV SS", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS)
        };
        breaks "wait-for-SIPI, MOV SS", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 3);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS)
        };
    }
    "guest.activity.hlt-event" => {
        keeps "external interrupt", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::ExternalInterrupt, 0x30)
        };
        keeps "NMI", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::Nmi, 2)
        };
        keeps "#DB", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::HardwareException, 1)
        };
        keeps "#MC", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::HardwareException, 18)
        };
        keeps "a pending MTF VM exit", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::Other, 0)
        };
        breaks "#UD", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::HardwareException, 6)
        };
        breaks "#GP", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::HardwareException, 13);
            b.error_code(0)
        };
        breaks "software interrupt", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::SoftwareInterrupt, 0x80);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 2)
        };
        breaks "software exception", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::SoftwareException, 3);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1)
        };
        breaks "privileged software exception", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 1);
            b.inject(EventType::PrivilegedSoftwareException, 1);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1)
        };
    }
    "guest.activity.shutdown-event" => {
        keeps "NMI", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.inject(EventType::Nmi, 2)
        };
        keeps "#MC", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.inject(EventType::HardwareException, 18)
        };
        breaks "external interrupt 18", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.inject(EventType::ExternalInterrupt, 18)
        };
        breaks "external interrupt 48", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.inject(EventType::ExternalInterrupt, 0x30)
        };
        breaks "#DB", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.inject(EventType::HardwareException, 1)
        };
        breaks "a pending MTF VM exit", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 2);
            b.inject(EventType::Other, 0)
        };
    }
    "guest.activity.wait-for-sipi-event" => {
        keeps "no event", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 3);
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x202)
        };
        breaks "NMI", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 3);
            b.inject(EventType::Nmi, 2)
        };
        breaks "#MC", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 3);
            b.inject(EventType::HardwareException, 18)
        };
        breaks "a pending MTF VM exit", |b| {
            b.set(field::GUEST_ACTIVITY_STATE, 3);
            b.inject(EventType::Other, 0)
        };
    }
    "guest.interruptibility.reserved" => {
        keeps "NMI blocking", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI);
        breaks "bit 5", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, 1 << 5);
        breaks "bit 16", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, 1 << 16);
        breaks "bit 31", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, 1 << 31);
    }
    "guest.interruptibility.sti-and-mov-ss" => {
        keeps "STI", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI)
        };
        keeps "MOV SS", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
        breaks "both", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI | MOV_SS)
        };
    }
    "guest.interruptibility.sti-needs-if" => {
        keeps "IF 1", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI)
        };
        breaks "IF 0", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
    }
    "guest.interruptibility.external-interrupt" => {
        keeps "NMI blocking", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI);
            b.inject(EventType::ExternalInterrupt, 0x30)
        };
        breaks "STI", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.inject(EventType::ExternalInterrupt, 0x30)
        };
        breaks "MOV SS", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
            b.inject(EventType::ExternalInterrupt, 0x30)
        };
    }
    "guest.interruptibility.nmi-mov-ss" => {
        keeps "a hardware exception", |b| {
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
            b.inject(EventType::HardwareException, 6)
        };
        breaks "NMI", |b| {
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, MOV_SS);
            b.inject(EventType::Nmi, 2)
        };
    }
    "guest.interruptibility.nmi-sti" => {
        keeps "on a CPU that does not ask for it", |b| {
            b.cpu.nmi_needs_no_sti_blocking = false;
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.inject(EventType::Nmi, 2)
        };
        keeps "no event", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x202)
        };
        breaks "NMI", |b| {
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, STI);
            b.inject(EventType::Nmi, 2)
        };
    }
    "guest.interruptibility.smi" => {
        keeps "0", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI);
        breaks "1", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, 4);
    }
    "guest.interruptibility.virtual-nmi" => {
        keeps "virtual NMIs 0", |b| {
            b.pin(Pin::NMI_EXITING);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI);
            b.inject(EventType::Nmi, 2)
        };
        keeps "no NMI", |b| {
            b.pin(Pin::NMI_EXITING | Pin::VIRTUAL_NMIS);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI)
        };
        breaks "virtual NMIs 1", |b| {
            b.pin(Pin::NMI_EXITING | Pin::VIRTUAL_NMIS);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, NMI);
            b.inject(EventType::Nmi, 2)
        };
    }
    "guest.interruptibility.enclave-support" => {
        keeps "on a CPU with it", |b| {
            b.cpu.sgx = true;
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, ENCLAVE)
        };
        breaks "on a CPU without it", |b| b.set(field::GUEST_INTERRUPTIBILITY_STATE, ENCLAVE);
    }
    "guest.interruptibility.enclave-mov-ss" => {
        keeps "STI", |b| {
            b.cpu.sgx = true;
            b.or(field::GUEST_RFLAGS, IF);
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, ENCLAVE | STI)
        };
        breaks "MOV SS", |b| {
            b.cpu.sgx = true;
            b.set(field::GUEST_INTERRUPTIBILITY_STATE, ENCLAVE | MOV_SS)
        };
    }
    "guest.pdpte.memory" => {
        keeps "not present", |b| {
            b.pae();
            b.poke64(b.pages.pdpt + 24, !1)
        };
        keeps "present", |b| {
            b.pae();
            b.poke64(b.pages.pdpt, b.top_page() | 0xe19)
        };
        keeps "reserved bits behind CR3, without PAE", |b| {
            b.protected32();
            b.poke64(b.pages.pdpt, u64::MAX)
        };
        keeps "reserved bits behind CR3, IA-32e mode", |b| b.poke64(b.pages.pdpt, u64::MAX);
        breaks "bit 1 of the first", |b| {
            b.pae();
            b.poke64(b.pages.pdpt, 3)
        };
        breaks "bit 2 of the second", |b| {
            b.pae();
            b.poke64(b.pages.pdpt + 8, 5)
        };
        breaks "bit 5 of the third", |b| {
            b.pae();
            b.poke64(b.pages.pdpt + 16, 0x21)
        };
        breaks "bit 8 of the fourth", |b| {
            b.pae();
            b.poke64(b.pages.pdpt + 24, 0x101)
        };
        breaks "beyond the width", |b| {
            b.pae();
            b.poke64(b.pages.pdpt, b.beyond() | 1)
        };
        breaks "bit 63", |b| {
            b.pae();
            b.poke64(b.pages.pdpt, 1 << 63 | 1)
        };
    }
    "guest.pdpte.field0" => {
        keeps "not present", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE0, !1) };
        keeps "present", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE0, b.top_page() | 0xe19) };
        keeps "reserved bits, no PAE paging", |b| { b.ept(); b.set(field::GUEST_PDPTE0, u64::MAX) };
        keeps "reserved bits, no EPT", |b| { b.pae(); b.set(field::GUEST_PDPTE0, u64::MAX) };
        keeps "reserved bits, no paging", |b| {
            b.real();
            b.or(field::GUEST_CR4, 1 << 5);
            b.set(field::GUEST_PDPTE0, u64::MAX)
        };
        keeps "reserved bits in memory, EPT", |b| {
            b.pae();
            b.ept();
            b.poke64(b.pages.pdpt, u64::MAX)
        };
        breaks "bit 1", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE0, 3) };
        breaks "beyond the width", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE0, b.beyond() | 1) };
    }
    "guest.pdpte.field1" => {
        keeps "not present", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE1, !1) };
        breaks "bit 2", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE1, 5) };
        breaks "bit 63", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE1, 1 << 63 | 1) };
    }
    "guest.pdpte.field2" => {
        keeps "not present", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE2, !1) };
        breaks "bit 5", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE2, 0x21) };
        breaks "bit 52", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE2, 1 << 52 | 1) };
    }
    "guest.pdpte.field3" => {
        keeps "not present", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE3, !1) };
        breaks "bit 8", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE3, 0x101) };
        breaks "all ones", |b| { b.pae(); b.ept(); b.set(field::GUEST_PDPTE3, u64::MAX) };
    }
}

//! Cases of the checks on the host-state area.

use super::cases;
use crate::controls::{Entry, Exit};
use crate::field;

/// The cases of host state: those written out, and those that many registers
/// share.
macro_rules! host {
    (
        selectors { $($selector:literal: $sfield:ident;)+ }
        bases { $($base:literal: $bfield:ident;)+ }
        $($rest:tt)*
    ) => {
        cases! {
            /// Host state.
            CASES:
            $($selector => {
                keeps "the last entry of the GDT", |b| b.set(field::$sfield, 0xfff8);
                breaks "RPL 1", |b| b.or(field::$sfield, 1);
                breaks "RPL 2", |b| b.or(field::$sfield, 2);
                breaks "TI", |b| b.or(field::$sfield, 4);
            })+
            $($base => {
                keeps "the end of the lower half", |b| b.set(field::$bfield, b.non_canonical() - 1);
                keeps "the start of the upper half", |b| b.set(field::$bfield, b.upper_half());
                keeps "all ones", |b| b.set(field::$bfield, u64::MAX);
                breaks "the first that is not canonical", |b| b.set(field::$bfield, b.non_canonical());
                breaks "the last that is not canonical", |b| b.set(field::$bfield, b.upper_half() - 1);
                breaks "bit 63 alone", |b| b.set(field::$bfield, 1 << 63);
            })+
            $($rest)*
        }
    };
}

host! {
    selectors {
        "host.es.selector": HOST_ES_SELECTOR;
        "host.cs.selector": HOST_CS_SELECTOR;
        "host.ss.selector": HOST_SS_SELECTOR;
        "host.ds.selector": HOST_DS_SELECTOR;
        "host.fs.selector": HOST_FS_SELECTOR;
        "host.gs.selector": HOST_GS_SELECTOR;
        "host.tr.selector": HOST_TR_SELECTOR;
    }
    bases {
        "host.fs.base": HOST_FS_BASE;
        "host.gs.base": HOST_GS_BASE;
        "host.tr.base": HOST_TR_BASE;
        "host.gdtr.base": HOST_GDTR_BASE;
        "host.idtr.base": HOST_IDTR_BASE;
        "host.sysenter-esp": HOST_IA32_SYSENTER_ESP;
        "host.sysenter-eip": HOST_IA32_SYSENTER_EIP;
        "host.rip.canonical": HOST_RIP;
    }
    "host.size.ia32e" => {
        keeps "1", |b| b.exit(Exit::HOST_ADDRESS_SPACE_SIZE);
        breaks "0", |b| {
            let bits = Exit::HOST_ADDRESS_SPACE_SIZE.bits().into();
            b.clear(field::PRIMARY_VM_EXIT_CONTROLS, bits)
        };
        breaks "0, with a 32-bit guest", |b| {
            b.host32();
            b.l1.ia32e_mode = true
        };
    }
    "host.size.not-ia32e" => {
        keeps "0", |b| b.host32();
        breaks "1", |b| {
            b.host32();
            b.exit(Exit::HOST_ADDRESS_SPACE_SIZE)
        };
    }
    "host.size.guest-not-ia32e" => {
        keeps "0", |b| b.host32();
        breaks "1", |b| {
            b.host32();
            b.entry(Entry::IA32E_MODE_GUEST)
        };
    }
    "host.cr0.fixed" => {
        keeps "NW and CD", |b| b.or(field::HOST_CR0, 0b11 << 29);
        keeps "CD alone", |b| b.or(field::HOST_CR0, 1 << 30);
        keeps "NW and CD, on a CPU whose MSRs would not have them", |b| {
            b.caps.cr0_fixed1 &= !(0b11 << 29);
            b.or(field::HOST_CR0, 0b11 << 29)
        };
        breaks "PE clear", |b| b.clear(field::HOST_CR0, 1);
        breaks "NE clear", |b| b.clear(field::HOST_CR0, 1 << 5);
        breaks "PG clear", |b| b.clear(field::HOST_CR0, 1 << 31);
        breaks "bit 32", |b| b.or(field::HOST_CR0, 1 << 32);
        breaks "bit 63", |b| b.or(field::HOST_CR0, 1 << 63);
    }
    "host.cr3.width" => {
        keeps "the last page", |b| b.set(field::HOST_CR3, b.top_page());
        keeps "the low bits", |b| b.or(field::HOST_CR3, 0xfff);
        keeps "bits 62:61 with LAM", |b| {
            b.cpu.lam = true;
            b.or(field::HOST_CR3, 0b11 << 61)
        };
        breaks "beyond the width", |b| b.or(field::HOST_CR3, b.beyond());
        breaks "bit 61 without LAM", |b| b.or(field::HOST_CR3, 1 << 61);
        breaks "bit 63", |b| b.or(field::HOST_CR3, 1 << 63);
        breaks "bit 51", |b| b.or(field::HOST_CR3, 1 << 51);
    }
    "host.cr4.fixed" => {
        keeps "PCIDE", |b| b.or(field::HOST_CR4, 1 << 17);
        breaks "VMXE clear", |b| b.clear(field::HOST_CR4, 1 << 13);
        breaks "bit 15", |b| b.or(field::HOST_CR4, 1 << 15);
        breaks "bit 31", |b| b.or(field::HOST_CR4, 1 << 31);
        breaks "bit 63", |b| b.or(field::HOST_CR4, 1 << 63);
    }
    "host.cr4.cet-needs-wp" => {
        keeps "both", |b| b.or(field::HOST_CR4, 1 << 23);
        keeps "neither", |b| b.clear(field::HOST_CR0, 1 << 16);
        breaks "CET without WP", |b| {
            b.or(field::HOST_CR4, 1 << 23);
            b.clear(field::HOST_CR0, 1 << 16)
        };
    }
    "host.cs.null" => {
        keeps "8", |b| b.set(field::HOST_CS_SELECTOR, 8);
        breaks "0", |b| b.set(field::HOST_CS_SELECTOR, 0);
    }
    "host.tr.null" => {
        keeps "8", |b| b.set(field::HOST_TR_SELECTOR, 8);
        breaks "0", |b| b.set(field::HOST_TR_SELECTOR, 0);
    }
    "host.ss.null" => {
        keeps "0 in 64-bit mode, with the others", |b| {
            b.set(field::HOST_SS_SELECTOR, 0);
            b.set(field::HOST_DS_SELECTOR, 0);
            b.set(field::HOST_ES_SELECTOR, 0);
            b.set(field::HOST_FS_SELECTOR, 0);
            b.set(field::HOST_GS_SELECTOR, 0)
        };
        keeps "0 in DS of a 32-bit host", |b| {
            b.host32();
            b.set(field::HOST_DS_SELECTOR, 0)
        };
        breaks "0 in a 32-bit host", |b| {
            b.host32();
            b.set(field::HOST_SS_SELECTOR, 0)
        };
    }
    "host.perf-global-ctrl" => {
        keeps "every counter", |b| {
            b.exit(Exit::LOAD_PERF_GLOBAL_CTRL);
            b.set(field::HOST_IA32_PERF_GLOBAL_CTRL, b.cpu.perf_global_ctrl_writable)
        };
        keeps "all ones, not loaded", |b| b.set(field::HOST_IA32_PERF_GLOBAL_CTRL, u64::MAX);
        breaks "bit 31", |b| {
            b.exit(Exit::LOAD_PERF_GLOBAL_CTRL);
            b.set(field::HOST_IA32_PERF_GLOBAL_CTRL, 1 << 31)
        };
        breaks "bit 63", |b| {
            b.exit(Exit::LOAD_PERF_GLOBAL_CTRL);
            b.set(field::HOST_IA32_PERF_GLOBAL_CTRL, 1 << 63)
        };
    }
    "host.pat" => {
        keeps "every type", |b| {
            b.exit(Exit::LOAD_PAT);
            b.set(field::HOST_IA32_PAT, 0x0007_0605_0401_0006)
        };
        keeps "2, not loaded", |b| b.set(field::HOST_IA32_PAT, 2);
        breaks "2 in the first", |b| {
            b.exit(Exit::LOAD_PAT);
            b.set(field::HOST_IA32_PAT, 2)
        };
        breaks "3 in the fourth", |b| {
            b.exit(Exit::LOAD_PAT);
            b.set(field::HOST_IA32_PAT, 3 << 24)
        };
        breaks "8 in the last", |b| {
            b.exit(Exit::LOAD_PAT);
            b.set(field::HOST_IA32_PAT, 8 << 56)
        };
        breaks "86H in the second", |b| {
            b.exit(Exit::LOAD_PAT);
            b.set(field::HOST_IA32_PAT, 0x8600)
        };
    }
    "host.efer.reserved" => {
        keeps "SCE, LME, LMA, NXE", |b| {
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0xd01)
        };
        keeps "all ones, not loaded", |b| b.set(field::HOST_IA32_EFER, u64::MAX);
        breaks "bit 1", |b| {
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0xd03)
        };
        breaks "bit 63", |b| {
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 1 << 63 | 0xd01)
        };
    }
    "host.efer.lma" => {
        keeps "0 in a 32-bit host", |b| {
            b.host32();
            b.exit(Exit::LOAD_EFER)
        };
        breaks "0", |b| {
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0x100)
        };
        breaks "neither LMA nor LME", |b| b.exit(Exit::LOAD_EFER);
        breaks "1 in a 32-bit host", |b| {
            b.host32();
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0x500)
        };
    }
    "host.efer.lme" => {
        keeps "both", |b| {
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0x500)
        };
        breaks "0", |b| {
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0x400)
        };
        breaks "1 in a 32-bit host", |b| {
            b.host32();
            b.exit(Exit::LOAD_EFER);
            b.set(field::HOST_IA32_EFER, 0x100)
        };
    }
    "host.s-cet.reserved" => {
        keeps "SUPPRESS", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, 1 << 10 | 0b111)
        };
        keeps "TRACKER", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, 1 << 11)
        };
        keeps "all ones, not loaded", |b| b.set(field::HOST_IA32_S_CET, u64::MAX);
        breaks "both", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, 0b11 << 10)
        };
        breaks "bit 6", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, 1 << 6)
        };
    }
    "host.ssp.aligned" => {
        keeps "4-byte aligned", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, 0x1004)
        };
        keeps "all ones, not loaded", |b| b.set(field::HOST_SSP, u64::MAX);
        breaks "bit 0", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, 0x1001)
        };
        breaks "bit 1", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, 0x1002)
        };
    }
    "host.pkrs" => {
        keeps "32 bits", |b| {
            b.exit(Exit::LOAD_PKRS);
            b.set(field::HOST_IA32_PKRS, 0xffff_ffff)
        };
        keeps "all ones, not loaded", |b| b.set(field::HOST_IA32_PKRS, u64::MAX);
        breaks "bit 32", |b| {
            b.exit(Exit::LOAD_PKRS);
            b.set(field::HOST_IA32_PKRS, 1 << 32)
        };
    }
    "host.spec-ctrl" => {
        keeps "IBRS, STIBP, SSBD", |b| {
            b.exit2(1 << 2);
            b.set(field::HOST_IA32_SPEC_CTRL, 0b111)
        };
        keeps "all ones, not loaded", |b| {
            b.exit2(1 << 3);
            b.set(field::HOST_IA32_SPEC_CTRL, u64::MAX)
        };
        breaks "bit 9", |b| {
            b.exit2(1 << 2);
            b.set(field::HOST_IA32_SPEC_CTRL, 1 << 9)
        };
    }
    "host.size.guest-needs-host" => {
        // With the rules on L1's mode before it, this one cannot be broken
        // alone: the case for it is in the host tests, without those.
        keeps "a 32-bit guest of a 64-bit host", |b| b.protected32();
    }
    "host.cr4.pcide" => {
        keeps "1 in a 64-bit host", |b| b.or(field::HOST_CR4, 1 << 17);
        breaks "1 in a 32-bit host", |b| {
            b.host32();
            b.or(field::HOST_CR4, 1 << 17)
        };
    }
    "host.rip.high" => {
        keeps "FFFFFFFFH", |b| {
            b.host32();
            b.set(field::HOST_RIP, 0xffff_ffff)
        };
        breaks "bit 32", |b| {
            b.host32();
            b.set(field::HOST_RIP, 1 << 32)
        };
        breaks "the upper half", |b| {
            b.host32();
            b.set(field::HOST_RIP, b.upper_half())
        };
    }
    "host.s-cet.high" => {
        keeps "32 bits", |b| {
            b.host32();
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, 0xffff_f000)
        };
        breaks "bit 32", |b| {
            b.host32();
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, 1 << 32)
        };
    }
    "host.ssp.high" => {
        keeps "32 bits", |b| {
            b.host32();
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, 0xffff_fffc)
        };
        breaks "bit 32", |b| {
            b.host32();
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, 1 << 32)
        };
    }
    "host.cr4.pae" => {
        keeps "0 in a 32-bit host", |b| {
            b.host32();
            b.clear(field::HOST_CR4, 1 << 5)
        };
        breaks "0", |b| b.clear(field::HOST_CR4, 1 << 5);
    }
    "host.s-cet.canonical" => {
        keeps "the upper half", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, b.upper_half())
        };
        breaks "not canonical", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_S_CET, b.non_canonical())
        };
    }
    "host.ssp.canonical" => {
        keeps "the upper half", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, b.upper_half())
        };
        breaks "not canonical", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_SSP, b.non_canonical())
        };
    }
    "host.ssp-table" => {
        keeps "the upper half", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_INTERRUPT_SSP_TABLE_ADDR, b.upper_half())
        };
        keeps "not canonical, not loaded", |b| {
            b.set(field::HOST_IA32_INTERRUPT_SSP_TABLE_ADDR, b.non_canonical())
        };
        breaks "not canonical", |b| {
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_INTERRUPT_SSP_TABLE_ADDR, b.non_canonical())
        };
        breaks "not canonical in a 32-bit host", |b| {
            b.host32();
            b.exit(Exit::LOAD_CET_STATE);
            b.set(field::HOST_IA32_INTERRUPT_SSP_TABLE_ADDR, b.non_canonical())
        };
    }
}

//! The MSRs that L1 is shown, each range with the reason. One that is not listed is
//! hidden: reads and writes are #GP, as on a CPU without it, so that an MSR which a
//! later CPU brings, and which may reach past EPT or change what L0 runs on, does not
//! come through unseen. Numbers and names are those of SDM volume 4.

use crate::cpuid_list::XSS;
use crate::msr_announced::{
    ARCH_CAPABILITIES_SHOWN, CORE_CAPABILITIES_SHOWN, MEMORY_CTRL, UARCH_MISC_CTL,
};
use umbra_arch::msr::{self, MiscEnable, bitmap};

/// What L0 does about accesses to an MSR that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None exits: the CPU answers, and refuses what it lacks.
    Through,
    /// None exits, and the value in the CPU while L0 runs is L0's: the VMCS has L1's.
    InVmcs,
    /// Reads are the CPU's; a write is #GP.
    ReadOnly,
    /// Reads are the CPU's; only the value that is there may be written, as where
    /// firmware has locked the MSR.
    Locked,
    /// Reads are the CPU's; L0 looks at what is written ([`checked`]).
    Checked,
    /// L0 answers both, and the CPU's own MSR is L0's.
    Shadowed,
    /// Reads exit for L0 to leave out bits ([`read_mask`]); a write is #GP.
    Filtered,
}

/// MSRs that follow each other and are treated alike.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The first of them.
    pub first: u32,
    /// The last of them.
    pub last: u32,
    /// What L0 does.
    pub access: Access,
    /// What they are, and why L1 may have them so.
    pub reason: &'static str,
}

const fn row(first: u32, last: u32, access: Access, reason: &'static str) -> Row {
    Row {
        first,
        last,
        access,
        reason,
    }
}

use Access::{Checked, Filtered, InVmcs, Locked, ReadOnly, Shadowed, Through};

/// The list, in the order of the numbers.
#[rustfmt::skip]
pub const LIST: &[Row] = &[
    row(0x0, 0x1, Through, "P5_MC_ADDR, P5_MC_TYPE: machine checks are L1's"),
    row(0x6, 0x6, Through, "IA32_MONITOR_FILTER_SIZE: L0 does not use MONITOR"),
    row(0x10, 0x10, Through, "IA32_TIME_STAMP_COUNTER: L0 measures with differences alone"),
    row(0x17, 0x17, ReadOnly, "IA32_PLATFORM_ID"),
    row(0x1b, 0x1b, Checked, "IA32_APIC_BASE: not over Umbra's memory"),
    row(0x2a, 0x2a, ReadOnly, "EBL_CR_POWERON: how the CPU was strapped"),
    row(0x33, 0x33, Checked, "MEMORY_CTRL: not UC-lock disable, by which L0's locked accesses would fault"),
    row(0x34, 0x35, ReadOnly, "SMI_COUNT, CORE_THREAD_COUNT"),
    row(0x3a, 0x3a, Shadowed, "IA32_FEATURE_CONTROL: L0's is locked with VMX on"),
    row(0x3b, 0x3b, Through, "IA32_TSC_ADJUST: as the counter itself"),
    row(0x40, 0x47, Through, "last branches of older CPUs: DEBUGCTL, which an exit clears, stops them in L0"),
    row(0x48, 0x49, Through, "IA32_SPEC_CTRL, IA32_PRED_CMD: L0 keeps no secret that a prediction could tell"),
    row(0x60, 0x67, Through, "last branches of older CPUs, as above"),
    row(0x79, 0x79, Shadowed, "IA32_BIOS_UPDT_TRIG: microcode is not L1's to load; a write does nothing"),
    row(0x8b, 0x8b, Through, "IA32_BIOS_SIGN_ID: written with 0 before CPUID stores it"),
    row(0x8c, 0x8f, Through, "IA32_SGXLEPUBKEYHASH: whose enclaves start; SGX is L1's"),
    row(0x9b, 0x9b, ReadOnly, "IA32_SMM_MONITOR_CTL: written in SMM alone"),
    row(0x9e, 0x9e, Through, "IA32_SMBASE: the CPU has it in SMM alone, and refuses it elsewhere"),
    row(0xbd, 0xbd, ReadOnly, "IA32_XAPIC_DISABLE_STATUS"),
    row(0xc1, 0xc8, Through, "IA32_PMCn: the counters are L1's; they write no memory"),
    row(0xcd, 0xcd, ReadOnly, "FSB_FREQ: a kernel's frequency of the bus"),
    row(0xce, 0xce, ReadOnly, "PLATFORM_INFO: frequencies"),
    row(0xcf, 0xcf, Filtered, "IA32_CORE_CAPABILITIES: what says that MSRs are there which L1 has"),
    row(0xe1, 0xe1, Through, "IA32_UMWAIT_CONTROL: L0 does not wait by it"),
    row(0xe2, 0xe4, Through, "sleep states, and the I/O ports that stand for them"),
    row(0xe7, 0xe8, Through, "IA32_MPERF, IA32_APERF: counts of cycles"),
    row(0xfe, 0xfe, ReadOnly, "IA32_MTRRCAP: L1 has as many MTRRs as the CPU"),
    row(0x10a, 0x10a, Filtered, "IA32_ARCH_CAPABILITIES: the same"),
    row(0x10b, 0x10b, Through, "IA32_FLUSH_CMD: a command that empties caches"),
    row(0x10f, 0x10f, Through, "IA32_TSX_FORCE_ABORT: L0 has no transactions"),
    row(0x122, 0x123, Through, "IA32_TSX_CTRL, IA32_MCU_OPT_CTRL: L0 has no transactions"),
    row(0x140, 0x140, Through, "MISC_FEATURES_ENABLES: faults at CPL 3 alone"),
    row(0x150, 0x150, Locked, "the overclocking mailbox sets voltages at which L0 would compute wrongly"),
    row(0x174, 0x176, InVmcs, "IA32_SYSENTER_CS, ESP, EIP"),
    row(0x179, 0x17b, Through, "IA32_MCG_CAP, STATUS, CTL: machine checks are L1's"),
    row(0x17f, 0x17f, Through, "ERROR_CONTROL: which memory errors are told"),
    row(0x186, 0x18d, Through, "IA32_PERFEVTSELn: the counters are L1's"),
    row(0x195, 0x195, ReadOnly, "IA32_OVERCLOCKING_STATUS"),
    row(0x198, 0x19c, Through, "frequency, clock modulation, thermal interrupts and status: the platform's power is L1's"),
    row(0x1a0, 0x1a0, Checked, "IA32_MISC_ENABLE: not execute-disable off, which L0's tables use"),
    row(0x1a2, 0x1a2, ReadOnly, "TEMPERATURE_TARGET"),
    row(0x1a4, 0x1a4, Through, "prefetchers: no more than speed"),
    row(0x1a6, 0x1a7, Through, "OFFCORE_RSPn: what a counter counts"),
    row(0x1aa, 0x1aa, ReadOnly, "MISC_PWR_MGMT: who steers the frequency"),
    row(0x1ad, 0x1af, ReadOnly, "TURBO_RATIO_LIMIT: L0 does not let it be raised"),
    row(0x1b0, 0x1b2, Through, "energy bias, the package's thermal status and interrupts"),
    row(0x1c4, 0x1c5, Through, "IA32_XFD, IA32_XFD_ERR: L0 has no state that they disable"),
    row(0x1c8, 0x1c9, Through, "LBR_SELECT, LBR_TOS: as the older last branches"),
    row(0x1d9, 0x1d9, InVmcs, "IA32_DEBUGCTL"),
    row(0x1db, 0x1de, Through, "where the last branch and the last exception were"),
    row(0x1f8, 0x1f9, ReadOnly, "direct cache access: what there is"),
    row(0x1fa, 0x1fa, Through, "IA32_DCA_0_CAP: whether devices fill caches, no more than speed"),
    row(0x1fc, 0x1fc, Through, "POWER_CTL: sleep states' promotion"),
    row(0x200, 0x213, Shadowed, "variable MTRRs: L1's are types of ept01"),
    row(0x250, 0x250, Shadowed, "fixed MTRRs, 64 KiB each"),
    row(0x258, 0x259, Shadowed, "fixed MTRRs, 16 KiB each"),
    row(0x268, 0x26f, Shadowed, "fixed MTRRs, 4 KiB each"),
    row(0x277, 0x277, InVmcs, "IA32_PAT"),
    row(0x280, 0x29f, Through, "IA32_MCn_CTL2: when a corrected error interrupts L1"),
    row(0x2ff, 0x2ff, Shadowed, "IA32_MTRR_DEF_TYPE"),
    row(0x309, 0x30f, Through, "IA32_FIXED_CTRn: the counters are L1's"),
    row(0x329, 0x329, Through, "PERF_METRICS"),
    row(0x345, 0x345, ReadOnly, "IA32_PERF_CAPABILITIES"),
    row(0x38d, 0x392, Through, "the counters' global control and status"),
    row(0x3f8, 0x3fa, ReadOnly, "residency of the package's sleep states"),
    row(0x3fc, 0x3fe, ReadOnly, "residency of the core's sleep states"),
    row(0x400, 0x47f, Through, "the banks of machine checks: they are L1's"),
    row(0x480, 0x493, Shadowed, "the VMX capabilities: what L0 offers"),
    row(0x4c1, 0x4c8, Through, "IA32_A_PMCn: the counters in full width"),
    row(0x4d0, 0x4d0, Through, "IA32_MCG_EXT_CTL: machine checks of one CPU alone"),
    row(0x500, 0x500, ReadOnly, "IA32_SGX_SVN_STATUS: what was loaded before SGX"),
    row(0x680, 0x69f, Through, "last branches of older CPUs, as above"),
    row(0x6a0, 0x6a8, Through, "CET: L0 has neither shadow stacks nor indirect-branch tracking"),
    row(0x6c0, 0x6df, Through, "last branches of older CPUs, as above"),
    row(0x6e0, 0x6e1, Through, "IA32_TSC_DEADLINE, IA32_PKRS: the APIC is L1's; L0 uses no keys"),
    row(0x770, 0x777, Through, "hardware-controlled frequency: the platform's power is L1's"),
    row(0x800, 0x8ff, Through, "the x2APIC: the APIC is L1's"),
    row(0x981, 0x984, Locked, "memory encryption changes what is in L0's memory"),
    row(0x985, 0x98a, Through, "user interrupts: by linear addresses, at CPL 3 alone"),
    row(0x990, 0x991, Through, "key locker's status: its keys are L1's"),
    row(0xc80, 0xc80, Locked, "IA32_DEBUG_INTERFACE: a debugger of the hardware stops L0, too"),
    row(0xc81, 0xd8f, Through, "shares of caches and of memory's bandwidth: no more than speed"),
    row(0xd90, 0xd90, Through, "IA32_BNDCFGS: L0 has no bounds"),
    row(0xd91, 0xd93, Through, "key locker's copies, IA32_PASID: by ENQCMD, through EPT"),
    row(0xda0, 0xda0, Checked, "IA32_XSS: the components that are listed"),
    row(0xdb0, 0xdb2, Through, "hardware duty cycling: the platform's power is L1's"),
    row(0xdc0, 0xddf, Through, "last branches of older CPUs, as above"),
    row(0x1b01, 0x1b01, Checked, "IA32_UARCH_MISC_CTL: instructions in the same time for all data"),
    row(0xc000_0080, 0xc000_0080, InVmcs, "IA32_EFER"),
    row(0xc000_0081, 0xc000_0084, Through, "SYSCALL's: L0 has no CPL 3"),
    row(0xc000_0100, 0xc000_0101, InVmcs, "IA32_FS_BASE, IA32_GS_BASE"),
    row(0xc000_0102, 0xc000_0103, Through, "IA32_KERNEL_GS_BASE, IA32_TSC_AUX: L0 uses neither"),
];

/// What L0 does about an MSR; `None` where L1 is not shown it.
#[must_use]
pub fn access(index: u32) -> Option<Access> {
    let behind = LIST.partition_point(|row| row.first <= index);
    let row = LIST.get(behind.checked_sub(1)?)?;
    (index <= row.last).then_some(row.access)
}

/// Whether vmcs01's bitmap intercepts an access. Outside of its ranges all exit.
#[must_use]
pub fn exits(index: u32, is_write: bool) -> bool {
    if bitmap::place(index, is_write).is_none() {
        return true;
    }
    match access(index) {
        Some(Through | InVmcs) => false,
        Some(ReadOnly | Locked | Checked) => is_write,
        Some(Shadowed | Filtered) | None => true,
    }
}

/// What L1 may see of the value of an MSR.
#[must_use]
pub const fn read_mask(index: u32) -> u64 {
    match index {
        msr::IA32_CORE_CAPABILITIES => CORE_CAPABILITIES_SHOWN,
        msr::IA32_ARCH_CAPABILITIES => ARCH_CAPABILITIES_SHOWN,
        _ => u64::MAX,
    }
}

/// Of MEMORY_CTRL.
const UC_LOCK_DISABLE: u64 = 1 << 28;
/// Of IA32_UARCH_MISC_CTL: data-operand-independent timing.
const DOITM: u64 = 1 << 0;

/// What the CPU is given where L1 writes `value` to an MSR that is
/// [`Access::Checked`]; `None` for #GP. IA32_APIC_BASE is looked at elsewhere, since
/// that needs to know where Umbra's memory is.
#[must_use]
pub const fn checked(index: u32, value: u64) -> Option<u64> {
    match index {
        msr::IA32_XSS if value & !XSS != 0 => None,
        UARCH_MISC_CTL if value & !DOITM != 0 => None,
        MEMORY_CTRL if value & UC_LOCK_DISABLE != 0 => None,
        msr::IA32_MISC_ENABLE => Some(value & !MiscEnable::XD_DISABLE.bits()),
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_each_row_has_a_reason() {
        for row in LIST {
            assert!(row.first <= row.last, "{row:x?}");
            assert!(!row.reason.is_empty(), "{row:x?}");
        }
        for pair in LIST.windows(2) {
            assert!(pair[0].last < pair[1].first, "{pair:x?}");
        }
    }

    #[test]
    fn every_number_is_found_in_its_own_row() {
        for row in LIST {
            for index in row.first..=row.last {
                assert_eq!(access(index), Some(row.access), "{index:x}");
            }
        }
        let listed = (0..=0x1fff).filter(|index| access(*index).is_some());
        let low = LIST.iter().filter(|row| row.last <= 0x1fff);
        let count: u32 = low.map(|row| row.last - row.first + 1).sum();
        assert_eq!(listed.count() as u32, count);
    }

    #[test]
    fn what_reaches_past_ept_or_changes_l0_is_not_listed() {
        // SMRR, the debug store, Intel PT, remote action requests, hardware feedback,
        // last-branch records, PRMRR, the processor's number, FRED, RAPL, and what
        // hypervisors have.
        for range in [
            0x11..=0x12,
            0x4a..=0x5f,
            0x4e0..=0x4ff,
            0x1f2..=0x1f7,
            0x3f1..=0x3f1,
            0x560..=0x58f,
            0x600..=0x650,
            0xed..=0xf0,
            0x17d0..=0x17d4,
            0x14ce..=0x14cf,
            0x1200..=0x121f,
            0x1406..=0x1406,
            0x1cc..=0x1d8,
            0x1900..=0x1b00,
            0x1b02..=0x1fff,
            0x2000..=0x20ff,
            0x4000_0000..=0x4000_0100,
            0x4b56_4d00..=0x4b56_4dff,
            0xc000_0200..=0xc000_1fff,
            0xc001_0000..=0xc001_0200,
            u32::MAX - 1..=u32::MAX,
        ] {
            for index in range {
                assert_eq!(access(index), None, "{index:x}");
                assert!(exits(index, false) && exits(index, true), "{index:x}");
            }
        }
    }

    #[test]
    fn an_exit_is_taken_where_l0_has_something_to_say() {
        for (index, read, write) in [
            (0x10, false, false),
            (0x1b, false, true),
            (0x3a, true, true),
            (0xce, false, true),
            (0x10a, true, true),
            (0x150, false, true),
            (0x277, false, false),
            (0x500, false, true),
            (0x1b01, false, true),
            (0x480, true, true),
            (0xc000_0082, false, false),
            (0x4000_0000, true, true),
        ] {
            assert_eq!(exits(index, false), read, "{index:x}");
            assert_eq!(exits(index, true), write, "{index:x}");
        }
    }

    #[test]
    fn writes_that_l0_looks_at() {
        assert_eq!(checked(0x33, 1 << 28), None);
        assert_eq!(checked(0x33, 1 << 29), Some(1 << 29));
        assert_eq!(checked(0x1a0, 1 << 34 | 1), Some(1));
        assert_eq!(checked(0x1b01, 1), Some(1));
        assert_eq!(checked(0x1b01, 2), None);
        assert_eq!(checked(0xda0, 1 << 8), None);
        assert_eq!(checked(0xda0, 1 << 11), Some(1 << 11));
        assert_eq!(read_mask(0xcf) & (1 << 1 | 1 << 4), 0);
        assert_eq!(
            read_mask(0x10a) & (1 << 12 | 1 << 9 | 1 << 1),
            1 << 12 | 1 << 1
        );
        assert_eq!(read_mask(0x10), u64::MAX);
    }
}

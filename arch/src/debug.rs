//! Debug registers. SDM "Debug Registers", "IA32_DEBUGCTL MSR".

use crate::flags::on_raw_values;
use bitflags::bitflags;

bitflags! {
    /// DR6. In exit qualifications of debug exceptions the bits have the same
    /// places.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Dr6: u64 {
        /// The conditions of breakpoints 0 to 3.
        const B0_TO_B3 = 0xf;
        /// Access to a debug register.
        const BD = 1 << 13;
        /// A single step.
        const BS = 1 << 14;
        /// A task switch.
        const BT = 1 << 15;
        /// 0 for a debug exception in a transaction.
        const RTM = 1 << 16;
    }

    /// DR7.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Dr7: u64 {
        /// Breakpoints 0 to 3 enabled for the task: L0, L1, L2, L3.
        const LOCAL = 0x55;
        /// Breakpoints 0 to 3 enabled for all tasks: G0, G1, G2, G3.
        const GLOBAL = 0xaa;
        /// Exact data breakpoints for the task.
        const LE = 1 << 8;
        /// Exact data breakpoints for all tasks.
        const GE = 1 << 9;
        /// Always 1.
        const FIXED = 1 << 10;
        /// Debugging of transactions.
        const RTM = 1 << 11;
        /// General detect.
        const GD = 1 << 13;
    }

    /// IA32_DEBUGCTL.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Debugctl: u64 {
        /// Last-branch records.
        const LBR = 1 << 0;
        /// Single steps are of branches.
        const BTF = 1 << 1;
        /// Bus-lock detection.
        const BLD = 1 << 2;
        /// Trace messages.
        const TR = 1 << 6;
        /// Branch-trace store.
        const BTS = 1 << 7;
        /// An interrupt when the branch-trace store is full.
        const BTINT = 1 << 8;
        /// No branch-trace store at CPL 0.
        const BTS_OFF_OS = 1 << 9;
        /// No branch-trace store at other CPLs.
        const BTS_OFF_USR = 1 << 10;
        /// LBRs stop at a performance-monitoring interrupt.
        const FREEZE_LBRS_ON_PMI = 1 << 11;
        /// Counters stop at a performance-monitoring interrupt.
        const FREEZE_PERFMON_ON_PMI = 1 << 12;
        /// Counters stop in SMM.
        const FREEZE_WHILE_SMM = 1 << 14;
        /// Debugging of transactions.
        const RTM = 1 << 15;
    }

    /// The guest's pending debug exceptions. SDM "Guest Non-Register State".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PendingDebug: u64 {
        /// The conditions of breakpoints 0 to 3.
        const B0_TO_B3 = 0xf;
        /// A bus lock.
        const BUS_LOCK = 1 << 11;
        /// At least one breakpoint that was met is enabled.
        const ENABLED_BREAKPOINT = 1 << 12;
        /// A single step.
        const BS = 1 << 14;
        /// In a transaction.
        const RTM = 1 << 16;
    }
}

on_raw_values!(Dr6: u64, Dr7: u64, Debugctl: u64, PendingDebug: u64);

impl Dr7 {
    /// All that enable a breakpoint.
    pub const ENABLES: Self = Self::LOCAL.union(Self::GLOBAL);
}

//! IA32_VMX_EPT_VPID_CAP. SDM "VPID and EPT Capabilities".

use crate::flags::on_raw_values;
use bitflags::bitflags;

bitflags! {
    /// What IA32_VMX_EPT_VPID_CAP says a CPU can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EptVpidCap: u64 {
        /// Execute-only translations.
        const EXECUTE_ONLY = 1 << 0;
        /// A walk of 4 levels.
        const WALK_4 = 1 << 6;
        /// A walk of 5 levels.
        const WALK_5 = 1 << 7;
        /// Uncacheable EPT paging structures.
        const TABLES_UC = 1 << 8;
        /// Write-back EPT paging structures.
        const TABLES_WB = 1 << 14;
        /// 2 MiB leaves.
        const PAGE_2M = 1 << 16;
        /// 1 GiB leaves.
        const PAGE_1G = 1 << 17;
        /// The INVEPT instruction.
        const INVEPT = 1 << 20;
        /// Accessed and dirty flags.
        const ACCESSED_DIRTY = 1 << 21;
        /// Advanced VM-exit information for EPT violations.
        const ADVANCED_INFO = 1 << 22;
        /// Supervisor shadow-stack control.
        const SUPERVISOR_SHADOW_STACK = 1 << 23;
        /// INVEPT type 1, single-context.
        const INVEPT_SINGLE = 1 << 25;
        /// INVEPT type 2, all-context.
        const INVEPT_ALL = 1 << 26;
        /// The INVVPID instruction.
        const INVVPID = 1 << 32;
        /// INVVPID type 0, individual-address; types 1 to 3 are the next bits.
        const INVVPID_ADDRESS = 1 << 40;
        /// INVVPID type 1, single-context.
        const INVVPID_SINGLE = 1 << 41;
        /// INVVPID type 2, all-context.
        const INVVPID_ALL = 1 << 42;
        /// INVVPID type 3, single-context retaining globals.
        const INVVPID_RETAIN_GLOBALS = 1 << 43;
    }
}

on_raw_values!(EptVpidCap: u64);

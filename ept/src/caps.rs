//! What a CPU, or the CPU that L1 is shown, can do with EPT.

/// Bits of IA32_VMX_EPT_VPID_CAP (SDM "VPID and EPT Capabilities").
pub mod cap_bit {
    /// Execute-only translations.
    pub const EXECUTE_ONLY: u64 = 1 << 0;
    /// A walk of 4 levels.
    pub const WALK_4: u64 = 1 << 6;
    /// A walk of 5 levels.
    pub const WALK_5: u64 = 1 << 7;
    /// Uncacheable EPT paging structures.
    pub const TABLES_UC: u64 = 1 << 8;
    /// Write-back EPT paging structures.
    pub const TABLES_WB: u64 = 1 << 14;
    /// 2 MiB leaves.
    pub const PAGE_2M: u64 = 1 << 16;
    /// 1 GiB leaves.
    pub const PAGE_1G: u64 = 1 << 17;
    /// The INVEPT instruction.
    pub const INVEPT: u64 = 1 << 20;
    /// Accessed and dirty flags.
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    /// Advanced VM-exit information for EPT violations.
    pub const ADVANCED_INFO: u64 = 1 << 22;
    /// Supervisor shadow-stack control.
    pub const SUPERVISOR_SHADOW_STACK: u64 = 1 << 23;
    /// INVEPT type 1, single-context.
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    /// INVEPT type 2, all-context.
    pub const INVEPT_ALL: u64 = 1 << 26;
    /// The INVVPID instruction.
    pub const INVVPID: u64 = 1 << 32;
    /// INVVPID type 0, individual-address; types 1 to 3 are the next bits.
    pub const INVVPID_ADDRESS: u64 = 1 << 40;
    /// INVVPID type 1, single-context.
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    /// INVVPID type 2, all-context.
    pub const INVVPID_ALL: u64 = 1 << 42;
    /// INVVPID type 3, single-context retaining globals.
    pub const INVVPID_RETAIN_GLOBALS: u64 = 1 << 43;
}

/// A capability set: the CPU's own for ept01 and ept02, the one offered to L1
/// for ept12. `mode_based_execute` is a VM-execution control, not a capability:
/// it holds for the VMCS whose tables are being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// 1 GiB leaves are allowed.
    pub page_1g: bool,
    /// 2 MiB leaves are allowed.
    pub page_2m: bool,
    /// Entries with X but not R are allowed.
    pub execute_only: bool,
    /// EPTP bit 6 may be set.
    pub accessed_dirty: bool,
    /// EPTP may ask for a 4-level walk.
    pub walk_4: bool,
    /// EPTP may ask for a 5-level walk.
    pub walk_5: bool,
    /// EPTP may ask for uncacheable tables.
    pub tables_uc: bool,
    /// EPTP may ask for write-back tables.
    pub tables_wb: bool,
    /// Bits 9 to 11 of an EPT violation's qualification are defined.
    pub advanced_info: bool,
    /// EPTP bit 7 may be set.
    pub supervisor_shadow_stack: bool,
    /// The control "mode-based execute control for EPT" is 1.
    pub mode_based_execute: bool,
    /// Physical-address width in bits (MAXPHYADDR), 32 to 52.
    pub maxphyaddr: u8,
}

impl Caps {
    /// From the value of IA32_VMX_EPT_VPID_CAP and MAXPHYADDR in bits (clamped
    /// to 32..=52). Mode-based execute control starts as 0.
    #[must_use]
    pub const fn from_msr(ept_vpid_cap: u64, maxphyaddr: u8) -> Self {
        use cap_bit as b;
        let maxphyaddr = if maxphyaddr < 32 {
            32
        } else if maxphyaddr > 52 {
            52
        } else {
            maxphyaddr
        };
        Self {
            page_1g: ept_vpid_cap & b::PAGE_1G != 0,
            page_2m: ept_vpid_cap & b::PAGE_2M != 0,
            execute_only: ept_vpid_cap & b::EXECUTE_ONLY != 0,
            accessed_dirty: ept_vpid_cap & b::ACCESSED_DIRTY != 0,
            walk_4: ept_vpid_cap & b::WALK_4 != 0,
            walk_5: ept_vpid_cap & b::WALK_5 != 0,
            tables_uc: ept_vpid_cap & b::TABLES_UC != 0,
            tables_wb: ept_vpid_cap & b::TABLES_WB != 0,
            advanced_info: ept_vpid_cap & b::ADVANCED_INFO != 0,
            supervisor_shadow_stack: ept_vpid_cap & b::SUPERVISOR_SHADOW_STACK != 0,
            mode_based_execute: false,
            maxphyaddr,
        }
    }

    /// The same set for a VMCS with mode-based execute control on or off.
    #[must_use]
    pub const fn with_mode_based_execute(mut self, on: bool) -> Self {
        self.mode_based_execute = on;
        self
    }

    /// Address bits (51:12) that lie beyond the physical-address width.
    #[inline]
    #[must_use]
    pub const fn beyond_width(&self) -> u64 {
        let width = if self.maxphyaddr > 52 {
            52
        } else {
            self.maxphyaddr
        };
        crate::addr::ADDRESS_BITS & !((1u64 << width) - 1)
    }
}

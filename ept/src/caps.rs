//! What a CPU, or the CPU that L1 is shown, can do with EPT.

use umbra_arch::EptVpidCap;

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
        let cap = EptVpidCap::of(ept_vpid_cap);
        let maxphyaddr = if maxphyaddr < 32 {
            32
        } else if maxphyaddr > 52 {
            52
        } else {
            maxphyaddr
        };
        Self {
            page_1g: cap.contains(EptVpidCap::PAGE_1G),
            page_2m: cap.contains(EptVpidCap::PAGE_2M),
            execute_only: cap.contains(EptVpidCap::EXECUTE_ONLY),
            accessed_dirty: cap.contains(EptVpidCap::ACCESSED_DIRTY),
            walk_4: cap.contains(EptVpidCap::WALK_4),
            walk_5: cap.contains(EptVpidCap::WALK_5),
            tables_uc: cap.contains(EptVpidCap::TABLES_UC),
            tables_wb: cap.contains(EptVpidCap::TABLES_WB),
            advanced_info: cap.contains(EptVpidCap::ADVANCED_INFO),
            supervisor_shadow_stack: cap.contains(EptVpidCap::SUPERVISOR_SHADOW_STACK),
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

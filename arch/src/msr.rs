//! MSR numbers and bits. SDM volume 4, "Architectural MSRs".

use crate::flags::on_raw_values;
use bitflags::bitflags;

macro_rules! numbers {
    ($($name:ident = $number:literal;)*) => {
        $(
            #[allow(missing_docs)]
            pub const $name: u32 = $number;
        )*

        /// Every MSR above with its name.
        pub const NAMES: &[(&str, u32)] = &[$((stringify!($name), $number)),*];
    };
}

numbers! {
    IA32_TIME_STAMP_COUNTER = 0x10;
    IA32_APIC_BASE = 0x1b;
    IA32_FEATURE_CONTROL = 0x3a;
    IA32_TSC_ADJUST = 0x3b;
    IA32_SPEC_CTRL = 0x48;
    IA32_PRED_CMD = 0x49;
    IA32_BIOS_UPDT_TRIG = 0x79;
    IA32_SMM_MONITOR_CTL = 0x9b;
    IA32_SMBASE = 0x9e;
    IA32_CORE_CAPABILITIES = 0xcf;
    IA32_MTRRCAP = 0xfe;
    IA32_ARCH_CAPABILITIES = 0x10a;
    IA32_SYSENTER_CS = 0x174;
    IA32_SYSENTER_ESP = 0x175;
    IA32_SYSENTER_EIP = 0x176;
    IA32_MISC_ENABLE = 0x1a0;
    IA32_DEBUGCTL = 0x1d9;
    IA32_MTRR_PHYSBASE0 = 0x200;
    IA32_MTRR_PHYSMASK0 = 0x201;
    IA32_MTRR_FIX64K_00000 = 0x250;
    IA32_MTRR_FIX16K_80000 = 0x258;
    IA32_MTRR_FIX16K_A0000 = 0x259;
    IA32_MTRR_FIX4K_C0000 = 0x268;
    IA32_MTRR_FIX4K_C8000 = 0x269;
    IA32_MTRR_FIX4K_D0000 = 0x26a;
    IA32_MTRR_FIX4K_D8000 = 0x26b;
    IA32_MTRR_FIX4K_E0000 = 0x26c;
    IA32_MTRR_FIX4K_E8000 = 0x26d;
    IA32_MTRR_FIX4K_F0000 = 0x26e;
    IA32_MTRR_FIX4K_F8000 = 0x26f;
    IA32_PAT = 0x277;
    IA32_MTRR_DEF_TYPE = 0x2ff;
    IA32_PERF_CAPABILITIES = 0x345;
    IA32_PERF_GLOBAL_CTRL = 0x38f;
    IA32_PEBS_ENABLE = 0x3f1;
    IA32_VMX_BASIC = 0x480;
    IA32_VMX_PINBASED_CTLS = 0x481;
    IA32_VMX_PROCBASED_CTLS = 0x482;
    IA32_VMX_EXIT_CTLS = 0x483;
    IA32_VMX_ENTRY_CTLS = 0x484;
    IA32_VMX_MISC = 0x485;
    IA32_VMX_CR0_FIXED0 = 0x486;
    IA32_VMX_CR0_FIXED1 = 0x487;
    IA32_VMX_CR4_FIXED0 = 0x488;
    IA32_VMX_CR4_FIXED1 = 0x489;
    IA32_VMX_VMCS_ENUM = 0x48a;
    IA32_VMX_PROCBASED_CTLS2 = 0x48b;
    IA32_VMX_EPT_VPID_CAP = 0x48c;
    IA32_VMX_TRUE_PINBASED_CTLS = 0x48d;
    IA32_VMX_TRUE_PROCBASED_CTLS = 0x48e;
    IA32_VMX_TRUE_EXIT_CTLS = 0x48f;
    IA32_VMX_TRUE_ENTRY_CTLS = 0x490;
    IA32_VMX_VMFUNC = 0x491;
    IA32_VMX_PROCBASED_CTLS3 = 0x492;
    IA32_VMX_EXIT_CTLS2 = 0x493;
    IA32_DS_AREA = 0x600;
    IA32_TSC_DEADLINE = 0x6e0;
    IA32_PKRS = 0x6e1;
    IA32_X2APIC_APICID = 0x802;
    IA32_X2APIC_EOI = 0x80b;
    IA32_X2APIC_ICR = 0x830;
    IA32_XSS = 0xda0;
    IA32_EFER = 0xc000_0080;
    IA32_STAR = 0xc000_0081;
    IA32_LSTAR = 0xc000_0082;
    IA32_CSTAR = 0xc000_0083;
    IA32_FMASK = 0xc000_0084;
    IA32_FS_BASE = 0xc000_0100;
    IA32_GS_BASE = 0xc000_0101;
    IA32_KERNEL_GS_BASE = 0xc000_0102;
    IA32_TSC_AUX = 0xc000_0103;
}

/// The fixed-range MTRRs, in the order of the addresses they cover.
pub const MTRR_FIXED: [u32; 11] = [
    IA32_MTRR_FIX64K_00000,
    IA32_MTRR_FIX16K_80000,
    IA32_MTRR_FIX16K_A0000,
    IA32_MTRR_FIX4K_C0000,
    IA32_MTRR_FIX4K_C8000,
    IA32_MTRR_FIX4K_D0000,
    IA32_MTRR_FIX4K_D8000,
    IA32_MTRR_FIX4K_E0000,
    IA32_MTRR_FIX4K_E8000,
    IA32_MTRR_FIX4K_F0000,
    IA32_MTRR_FIX4K_F8000,
];

/// The MSRs of Intel PT.
pub const INTEL_PT: core::ops::RangeInclusive<u32> = 0x560..=0x58f;
/// The MSRs of the hardware-feedback interface.
pub const HARDWARE_FEEDBACK: core::ops::RangeInclusive<u32> = 0x17d0..=0x17d4;
/// The MSRs of remote action requests.
pub const REMOTE_ACTION: core::ops::RangeInclusive<u32> = 0xed..=0xf0;

/// Whether the number is one of those that x2APIC mode uses, bits 31:8 being 8.
/// SDM "Loading MSRs".
#[inline]
#[must_use]
pub const fn is_x2apic(number: u32) -> bool {
    number >> 8 == 8
}

/// The MSRs that an MSR bitmap covers. SDM "MSR-Bitmap Address".
pub mod bitmap {
    /// The last of the low MSRs, which begin at 0.
    pub const LOW_LAST: u32 = 0x1fff;
    /// The first of the high MSRs.
    pub const HIGH_FIRST: u32 = 0xc000_0000;
    /// The last of the high MSRs.
    pub const HIGH_LAST: u32 = 0xc000_1fff;
    /// Offset of the bits for reads of high MSRs, in bytes; low ones begin at 0.
    pub const HIGH_OFFSET_BYTES: usize = 0x400;
    /// Offset of the bits for writes, in bytes.
    pub const WRITES_OFFSET_BYTES: usize = 0x800;

    /// The byte, and the bit in it, that stands for an access; `None` for an MSR
    /// that the bitmap does not cover: its accesses exit.
    #[inline]
    #[must_use]
    pub const fn place(number: u32, is_write: bool) -> Option<(usize, u8)> {
        let (quarter, number) = match number {
            0..=LOW_LAST => (0, number),
            HIGH_FIRST..=HIGH_LAST => (HIGH_OFFSET_BYTES, number - HIGH_FIRST),
            _ => return None,
        };
        let half = if is_write { WRITES_OFFSET_BYTES } else { 0 };
        Some((half + quarter + (number / 8) as usize, (number % 8) as u8))
    }
}

bitflags! {
    /// IA32_EFER. SDM "Extended Feature Enable Register".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Efer: u64 {
        /// SYSCALL.
        const SCE = 1 << 0;
        /// IA-32e mode enable.
        const LME = 1 << 8;
        /// IA-32e mode active.
        const LMA = 1 << 10;
        /// Execute-disable pages.
        const NXE = 1 << 11;
    }

    /// IA32_FEATURE_CONTROL. SDM "Enabling and Entering VMX Operation".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FeatureControl: u64 {
        /// No further writes.
        const LOCK = 1 << 0;
        /// VMXON works in SMX operation.
        const VMX_IN_SMX = 1 << 1;
        /// VMXON works outside SMX operation.
        const VMX_OUTSIDE_SMX = 1 << 2;
    }

    /// IA32_APIC_BASE. SDM "Local APIC Status and Location".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// The bootstrap processor.
        const BSP = 1 << 8;
        /// x2APIC mode.
        const EXTD = 1 << 10;
        /// The APIC is on.
        const EN = 1 << 11;
    }

    /// IA32_MTRRCAP.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MtrrCap: u64 {
        /// Fixed-range registers.
        const FIX = 1 << 8;
        /// The write-combining type.
        const WC = 1 << 10;
    }

    /// IA32_MTRR_DEF_TYPE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MtrrDefType: u64 {
        /// The fixed-range registers count.
        const FE = 1 << 10;
        /// The MTRRs count.
        const E = 1 << 11;
    }

    /// IA32_MTRR_PHYSMASKn.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MtrrPhysMask: u64 {
        /// The pair counts.
        const V = 1 << 11;
    }

    /// IA32_MISC_ENABLE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MiscEnable: u64 {
        /// No execute-disable pages.
        const XD_DISABLE = 1 << 34;
    }

    /// IA32_ARCH_CAPABILITIES.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ArchCapabilities: u64 {
        /// Enhanced IBRS.
        const IBRS_ALL = 1 << 1;
    }

    /// IA32_PRED_CMD.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PredCmd: u64 {
        /// The indirect-branch predictor barrier.
        const IBPB = 1 << 0;
    }
}

on_raw_values!(
    Efer: u64,
    FeatureControl: u64,
    ApicBase: u64,
    MtrrCap: u64,
    MtrrDefType: u64,
    MtrrPhysMask: u64,
    MiscEnable: u64,
    ArchCapabilities: u64,
    PredCmd: u64,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_has_two_names() {
        for (i, (name, number)) in NAMES.iter().enumerate() {
            for (other, same) in &NAMES[i + 1..] {
                assert_ne!(number, same, "{name} and {other}");
            }
        }
    }

    #[test]
    fn a_bitmap_has_four_quarters() {
        assert_eq!(bitmap::place(0x1b, false), Some((3, 3)));
        assert_eq!(bitmap::place(0xc000_0080, false), Some((0x410, 0)));
        assert_eq!(bitmap::place(0x1fff, true), Some((0xbff, 7)));
        assert_eq!(bitmap::place(0xc000_1fff, true), Some((0xfff, 7)));
        assert_eq!(bitmap::place(0x2000, false), None);
        assert_eq!(bitmap::place(0xbfff_ffff, true), None);
        assert_eq!(bitmap::place(0xc000_2000, true), None);
    }
}

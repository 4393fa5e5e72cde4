//! What tells L1 that an MSR is there: IA32_ARCH_CAPABILITIES, IA32_CORE_CAPABILITIES,
//! and CPUID. A bit is shown where L1 has the MSRs that it stands for, and only there:
//! a kernel that was told of an MSR accesses it without the care that it takes
//! otherwise. A bit that is not listed is hidden, as an MSR that is not. Titles and bits
//! are those of SDM volume 4, "Architectural MSRs".

/// A bit, and the MSRs that it says are there.
type Row = (u32, &'static [u32]);

const TSX_CTRL: u32 = 0x122;
const MCU_OPT_CTRL: u32 = 0x123;
/// IA32_UARCH_MISC_CTL.
pub const UARCH_MISC_CTL: u32 = 0x1b01;
/// MEMORY_CTRL.
pub const MEMORY_CTRL: u32 = 0x33;

/// Of IA32_ARCH_CAPABILITIES. Not IA32_MCU_CONTROL (9), the package's controls (10) with
/// energy filtering (11), what there is to know and to do about microcode (16, 22), and
/// optimizations for power and performance (32).
const ARCH_CAPABILITIES: &[Row] = &[
    // RDCL_NO, IBRS_ALL, RSBA, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO.
    (0, &[]),
    (1, &[]),
    (2, &[]),
    (3, &[]),
    (4, &[]),
    (5, &[]),
    (6, &[]),
    (7, &[TSX_CTRL]),
    // TAA_NO.
    (8, &[]),
    // DOITM. Without the bit L1 would hold that its cryptography runs in the same time
    // for all data.
    (12, &[UARCH_MISC_CTL]),
    // SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, FB_CLEAR.
    (13, &[]),
    (14, &[]),
    (15, &[]),
    (17, &[]),
    (18, &[MCU_OPT_CTRL]),
    // RRSBA, BHI_NO.
    (19, &[]),
    (20, &[]),
    // XAPIC_DISABLE_STATUS, OVERCLOCKING_STATUS.
    (21, &[0xbd]),
    (23, &[0x195]),
    // PBRSB_NO.
    (24, &[]),
    (25, &[MCU_OPT_CTRL]),
    // GDS_NO, RFDS_NO, RFDS_CLEAR.
    (26, &[]),
    (27, &[]),
    (28, &[]),
    // UMONITOR's.
    (29, &[MCU_OPT_CTRL]),
    (30, &[MCU_OPT_CTRL]),
    // ITS_NO.
    (62, &[]),
];

/// Of IA32_CORE_CAPABILITIES. Not shares of the second-level TLB (0), remote action
/// requests (1), functional safety (2), UC-lock disable (4), and shares of the snoop
/// filter (6).
const CORE_CAPABILITIES: &[Row] = &[
    // RSM at CPL 0 alone.
    (3, &[]),
    // Split-lock disable, UC-store throttling.
    (5, &[MEMORY_CTRL]),
    (7, &[MEMORY_CTRL]),
];

const fn bits(rows: &[Row]) -> u64 {
    let mut word = 0;
    let mut at = 0;
    while at < rows.len() {
        word |= 1 << rows[at].0;
        at += 1;
    }
    word
}

/// The bits of IA32_ARCH_CAPABILITIES that L1 is shown.
pub const ARCH_CAPABILITIES_SHOWN: u64 = bits(ARCH_CAPABILITIES);
/// The bits of IA32_CORE_CAPABILITIES that L1 is shown.
pub const CORE_CAPABILITIES_SHOWN: u64 = bits(CORE_CAPABILITIES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpuid_list::masks;
    use crate::msr_list::access;
    use core::ops::RangeInclusive;

    const EAX: usize = 0;
    const EBX: usize = 1;
    const ECX: usize = 2;
    const EDX: usize = 3;

    /// Leaf, subleaf, register and bit of CPUID, and MSRs that are there where it is 1.
    #[rustfmt::skip]
    const BY_CPUID: &[(u32, u32, usize, u32, RangeInclusive<u32>)] = &[
        (1, 0, EDX, 12, 0xfe..=0xfe),           // MTRRs
        (1, 0, EDX, 14, 0x179..=0x17a),         // machine checks
        (1, 0, EDX, 16, 0x277..=0x277),         // PAT
        (1, 0, EDX, 21, 0x600..=0x600),         // the debug store
        (1, 0, EDX, 22, 0x19a..=0x19c),         // clock modulation, thermal status
        (1, 0, ECX, 15, 0x345..=0x345),         // performance capabilities
        (1, 0, ECX, 18, 0x1f8..=0x1fa),         // direct cache access
        (1, 0, ECX, 21, 0x800..=0x8ff),         // x2APIC
        (1, 0, ECX, 24, 0x6e0..=0x6e0),         // the TSC deadline
        (6, 0, EAX, 7, 0x770..=0x774),          // hardware-controlled frequency
        (6, 0, EAX, 13, 0xdb0..=0xdb2),         // hardware duty cycling
        (6, 0, EAX, 18, 0x65e..=0x65f),         // quick accesses to frequency requests
        (6, 0, EAX, 19, 0x17d0..=0x17d1),       // hardware feedback
        (6, 0, EAX, 23, 0x17d2..=0x17d4),       // the thread director
        (6, 0, ECX, 0, 0xe7..=0xe8),            // MPERF, APERF
        (6, 0, ECX, 3, 0x1b0..=0x1b0),          // energy bias
        (7, 0, EBX, 1, 0x3b..=0x3b),            // TSC_ADJUST
        (7, 0, EBX, 2, 0x500..=0x500),          // SGX
        (7, 0, EBX, 12, 0xc8d..=0xc8e),         // monitoring of resources
        (7, 0, EBX, 14, 0xd90..=0xd90),         // MPX
        (7, 0, EBX, 25, 0x560..=0x561),         // Intel PT
        (7, 0, ECX, 5, 0xe1..=0xe1),            // WAITPKG
        (7, 0, ECX, 7, 0x6a4..=0x6a8),          // shadow stacks
        (7, 0, ECX, 13, 0x981..=0x984),         // memory encryption
        (7, 0, ECX, 30, 0x8c..=0x8f),           // SGX's launch keys
        (7, 0, ECX, 31, 0x6e1..=0x6e1),         // supervisor keys
        (7, 0, EDX, 5, 0x985..=0x98a),          // user interrupts
        (7, 0, EDX, 9, 0x123..=0x123),          // SRBDS
        (7, 0, EDX, 13, 0x10f..=0x10f),         // transactions that abort
        (7, 0, EDX, 19, 0x14ce..=0x14cf),       // last-branch records
        (7, 0, EDX, 20, 0x6a0..=0x6a2),         // indirect-branch tracking
        (7, 0, EDX, 26, 0x48..=0x49),           // IBRS, IBPB
        (7, 0, EDX, 28, 0x10b..=0x10b),         // FLUSH_CMD
        (7, 0, EDX, 29, 0x10a..=0x10a),         // ARCH_CAPABILITIES
        (7, 0, EDX, 30, 0xcf..=0xcf),           // CORE_CAPABILITIES
        (7, 0, EDX, 31, 0x48..=0x48),           // SSBD
        (7, 1, EAX, 17, 0x1cc..=0x1d4),         // FRED
        (7, 1, EAX, 22, 0x17da..=0x17da),       // HRESET
        (7, 1, EBX, 0, 0x4e..=0x4f),            // the processor's number
        (0xd, 1, EAX, 3, 0xda0..=0xda0),        // XSAVES
        (0xd, 1, EAX, 4, 0x1c4..=0x1c5),        // XFD
    ];

    #[test]
    fn cpuid_tells_of_an_msr_where_l1_has_it() {
        let differ: std::vec::Vec<_> = BY_CPUID
            .iter()
            .filter(|(leaf, subleaf, register, bit, msrs)| {
                let is_shown = masks(*leaf, *subleaf)[*register] >> bit & 1 != 0;
                msrs.clone().any(|msr| access(msr).is_some() != is_shown)
            })
            .collect();
        assert!(differ.is_empty(), "{differ:x?}");
    }

    #[test]
    fn capabilities_tell_of_msrs_that_l1_has() {
        for (bit, msrs) in ARCH_CAPABILITIES.iter().chain(CORE_CAPABILITIES) {
            for msr in *msrs {
                assert!(access(*msr).is_some(), "bit {bit}: {msr:x}");
            }
        }
        // Bits for MSRs that are not listed, those whose MSRs have no number that is
        // public, and what no CPU has yet.
        for (bit, msr) in [(9, 0x1406), (10, 0xbc), (11, 0xbc), (16, 0x7b), (16, 0x7c)] {
            assert_eq!(access(msr), None, "{msr:x}");
            assert_eq!(ARCH_CAPABILITIES_SHOWN >> bit & 1, 0, "bit {bit}");
        }
        for (bit, msr) in [(0, 0x1a8f), (1, 0xed)] {
            assert_eq!(access(msr), None, "{msr:x}");
            assert_eq!(CORE_CAPABILITIES_SHOWN >> bit & 1, 0, "bit {bit}");
        }
        assert_eq!(ARCH_CAPABILITIES_SHOWN & (1 << 22 | 1 << 32), 0);
        assert_eq!(CORE_CAPABILITIES_SHOWN & (1 << 2 | 1 << 4 | 1 << 6), 0);
        assert_eq!(ARCH_CAPABILITIES_SHOWN >> 33 & !(1 << 29), 0);
        assert_eq!(CORE_CAPABILITIES_SHOWN >> 8, 0);
    }
}

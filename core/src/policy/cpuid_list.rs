//! What of CPUID L1 is shown: the features that are known to be L1's own under
//! Umbra. A feature that is not listed is hidden, so that one which a later CPU
//! brings, and which may reach past EPT or have state that nobody switches, does
//! not come through unseen. SDM "CPUID - CPU Identification".

/// All bits of a register.
const ALL: u32 = u32::MAX;

/// The bits of `list`, set.
const fn bits(list: &[u32]) -> u32 {
    let mut word = 0;
    let mut at = 0;
    while at < list.len() {
        word |= 1 << list[at];
        at += 1;
    }
    word
}

/// State components that XSAVE and XRSTORS may have: x87, SSE, AVX, MPX,
/// AVX-512, PKRU, AMX. Not APX: its registers would be L0's to save, and exits
/// name them.
pub const XCR0: u64 = bits(&[0, 1, 2, 3, 4, 5, 6, 7, 9, 17, 18]) as u64;

/// Those that XSAVES and XRSTORS may have besides: PASID, CET, HDC, user
/// interrupts, HWP. Not Intel PT nor last-branch records: XRSTORS would turn on
/// what no bitmap sees.
pub const XSS: u64 = bits(&[10, 11, 12, 13, 14, 16]) as u64;

/// EAX, EBX, ECX and EDX of a leaf, and the reason for what is not there.
type Masks = [u32; 4];

/// Leaf 1. ECX: not the debug store (2, 4), whose records go to linear addresses
/// that may be L0's; not SMX (6), which no guest can have. EDX: not DS (21).
const LEAF_1: Masks = [ALL, ALL, !bits(&[2, 4, 6, 16]), !bits(&[10, 20, 21, 30])];

/// Leaf 6. Not hardware feedback and the thread director (EAX 19, 23, ECX 15:8,
/// EDX): they write to physical addresses that EPT does not check. Not quick accesses to
/// frequency requests (18), whose MSRs are not listed.
const LEAF_6: Masks = [
    bits(&[
        0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 20, 22, 24,
    ]),
    ALL,
    bits(&[0, 3]),
    0,
];

/// Leaf 7, subleaf 0. EBX: not Intel PT (25), as hardware feedback. EDX: not
/// PCONFIG (18), which changes keys of memory; not last-branch records (19), which
/// go on in L0; and what is reserved.
const LEAF_7_0: Masks = [
    ALL,
    !bits(&[22, 25]),
    !bits(&[15, 26]),
    bits(&[
        2, 3, 4, 5, 8, 9, 10, 11, 13, 14, 15, 16, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    ]),
];

/// Subleaf 1. EAX: not FRED (17), whose events carry data that injection would
/// have to supply; not RDMSRLIST (27), which has a control of its own; not
/// NMI-source reporting (20); not HRESET (22), for the thread director. EBX: not the
/// processor's number (0), not PBNDKB (1). EDX: not APX (21), see [`XCR0`];
/// not user-timer events (13).
const LEAF_7_1: Masks = [
    bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 18, 19, 21, 23, 26]),
    0,
    0,
    bits(&[4, 5, 8, 10, 14, 17, 18, 19]),
];

/// Subleaf 2. EDX: not UC-lock disable (6), by which L0's own locked accesses
/// could fault.
const LEAF_7_2: Masks = [0, 0, 0, bits(&[0, 1, 2, 3, 4, 5, 7])];

/// The features of XSAVE: XSAVEOPT, XSAVEC, XGETBV with 1, XSAVES, XFD.
const LEAF_D_1: Masks = [bits(&[0, 1, 2, 3, 4]), ALL, XSS as u32, 0];

/// LAHF, LZCNT, PREFETCHW; SYSCALL, execute-disable, 1 GiB pages, RDTSCP, 64-bit
/// mode.
const LEAF_80000001: Masks = [ALL, ALL, bits(&[0, 5, 8]), bits(&[11, 20, 26, 27, 29])];

/// What L1 may see of a leaf that the CPU has.
pub const fn masks(leaf: u32, subleaf: u32) -> Masks {
    match (leaf, subleaf) {
        (1, _) => LEAF_1,
        (6, _) => LEAF_6,
        (7, 0) => LEAF_7_0,
        (7, 1) => LEAF_7_1,
        (7, 2) => LEAF_7_2,
        (0xd, 0) => [XCR0 as u32, ALL, ALL, (XCR0 >> 32) as u32],
        (0xd, 1) => LEAF_D_1,
        (0xd, 2..=63) if (XCR0 | XSS) >> subleaf & 1 != 0 => [ALL; 4],
        // Numbers and names: caches, TLBs, topology, frequencies, MONITOR, the
        // performance counters, resource control, SGX, key locker, AMX, AVX10.
        (0 | 2..=5 | 9..=0xb | 0xf | 0x10 | 0x12 | 0x15..=0x1a | 0x1d..=0x1f | 0x23 | 0x24, _) => {
            [ALL; 4]
        }
        (0x8000_0001, _) => LEAF_80000001,
        (0x8000_0000 | 0x8000_0002..=0x8000_0006, _) => [ALL; 4],
        // Invariant TSC; address widths and WBNOINVD.
        (0x8000_0007, _) => [0, 0, 0, bits(&[8])],
        (0x8000_0008, _) => [ALL, bits(&[9]), 0, 0],
        // 14h: Intel PT, 1bh: PCONFIG, 1ch: last-branch records, 20h: HRESET, 21h: TDX.
        _ => [0; 4],
    }
}

/// The leaves of features, which a CPU may have more of than L1 is shown.
pub const FEATURES: [(u32, u32); 9] = [
    (1, 0),
    (6, 0),
    (7, 0),
    (7, 1),
    (7, 2),
    (0xd, 0),
    (0xd, 1),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_past_ept_or_has_state_of_its_own_is_not_listed() {
        for (leaf, subleaf, register, bit) in [
            (1, 0, 2, 2),
            (1, 0, 2, 4),
            (1, 0, 2, 6),
            (1, 0, 3, 21),
            (6, 0, 0, 18),
            (6, 0, 0, 19),
            (6, 0, 0, 23),
            (7, 0, 1, 25),
            (7, 0, 3, 18),
            (7, 0, 3, 19),
            (7, 1, 0, 17),
            (7, 1, 0, 20),
            (7, 1, 0, 22),
            (7, 1, 0, 27),
            (7, 1, 1, 0),
            (7, 1, 1, 1),
            (7, 1, 3, 13),
            (7, 1, 3, 21),
            (7, 2, 3, 6),
            (0xd, 0, 0, 19),
            (0xd, 1, 2, 8),
            (0xd, 1, 2, 15),
        ] {
            let shown = masks(leaf, subleaf)[register] >> bit & 1;
            assert_eq!(shown, 0, "{leaf:x}.{subleaf}, word {register}, bit {bit}");
        }
        for leaf in [
            0x14,
            0x1b,
            0x1c,
            0x20,
            0x21,
            0x22,
            0x25,
            0xffff,
            0x4000_0000,
            0x8000_0021,
        ] {
            assert_eq!(masks(leaf, 0), [0; 4], "{leaf:x}");
        }
        assert_eq!(masks(7, 3), [0; 4]);
        assert_eq!(masks(0xd, 8), [0; 4]);
        assert_eq!(masks(0xd, 64), [0; 4]);
    }

    #[test]
    fn what_every_kernel_needs_is_listed() {
        // FPU to SSE2, SSE3 to AVX, VMX; 64-bit mode; AVX2, INVPCID, SMEP and SMAP.
        for (leaf, register, bits) in [
            (1, 3, 0x0788_a979),
            (1, 2, 0x1c98_2221),
            (0x8000_0001, 3, 0x2810_0800),
            (7, 1, 0x0010_05a9),
        ] {
            assert_eq!(masks(leaf, 0)[register] & bits, bits, "{leaf:x}");
        }
    }
}

//! What the rules take from CPUID.

use proptest::prelude::*;
use umbra_vmcs::rules::{CpuFacts, CpuidLeaf};

fn leaf(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidLeaf {
    CpuidLeaf { eax, ebx, ecx, edx }
}

/// A small 64-bit CPU: nothing but SYSCALL, NX, long mode, 39 bits.
fn small(n: u32, _sub: u32) -> CpuidLeaf {
    match n {
        0 => leaf(1, 0, 0, 0),
        0x8000_0000 => leaf(0x8000_0008, 0, 0, 0),
        0x8000_0001 => leaf(0, 0, 0, 1 << 11 | 1 << 20 | 1 << 29),
        0x8000_0008 => leaf(0x3027, 0, 0, 0),
        _ => CpuidLeaf::default(),
    }
}

#[test]
fn a_small_cpu_has_nothing_more() {
    let facts = CpuFacts::from_cpuid(small, 0);
    assert_eq!(facts.physical_address_bits, 39);
    assert_eq!(facts.linear_address_bits, 48);
    assert_eq!(facts.physical_mask(), 0x7f_ffff_ffff);
    assert_eq!(facts.efer_writable, 0xd01);
    assert_eq!(facts.debugctl_writable, 3);
    assert_eq!(facts.perf_global_ctrl_writable, 0);
    assert_eq!(facts.rtit_ctl_writable, 0);
    assert_eq!(facts.s_cet_writable, 0);
    assert_eq!(facts.spec_ctrl_writable, 0);
    assert!(!facts.lam && !facts.rtm && !facts.sgx && !facts.bus_lock_detection);
}

#[test]
fn a_large_cpu_has_each_feature() {
    let facts = CpuFacts::from_cpuid(
        |n, sub| match (n, sub) {
            (0, _) => leaf(0x20, 0, 0, 0),
            (1, _) => leaf(0, 0, 1 << 4, 1 << 21),
            // SGX, RTM, PT; CET_SS, LA57, bus-lock detection; LBR, IBT, IBRS,
            // STIBP, SSBD.
            (7, 0) => leaf(
                2,
                1 << 2 | 1 << 11 | 1 << 25,
                1 << 7 | 1 << 16 | 1 << 24,
                1 << 19 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 31,
            ),
            (7, 1) => leaf(1 << 26, 0, 0, 0),
            (7, 2) => leaf(0, 0, 0, 0b1_1111),
            (0xa, _) => leaf(8 << 8 | 5, 0, 0, 4),
            (0x14, 0) => leaf(1, 0x1ff, 0xf, 0),
            (0x14, 1) => leaf(2, 0, 0, 0),
            _ => small(n, sub),
        },
        1 << 12 | 1 << 15,
    );
    assert_eq!(facts.linear_address_bits, 57);
    assert!(facts.lam && facts.rtm && facts.sgx && facts.bus_lock_detection);
    assert_eq!(facts.debugctl_writable, 0xdfc7);
    assert_eq!(facts.perf_global_ctrl_writable, 1 << 48 | 0xf << 32 | 0xff);
    assert_eq!(facts.spec_ctrl_writable, 0b101_1111_1111);
    assert_eq!(facts.s_cet_writable, !0x3c0);
    assert_eq!(facts.lbr_ctl_writable, 0x7f_000f);
    // All but the reserved bits 18, 23, 28 to 30, and the ranges 2 and 3.
    assert_eq!(facts.rtit_ctl_writable, 0x0180_00ff_8f7b_ffff);
}

#[test]
fn canonical_and_equal_upper_bits_differ_by_one_bit() {
    let facts = CpuFacts::from_cpuid(small, 0);
    for (address, canonical, upper) in [
        (0, true, true),
        (0x7fff_ffff_ffff, true, true),
        (0x8000_0000_0000, false, true),
        (0xffff_ffff_ffff, false, true),
        (0x1_0000_0000_0000, false, false),
        (0xffff_7fff_ffff_ffff, false, true),
        (0xffff_8000_0000_0000, true, true),
        (0xfffe_ffff_ffff_ffff, false, false),
        (u64::MAX, true, true),
    ] {
        assert_eq!(facts.canonical(address), canonical, "{address:#x}");
        assert_eq!(facts.upper_bits_equal(address), upper, "{address:#x}");
    }
}

#[test]
fn cr3_and_lam() {
    let mut facts = CpuFacts::from_cpuid(small, 0);
    assert!(facts.cr3_valid(0x7f_ffff_ffff));
    assert!(!facts.cr3_valid(1 << 39));
    assert!(!facts.cr3_valid(1 << 61));
    facts.lam = true;
    assert!(facts.cr3_valid(0b11 << 61));
    assert!(!facts.cr3_valid(1 << 63));
}

proptest! {
    #[test]
    fn any_cpuid_is_taken(seed in any::<u32>(), capabilities in any::<u64>()) {
        let facts = CpuFacts::from_cpuid(
            |n, sub| {
                let mix = |k: u32| (seed ^ n.rotate_left(k) ^ sub).wrapping_mul(0x9e37_79b9 + k);
                leaf(mix(1), mix(2), mix(3), mix(4))
            },
            capabilities,
        );
        prop_assert!(facts.physical_address_bits <= 52);
        prop_assert!(matches!(facts.linear_address_bits, 48 | 57));
    }
}

//! What L1 reads of CPUID: the bare CPU, less what it could not use.

use crate::cpuid_list::masks;
use umbra_arch::Cr4;
use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::Proc2;

/// The most physical-address bits that L1 is shown: a 4-level ept01 maps no more.
pub const MAX_PHYSICAL_BITS: u32 = 48;

/// Whether a leaf is of those that a hypervisor below answers, and no CPU. They
/// offer L1 to write to its memory from below, past ept01: clock pages, pages
/// with its calls in them. So L1 reads zeros there, a hypervisor of no name; the
/// MSRs that belong to them are hidden as well.
pub const fn is_of_hypervisor(leaf: u32) -> bool {
    leaf >> 28 == 4
}

/// EAX, EBX, ECX, EDX.
pub type Words = [u32; 4];

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// Changes what the CPU itself answered in L0 into what L1 is to see. `cr4` is
/// L1's.
///
/// Two bits follow L1's CR4. Hidden is what is not on the list of
/// [`cpuid_list`](crate::cpuid_list), and a feature whose VM-execution control,
/// which lets its instructions through, is missing. The CPU has the leaf.
pub fn for_l1(leaf: u32, subleaf: u32, cr4: u64, caps: &VmxCaps, words: &mut Words) {
    let hide = |words: &mut Words, register: usize, bit: u32, has: bool| {
        if !has {
            words[register] &= !(1 << bit);
        }
    };
    let mirror = |words: &mut Words, bit: u32, is_on: bool| {
        words[ECX] = words[ECX] & !(1 << bit) | u32::from(is_on) << bit;
    };
    for (word, mask) in words.iter_mut().zip(masks(leaf, subleaf)) {
        *word &= mask;
    }
    match (leaf, subleaf) {
        (1, _) => mirror(words, 27, Cr4::OSXSAVE.is_in(cr4)),
        (7, 0) => {
            // No more subleaves than are on the list.
            words[EAX] = words[EAX].min(2);
            mirror(words, 4, Cr4::PKE.is_in(cr4));
            hide(words, EBX, 10, caps.offers_proc2(Proc2::ENABLE_INVPCID));
            hide(
                words,
                ECX,
                5,
                caps.offers_proc2(Proc2::ENABLE_USER_WAIT_AND_PAUSE),
            );
        }
        (0xd, 1) => hide(
            words,
            EAX,
            3,
            caps.offers_proc2(Proc2::ENABLE_XSAVES_XRSTORS),
        ),
        (0x8000_0008, _) => {
            let bits = (words[EAX] & 0xff).min(MAX_PHYSICAL_BITS);
            words[EAX] = words[EAX] & !0xff | bits;
        }
        (0x8000_0001, _) => hide(words, EDX, 27, caps.offers_proc2(Proc2::ENABLE_RDTSCP)),
        _ => {}
    }
}

/// The leaf that the CPU answers for `leaf`, by the highest basic and extended ones
/// that it has: one beyond them reads as the highest basic one.
pub const fn answered(leaf: u32, most_basic: u32, most_extended: u32) -> u32 {
    match leaf {
        0x8000_0000.. if leaf <= most_extended => leaf,
        _ if leaf <= most_basic => leaf,
        _ => most_basic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_vmcs::caps::Allowed;

    fn with(proc2: Proc2) -> VmxCaps {
        let mut caps = VmxCaps {
            proc_plain: Allowed(1 << 63),
            ..VmxCaps::default()
        };
        caps.proc2 = Allowed(u64::from(proc2.bits()) << 32);
        caps
    }

    #[test]
    fn osxsave_and_ospke_follow_l1() {
        let caps = with(Proc2::all());
        let mut words = [0, 0, 1 << 27, 0];
        for_l1(1, 0, 0, &caps, &mut words);
        assert_eq!(words[ECX], 0);
        for_l1(1, 7, Cr4::OSXSAVE.bits(), &caps, &mut words);
        assert_eq!(words[ECX], 1 << 27);
        let mut words = [0; 4];
        for_l1(7, 0, Cr4::PKE.bits(), &caps, &mut words);
        assert_eq!(words[ECX], 1 << 4);
        // Other subleaves have no such bit.
        let mut words = [0; 4];
        for_l1(7, 1, Cr4::PKE.bits(), &caps, &mut words);
        assert_eq!(words, [0; 4]);
    }

    #[test]
    fn a_feature_without_its_control_is_hidden() {
        for (leaf, subleaf, register, bit, control) in [
            (7, 0, EBX, 10, Proc2::ENABLE_INVPCID),
            (7, 0, ECX, 5, Proc2::ENABLE_USER_WAIT_AND_PAUSE),
            (0xd, 1, EAX, 3, Proc2::ENABLE_XSAVES_XRSTORS),
            (0x8000_0001, 0, EDX, 27, Proc2::ENABLE_RDTSCP),
        ] {
            let mut words = [u32::MAX; 4];
            for_l1(leaf, subleaf, 0, &with(Proc2::all()), &mut words);
            assert!(words[register] & 1 << bit != 0, "{leaf:#x} with");
            let mut words = [u32::MAX; 4];
            for_l1(leaf, subleaf, 0, &with(Proc2::all() - control), &mut words);
            assert!(words[register] & 1 << bit == 0, "{leaf:#x} without");
        }
    }

    #[test]
    fn what_l0_cannot_let_l1_have_is_hidden() {
        let caps = with(Proc2::all());
        for (leaf, subleaf, register, bit) in [
            (1, 0, ECX, 2),
            (1, 0, ECX, 4),
            (1, 0, ECX, 6),
            (1, 0, EDX, 21),
            (6, 0, EAX, 19),
            (6, 0, EAX, 23),
            (7, 0, EBX, 25),
            (7, 1, EAX, 17),
        ] {
            let mut words = [u32::MAX; 4];
            for_l1(leaf, subleaf, u64::MAX, &caps, &mut words);
            assert!(words[register] & 1 << bit == 0, "{leaf:#x} bit {bit}");
        }
    }

    #[test]
    fn l1_has_no_addresses_that_ept01_cannot_map() {
        let caps = with(Proc2::all());
        for (bits, shown) in [(36, 36), (48, 48), (52, 48)] {
            let mut words = [0x3900 | bits, 1 << 9, 2, 3];
            for_l1(0x8000_0008, 0, 0, &caps, &mut words);
            assert_eq!(words, [0x3900 | shown, 1 << 9, 0, 0]);
        }
    }

    #[test]
    fn a_hypervisors_leaves_begin_with_a_four() {
        for leaf in [0x4000_0000, 0x4000_0001, 0x4000_00ff, 0x4fff_ffff] {
            assert!(is_of_hypervisor(leaf), "{leaf:#x}");
        }
        for leaf in [0, 0xd, 0x3fff_ffff, 0x5000_0000, 0x8000_0001, 0xc000_0000] {
            assert!(!is_of_hypervisor(leaf), "{leaf:#x}");
        }
    }

    #[test]
    fn a_leaf_is_the_cpus_own_if_it_is_on_the_list() {
        for (leaf, seen) in [(4, [1, 2, 3, 4]), (0x22, [0; 4]), (0x4000_0000, [0; 4])] {
            let mut words = [1, 2, 3, 4];
            for_l1(leaf, 0, u64::MAX, &with(Proc2::empty()), &mut words);
            assert_eq!(words, seen, "{leaf:#x}");
        }
    }

    #[test]
    fn beyond_what_there_is_stands_the_highest_basic_leaf() {
        for (leaf, read) in [
            (0xd, 0xd),
            (0x16, 0x16),
            (0x17, 0x16),
            (0x4000_0000, 0x16),
            (0x8000_0008, 0x8000_0008),
            (0x8000_0009, 0x16),
            (0xc000_0000, 0x16),
        ] {
            assert_eq!(answered(leaf, 0x16, 0x8000_0008), read, "{leaf:#x}");
        }
    }
}

//! What L1 reads of CPUID: the bare CPU, less what it could not use.

use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::Proc2;

/// The most physical-address bits that L1 is shown: a 4-level ept01 maps no more.
pub const MAX_PHYSICAL_BITS: u32 = 48;

/// CPUID.1:ECX bit 31: a hypervisor is below, and answers leaves of its own.
pub const CPUID_HYPERVISOR: u32 = 1 << 31;

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

const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

/// Changes what the CPU itself answered in L0 into what L1 is to see. `cr4` is
/// L1's.
///
/// Two bits follow L1's CR4. A feature is hidden when L1 could not use it
/// because the VM-execution control that lets its instructions through is
/// missing, or because it would write to physical addresses that EPT does not
/// check (Intel PT, hardware feedback) or to linear ones that may be L0's (the
/// debug store), or because no guest can have it (SMX), or because L0 does not
/// switch its state (FRED).
pub fn for_l1(leaf: u32, subleaf: u32, cr4: u64, caps: &VmxCaps, words: &mut Words) {
    let hide = |words: &mut Words, register: usize, bit: u32, has: bool| {
        if !has {
            words[register] &= !(1 << bit);
        }
    };
    let mirror = |words: &mut Words, bit: u32, is_on: bool| {
        words[ECX] = words[ECX] & !(1 << bit) | u32::from(is_on) << bit;
    };
    match (leaf, subleaf) {
        (1, _) => {
            mirror(words, 27, cr4 & CR4_OSXSAVE != 0);
            // DTES64, DS-CPL and DS: the debug store.
            hide(words, ECX, 2, false);
            hide(words, ECX, 4, false);
            hide(words, EDX, 21, false);
            hide(words, ECX, 6, false);
        }
        (6, _) => {
            // The hardware-feedback interface and the thread director.
            hide(words, EAX, 19, false);
            hide(words, EAX, 23, false);
        }
        (7, 0) => {
            mirror(words, 4, cr4 & CR4_PKE != 0);
            hide(words, EBX, 10, caps.offers_proc2(Proc2::ENABLE_INVPCID));
            hide(words, EBX, 25, false);
            hide(
                words,
                ECX,
                5,
                caps.offers_proc2(Proc2::ENABLE_USER_WAIT_AND_PAUSE),
            );
            hide(words, EDX, 18, false);
            // Last-branch records, which go on in L0.
            hide(words, EDX, 19, false);
        }
        // FRED: its events carry data that injection would have to supply.
        (7, 1) => hide(words, EAX, 17, false),
        (0xd, 1) => hide(
            words,
            EAX,
            3,
            caps.offers_proc2(Proc2::ENABLE_XSAVES_XRSTORS),
        ),
        (0x14 | 0x1c, _) => *words = [0; 4],
        (0x8000_0008, _) => {
            let bits = (words[EAX] & 0xff).min(MAX_PHYSICAL_BITS);
            words[EAX] = words[EAX] & !0xff | bits;
        }
        (0x8000_0001, _) => hide(words, EDX, 27, caps.offers_proc2(Proc2::ENABLE_RDTSCP)),
        _ => {}
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
        for_l1(1, 7, CR4_OSXSAVE, &caps, &mut words);
        assert_eq!(words[ECX], 1 << 27);
        let mut words = [0; 4];
        for_l1(7, 0, CR4_PKE, &caps, &mut words);
        assert_eq!(words[ECX], 1 << 4);
        // Other subleaves have no such bit.
        let mut words = [0; 4];
        for_l1(7, 1, CR4_PKE, &caps, &mut words);
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
            let mut words = [0x3900 | bits, 1, 2, 3];
            for_l1(0x8000_0008, 0, 0, &caps, &mut words);
            assert_eq!(words, [0x3900 | shown, 1, 2, 3]);
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
    fn other_leaves_are_the_cpus_own() {
        let mut words = [1, 2, 3, 4];
        for_l1(0x4000_0000, 0, u64::MAX, &with(Proc2::empty()), &mut words);
        assert_eq!(words, [1, 2, 3, 4]);
    }
}

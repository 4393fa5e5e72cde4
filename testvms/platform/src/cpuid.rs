//! CPUID, every leaf, less what Umbra documents to hide.

use rt::case;
use rt::cpu::{self, cpuid};

const OSXSAVE: u64 = 1 << 18;
const PKE: u64 = 1 << 22;

/// Bits that are not compared: features that an L1 does not get. Leaf, register (0 for EAX), bits.
const HIDDEN: [(u32, usize, u32); 5] = [
    // SMX; the debug store: DTES64, DS-CPL, DS.
    (1, 2, 1 << 6 | 1 << 2 | 1 << 4),
    (1, 3, 1 << 21),
    // The hardware-feedback interface, the thread director.
    (6, 0, 1 << 19 | 1 << 23),
    // Intel PT.
    (7, 1, 1 << 25),
    // PCONFIG.
    (7, 3, 1 << 18),
];

fn show(leaf: u32, subleaf: u32) {
    let found = cpuid(leaf, subleaf);
    let mut words = [found.eax, found.ebx, found.ecx, found.edx];
    for (_, register, bits) in HIDDEN.iter().filter(|(of, _, _)| *of == leaf) {
        if let Some(word) = words.get_mut(*register) {
            *word &= !bits;
        }
    }
    let [a, b, c, d] = words;
    case!("cpuid {leaf:x}.{subleaf:x}: {a:08x} {b:08x} {c:08x} {d:08x}");
}

/// Prints all leaves, and the two bits that follow CR4.
pub fn run() {
    for (leaf, register, bits) in HIDDEN {
        case!(
            "cpuid {leaf:x} not compared: {} bits {bits:x}",
            ["EAX", "EBX", "ECX", "EDX"][register]
        );
    }
    for base in [0, 0x8000_0000] {
        // One more than there are: Intel answers as for the highest basic leaf.
        for leaf in base..=cpuid(base, 0).eax + 1 {
            let subleaves = match leaf {
                // Intel PT.
                0x14 => continue,
                4 | 7 | 0xb | 0xf | 0x10 | 0x12 | 0x17 | 0x18 | 0x1f => 4,
                0xd => 10,
                _ => 1,
            };
            for subleaf in 0..subleaves {
                show(leaf, subleaf);
            }
        }
    }
    for leaf in [0x4000_0000, 0x4000_0001, 0x4fff_ffff, 0xc000_0000, u32::MAX] {
        show(leaf, 0);
    }
    let has_xsave = cpuid(1, 0).ecx & 1 << 26 != 0;
    let has_pku = cpuid(7, 0).ecx & 1 << 3 != 0;
    for (name, has, bit, leaf, mask) in [
        ("OSXSAVE", has_xsave, OSXSAVE, 1, 1 << 27),
        ("OSPKE", has_pku, PKE, 7, 1 << 4),
    ] {
        if !has {
            case!("cpuid {name}: not offered");
            continue;
        }
        let before = cpu::cr4();
        for value in [before | bit, before & !bit] {
            // SAFETY: neither bit changes what the running code may do.
            unsafe { cpu::set_cr4(value) };
            let seen = cpuid(leaf, 0).ecx & mask != 0;
            case!("cpuid {name} with CR4 bit {}: {seen}", value & bit != 0);
        }
        // SAFETY: as it was.
        unsafe { cpu::set_cr4(before) };
    }
}

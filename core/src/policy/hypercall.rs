//! Calls of Umbra's own: VMCALL with EAX in a range of 256 numbers, by default from
//! [`DEFAULT_BASE`] on, from L1 and from L2, and CPUID with such a leaf from L1. Every
//! other VMCALL goes to whom the SDM says: to L1, when L2 executes it.
//!
//! | EAX - base | EAX | EBX | ECX | EDX |
//! |---|---|---|---|---|
//! | 0 | [`SIGNATURE`] | version: major << 16, minor << 8, patch | the last number that there is | the caller's level, 1 or 2 |
//! | 1 | [`Capabilities`] | VMCSs of L1 at hand on each CPU | CPUs | EPT pointers with tables of their own on each CPU |
//! | 2 | the [ledger](crate::ledger_leaf), as ECX asks; zeros unless L1's kernel asks it and it is kept | | | |
//! | 3 | 0: done. VMCALL of L1's kernel: ECX 0 forbids L2 these calls, 1 allows them again | | | |
//! | from [`FIRST_OF_HYPAPP`] on | what the hypapp says, if one is built in | | | |
//!
//! Any other number of the range, and a call that its caller may not make, answers
//! [`REFUSED`] and zeros. All but the four registers stay.

use crate::cpuid::Words;
use crate::ledger_leaf::Level;
use bitflags::bitflags;

/// Where the range begins unless the command line says otherwise.
pub const DEFAULT_BASE: u32 = 0x4c41_5000;
/// Of the answer to 0: "UMBR".
pub const SIGNATURE: u32 = u32::from_le_bytes(*b"UMBR");
/// EAX of an answer to what is no call.
pub const REFUSED: u32 = u32::MAX;
/// Numbers in the range.
const NUMBERS: u32 = 0x100;
const LAST: u32 = 3;
/// Of the range, the numbers from here on are the hypapp's.
pub const FIRST_OF_HYPAPP: u32 = 0x40;

bitflags! {
    /// EAX of the answer to 1: what L1 is offered, and what Umbra does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u32 {
        /// L1 may use EPT.
        const EPT = 1 << 0;
        /// L1 may use VPIDs.
        const VPID = 1 << 1;
        /// L1 may use VMCS shadowing.
        const VMCS_SHADOWING = 1 << 2;
        /// L1's VMREADs and VMWRITEs go without an exit where they can.
        const LENDS_VMCS = 1 << 3;
        /// The ledger is kept, and L1's kernel may read it.
        const LEDGER = 1 << 4;
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Who is there.
    Version,
    /// What it can do.
    Capabilities,
    /// The ledger.
    Ledger {
        /// What of it: ECX.
        subleaf: u32,
    },
    /// Whether L2 may call.
    AllowL2(bool),
    /// Something of the hypapp's.
    Hypapp {
        /// Its own number, from 0 on.
        number: u32,
    },
    /// No call, or not this caller's.
    Refused,
}

/// Who calls, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The level.
    pub level: Level,
    /// At privilege level 0.
    pub is_kernel: bool,
    /// By VMCALL; else by CPUID, which changes nothing.
    pub by_vmcall: bool,
}

/// Whether EAX is a number of the range; `base` is `None` where there is none.
#[inline]
pub const fn is_in_range(base: Option<u32>, eax: u32) -> bool {
    match base {
        Some(base) => eax.wrapping_sub(base) < NUMBERS,
        None => false,
    }
}

/// The call that `number`, EAX less the base, and ECX name.
pub const fn call(number: u32, ecx: u32, caller: Caller) -> Call {
    let is_l1s_kernel = matches!(caller.level, Level::L1) && caller.is_kernel;
    match number {
        0 => Call::Version,
        1 => Call::Capabilities,
        2 if is_l1s_kernel => Call::Ledger { subleaf: ecx },
        3 if is_l1s_kernel && caller.by_vmcall && ecx <= 1 => Call::AllowL2(ecx == 1),
        FIRST_OF_HYPAPP..NUMBERS => Call::Hypapp {
            number: number - FIRST_OF_HYPAPP,
        },
        _ => Call::Refused,
    }
}

/// The answer to [`Call::Version`].
pub const fn version(level: Level) -> Words {
    const fn number(text: &str) -> u32 {
        let (bytes, mut at, mut value) = (text.as_bytes(), 0, 0);
        while at < bytes.len() {
            value = value * 10 + (bytes[at] - b'0') as u32;
            at += 1;
        }
        value
    }
    const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | number(env!("CARGO_PKG_VERSION_PATCH"));
    [SIGNATURE, VERSION, LAST, level as u32 + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Caller = Caller {
        level: Level::L1,
        is_kernel: true,
        by_vmcall: true,
    };

    #[test]
    fn the_range_has_256_numbers() {
        let base = Some(DEFAULT_BASE);
        for (eax, is_in) in [
            (DEFAULT_BASE - 1, false),
            (DEFAULT_BASE, true),
            (DEFAULT_BASE + 0xff, true),
            (DEFAULT_BASE + 0x100, false),
            (0, false),
        ] {
            assert_eq!(is_in_range(base, eax), is_in, "{eax:#x}");
            assert!(!is_in_range(None, eax));
        }
    }

    #[test]
    fn what_changes_or_tells_something_is_for_l1s_kernel() {
        assert_eq!(call(2, 7, KERNEL), Call::Ledger { subleaf: 7 });
        assert_eq!(call(3, 0, KERNEL), Call::AllowL2(false));
        assert_eq!(call(3, 1, KERNEL), Call::AllowL2(true));
        assert_eq!(call(3, 2, KERNEL), Call::Refused);
        let others = [
            Caller {
                level: Level::L2,
                ..KERNEL
            },
            Caller {
                is_kernel: false,
                ..KERNEL
            },
        ];
        for caller in others {
            assert_eq!(call(0, 0, caller), Call::Version);
            assert_eq!(call(1, 0, caller), Call::Capabilities);
            for number in 2..FIRST_OF_HYPAPP {
                assert_eq!(call(number, 0, caller), Call::Refused, "{number}");
            }
        }
        let by_cpuid = Caller {
            by_vmcall: false,
            ..KERNEL
        };
        assert_eq!(call(3, 0, by_cpuid), Call::Refused);
    }

    #[test]
    fn the_last_192_numbers_are_the_hypapps() {
        let number = |number| call(number, 0, KERNEL);
        assert_eq!(number(0x3f), Call::Refused);
        assert_eq!(number(0x40), Call::Hypapp { number: 0 });
        assert_eq!(number(0xff), Call::Hypapp { number: 0xbf });
        assert_eq!(number(0x100), Call::Refused);
    }

    #[test]
    fn the_version_is_that_of_the_package() {
        let [signature, version, last, level] = version(Level::L2);
        assert_eq!(&signature.to_le_bytes(), b"UMBR");
        let shown = std::format!(
            "{}.{}.{}",
            version >> 16,
            version >> 8 & 0xff,
            version & 0xff
        );
        assert_eq!(shown, env!("CARGO_PKG_VERSION"));
        assert_eq!((last, level), (3, 2));
    }
}

//! The operands of L1's INVEPT and INVVPID.

mod common;

use common::{CAPS, table_pages};
use umbra_arch::EptVpidCap as Cap;
use umbra_arch::Linear;
use umbra_ept::eptp::{Eptp, OwnEptp};
use umbra_ept::invalidate::{
    InvalidOperand, Invalidate, InveptScope, InvvpidScope, check_invept, check_invvpid,
};

const ALL: u64 = Cap::INVEPT_SINGLE.bits() | Cap::INVEPT_ALL.bits() | 0xf << 40;

#[test]
fn invept() {
    let check = |kind, d, cap| check_invept(kind, d, cap, &CAPS);
    let good = 0x1234_501e;
    let single = InveptScope::Single(Eptp::new(good, &CAPS).unwrap());
    assert_eq!(check(1, [good, 0], ALL), Ok(single));
    assert_eq!(check(2, [!0, !0], ALL), Ok(InveptScope::All));
    assert_eq!(check(1, [good, 1], ALL), Ok(single));
    for bad in [
        0,
        0x1234_501f,
        0x1234_511e,
        1 << 40 | 0x1e,
        0x1234_5016,
        1 << 63 | 0x1e,
    ] {
        assert_eq!(check(1, [bad, 0], ALL), Err(InvalidOperand), "{bad:#x}");
    }
    for kind in [0, 3, 4, 1 << 32 | 1, u64::MAX] {
        assert_eq!(check(kind, [good, 0], ALL), Err(InvalidOperand));
    }
    assert_eq!(
        check(1, [good, 0], ALL & !Cap::INVEPT_SINGLE.bits()),
        Err(InvalidOperand)
    );
    assert_eq!(
        check(2, [good, 0], ALL & !Cap::INVEPT_ALL.bits()),
        Err(InvalidOperand)
    );
}

#[test]
fn invvpid() {
    let check = |kind, d| check_invvpid(kind, d, ALL, 48);
    let linear = 0xffff_8000_0000_1000;
    assert_eq!(
        check(0, [7, linear]),
        Ok(InvvpidScope::Address {
            vpid: 7,
            linear: Linear::new(linear)
        })
    );
    assert_eq!(check(1, [7, 1 << 50]), Ok(InvvpidScope::Single { vpid: 7 }));
    assert_eq!(check(2, [0, 1 << 50]), Ok(InvvpidScope::All));
    assert_eq!(
        check(3, [0xffff, 0]),
        Ok(InvvpidScope::RetainGlobals { vpid: 0xffff })
    );
    for kind in 0..4 {
        // Reserved bits of the descriptor, for every type.
        assert_eq!(check(kind, [1 << 16 | 7, 0]), Err(InvalidOperand));
        assert_eq!(check(kind, [1 << 63 | 7, 0]), Err(InvalidOperand));
        assert_eq!(check(kind, [0, 0]).is_ok(), kind == 2);
        // Each type is a capability of its own.
        assert!(check_invvpid(kind, [7, 0], 1 << (40 + kind), 48).is_ok());
        assert!(check_invvpid(kind, [7, 0], ALL & !(1 << (40 + kind)), 48).is_err());
    }
    assert_eq!(check(4, [7, 0]), Err(InvalidOperand));
    assert_eq!(check(u64::MAX, [7, 0]), Err(InvalidOperand));
    for (linear, bits, ok) in [
        (0x7fff_ffff_ffff, 48, true),
        (0x8000_0000_0000, 48, false),
        (0x8000_0000_0000, 57, true),
        (0xff00_0000_0000_0000, 57, true),
        (0xff00_0000_0000_0000, 48, false),
        (0x0100_0000_0000_0000, 57, false),
    ] {
        assert_eq!(
            check_invvpid(0, [7, linear], ALL, bits).is_ok(),
            ok,
            "{linear:#x}"
        );
    }
}

#[test]
fn what_covers_two() {
    let pages = table_pages(0x1000, 2);
    let [a, b] = [0, 1].map(|n| OwnEptp::new(pages.get(n).expect("a page"), false));
    let (none, all) = (Invalidate::None, Invalidate::All);
    let (sa, sb) = (Invalidate::Single(a), Invalidate::Single(b));
    for (x, y, both) in [
        (none, none, none),
        (none, sa, sa),
        (sa, none, sa),
        (sa, sa, sa),
        (sa, sb, all),
        (all, sa, all),
        (sb, all, all),
        (none, all, all),
    ] {
        assert_eq!(x.and(y), both);
    }
}

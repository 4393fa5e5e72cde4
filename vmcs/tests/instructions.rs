//! The VMX instructions' rows about registers, against the SDM's pseudo-code
//! told another way; and what a table has to be like.

use std::collections::BTreeSet;

use proptest::prelude::*;
use umbra_vmcs::InsnError;
use umbra_vmcs::rules::cases::Bench;
use umbra_vmcs::rules::instructions::{
    ALL, INVEPT, INVVPID, InsnAnswer, Registers, VMCALL, VMCLEAR, VMFUNC, VMLAUNCH, VMPTRLD,
    VMPTRST, VMREAD, VMRESUME, VMWRITE, VMXOFF, VMXON, VmxOperation, first_broken, invept_type_ok,
    invvpid_type_ok,
};

/// L1 in 64-bit mode at CPL 0 with VMX allowed.
fn long_mode() -> Registers {
    Registers {
        cr0: 0x8001_0033,
        cr4: 0x2020,
        rflags: 2,
        efer: 0xd01,
        cs_l: true,
        cpl: 0,
        feature_control: 0b101,
        smx: false,
        a20_masked: false,
        vmx: VmxOperation::Root,
    }
}

fn answer(
    table: &'static [&'static umbra_vmcs::rules::instructions::InsnRule],
    registers: &Registers,
) -> Option<InsnAnswer> {
    first_broken(table, registers, &Bench::new().caps).map(|rule| rule.answer)
}

#[test]
fn ids_are_unique_and_begin_with_the_instruction() {
    let mut seen = BTreeSet::new();
    for table in ALL {
        for rule in *table {
            assert!(seen.insert(rule.id), "two rules {}", rule.id);
            let name = rule.id.split('.').next().unwrap().to_uppercase();
            assert!(rule.instruction.contains(&name), "{}", rule.id);
        }
    }
}

#[test]
fn faults_stand_before_failures() {
    for table in ALL {
        let last_fault = table.iter().rposition(|rule| {
            matches!(
                rule.answer,
                InsnAnswer::InvalidOpcode | InsnAnswer::GeneralProtection
            )
        });
        let first_failure = table.iter().position(|rule| {
            matches!(rule.answer, InsnAnswer::FailInvalid | InsnAnswer::Fail(_))
                && rule.id != "vmxon.in-root"
        });
        if let (Some(fault), Some(failure)) = (last_fault, first_failure) {
            assert!(fault < failure, "{}", table[failure].id);
        }
    }
}

#[test]
fn rows_about_registers_stand_before_operands_and_pointers() {
    let registers = long_mode();
    let caps = Bench::new().caps;
    for table in ALL {
        let mut beyond = false;
        for rule in *table {
            let about_registers = rule.holds(&registers, &caps).is_some();
            let form = rule.id.ends_with(".form") || rule.id.ends_with(".non-root");
            if !about_registers && !form {
                beyond = true;
            }
            assert!(!(beyond && about_registers), "{}", rule.id);
        }
    }
}

#[test]
fn in_root_operation_nothing_is_broken() {
    for table in ALL {
        let broken = answer(table, &long_mode());
        let expected = if std::ptr::eq(*table, VMXON) {
            Some(InsnAnswer::Fail(InsnError::VmxonInRoot))
        } else if std::ptr::eq(*table, VMFUNC) {
            Some(InsnAnswer::InvalidOpcode)
        } else {
            None
        };
        assert_eq!(broken, expected, "{}", table[0].id);
    }
}

#[test]
fn vmxon_outside_vmx_operation() {
    let off = Registers {
        vmx: VmxOperation::Off,
        ..long_mode()
    };
    assert_eq!(answer(VMXON, &off), None);
    let gp = Some(InsnAnswer::GeneralProtection);
    let ud = Some(InsnAnswer::InvalidOpcode);
    type Case = (&'static str, fn(&mut Registers), Option<InsnAnswer>);
    let cases: [Case; 18] = [
        ("CPL 3", |r| r.cpl = 3, gp),
        ("CPL 1", |r| r.cpl = 1, gp),
        ("A20M", |r| r.a20_masked = true, gp),
        ("not locked", |r| r.feature_control = 0b100, gp),
        ("not enabled", |r| r.feature_control = 0b001, gp),
        (
            "enabled inside SMX alone",
            |r| r.feature_control = 0b011,
            gp,
        ),
        ("enabled outside SMX alone, in SMX", |r| r.smx = true, gp),
        (
            "enabled inside SMX, in SMX",
            |r| {
                r.smx = true;
                r.feature_control = 0b011;
            },
            None,
        ),
        ("CR0.NE 0", |r| r.cr0 &= !(1 << 5), gp),
        ("CR0.PG 0", |r| r.cr0 &= !(1 << 31), gp),
        ("CR0.CD and NW 1", |r| r.cr0 |= 0b11 << 29, None),
        ("CR4 bit 15", |r| r.cr4 |= 1 << 15, gp),
        ("CR4.VMXE 0", |r| r.cr4 &= !(1 << 13), ud),
        ("CR0.PE 0", |r| r.cr0 &= !1, ud),
        ("RFLAGS.VM 1", |r| r.rflags |= 1 << 17, ud),
        ("compatibility mode", |r| r.cs_l = false, ud),
        (
            "protected mode",
            |r| {
                r.efer = 0;
                r.cs_l = false;
            },
            None,
        ),
        (
            "#UD before #GP",
            |r| {
                r.cpl = 3;
                r.cs_l = false;
            },
            ud,
        ),
    ];
    for (name, change, expected) in cases {
        let mut registers = off;
        change(&mut registers);
        assert_eq!(answer(VMXON, &registers), expected, "{name}");
    }
}

#[test]
fn vmxon_in_root_operation_wants_cpl_0_and_no_more() {
    let mut registers = long_mode();
    registers.feature_control = 0;
    let fail = Some(InsnAnswer::Fail(InsnError::VmxonInRoot));
    assert_eq!(answer(VMXON, &registers), fail);
    registers.cpl = 3;
    let gp = Some(InsnAnswer::GeneralProtection);
    assert_eq!(answer(VMXON, &registers), gp);
}

#[test]
fn invalidation_types_are_those_offered() {
    let mut caps = Bench::new().caps;
    let invept: Vec<_> = (0..5).filter(|t| invept_type_ok(*t, &caps)).collect();
    assert_eq!(invept, [1, 2]);
    let invvpid: Vec<_> = (0..6).filter(|t| invvpid_type_ok(*t, &caps)).collect();
    assert_eq!(invvpid, [0, 1, 2, 3]);
    assert!(!invept_type_ok(1 << 32 | 1, &caps));
    assert!(!invvpid_type_ok(u64::MAX, &caps));
    caps.ept_vpid &= !(1 << 25 | 1 << 43);
    assert!(!invept_type_ok(1, &caps));
    assert!(!invvpid_type_ok(3, &caps));
}

#[test]
fn a_cpu_without_invept_has_no_such_instruction() {
    let mut caps = Bench::new().caps;
    caps.ept_vpid &= !(1 << 20 | 1 << 32);
    for table in [INVEPT, INVVPID] {
        // Before the privilege level, before the VM exit.
        let registers = Registers {
            cpl: 3,
            vmx: VmxOperation::NonRoot,
            ..long_mode()
        };
        let rule = first_broken(table, &registers, &caps).unwrap();
        assert!(rule.id.ends_with(".support"), "{}", rule.id);
    }
}

proptest! {
    /// The mode, privilege and operation of any registers.
    #[test]
    fn the_common_conditions(
        pe in any::<bool>(), vm in any::<bool>(), lma in any::<bool>(), cs_l in any::<bool>(),
        cpl in 0..4u8, operation in 0..3u8,
    ) {
        let mut r = long_mode();
        r.cr0 = r.cr0 & !1 | u64::from(pe);
        r.rflags |= u64::from(vm) << 17;
        r.efer = u64::from(lma) << 10;
        r.cs_l = cs_l;
        r.cpl = cpl;
        r.vmx = match operation {
            0 => VmxOperation::Off,
            1 => VmxOperation::Root,
            _ => VmxOperation::NonRoot,
        };
        let mode = pe && !vm && (!lma || cs_l);
        let expected = if r.vmx == VmxOperation::Off || !mode {
            Some(InsnAnswer::InvalidOpcode)
        } else if r.vmx == VmxOperation::NonRoot {
            Some(InsnAnswer::VmExit)
        } else if cpl != 0 {
            Some(InsnAnswer::GeneralProtection)
        } else {
            None
        };
        for table in [
            VMXOFF, VMCLEAR, VMPTRLD, VMPTRST, VMLAUNCH, VMRESUME, INVEPT, INVVPID,
        ] {
            prop_assert_eq!(answer(table, &r), expected, "{}", table[0].id);
        }
        // VMCS shadowing decides on the VM exit of these two.
        if r.vmx != VmxOperation::NonRoot {
            prop_assert_eq!(answer(VMREAD, &r), expected);
            prop_assert_eq!(answer(VMWRITE, &r), expected);
        }
        // VMCALL exits from any mode, and CR0.PE does not count.
        let vmcall = match r.vmx {
            VmxOperation::Off => Some(InsnAnswer::InvalidOpcode),
            VmxOperation::NonRoot => Some(InsnAnswer::VmExit),
            VmxOperation::Root if vm || lma && !cs_l => Some(InsnAnswer::InvalidOpcode),
            VmxOperation::Root if cpl != 0 => Some(InsnAnswer::GeneralProtection),
            VmxOperation::Root => None,
        };
        prop_assert_eq!(answer(VMCALL, &r), vmcall);
        // VMFUNC is for guests, of every mode and level.
        let vmfunc = (r.vmx != VmxOperation::NonRoot).then_some(InsnAnswer::InvalidOpcode);
        prop_assert_eq!(answer(VMFUNC, &r), vmfunc);
    }
}

//! The memory operands of L1's instructions, behind L1's own paging.

mod model;

use model::*;
use umbra_arch::msr::IA32_PKRS;
use umbra_arch::{Cr0, Cr3, Cr4, Exception, Gpa1, Linear};
use umbra_nested::paging::{Access, Paging, Walked};
use umbra_nested::{Done, Refusal};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

const PKE: u64 = Cr4::PKE.bits();
const PKS: u64 = Cr4::PKS.bits();
const LAM_SUP: u64 = Cr4::LAM_SUP.bits();
const LAM_U48: u64 = Cr3::LAM_U48.bits();
/// The PDPTE that maps all of the model's memory: present, writable, large.
const PDPTE: u64 = 0x11000;
const MAPS: u64 = 0x83;
const USER: u64 = 1 << 2;

fn translate(hw: &mut Machine, linear: u64, access: Access) -> Result<u64, Refusal> {
    Paging::of_l1(hw, 40, true)
        .translate(hw, &mut Walked::new(), Linear::new(linear), access)
        .map(Gpa1::raw)
}

/// An entry that another CPU never leaves alone keeps no CPU of L0: L1 executes the instruction
/// again, and nothing of it has happened.
#[test]
fn a_contested_entry_sends_l1_back() {
    let (mut hw, mut nested) = with_valid_vmcs();
    hw.poke(PDPTE, &MAPS.to_le_bytes());
    hw.is_contested = true;
    hw.memory_operand(0);
    hw.gprs[0] = field::GUEST_RIP.encoding().into();
    hw.write(field::GUEST_RFLAGS, 2);
    let before = hw.memory.borrow().clone();
    for reason in [
        Reason::Vmptrld,
        Reason::Vmclear,
        Reason::Vmptrst,
        Reason::Vmread,
        Reason::Vmwrite,
    ] {
        assert_eq!(
            nested.instruction(&mut hw, reason),
            Done::Again,
            "{reason:?}"
        );
        assert_eq!(hw.read(field::GUEST_RFLAGS), 2, "{reason:?}");
    }
    assert!(before == *hw.memory.borrow());

    hw.is_contested = false;
    assert_eq!(nested.instruction(&mut hw, Reason::Vmptrst), Done::Next);
    assert_eq!(
        hw.memory.borrow()[OPERAND as usize..][..8],
        VMCS_REGION.to_le_bytes()
    );
}

/// In each kind of paging.
#[test]
fn a_contested_walk_ends() {
    let mut hw = Machine::new();
    hw.is_contested = true;
    assert_eq!(
        translate(&mut hw, 0x1000, Access::READ),
        Err(Refusal::Again)
    );

    // 32-bit paging, a large page and a small one.
    hw.write(field::GUEST_IA32_EFER, 0);
    hw.write(field::GUEST_CR4, 0x2010);
    hw.poke(0x10000, &0x83_u32.to_le_bytes());
    assert_eq!(
        translate(&mut hw, 0x1000, Access::READ),
        Err(Refusal::Again)
    );
    hw.poke(0x10000, &0x11023_u32.to_le_bytes());
    hw.poke(0x11004, &0x5003_u32.to_le_bytes());
    assert_eq!(
        translate(&mut hw, 0x1234, Access::READ),
        Err(Refusal::Again)
    );
    hw.is_contested = false;
    assert_eq!(translate(&mut hw, 0x1234, Access::WRITE), Ok(0x5234));
    let flags = hw.memory.borrow()[0x11004];
    assert_eq!(flags, 0x63, "accessed and dirty");
    hw.poke(0x10000, &0x40_0083_u32.to_le_bytes());
    assert_eq!(translate(&mut hw, 0x1234, Access::WRITE), Ok(0x40_1234));

    // PAE paging.
    hw.write(field::GUEST_CR4, 0x2020);
    hw.write(field::GUEST_PDPTE0, 0x10001);
    hw.poke(0x10000, &0x83_u64.to_le_bytes());
    hw.is_contested = true;
    assert_eq!(
        translate(&mut hw, 0x1000, Access::READ),
        Err(Refusal::Again)
    );
    hw.is_contested = false;
    assert_eq!(translate(&mut hw, 0x1000, Access::READ), Ok(0x1000));
}

/// IA32_PKRS governs the pages that user code cannot reach, PKRU the others.
#[test]
fn protection_keys_follow_the_sdm() {
    const KEY: u64 = 5;
    const NO_ACCESS: u64 = 1 << (2 * KEY);
    const NO_WRITE: u64 = 2 << (2 * KEY);
    let with_wp = 0x8000_0033 | Cr0::WP.bits();
    let without_wp = 0x8000_0033;
    // CR4, CR0, is it a user page, IA32_PKRS, PKRU, may be read, may be written
    for (cr4, cr0, is_user, pkrs, pkru, reads, writes) in [
        (0, with_wp, false, NO_ACCESS, NO_ACCESS, true, true),
        (PKS, with_wp, false, 0, NO_ACCESS, true, true),
        (PKS, with_wp, false, NO_ACCESS, 0, false, false),
        (PKS, without_wp, false, NO_ACCESS, 0, false, false),
        (PKS, with_wp, false, NO_WRITE, 0, true, false),
        (PKS, without_wp, false, NO_WRITE, 0, true, true),
        (PKS, with_wp, false, !(3 << (2 * KEY)), 0, true, true),
        (PKS, with_wp, true, NO_ACCESS, 0, true, true),
        (PKE, with_wp, false, 0, NO_ACCESS, true, true),
        (PKE, with_wp, true, NO_ACCESS, NO_WRITE, true, false),
        (PKE | PKS, with_wp, true, 0, NO_ACCESS, false, false),
    ] {
        let mut hw = Machine::new();
        let user = if is_user { USER } else { 0 };
        hw.poke(0x10000, &(0x11003 | USER).to_le_bytes());
        hw.poke(PDPTE, &(MAPS | user | KEY << 59).to_le_bytes());
        hw.write(field::GUEST_CR0, cr0);
        hw.write(field::GUEST_CR4, 0x2020 | cr4);
        hw.msrs.insert(IA32_PKRS, pkrs);
        hw.pkru = pkru as u32;
        let case = format!("{cr4:#x} {cr0:#x} {is_user} {pkrs:#x} {pkru:#x}");
        for (access, is_allowed, code) in
            [(Access::READ, reads, 0x21), (Access::WRITE, writes, 0x23)]
        {
            let expected = match is_allowed {
                true => Ok(0x1000),
                false => Err(Refusal::Fault(Exception::page(Linear::new(0x1000), code))),
            };
            assert_eq!(translate(&mut hw, 0x1000, access), expected, "{case}");
        }
    }
}

/// Metadata in the address of an operand, where linear-address masking is on. A page fault names
/// the address without it.
#[test]
fn operands_are_masked() {
    const TAG: u64 = 0x1234 << 48;
    let (mut hw, mut nested) = with_valid_vmcs();
    let mut vmptrst_at = |cr3: u64, cr4: u64, address: u64| {
        hw.write(field::GUEST_CR3, 0x10000 | cr3);
        hw.write(field::GUEST_CR4, 0x2020 | cr4);
        hw.memory_operand(0);
        hw.write(field::EXIT_QUALIFICATION, address);
        nested.instruction(&mut hw, Reason::Vmptrst)
    };
    assert_eq!(vmptrst_at(0, 0, TAG | OPERAND), Done::Fault(Exception::GP));
    assert_eq!(vmptrst_at(LAM_U48, 0, TAG | OPERAND), Done::Next);
    let unmapped = 0x40_0000_0000;
    assert_eq!(
        vmptrst_at(LAM_U48, 0, TAG | unmapped),
        Done::Fault(Exception::page(Linear::new(unmapped), 2))
    );
    let high = 0xffff_8000_0000_1000;
    assert_eq!(
        vmptrst_at(LAM_U48, 0, high & !TAG),
        Done::Fault(Exception::GP)
    );
    assert_eq!(
        vmptrst_at(0, LAM_SUP, high & !TAG),
        Done::Fault(Exception::page(Linear::new(high), 2))
    );
}

/// A remembered walk is as good as a new one: whatever changed is seen.
#[test]
fn a_walk_is_remembered_only_while_it_would_be_the_same() {
    const TABLES: u64 = 0x10_0000;
    const LINEAR: u64 = 0x4000_2000;
    let mut hw = Machine::new();
    hw.write(field::GUEST_CR3, TABLES);
    let levels = [0, 1, 2, 3].map(|n| TABLES + 0x1000 * n);
    let at = [levels[0], levels[1] + 8, levels[2], levels[3] + 16];
    for (n, entry) in [levels[1] | 7, levels[2] | 7, levels[3] | 7, 0x5007]
        .into_iter()
        .enumerate()
    {
        hw.poke(at[n], &entry.to_le_bytes());
    }
    let mut walked = Walked::new();
    let mut look = |hw: &mut Machine, access| {
        let paging = Paging::of_l1(hw, 40, true);
        let fresh = paging.translate(hw, &mut Walked::new(), Linear::new(LINEAR + 0x18), access);
        let again = paging.translate(hw, &mut walked, Linear::new(LINEAR + 0x18), access);
        assert_eq!(fresh, again);
        again.map(Gpa1::raw)
    };
    let entry_at = |hw: &Machine, at| {
        let mut bytes = [0; 8];
        hw.peek(at, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    for _ in 0..2 {
        assert_eq!(look(&mut hw, Access::READ), Ok(0x5018));
    }
    // The dirty flag is set by a write behind a read, and once it was cleared.
    for _ in 0..2 {
        assert_eq!(look(&mut hw, Access::WRITE), Ok(0x5018));
        assert_eq!(entry_at(&hw, at[3]), 0x5067);
        hw.poke(at[3], &0x5007_u64.to_le_bytes());
    }
    assert_eq!(look(&mut hw, Access::READ), Ok(0x5018));
    assert_eq!(entry_at(&hw, at[3]), 0x5027);
    // Another page, another table, none.
    hw.poke(at[3], &0x6027_u64.to_le_bytes());
    assert_eq!(look(&mut hw, Access::READ), Ok(0x6018));
    hw.poke(at[2], &(levels[3] | 0x25).to_le_bytes());
    assert_eq!(look(&mut hw, Access::READ), Ok(0x6018));
    assert!(look(&mut hw, Access::WRITE).is_err());
    hw.poke(at[1], &0_u64.to_le_bytes());
    assert!(look(&mut hw, Access::READ).is_err());
    hw.poke(at[1], &(levels[2] | 0x27).to_le_bytes());
    assert_eq!(look(&mut hw, Access::READ), Ok(0x6018));
    // Other tables, and other rights of supervisor code.
    hw.write(field::GUEST_CR3, 0x10000);
    assert!(look(&mut hw, Access::READ).is_err());
    hw.write(field::GUEST_CR3, TABLES);
    assert_eq!(look(&mut hw, Access::READ), Ok(0x6018));
    hw.write(field::GUEST_CR4, 1 << 21 | 0x2020);
    assert!(look(&mut hw, Access::READ).is_err());
}

//! VMCS shadowing as L1 uses it. What L2's instructions then do is the CPU's, and
//! tested in `testvms/lhv`.

mod model;

use model::*;
use umbra_arch::vmx_cap::SHADOW_VMCS_INDICATOR;
use umbra_nested::{Done, VmcsAccess, offer};
use umbra_vmcs::controls::{Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, Field, FieldSet};

/// L1's shadow VMCS, and a second one.
const SHADOW: u64 = 0x6000;
const OTHER: u64 = 0x7000;

fn write(hw: &mut Machine, nested: &mut umbra_nested::Nested, field: Field, value: u64) {
    vmwrite(hw, nested, field.encoding().into(), value);
    assert!(succeeded(hw), "{field:?}");
}

fn read(hw: &mut Machine, nested: &mut umbra_nested::Nested, field: Field) -> u64 {
    vmread(hw, nested, field.encoding().into())
}

/// Makes the region a shadow VMCS with this RIP, and the first VMCS current again.
fn make(hw: &mut Machine, nested: &mut umbra_nested::Nested, region: u64, rip: u64) {
    let revision = nested.caps.revision() | SHADOW_VMCS_INDICATOR;
    hw.poke(region, &revision.to_le_bytes());
    for (reason, at) in [(Reason::Vmclear, region), (Reason::Vmptrld, region)] {
        assert_eq!(pointer(hw, nested, reason, at), Done::Next);
        assert!(succeeded(hw), "{reason:?}");
    }
    write(hw, nested, field::GUEST_RIP, rip);
    write(hw, nested, field::EXIT_REASON, rip + 1);
    pointer(hw, nested, Reason::Vmptrld, VMCS_REGION);
}

/// Enters L2 with the link pointer to this region.
fn enter(hw: &mut Machine, nested: &mut umbra_nested::Nested, link: u64, reason: Reason) {
    let primary = read(hw, nested, field::PRIMARY_PROCESSOR_BASED_CONTROLS);
    let on = u64::from(Proc::ACTIVATE_SECONDARY_CONTROLS.bits());
    write(
        hw,
        nested,
        field::PRIMARY_PROCESSOR_BASED_CONTROLS,
        primary | on,
    );
    let secondary = read(hw, nested, field::SECONDARY_PROCESSOR_BASED_CONTROLS);
    let on = u64::from(Proc2::VMCS_SHADOWING.bits());
    write(
        hw,
        nested,
        field::SECONDARY_PROCESSOR_BASED_CONTROLS,
        secondary | on,
    );
    write(hw, nested, field::VMREAD_BITMAP_ADDRESS, 0x4000);
    write(hw, nested, field::VMWRITE_BITMAP_ADDRESS, 0x5000);
    write(hw, nested, field::VMCS_LINK_POINTER, link);
    assert_eq!(nested.instruction(hw, reason), Done::Switched);
    assert!(nested.in_l2(), "the entry failed");
}

fn leave(hw: &mut Machine, nested: &mut umbra_nested::Nested) {
    exit_from_l2(hw, Reason::Vmcall as u32, &[]);
    let _ = l2_exit(hw, nested);
    assert!(!nested.in_l2());
}

#[test]
fn vmcs02_names_l0s_shadow_and_never_l1s() {
    let (mut hw, mut nested) = with_valid_vmcs();
    make(&mut hw, &mut nested, SHADOW, 0x1111);
    enter(&mut hw, &mut nested, SHADOW, Reason::Vmlaunch);
    assert_eq!(hw.read(field::VMCS_LINK_POINTER), SHADOW_REGION);
    assert_eq!(hw.shadow.get(field::GUEST_RIP), 0x1111);
    assert_eq!(hw.shadow.get(field::EXIT_REASON), 0x1112);
    leave(&mut hw, &mut nested);
    // L1 sees its own pointer, and without the control none is left.
    assert_eq!(read(&mut hw, &mut nested, field::VMCS_LINK_POINTER), SHADOW);
    let secondary = read(
        &mut hw,
        &mut nested,
        field::SECONDARY_PROCESSOR_BASED_CONTROLS,
    );
    let off = secondary & !u64::from(Proc2::VMCS_SHADOWING.bits());
    write(
        &mut hw,
        &mut nested,
        field::SECONDARY_PROCESSOR_BASED_CONTROLS,
        off,
    );
    write(&mut hw, &mut nested, field::VMCS_LINK_POINTER, u64::MAX);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert_eq!(hw.read(field::VMCS_LINK_POINTER), u64::MAX);
}

#[test]
fn what_l2_wrote_is_there_when_l1_loads_the_shadow() {
    let (mut hw, mut nested) = with_valid_vmcs();
    make(&mut hw, &mut nested, SHADOW, 0x1111);
    make(&mut hw, &mut nested, OTHER, 0x2222);
    enter(&mut hw, &mut nested, SHADOW, Reason::Vmlaunch);
    hw.shadow.set(field::GUEST_RIP, 0x3333);
    leave(&mut hw, &mut nested);
    // The same again: nothing is copied, and nothing lost.
    enter(&mut hw, &mut nested, SHADOW, Reason::Vmresume);
    assert_eq!(hw.shadow.get(field::GUEST_RIP), 0x3333);
    leave(&mut hw, &mut nested);
    // Another one, and back.
    enter(&mut hw, &mut nested, OTHER, Reason::Vmresume);
    assert_eq!(hw.shadow.get(field::GUEST_RIP), 0x2222);
    hw.shadow.set(field::GUEST_RIP, 0x4444);
    leave(&mut hw, &mut nested);
    for (region, rip) in [(SHADOW, 0x3333), (OTHER, 0x4444)] {
        pointer(&mut hw, &mut nested, Reason::Vmptrld, region);
        assert!(succeeded(&mut hw));
        assert_eq!(read(&mut hw, &mut nested, field::GUEST_RIP), rip);
    }
    // What L1 writes then, L2 reads.
    write(&mut hw, &mut nested, field::GUEST_RIP, 0x5555);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    enter(&mut hw, &mut nested, OTHER, Reason::Vmresume);
    assert_eq!(hw.shadow.get(field::GUEST_RIP), 0x5555);
}

/// Marks the region as a shadow VMCS's or not, as L1 does behind a VMCLEAR.
fn mark(hw: &mut Machine, nested: &umbra_nested::Nested, region: u64, is_shadow: bool) {
    let indicator = if is_shadow { SHADOW_VMCS_INDICATOR } else { 0 };
    hw.poke(region, &(nested.caps.revision() | indicator).to_le_bytes());
}

/// What another Umbra does: the VMCS that it runs its L2 with, it lends to its L1.
#[test]
fn l1_lends_its_l2_a_vmcs_that_it_runs_itself() {
    let (mut hw, mut nested) = with_valid_vmcs();
    make(&mut hw, &mut nested, OTHER, 0);
    pointer(&mut hw, &mut nested, Reason::Vmclear, OTHER);
    mark(&mut hw, &nested, OTHER, false);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, OTHER);
    for (f, value) in valid_fields() {
        write(&mut hw, &mut nested, f, value);
    }
    let mut launch = Reason::Vmlaunch;
    for rip in [0x1000, 0x2000, 0x3000] {
        assert_eq!(
            nested.instruction(&mut hw, Reason::Vmlaunch),
            Done::Switched
        );
        assert!(nested.in_l2());
        exit_from_l2(&mut hw, Reason::Cpuid as u32, &[(field::GUEST_RIP, rip)]);
        let _ = l2_exit(&mut hw, &mut nested);
        // As L1 clears it, so its region has it.
        pointer(&mut hw, &mut nested, Reason::Vmclear, OTHER);
        let mut copy = [0; 2048];
        hw.peek(OTHER + 8, &mut copy);
        mark(&mut hw, &nested, OTHER, true);
        pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
        enter(&mut hw, &mut nested, OTHER, launch);
        launch = Reason::Vmresume;
        assert_eq!(hw.shadow.get(field::GUEST_RIP), rip);
        hw.shadow.set(field::GUEST_RIP, rip + 2);
        hw.shadow.set(field::GUEST_CR3, 0x7000);
        leave(&mut hw, &mut nested);
        pointer(&mut hw, &mut nested, Reason::Vmclear, OTHER);
        mark(&mut hw, &nested, OTHER, false);
        if rip == 0x2000 {
            // L1 takes back what its L2 did.
            hw.poke(OTHER + 8, &copy);
        }
        pointer(&mut hw, &mut nested, Reason::Vmptrld, OTHER);
        let expected = if rip == 0x2000 { rip } else { rip + 2 };
        assert_eq!(read(&mut hw, &mut nested, field::GUEST_RIP), expected);
    }
    // What L2 wrote is checked, and L2's next entry gets it.
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert_eq!(hw.read(field::GUEST_RIP), 0x3002);
    assert_eq!(hw.read(field::GUEST_CR3), 0x7000);
}

#[test]
fn vmxoff_gives_the_shadow_back() {
    let (mut hw, mut nested) = with_valid_vmcs();
    make(&mut hw, &mut nested, SHADOW, 0x1111);
    enter(&mut hw, &mut nested, SHADOW, Reason::Vmlaunch);
    hw.shadow.set(field::GUEST_RIP, 0x7777_1234_5678);
    leave(&mut hw, &mut nested);
    assert_eq!(nested.instruction(&mut hw, Reason::Vmxoff), Done::Next);
    let mut region = [0; 4096];
    hw.peek(SHADOW, &mut region);
    let value = 0x7777_1234_5678_u64.to_le_bytes();
    assert!(region.windows(8).any(|bytes| bytes == value));
}

#[test]
fn a_shadow_vmcs_cannot_be_entered() {
    let (mut hw, mut nested) = with_valid_vmcs();
    make(&mut hw, &mut nested, SHADOW, 0x1111);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, SHADOW);
    for reason in [Reason::Vmlaunch, Reason::Vmresume] {
        assert_eq!(nested.instruction(&mut hw, reason), Done::Next);
        // VMfailInvalid: CF.
        assert_eq!(hw.read(field::GUEST_RFLAGS) & 0x8d5, 1);
    }
}

#[test]
fn the_indicator_is_refused_where_shadowing_is_not_offered() {
    let mut present = FieldSet::FULL;
    present.remove(field::VMREAD_BITMAP_ADDRESS);
    let (mut hw, mut nested) = in_vmx_with(present);
    assert!(!nested.caps.offers_proc2(Proc2::VMCS_SHADOWING));
    let revision = nested.caps.revision() | SHADOW_VMCS_INDICATOR;
    hw.poke(SHADOW, &revision.to_le_bytes());
    pointer(&mut hw, &mut nested, Reason::Vmptrld, SHADOW);
    assert_eq!(error(&mut hw, &mut nested), Some(11));
    let mut below = capabilities_below();
    below.misc &= !(1 << 29);
    let caps = offer::offer(&below, &FieldSet::FULL);
    assert!(!caps.offers_proc2(Proc2::VMCS_SHADOWING));
}

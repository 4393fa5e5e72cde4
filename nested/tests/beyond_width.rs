//! Accesses beyond the physical-address width that L1 is shown, by an L2 on ept01 and by one with
//! an ept12.

mod model;

use model::*;
use umbra_arch::{EventInfo, Exception, Linear, Rflags};
use umbra_nested::beyond_width::in_delivery;
use umbra_nested::{Done, L2Done, Nested};
use umbra_vmcs::Field;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

/// The model's width is 40 bits.
const BEYOND: u64 = 1 << 45;
const LINEAR: u64 = 0x1234_5678;
const RF: u64 = Rflags::RF.bits();
/// Read, write and fetch, with a linear address.
const READ: u64 = 0x181;
const WRITE: u64 = 0x182;
const FETCH: u64 = 0x184;

fn touch(controls: &[(Field, u64)], state: &[(Field, u64)]) -> (Machine, Nested, L2Done) {
    let (mut hw, mut nested) = with_valid_vmcs();
    for (f, value) in controls {
        vmwrite(&mut hw, &mut nested, f.encoding().into(), *value);
    }
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(nested.in_l2());
    let mut changes = vec![
        (field::GUEST_PHYSICAL_ADDRESS, BEYOND),
        (field::GUEST_LINEAR_ADDRESS, LINEAR),
        (field::EXIT_QUALIFICATION, READ),
    ];
    changes.extend_from_slice(state);
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &changes);
    let done = l2_exit(&mut hw, &mut nested);
    (hw, nested, done)
}

#[test]
fn l2_gets_the_page_fault_of_reserved_bits() {
    let user = (field::GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
    for (qualification, rights, code) in [
        (READ, None, 9),
        (WRITE, None, 11),
        (READ, Some(user), 13),
        (FETCH, Some(user), 29),
    ] {
        let mut state = vec![(field::EXIT_QUALIFICATION, qualification)];
        state.extend(rights);
        state.push((field::GUEST_IA32_EFER, 0xd00));
        let (mut hw, nested, done) = touch(&[], &state);
        assert_eq!(done, L2Done::Resume);
        assert!(nested.in_l2());
        assert_eq!(
            hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION),
            0x8000_0b0e
        );
        assert_eq!(hw.read(field::VM_ENTRY_EXCEPTION_ERROR_CODE), code);
        assert_eq!(hw.cr2, LINEAR);
        assert_eq!(hw.read(field::GUEST_RFLAGS) & RF, RF);
    }
}

/// Reserved bits of L2's own paging entries come before EPT, which has no say.
#[test]
fn ept12_is_not_asked() {
    let with_ept = [
        (
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            0x0400_6172 | 1 << 31,
        ),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, 2),
        (field::EPT_POINTER, 0x5_001e),
    ];
    for gpa2 in [BEYOND, 1 << 40, 1 << 51] {
        let (mut hw, _, done) = touch(&with_ept, &[(field::GUEST_PHYSICAL_ADDRESS, gpa2)]);
        assert_eq!(done, L2Done::Resume, "{gpa2:#x}");
        assert_eq!(
            hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION),
            0x8000_0b0e
        );
    }
    // The last address within the width is ept12's, which is empty.
    let last = [(field::GUEST_PHYSICAL_ADDRESS, (1 << 40) - 1)];
    let (mut hw, mut nested, done) = touch(&with_ept, &last);
    assert_eq!(done, L2Done::Reflected);
    let reason = vmread(&mut hw, &mut nested, field::EXIT_REASON.encoding().into());
    assert_eq!(reason, Reason::EptViolation as u64);
}

/// KVM without EPT marks device memory with reserved bits and lives on this exit.
#[test]
fn l1_gets_the_exit_that_it_asked_for() {
    let wants = [(field::EXCEPTION_BITMAP, 1 << 14)];
    let interrupted = [
        (field::IDT_VECTORING_INFORMATION, 0x8000_0480),
        (field::VM_EXIT_INSTRUCTION_LENGTH, 2),
    ];
    for (state, vectoring) in [(&[][..], 0), (&interrupted[..], 0x8000_0480)] {
        let (mut hw, mut nested, done) = touch(&wants, state);
        assert_eq!(done, L2Done::Reflected);
        assert_eq!(hw.cr2, 0, "an exit leaves CR2 alone");
        let mut field = |f: Field| vmread(&mut hw, &mut nested, f.encoding().into());
        assert_eq!(field(field::EXIT_REASON), 0);
        assert_eq!(field(field::VM_EXIT_INTERRUPTION_INFORMATION), 0x8000_0b0e);
        assert_eq!(field(field::VM_EXIT_INTERRUPTION_ERROR_CODE), 9);
        assert_eq!(field(field::EXIT_QUALIFICATION), LINEAR);
        assert_eq!(field(field::IDT_VECTORING_INFORMATION), vectoring);
        if vectoring != 0 {
            assert_eq!(field(field::VM_EXIT_INSTRUCTION_LENGTH), 2);
        }
    }
}

/// The error code decides, and 0 in the bitmap turns the comparison round.
#[test]
fn the_error_code_selects_page_faults() {
    for (bitmap, mask, is_match, exits) in [
        (1 << 14, 8, 8, true),
        (1 << 14, 8, 0, false),
        (0, 8, 8, false),
        (0, 8, 0, true),
        (0, 0, 0, false),
    ] {
        let (_, _, done) = touch(
            &[
                (field::EXCEPTION_BITMAP, bitmap),
                (field::PAGE_FAULT_ERROR_CODE_MASK, mask),
                (field::PAGE_FAULT_ERROR_CODE_MATCH, is_match),
            ],
            &[],
        );
        let expected = match exits {
            true => L2Done::Reflected,
            false => L2Done::Resume,
        };
        assert_eq!(done, expected, "{bitmap:#x} {mask} {is_match}");
    }
}

#[test]
fn a_fault_in_the_delivery_of_a_fault_is_a_double_fault() {
    let page_fault = [(field::IDT_VECTORING_INFORMATION, 0x8000_0b0e)];
    let (mut hw, _, done) = touch(&[], &page_fault);
    assert_eq!(done, L2Done::Resume);
    assert_eq!(
        hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION),
        0x8000_0b08
    );
    assert_eq!(hw.read(field::VM_ENTRY_EXCEPTION_ERROR_CODE), 0);
    assert_eq!(hw.cr2, 0);

    // One that exits is not the delivery of what led to it.
    let (mut hw, mut nested, done) = touch(&[(field::EXCEPTION_BITMAP, 1 << 8)], &page_fault);
    assert_eq!(done, L2Done::Reflected);
    let mut field = |f: Field| vmread(&mut hw, &mut nested, f.encoding().into());
    assert_eq!(field(field::VM_EXIT_INTERRUPTION_INFORMATION), 0x8000_0b08);
    assert_eq!(field(field::IDT_VECTORING_INFORMATION), 0);
    assert_eq!(field(field::EXIT_QUALIFICATION), 0);

    let double_fault = [(field::IDT_VECTORING_INFORMATION, 0x8000_0b08)];
    let (mut hw, mut nested, done) = touch(&[], &double_fault);
    assert_eq!(done, L2Done::Reflected);
    let reason = vmread(&mut hw, &mut nested, field::EXIT_REASON.encoding().into());
    assert_eq!(reason, Reason::TripleFault as u64);
}

/// SDM "Conditions for Generating a Double Fault", row by row.
#[test]
fn two_faults_become_what_the_sdm_says() {
    let page = Exception::page(Linear::new(0), 9);
    let double = Some(8);
    for (vectoring, second, becomes) in [
        (0, page, Some(14)),
        // Not valid, and an interrupt with the number of a page fault.
        (0x0b0e, page, Some(14)),
        (0x8000_000e, page, Some(14)),
        (0x8000_0202, page, Some(14)),
        // #DB, #GP, #PF, #VE, #DF.
        (0x8000_0301, page, Some(14)),
        (0x8000_0b0d, page, Some(14)),
        (0x8000_0b0d, Exception::GP, double),
        (0x8000_0b0e, Exception::GP, double),
        (0x8000_0b0e, page, double),
        (0x8000_0314, page, double),
        (0x8000_0b08, page, None),
        (0x8000_0b08, Exception::GP, None),
        (0x8000_0b08, Exception::UD, Some(6)),
    ] {
        let found = in_delivery(EventInfo::from_bits(vectoring), second).map(|fault| fault.vector);
        assert_eq!(found, becomes, "{vectoring:#x}, then {}", second.vector);
    }
}

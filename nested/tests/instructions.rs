//! L1's VMX instructions, on the machine of arrays.

mod model;

use model::*;
use umbra_arch::{Exception, Linear};
use umbra_nested::Done;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

#[test]
fn outside_vmx_operation_everything_but_vmxon_is_ud() {
    let mut hw = Machine::new();
    let mut nested = nested();
    for reason in [
        Reason::Vmxoff,
        Reason::Vmclear,
        Reason::Vmptrld,
        Reason::Vmptrst,
        Reason::Vmread,
        Reason::Vmwrite,
        Reason::Vmlaunch,
        Reason::Vmresume,
        Reason::Vmcall,
        Reason::Invept,
        Reason::Invvpid,
    ] {
        hw.memory_operand(0);
        assert_eq!(
            nested.instruction(&mut hw, reason),
            Done::Fault(Exception::UD),
            "{reason:?}"
        );
    }
}

#[test]
fn vmxon_wants_vmxe_as_l1_reads_it_and_cpl_0() {
    let mut hw = Machine::new();
    let mut nested = nested();
    hw.write(field::CR4_READ_SHADOW, 0x20);
    let done = pointer(&mut hw, &mut nested, Reason::Vmxon, VMXON_REGION);
    assert_eq!(done, Done::Fault(Exception::UD));
    hw.write(field::CR4_READ_SHADOW, 0x2020);
    hw.write(field::GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
    let done = pointer(&mut hw, &mut nested, Reason::Vmxon, VMXON_REGION);
    assert_eq!(done, Done::Fault(Exception::GP));
    hw.write(field::GUEST_SS_ACCESS_RIGHTS, 0xc093);
    hw.msrs.insert(0x3a, 4);
    let done = pointer(&mut hw, &mut nested, Reason::Vmxon, VMXON_REGION);
    assert_eq!(done, Done::Fault(Exception::GP));
}

#[test]
fn vmxon_of_a_bad_region_is_vmfail_invalid() {
    for (address, revision) in [
        (VMXON_REGION + 8, REVISION),
        (1 << 40, REVISION),
        (VMXON_REGION, REVISION + 1),
        (VMXON_REGION, REVISION | 1 << 31),
    ] {
        let mut hw = Machine::new();
        let mut nested = nested();
        hw.poke(VMXON_REGION, &revision.to_le_bytes());
        assert_eq!(
            pointer(&mut hw, &mut nested, Reason::Vmxon, address),
            Done::Next
        );
        assert_eq!(hw.read(field::GUEST_RFLAGS) & 0x8d5, 1, "{address:#x}");
        assert!(!nested.in_vmx_operation());
    }
}

#[test]
fn the_pointers_errors_have_the_sdms_numbers() {
    let (mut hw, mut nested) = in_vmx();
    for (reason, address, number) in [
        (Reason::Vmclear, VMCS_REGION + 1, 2),
        (Reason::Vmclear, 1 << 40, 2),
        (Reason::Vmclear, VMXON_REGION, 3),
        (Reason::Vmptrld, VMCS_REGION + 1, 9),
        (Reason::Vmptrld, VMXON_REGION, 10),
        (Reason::Vmptrld, 0x3000, 11),
        (Reason::Vmxon, 0x3000, 15),
    ] {
        assert_eq!(pointer(&mut hw, &mut nested, reason, address), Done::Next);
        assert_eq!(
            error(&mut hw, &mut nested),
            Some(number),
            "{reason:?} {address:#x}"
        );
    }
    // None of them changed which VMCS is current.
    assert_eq!(nested.current_pointer(), VMCS_REGION);
}

#[test]
fn without_a_current_vmcs_failure_is_invalid() {
    let (mut hw, mut nested) = in_vmx();
    pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
    assert_eq!(nested.current_pointer(), u64::MAX);
    for reason in [
        Reason::Vmlaunch,
        Reason::Vmresume,
        Reason::Vmread,
        Reason::Vmwrite,
    ] {
        hw.register_operands(0, 1);
        assert_eq!(nested.instruction(&mut hw, reason), Done::Next);
        assert_eq!(hw.read(field::GUEST_RFLAGS) & 0x8d5, 1, "{reason:?}");
    }
    pointer(&mut hw, &mut nested, Reason::Vmptrld, 0x3000);
    assert_eq!(hw.read(field::GUEST_RFLAGS) & 0x8d5, 1);
}

#[test]
fn vmread_and_vmwrite_know_fields_halves_and_read_only_ones() {
    let (mut hw, mut nested) = in_vmx();
    let tsc = u64::from(field::TSC_OFFSET.encoding());
    vmwrite(&mut hw, &mut nested, tsc, 0x1122_3344_5566_7788);
    assert_eq!(vmread(&mut hw, &mut nested, tsc | 1), 0x1122_3344);
    vmwrite(&mut hw, &mut nested, tsc | 1, 0xaabb_ccdd);
    assert_eq!(vmread(&mut hw, &mut nested, tsc), 0xaabb_ccdd_5566_7788);

    vmwrite(&mut hw, &mut nested, 0x0002_0000, 0);
    assert_eq!(error(&mut hw, &mut nested), Some(12));
    // Secondary VM-exit controls are not offered, so the field does not exist.
    vmwrite(
        &mut hw,
        &mut nested,
        field::SECONDARY_VM_EXIT_CONTROLS.encoding().into(),
        0,
    );
    assert_eq!(error(&mut hw, &mut nested), Some(12));
    // This CPU lets VMWRITE write any field; one that does not says 13.
    nested.caps.misc &= !(1 << 29);
    vmwrite(
        &mut hw,
        &mut nested,
        field::EXIT_REASON.encoding().into(),
        0,
    );
    assert_eq!(error(&mut hw, &mut nested), Some(13));

    vmwrite(
        &mut hw,
        &mut nested,
        field::GUEST_CS_SELECTOR.encoding().into(),
        0x12345,
    );
    assert_eq!(
        vmread(
            &mut hw,
            &mut nested,
            field::GUEST_CS_SELECTOR.encoding().into()
        ),
        0x2345
    );
}

#[test]
fn any_number_of_vmcss_keep_their_data() {
    let (mut hw, mut nested) = in_vmx();
    let rip = u64::from(field::GUEST_RIP.encoding());
    let region = |n: u64| 0x10_0000 + n * 0x1000;
    for n in 0..40 {
        hw.poke(region(n), &REVISION.to_le_bytes());
        pointer(&mut hw, &mut nested, Reason::Vmclear, region(n));
        pointer(&mut hw, &mut nested, Reason::Vmptrld, region(n));
        assert!(succeeded(&mut hw));
        vmwrite(&mut hw, &mut nested, rip, 0xabc0 + n);
    }
    for n in (0..40).rev() {
        pointer(&mut hw, &mut nested, Reason::Vmptrld, region(n));
        assert_eq!(vmread(&mut hw, &mut nested, rip), 0xabc0 + n);
    }
    // VMCLEAR and VMPTRLD again: the data stay, as KVM expects.
    pointer(&mut hw, &mut nested, Reason::Vmclear, region(3));
    pointer(&mut hw, &mut nested, Reason::Vmptrld, region(3));
    assert_eq!(vmread(&mut hw, &mut nested, rip), 0xabc3);
}

#[test]
fn vmptrst_stores_the_pointer() {
    let (mut hw, mut nested) = in_vmx();
    hw.memory_operand(0);
    assert_eq!(nested.instruction(&mut hw, Reason::Vmptrst), Done::Next);
    let mut bytes = [0; 8];
    hw.peek(OPERAND, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), VMCS_REGION);
}

#[test]
fn an_operand_that_is_not_mapped_is_a_page_fault() {
    let (mut hw, mut nested) = in_vmx();
    hw.memory_operand(0);
    hw.write(field::EXIT_QUALIFICATION, 0x40_0000_0000);
    let done = nested.instruction(&mut hw, Reason::Vmptrst);
    assert_eq!(
        done,
        Done::Fault(Exception::page(Linear::new(0x40_0000_0000), 2))
    );
    hw.write(field::EXIT_QUALIFICATION, 0x8000_0000_0000);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmptrst),
        Done::Fault(Exception::GP)
    );
}

#[test]
fn operands_of_a_page_set_accessed_and_dirty() {
    let (mut hw, mut nested) = in_vmx();
    hw.poke(0x11000, &0x83_u64.to_le_bytes());
    hw.memory_operand(0);
    nested.instruction(&mut hw, Reason::Vmptrst);
    let mut bytes = [0; 8];
    hw.peek(0x11000, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 0xe3);
}

#[test]
fn invept_and_invvpid_refuse_what_they_do_not_have() {
    let (mut hw, mut nested) = in_vmx();
    for (reason, kind, low, high, good) in [
        (Reason::Invept, 0_u64, 0x1e_u64, 0_u64, false),
        (Reason::Invept, 1, 0x5000 | 0x1e, 0, true),
        (Reason::Invept, 1, 0x5000 | 0x1e, 1, true),
        (Reason::Invept, 1, 0x5000 | 0x1f, 0, false),
        (Reason::Invept, 2, 0, 0, true),
        (Reason::Invept, 3, 0, 0, false),
        (Reason::Invept, 1 << 32 | 2, 0, 0, false),
        (Reason::Invvpid, 0, 5, 0x7fff_ffff_ffff, true),
        (Reason::Invvpid, 0, 5, 0x8000_0000_0000, false),
        (Reason::Invvpid, 1, 0, 0, false),
        (Reason::Invvpid, 1, 0x1_0000, 0, false),
        (Reason::Invvpid, 1, 5, 0, true),
        (Reason::Invvpid, 2, 0, 0, true),
        (Reason::Invvpid, 3, 5, 0, true),
        (Reason::Invvpid, 4, 5, 0, false),
    ] {
        hw.poke(OPERAND, &low.to_le_bytes());
        hw.poke(OPERAND + 8, &high.to_le_bytes());
        hw.memory_operand(2);
        hw.gprs[2] = kind;
        assert_eq!(nested.instruction(&mut hw, reason), Done::Next);
        if good {
            assert!(succeeded(&mut hw), "{reason:?} {kind} {low:#x} {high:#x}");
        } else {
            assert_eq!(error(&mut hw, &mut nested), Some(28), "{reason:?} {kind}");
        }
    }
}

#[test]
fn vmcall_in_root_fails_with_1() {
    let (mut hw, mut nested) = in_vmx();
    assert_eq!(nested.instruction(&mut hw, Reason::Vmcall), Done::Next);
    assert_eq!(error(&mut hw, &mut nested), Some(1));
}

/// A breakpoint of L1's may be on the operand.
#[test]
fn an_operand_in_memory_is_told_to_the_breakpoints() {
    let (mut hw, mut nested) = in_vmx();
    hw.memory_operand(0);
    assert_eq!(nested.instruction(&mut hw, Reason::Vmptrst), Done::Next);
    assert_eq!(hw.accesses.last(), Some(&(Linear::new(OPERAND), 8, true)));
}

//! Nested VM entry and exit, on the machine of arrays.

mod model;

use model::*;
use proptest::prelude::*;
use umbra_nested::{Current, Done, L2Done};
use umbra_vmcs::exit::{ENTRY_FAILURE, Reason};
use umbra_vmcs::field;

fn launched() -> (Machine, umbra_nested::Nested) {
    let (mut hw, mut nested) = with_valid_vmcs();
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(nested.in_l2(), "{:?}", nested.take_broken_rule());
    (hw, nested)
}

fn enc(f: umbra_vmcs::Field) -> u64 {
    f.encoding().into()
}

#[test]
fn an_entry_gives_vmcs02_l2s_state_and_ept01() {
    let (mut hw, _nested) = launched();
    assert!(matches!(hw.current, Current::Vmcs02(_)));
    assert_eq!(hw.read(field::GUEST_RIP), 0x60_0000);
    assert_eq!(hw.read(field::GUEST_IA32_EFER), 0xd00);
    assert_eq!(hw.read(field::EPT_POINTER), hw.ept01_pointer().raw());
    assert_eq!(hw.read(field::VIRTUAL_PROCESSOR_ID), 0xfffe);
    assert!(hw.log.contains(&"invvpid 0xfffe".to_string()));
}

#[test]
fn an_exit_gives_l1_its_host_state_and_the_information() {
    let (mut hw, mut nested) = launched();
    let at = [
        (field::GUEST_RIP, 0x60_0010),
        (field::VM_EXIT_INSTRUCTION_LENGTH, 2),
        (field::GUEST_FS_BASE, 0x1234),
        (field::GUEST_LINEAR_ADDRESS, 0x777),
    ];
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &at);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    assert!(!nested.in_l2());
    assert_eq!(hw.current, Current::Vmcs01);
    assert_eq!(hw.read(field::GUEST_RIP), 0x40_1000);
    assert_eq!(hw.read(field::GUEST_RSP), 0x50_0000);
    assert_eq!(hw.read(field::GUEST_RFLAGS), 2);
    assert_eq!(hw.read(field::GUEST_TR_LIMIT), 0x67);
    for (f, value) in at {
        assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
    }
    assert_eq!(
        vmread(&mut hw, &mut nested, enc(field::EXIT_REASON)),
        Reason::Cpuid as u64
    );
}

#[test]
fn a_second_entry_writes_only_what_changed() {
    let (mut hw, mut nested) = launched();
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    let before = hw.writes;
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    let unchanged = hw.writes - before;
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    vmwrite(&mut hw, &mut nested, enc(field::GUEST_RIP), 0x60_0002);
    let before = hw.writes;
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert_eq!(hw.writes - before, unchanged + 1);
    assert_eq!(hw.read(field::GUEST_RIP), 0x60_0002);
    assert!(unchanged <= 8, "{unchanged}");
}

#[test]
fn launch_states_are_kept() {
    let (mut hw, mut nested) = with_valid_vmcs();
    assert_eq!(nested.instruction(&mut hw, Reason::Vmresume), Done::Next);
    assert_eq!(error(&mut hw, &mut nested), Some(5));
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    exit_from_l2(&mut hw, Reason::Hlt as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    assert_eq!(nested.instruction(&mut hw, Reason::Vmlaunch), Done::Next);
    assert_eq!(error(&mut hw, &mut nested), Some(4));
    // The state survives eviction, and VMCLEAR resets it.
    for n in 0..20 {
        let region = 0x10_0000 + n * 0x1000;
        hw.poke(region, &REVISION.to_le_bytes());
        pointer(&mut hw, &mut nested, Reason::Vmptrld, region);
    }
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert_eq!(hw.read(field::GUEST_RIP), 0x60_0000);
    exit_from_l2(&mut hw, Reason::Hlt as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
}

#[test]
fn mov_ss_blocks_the_entry() {
    let (mut hw, mut nested) = with_valid_vmcs();
    hw.write(field::GUEST_INTERRUPTIBILITY_STATE, 2);
    assert_eq!(nested.instruction(&mut hw, Reason::Vmlaunch), Done::Next);
    assert_eq!(error(&mut hw, &mut nested), Some(26));
}

#[test]
fn bad_guest_state_is_an_exit_that_saves_nothing() {
    let (mut hw, mut nested) = with_valid_vmcs();
    vmwrite(&mut hw, &mut nested, enc(field::GUEST_RFLAGS), 0);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(!nested.in_l2());
    assert!(nested.take_broken_rule().is_some());
    assert_eq!(hw.read(field::GUEST_RIP), 0x40_1000);
    let reason = vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
    assert_eq!(reason, u64::from(ENTRY_FAILURE | 33));
    assert_eq!(vmread(&mut hw, &mut nested, enc(field::GUEST_RFLAGS)), 0);
    // Mended, it launches: the failure left the VMCS clear.
    vmwrite(&mut hw, &mut nested, enc(field::GUEST_RFLAGS), 2);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(nested.in_l2());
}

#[test]
fn an_msr_that_cannot_be_loaded_fails_with_its_number() {
    let (mut hw, mut nested) = with_valid_vmcs();
    let list = 0x9000_u64;
    for (n, (index, value)) in [(0x10_u64, 1_u64), (0xdead, 2)].into_iter().enumerate() {
        hw.poke(list + 16 * n as u64, &index.to_le_bytes());
        hw.poke(list + 16 * n as u64 + 8, &value.to_le_bytes());
    }
    vmwrite(
        &mut hw,
        &mut nested,
        enc(field::VM_ENTRY_MSR_LOAD_ADDRESS),
        list,
    );
    vmwrite(&mut hw, &mut nested, enc(field::VM_ENTRY_MSR_LOAD_COUNT), 2);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(!nested.in_l2());
    let reason = vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
    assert_eq!(reason, u64::from(ENTRY_FAILURE | 34));
    assert_eq!(
        vmread(&mut hw, &mut nested, enc(field::EXIT_QUALIFICATION)),
        2
    );
    assert_eq!(hw.msrs[&0x10], 1);
}

#[test]
fn the_tsc_that_an_exit_stores_is_that_of_the_exit() {
    let (mut hw, mut nested) = with_valid_vmcs();
    let list = 0x9000_u64;
    hw.poke(list, &0x10_u64.to_le_bytes());
    for (f, value) in [
        (field::VM_EXIT_MSR_STORE_ADDRESS, list),
        (field::VM_EXIT_MSR_STORE_COUNT, 1),
    ] {
        vmwrite(&mut hw, &mut nested, enc(f), value);
    }
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    hw.write(field::EXIT_REASON, Reason::Vmcall as u64);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    assert_ne!(hw.tsc_at_exit, hw.tsc);
    let mut stored = [0; 8];
    hw.peek(list + 8, &mut stored);
    assert_eq!(u64::from_le_bytes(stored), hw.tsc_at_exit);
}

#[test]
fn after_a_failed_msr_list_l1_keeps_what_l2_had_loaded() {
    let (mut hw, mut nested) = with_valid_vmcs();
    hw.poke(0x9000, &0xdead_u64.to_le_bytes());
    for (f, value) in [
        (field::VM_ENTRY_MSR_LOAD_ADDRESS, 0x9000),
        (field::VM_ENTRY_MSR_LOAD_COUNT, 1),
        (field::VM_ENTRY_CONTROLS, 0x11fb | 1 << 9 | 1 << 15),
        (field::GUEST_IA32_EFER, 0xd01),
    ] {
        vmwrite(&mut hw, &mut nested, enc(f), value);
    }
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(!nested.in_l2());
    // The exit controls do not load EFER; L1 had 0xd00 before.
    assert_eq!(hw.read(field::GUEST_IA32_EFER), 0xd01);
}

#[test]
fn an_interrupted_delivery_starts_over_when_l0_handles_the_exit() {
    let (mut hw, mut nested) = launched();
    let changes = [
        (field::GUEST_PHYSICAL_ADDRESS, 0x1_0000_0000),
        (field::IDT_VECTORING_INFORMATION, 0x8000_0b0e),
        (field::IDT_VECTORING_ERROR_CODE, 4),
    ];
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &changes);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    assert_eq!(
        hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION),
        0x8000_0b0e
    );
    assert_eq!(hw.read(field::VM_ENTRY_EXCEPTION_ERROR_CODE), 4);
    assert!(hw.log.contains(&"ept01 0x100000000".to_string()));
}

#[test]
fn rf_is_forgotten_after_an_exit_that_l1_never_sees_but_kept_for_an_event() {
    const RF: u64 = umbra_arch::Rflags::RF.bits();
    for (info, dr7, saved, left) in [
        (0, 0x400, RF, 0),
        (0, 0x401, RF, RF),
        // INT 80H, a single step, and a page fault: saved is what the event pushes.
        (0x8000_0480, 0x400, 0, 0),
        (0x8000_0301, 0x400, 0, 0),
        (0x8000_0b0e, 0x400, RF, RF),
        // An interrupt between the turns of a repeated instruction.
        (0x8000_0040, 0x400, RF, RF),
    ] {
        let (mut hw, mut nested) = launched();
        let changes = [
            (field::GUEST_PHYSICAL_ADDRESS, 0x1_0000_0000),
            (field::IDT_VECTORING_INFORMATION, info),
            (field::VM_EXIT_INSTRUCTION_LENGTH, 2),
            (field::GUEST_RFLAGS, saved | 2),
            (field::GUEST_DR7, dr7),
        ];
        exit_from_l2(&mut hw, Reason::EptViolation as u32, &changes);
        assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
        assert_eq!(hw.read(field::GUEST_RFLAGS) & RF, left, "{info:#x}");
    }
}

#[test]
fn a_software_interrupt_that_l1_injects_keeps_vmcs12s_rf() {
    let (mut hw, mut nested) = with_valid_vmcs();
    for (f, value) in [
        (field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x8000_0441),
        (field::VM_ENTRY_INSTRUCTION_LENGTH, 2),
        (field::GUEST_RFLAGS, 1 << 16 | 2),
    ] {
        vmwrite(&mut hw, &mut nested, enc(f), value);
    }
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    let changes = [
        (field::GUEST_PHYSICAL_ADDRESS, 0x1_0000_0000),
        (field::IDT_VECTORING_INFORMATION, 0x8000_0441),
        (field::VM_EXIT_INSTRUCTION_LENGTH, 2),
    ];
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &changes);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    assert_eq!(hw.read(field::GUEST_RFLAGS) & 1 << 16, 1 << 16);
}

#[test]
fn only_the_valid_bit_of_the_entrys_event_is_cleared() {
    let (mut hw, mut nested) = with_valid_vmcs();
    let info = enc(field::VM_ENTRY_INTERRUPTION_INFORMATION);
    vmwrite(&mut hw, &mut nested, info, 0x8000_0202);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert_eq!(
        hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION),
        0x8000_0202
    );
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    assert_eq!(vmread(&mut hw, &mut nested, info), 0x202);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert_eq!(
        hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION) & 1 << 31,
        0
    );
}

#[test]
fn an_nmi_exit_blocks_nmis_for_l1() {
    let (mut hw, mut nested) = launched();
    let nmi = [(field::VM_EXIT_INTERRUPTION_INFORMATION, 0x8000_0202)];
    exit_from_l2(&mut hw, Reason::ExceptionOrNmi as u32, &nmi);
    l2_exit(&mut hw, &mut nested);
    assert_eq!(hw.read(field::GUEST_INTERRUPTIBILITY_STATE), 8);
}

#[test]
fn the_preemption_timer_runs_on_while_l0_works() {
    let (mut hw, mut nested) = with_valid_vmcs();
    nested.caps.misc &= !0x1f;
    vmwrite(
        &mut hw,
        &mut nested,
        enc(field::PIN_BASED_CONTROLS),
        0x16 | 1 << 6,
    );
    vmwrite(
        &mut hw,
        &mut nested,
        enc(field::VMX_PREEMPTION_TIMER_VALUE),
        500,
    );
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert_eq!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE), 500);
    hw.tsc += 200;
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &[]);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    assert_eq!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE), 300);
    hw.tsc += 1000;
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    assert_eq!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE), 0);
}

#[test]
fn no_reason_number_stops_the_machine() {
    for number in 0..=100_u32 {
        let (mut hw, mut nested) = launched();
        exit_from_l2(&mut hw, number, &[]);
        l2_exit(&mut hw, &mut nested);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever L1 writes, the entry ends in L2, in L1 with an exit, or in
    /// VMfail; nothing panics.
    #[test]
    fn any_vmcs_can_be_launched(
        changes in proptest::collection::vec((0..field::FIELD_COUNT, any::<u64>(), 0_u32..64), 0..6),
        reason in 0_u32..80,
    ) {
        let (mut hw, mut nested) = with_valid_vmcs();
        for (index, value, flip) in changes {
            let f = field::ALL[index];
            let old = vmread(&mut hw, &mut nested, enc(f));
            let new = if flip < 48 { old ^ 1 << flip } else { value };
            vmwrite(&mut hw, &mut nested, enc(f), new);
        }
        let done = nested.instruction(&mut hw, Reason::Vmlaunch);
        prop_assert!(!matches!(done, Done::Fault(_)));
        if nested.in_l2() {
            exit_from_l2(&mut hw, reason, &[]);
            l2_exit(&mut hw, &mut nested);
        }
    }
}

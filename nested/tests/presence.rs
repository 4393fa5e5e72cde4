//! CPUs that lack fields: what is not there is neither read nor written nor offered.

mod model;

use model::*;
use umbra_nested::{Done, L2Done, Nested, offer};
use umbra_vmcs::Field;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, FieldSet, flow};
use umbra_vmcs::needs::Needs;

fn enc(f: Field) -> u64 {
    f.encoding().into()
}

/// Everything that L1 is offered and that the rules let through, switched on.
fn switch_on(hw: &mut Machine, nested: &mut Nested) {
    let caps = nested.caps;
    let pin = Pin::ACTIVATE_PREEMPTION_TIMER
        | Pin::NMI_EXITING
        | Pin::EXTERNAL_INTERRUPT_EXITING
        | Pin::PROCESS_POSTED_INTERRUPTS;
    let proc = Proc::ACTIVATE_SECONDARY_CONTROLS | Proc::USE_MSR_BITMAPS | Proc::USE_TPR_SHADOW;
    let proc2 = Proc2::ENABLE_EPT
        | Proc2::ENABLE_VPID
        | Proc2::ENABLE_PML
        | Proc2::ENABLE_VM_FUNCTIONS
        | Proc2::VIRTUALIZE_APIC_ACCESSES
        | Proc2::VIRTUAL_INTERRUPT_DELIVERY
        | Proc2::APIC_REGISTER_VIRTUALIZATION
        | Proc2::PAUSE_LOOP_EXITING
        | Proc2::EPT_VIOLATION_VE
        | Proc2::VMCS_SHADOWING
        | Proc2::ENABLE_XSAVES_XRSTORS
        | Proc2::USE_TSC_SCALING;
    let exit = Exit::HOST_ADDRESS_SPACE_SIZE
        | Exit::SAVE_PREEMPTION_TIMER
        | Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT
        | Exit::LOAD_PERF_GLOBAL_CTRL
        | Exit::SAVE_PAT
        | Exit::LOAD_PAT
        | Exit::SAVE_EFER
        | Exit::LOAD_EFER
        | Exit::SAVE_DEBUG_CONTROLS;
    let entry = Entry::IA32E_MODE_GUEST
        | Entry::LOAD_PAT
        | Entry::LOAD_EFER
        | Entry::LOAD_PERF_GLOBAL_CTRL
        | Entry::LOAD_DEBUG_CONTROLS;
    let mut proc2 = proc2;
    if !caps.offers_proc(Proc::USE_TPR_SHADOW) {
        // The rules let none of these be without it.
        proc2 -= Proc2::APIC_REGISTER_VIRTUALIZATION | Proc2::VIRTUAL_INTERRUPT_DELIVERY;
    }
    let pat = 0x0007_0406_0007_0406;
    let mut pin = pin;
    let mut exit = exit;
    if !caps.offers_pin(Pin::ACTIVATE_PREEMPTION_TIMER) {
        pin -= Pin::ACTIVATE_PREEMPTION_TIMER;
        exit -= Exit::SAVE_PREEMPTION_TIMER;
    }
    let delivers = caps.offers_proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
        && proc2.contains(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    if !delivers {
        pin -= Pin::PROCESS_POSTED_INTERRUPTS;
    }
    for (f, value) in [
        (field::PIN_BASED_CONTROLS, caps.pin().adjust(pin.bits())),
        (
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            caps.proc().adjust(proc.bits()),
        ),
        (
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            caps.proc2.adjust(proc2.bits()),
        ),
        (
            field::PRIMARY_VM_EXIT_CONTROLS,
            caps.exit().adjust(exit.bits()),
        ),
        (field::VM_ENTRY_CONTROLS, caps.entry().adjust(entry.bits())),
    ] {
        vmwrite(hw, nested, enc(f), value.into());
        assert!(succeeded(hw), "{f:?}");
    }
    for (f, value) in [
        (field::EPT_POINTER, 0x2_001e),
        (field::VIRTUAL_PROCESSOR_ID, 5),
        (field::MSR_BITMAP, 0xb000),
        (field::VIRTUAL_APIC_ADDRESS, 0xc000),
        (field::APIC_ACCESS_ADDRESS, 0xd000),
        (field::PML_ADDRESS, 0xe000),
        (field::PML_INDEX, 511),
        (field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS, 0xf000),
        (field::VM_FUNCTION_CONTROLS, 1),
        (field::EPTP_LIST_ADDRESS, 0x1_0000),
        (field::VMREAD_BITMAP_ADDRESS, 0x1_1000),
        (field::VMWRITE_BITMAP_ADDRESS, 0x1_2000),
        (field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x20),
        (field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 0x1_3000),
        (field::TSC_MULTIPLIER, 1 << 48),
        (field::VMX_PREEMPTION_TIMER_VALUE, 500),
        (field::GUEST_IA32_PAT, pat),
        (field::HOST_IA32_PAT, pat),
        (field::GUEST_IA32_EFER, 0xd00),
        (field::HOST_IA32_EFER, 0xd00),
    ] {
        // VMfail where L1 has no such field.
        vmwrite(hw, nested, enc(f), value);
    }
}

/// Entries and exits of all kinds, and every field read and written by L1.
fn exercise(present: FieldSet) {
    assert_eq!(offer::missing(&present), None);
    for (is_all_on, can_lend) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut hw, mut nested) = with_valid_vmcs_on(present);
        nested.can_lend = can_lend;
        if is_all_on {
            switch_on(&mut hw, &mut nested);
        }
        let mut entry = Reason::Vmlaunch;
        for number in 0..90 {
            let done = nested.instruction(&mut hw, entry);
            assert_eq!(done, Done::Switched, "{:?}", nested.take_broken_rule());
            assert!(nested.in_l2(), "{:?}", nested.take_broken_rule());
            entry = Reason::Vmresume;
            hw.gprs[0] = 0;
            hw.gprs[1] = 0x1b;
            exit_from_l2(&mut hw, number, &[]);
            if l2_exit(&mut hw, &mut nested) == L2Done::Resume {
                exit_from_l2(&mut hw, Reason::Vmcall as u32, &[]);
                assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
            }
            // The next vmcs02 is lent if it can be.
            vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
            if number % 30 == 0 {
                every_field(&mut hw, &mut nested, present);
            }
        }
        // Out of the slot and back.
        pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
        pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
        let done = nested.instruction(&mut hw, Reason::Vmlaunch);
        assert_eq!(done, Done::Switched, "{:?}", nested.take_broken_rule());
        assert!(nested.in_l2());
    }
}

fn every_field(hw: &mut Machine, nested: &mut Nested, present: FieldSet) {
    for f in field::ALL {
        let value = vmread(hw, nested, enc(f));
        let has = succeeded(hw);
        assert_eq!(has, nested.fields.contains(f), "{f:?}");
        assert!(!has || present.contains(f), "{f:?}");
        if has && !f.is_read_only() {
            vmwrite(hw, nested, enc(f), value);
            assert!(succeeded(hw), "{f:?}");
        }
    }
}

/// A field whose control nobody switches on would be there and never used.
#[test]
fn what_a_field_needs_is_switched_on() {
    let (mut hw, mut nested) = with_valid_vmcs_on(FieldSet::FULL);
    switch_on(&mut hw, &mut nested);
    let mut has =
        |word: Field, bits: u32| vmread(&mut hw, &mut nested, enc(word)) as u32 & bits != 0;
    for f in flow::known().iter() {
        let is_on = match f.needs() {
            Needs::Nothing | Needs::AskCpu | Needs::Never => true,
            Needs::Pin(b) => has(field::PIN_BASED_CONTROLS, b.bits()),
            Needs::Proc(b) => has(field::PRIMARY_PROCESSOR_BASED_CONTROLS, b.bits()),
            Needs::Proc2(b) => has(field::SECONDARY_PROCESSOR_BASED_CONTROLS, b.bits()),
            Needs::Exit(b) => has(field::PRIMARY_VM_EXIT_CONTROLS, b.bits()),
            Needs::Entry(b) => has(field::VM_ENTRY_CONTROLS, b.bits()),
            Needs::EptpSwitching => has(field::VM_FUNCTION_CONTROLS, 1),
            Needs::Proc3(_) => false,
        };
        assert!(is_on, "{f:?}: `switch_on` leaves {:?} at 0", f.needs());
    }
}

#[test]
fn all_fields() {
    exercise(FieldSet::FULL);
}

#[test]
fn no_field_that_can_be_missing() {
    exercise(offer::REQUIRED);
}

#[test]
fn one_field_missing() {
    for f in field::ALL {
        if !offer::REQUIRED.contains(f) && f.needs() != Needs::Never {
            let mut present = FieldSet::FULL;
            present.remove(f);
            exercise(present);
        }
    }
}

/// KVM below: the fields that its VMCSs for nested guests have not, as it answers VMREAD.
#[test]
fn the_fields_of_kvm() {
    let lacks = FieldSet::of(&[
        field::EPTP_INDEX,
        field::EXECUTIVE_VMCS_POINTER,
        field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
        field::PLE_GAP,
        field::PLE_WINDOW,
        field::GUEST_SMBASE,
        field::CR3_TARGET_VALUE_0,
        field::CR3_TARGET_VALUE_1,
        field::CR3_TARGET_VALUE_2,
        field::CR3_TARGET_VALUE_3,
        field::IO_RCX,
        field::IO_RSI,
        field::IO_RDI,
        field::IO_RIP,
    ]);
    exercise(FieldSet::FULL.difference(lacks));
}

#[test]
fn a_field_that_umbra_needs_is_named() {
    for f in offer::REQUIRED.iter() {
        let mut present = FieldSet::FULL;
        present.remove(f);
        assert_eq!(offer::missing(&present), Some(f));
    }
}

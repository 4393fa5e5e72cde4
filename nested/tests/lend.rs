//! A vmcs02 that is lent to L1: whatever L1 does, it finds what it finds where each of
//! its VMREADs and VMWRITEs exits.

mod model;

use model::*;
use proptest::prelude::*;
use umbra_nested::{Current, Done, L2Done, Lent, Nested};
use umbra_vmcs::controls::{Entry, Exit};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, Field, FieldSet};

const OTHER_REGION: u64 = 0x3000;

fn enc(f: Field) -> u64 {
    f.encoding().into()
}

/// The slot whose vmcs02 L1 reaches.
fn reached(hw: &Machine) -> Option<usize> {
    assert_eq!(hw.current, Current::Vmcs01);
    let slot = hw.linked?;
    assert!(hw.lent.contains(&slot), "what L1 reaches is not lent");
    Some(slot)
}

/// L1's VMREAD, by the CPU where it may.
fn read(hw: &mut Machine, nested: &mut Nested, f: Field) -> u64 {
    match reached(hw) {
        Some(slot) if hw.how_lent.read().contains(f) => hw.vmcs[&(slot + 1)].get(f),
        _ => vmread(hw, nested, enc(f)),
    }
}

/// L1's VMWRITE, likewise.
fn write(hw: &mut Machine, nested: &mut Nested, f: Field, value: u64) {
    match reached(hw) {
        Some(slot) if hw.how_lent.written().contains(f) => {
            if let Some(vmcs) = hw.vmcs.get_mut(&(slot + 1)) {
                vmcs.set(f, value);
            }
        }
        _ => vmwrite(hw, nested, enc(f), value),
    }
}

/// A machine with two valid VMCSs, the first of them current, on a CPU that lends or
/// does not.
fn machine(can_lend: bool) -> (Machine, Nested) {
    let (mut hw, mut nested) = with_valid_vmcs();
    nested.can_lend = can_lend;
    hw.poke(OTHER_REGION, &REVISION.to_le_bytes());
    for reason in [Reason::Vmclear, Reason::Vmptrld] {
        pointer(&mut hw, &mut nested, reason, OTHER_REGION);
    }
    for (f, value) in valid_fields() {
        vmwrite(&mut hw, &mut nested, enc(f), value);
    }
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    (hw, nested)
}

/// L2 runs, and exits to L1.
fn round(hw: &mut Machine, nested: &mut Nested, reason: Reason, at: &[(Field, u64)]) {
    assert_eq!(nested.instruction(hw, reason), Done::Switched);
    exit_from_l2(hw, Reason::Cpuid as u32, at);
    assert_eq!(l2_exit(hw, nested), L2Done::Reflected);
}

/// A machine whose L1 has seen an exit, and reaches vmcs02.
fn lending() -> (Machine, Nested) {
    let (mut hw, mut nested) = machine(true);
    round(&mut hw, &mut nested, Reason::Vmlaunch, &[]);
    assert_eq!(reached(&hw), None, "L1 has not read anything yet");
    vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
    round(&mut hw, &mut nested, Reason::Vmresume, &[]);
    assert!(reached(&hw).is_some());
    (hw, nested)
}

#[test]
fn l1_reads_and_writes_without_an_exit() {
    let (mut hw, mut nested) = lending();
    assert_eq!(
        read(&mut hw, &mut nested, field::EXIT_REASON),
        Reason::Cpuid as u64
    );
    write(&mut hw, &mut nested, field::GUEST_RIP, 0x60_0002);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert_eq!(hw.read(field::GUEST_RIP), 0x60_0002);
}

#[test]
fn what_l1_wrote_is_checked() {
    const GUEST_STATE: u64 = 0x8000_0021;
    for (f, value, is_fail) in [
        (field::GUEST_RIP, 1 << 48, false),
        (field::GUEST_RFLAGS, 1 << 3 | 2, false),
        (field::GUEST_RFLAGS, 0x8000_0030, false),
        (field::GUEST_RFLAGS, 0, false),
        (field::GUEST_INTERRUPTIBILITY_STATE, 3, false),
        (field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x8000_0100, true),
    ] {
        let (mut hw, mut nested) = lending();
        let before = read(&mut hw, &mut nested, f);
        write(&mut hw, &mut nested, f, value);
        let done = nested.instruction(&mut hw, Reason::Vmresume);
        if is_fail {
            assert_eq!(done, Done::Next);
            assert_eq!(error(&mut hw, &mut nested), Some(7), "{f:?}");
        } else {
            assert_eq!(done, Done::Switched);
            assert!(!nested.in_l2());
            let reason = read(&mut hw, &mut nested, field::EXIT_REASON);
            assert_eq!(reason, GUEST_STATE, "{f:?}");
        }
        // It is as L1 wrote it, and can be put right.
        assert!(reached(&hw).is_some());
        assert_eq!(read(&mut hw, &mut nested, f), value);
        write(&mut hw, &mut nested, f, before);
        round(&mut hw, &mut nested, Reason::Vmresume, &[]);
    }
}

#[test]
fn a_field_that_l1_only_reads_there_is_written_by_an_exit() {
    let (mut hw, mut nested) = lending();
    write(&mut hw, &mut nested, field::GUEST_CR3, 0x5000);
    assert_eq!(read(&mut hw, &mut nested, field::GUEST_CR3), 0x5000);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert_eq!(hw.read(field::GUEST_CR3), 0x5000);
}

#[test]
fn what_l0_injects_for_itself_is_not_shown() {
    let (mut hw, mut nested) = lending();
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    // An NMI of L0's own, say.
    hw.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x8000_0202);
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    let event = read(
        &mut hw,
        &mut nested,
        field::VM_ENTRY_INTERRUPTION_INFORMATION,
    );
    assert_eq!(event, 0);
}

/// Read back once by an exit, it is brought along by the next; but what L1 then writes
/// counts.
#[test]
fn a_field_read_back_before_is_looked_at_again() {
    let (mut hw, mut nested) = machine(true);
    round(&mut hw, &mut nested, Reason::Vmlaunch, &[]);
    vmread(&mut hw, &mut nested, enc(field::GUEST_RFLAGS));
    round(&mut hw, &mut nested, Reason::Vmresume, &[]);
    write(&mut hw, &mut nested, field::GUEST_RFLAGS, 1 << 3 | 2);
    nested.instruction(&mut hw, Reason::Vmresume);
    assert!(!nested.in_l2());
}

/// What L0 puts into vmcs02 to resume L2 by itself: the rest of the timer, and an event
/// that was being delivered, with its error code and length.
#[test]
fn what_l0_replaces_to_resume_l2_is_not_shown() {
    use umbra_vmcs::controls::Pin;

    let (mut hw, mut nested) = lending();
    let pin = Pin::ACTIVATE_PREEMPTION_TIMER.bits();
    let old = read(&mut hw, &mut nested, field::PIN_BASED_CONTROLS);
    write(
        &mut hw,
        &mut nested,
        field::PIN_BASED_CONTROLS,
        old | u64::from(pin),
    );
    let values = [
        (field::VMX_PREEMPTION_TIMER_VALUE, 0x5000),
        (field::VM_ENTRY_EXCEPTION_ERROR_CODE, 0x12),
        (field::VM_ENTRY_INSTRUCTION_LENGTH, 3),
    ];
    for (f, value) in values {
        write(&mut hw, &mut nested, f, value);
    }
    for _ in 0..3 {
        let done = nested.instruction(&mut hw, Reason::Vmresume);
        assert_eq!(done, Done::Switched);
        hw.tsc += 0x1000;
        // A page that ept01 does not map yet, touched while INT 80h was delivered, and
        // once more while a page fault was.
        for (vectoring, code) in [(0x8000_0480, 0), (0x8000_0b0e, 7)] {
            let at = [
                (field::GUEST_PHYSICAL_ADDRESS, 0x12_3000),
                (field::IDT_VECTORING_INFORMATION, vectoring),
                (field::IDT_VECTORING_ERROR_CODE, code),
                (field::VM_EXIT_INSTRUCTION_LENGTH, 2),
            ];
            exit_from_l2(&mut hw, Reason::EptViolation as u32, &at);
            assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
            assert!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE) < 0x5000);
        }
        exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
        assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
        for (f, value) in values {
            assert_eq!(read(&mut hw, &mut nested, f), value, "{f:?}");
        }
    }
}

#[test]
fn another_vmcs_is_reached_instead() {
    let (mut hw, mut nested) = lending();
    let first = reached(&hw);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, OTHER_REGION);
    assert_eq!(reached(&hw), None);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    assert_eq!(reached(&hw), first);
    write(&mut hw, &mut nested, field::GUEST_RIP, 0x1234);
    pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
    assert_eq!(reached(&hw), None);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    assert_eq!(read(&mut hw, &mut nested, field::GUEST_RIP), 0x1234);
    assert_eq!(nested.instruction(&mut hw, Reason::Vmxoff), Done::Next);
    assert_eq!(reached(&hw), None);
}

/// Has VM entry load EFER, PAT and the debug registers, and VM exit save them; or neither.
fn keep_registers(hw: &mut Machine, nested: &mut Nested, is_kept: bool) {
    let entry = Entry::LOAD_DEBUG_CONTROLS | Entry::LOAD_PAT | Entry::LOAD_EFER;
    let exit = Exit::SAVE_DEBUG_CONTROLS | Exit::SAVE_PAT | Exit::SAVE_EFER;
    for (f, bits) in [
        (field::VM_ENTRY_CONTROLS, entry.bits()),
        (field::PRIMARY_VM_EXIT_CONTROLS, exit.bits()),
    ] {
        let old = read(hw, nested, f);
        let bits = u64::from(bits);
        let new = if is_kept { old | bits } else { old & !bits };
        write(hw, nested, f, new);
    }
}

/// Where both ways are vmcs12's, L1 has these registers without an exit too.
#[test]
fn registers_are_lent_where_l1_loads_and_saves_them() {
    for is_kept in [false, true] {
        let (mut hw, mut nested) = lending_whole();
        keep_registers(&mut hw, &mut nested, is_kept);
        write(&mut hw, &mut nested, field::GUEST_IA32_EFER, 0xd01);
        write(
            &mut hw,
            &mut nested,
            field::GUEST_IA32_PAT,
            0x0007_0406_0007_0406,
        );
        write(&mut hw, &mut nested, field::GUEST_DR7, 0x400);
        round(&mut hw, &mut nested, Reason::Vmresume, &[]);
        assert!(nested.current_pointer() == VMCS_REGION && !nested.in_l2());
        let is_read = hw.how_lent.read().contains(field::GUEST_IA32_EFER);
        assert_eq!(is_read, is_kept);
        assert_eq!(read(&mut hw, &mut nested, field::GUEST_IA32_EFER), 0xd01);
        // What L1 writes goes into L2, and a control that it changes then loses nothing.
        write(&mut hw, &mut nested, field::GUEST_IA32_EFER, 0xd00);
        if is_kept {
            let exit = read(&mut hw, &mut nested, field::PRIMARY_VM_EXIT_CONTROLS);
            let without = exit & !u64::from(Exit::SAVE_EFER.bits());
            write(
                &mut hw,
                &mut nested,
                field::PRIMARY_VM_EXIT_CONTROLS,
                without,
            );
        }
        round(&mut hw, &mut nested, Reason::Vmresume, &[]);
        assert_eq!(read(&mut hw, &mut nested, field::GUEST_IA32_EFER), 0xd00);
        // A bad one is found.
        write(&mut hw, &mut nested, field::GUEST_IA32_PAT, 0xff);
        keep_registers(&mut hw, &mut nested, true);
        nested.instruction(&mut hw, Reason::Vmresume);
        assert!(!nested.in_l2());
    }
}

fn is_whole(hw: &Machine) -> bool {
    matches!(hw.how_lent, Lent::Whole | Lent::WholeWithRegisters)
}

/// A machine whose L1 writes much of the guest state, without an exit now.
fn lending_whole() -> (Machine, Nested) {
    let (mut hw, mut nested) = lending();
    for (f, value) in good_state() {
        write(&mut hw, &mut nested, f, value);
    }
    assert!(!is_whole(&hw));
    round(&mut hw, &mut nested, Reason::Vmresume, &[]);
    assert!(is_whole(&hw));
    (hw, nested)
}

#[test]
fn an_l1_that_writes_much_has_it_lent_whole() {
    let (mut hw, mut nested) = lending_whole();
    write(&mut hw, &mut nested, field::GUEST_CR3, 0x7000);
    // As it was.
    write(
        &mut hw,
        &mut nested,
        field::GUEST_LDTR_ACCESS_RIGHTS,
        0x1_0000,
    );
    assert!(reached(&hw).is_some());
    nested.instruction(&mut hw, Reason::Vmresume);
    assert!(nested.in_l2());
    assert_eq!(hw.read(field::GUEST_CR3), 0x7000);
}

#[test]
fn guest_state_written_without_an_exit_is_checked() {
    for (f, value) in [
        (field::GUEST_CR0, 0),
        (field::GUEST_CR4, 0),
        (field::GUEST_TR_ACCESS_RIGHTS, 0),
        (field::GUEST_CS_ACCESS_RIGHTS, 0x1_0000),
        (field::GUEST_GDTR_LIMIT, 0x1_0000),
        (field::GUEST_ACTIVITY_STATE, 9),
        (field::GUEST_FS_BASE, 1 << 60),
    ] {
        let (mut hw, mut nested) = lending_whole();
        let before = read(&mut hw, &mut nested, f);
        for _ in 0..2 {
            write(&mut hw, &mut nested, f, value);
            nested.instruction(&mut hw, Reason::Vmresume);
            assert!(!nested.in_l2(), "{f:?}");
            let reason = read(&mut hw, &mut nested, field::EXIT_REASON);
            assert_eq!(reason, 0x8000_0021, "{f:?}");
            assert_eq!(read(&mut hw, &mut nested, f), value, "{f:?}");
            write(&mut hw, &mut nested, f, before);
            round(&mut hw, &mut nested, Reason::Vmresume, &[]);
        }
    }
}

/// Who writes no more gets it back as it was before.
#[test]
fn lending_whole_ends_by_itself() {
    let (mut hw, mut nested) = lending_whole();
    for _ in 0..300 {
        round(&mut hw, &mut nested, Reason::Vmresume, &[]);
    }
    assert!(reached(&hw).is_some());
    assert!(!is_whole(&hw));
}

/// L1's region looks as if it had been cleared on another CPU.
fn forget_tag(hw: &mut Machine, region: u64) {
    hw.poke(region + 8, &[0; 8]);
}

/// A VMCS that L1 cleared is where it was: its vmcs02 is lent again, and only what L1 writes
/// goes there.
#[test]
fn a_cleared_vmcs_goes_on_being_lent() {
    let (mut hw, mut nested) = lending();
    write(&mut hw, &mut nested, field::GUEST_RIP, 0x1234);
    pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    assert_eq!(reached(&hw), None);
    // Not launched any more.
    nested.instruction(&mut hw, Reason::Vmresume);
    assert_eq!(error(&mut hw, &mut nested), Some(5));
    write(&mut hw, &mut nested, field::GUEST_CR3, 0x7000);
    let before = hw.writes;
    nested.instruction(&mut hw, Reason::Vmlaunch);
    assert_eq!(hw.read(field::GUEST_CR3), 0x7000);
    // Not a field of vmcs02 that it had.
    assert!(hw.writes - before < 20, "{} fields", hw.writes - before);
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    assert!(reached(&hw).is_some());
    assert_eq!(read(&mut hw, &mut nested, field::GUEST_CR3), 0x7000);
    // L1 has used it before its VMLAUNCH: it most likely will again, and has it at once.
    pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
    pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION);
    assert!(reached(&hw).is_some());
    write(&mut hw, &mut nested, field::GUEST_RIP, 0x5678);
    nested.instruction(&mut hw, Reason::Vmlaunch);
    assert_eq!(hw.read(field::GUEST_RIP), 0x5678);
    assert_eq!(hw.read(field::GUEST_CR3), 0x7000);
}

/// What is in L1's memory is what counts: a region that another CPU has used since, or that
/// was filled from another one, is read.
#[test]
fn a_cleared_region_that_changed_is_read() {
    for change in 0..3 {
        let (mut hw, mut nested) = lending();
        pointer(&mut hw, &mut nested, Reason::Vmclear, OTHER_REGION);
        let mut before = [0; 2048];
        hw.peek(OTHER_REGION, &mut before);
        pointer(&mut hw, &mut nested, Reason::Vmptrld, OTHER_REGION);
        vmwrite(&mut hw, &mut nested, enc(field::GUEST_CR3), 0x7000);
        pointer(&mut hw, &mut nested, Reason::Vmclear, OTHER_REGION);
        let expected = match change {
            // An older copy, tag and all.
            0 => {
                hw.poke(OTHER_REGION, &before);
                None
            }
            1 => {
                hw.poke(OTHER_REGION + 8, &[0; 2040]);
                Some(0)
            }
            _ => {
                let mut another = nested_on(1, FieldSet::FULL);
                pointer(&mut hw, &mut another, Reason::Vmxon, VMXON_REGION);
                pointer(&mut hw, &mut another, Reason::Vmptrld, OTHER_REGION);
                vmwrite(&mut hw, &mut another, enc(field::GUEST_CR3), 0x9000);
                pointer(&mut hw, &mut another, Reason::Vmclear, OTHER_REGION);
                Some(0x9000)
            }
        };
        pointer(&mut hw, &mut nested, Reason::Vmptrld, OTHER_REGION);
        let cr3 = vmread(&mut hw, &mut nested, enc(field::GUEST_CR3));
        assert_ne!(cr3, 0x7000, "change {change}");
        if let Some(expected) = expected {
            assert_eq!(cr3, expected, "change {change}");
        }
    }
}

/// What L1 and L2 do.
#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Write(usize, u64),
    /// Most of the guest state, as another Umbra does; with one field of another value.
    WriteState(usize, u64),
    /// EFER, PAT and the debug registers are loaded and saved, or not.
    KeepRegisters(bool),
    Enter,
    Exit(u16, u64),
    Load(bool),
    Clear(bool),
}

/// Values that many fields take, and some do not.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(2),
        Just(0x8000_0030),
        Just(0x8000_0202),
        Just(0xffff_8000_0000_1000),
        0..0x10_0000u64,
        any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let any_field = 0..field::ALL.len();
    prop_oneof![
        4 => any_field.clone().prop_map(Step::Read),
        4 => prop::sample::select(lent_fields()).prop_map(Step::Read),
        2 => (any_field, value()).prop_map(|(f, v)| Step::Write(f, v)),
        4 => (prop::sample::select(lent_fields()), value()).prop_map(|(f, v)| Step::Write(f, v)),
        2 => (prop::sample::select(state_fields()), value())
            .prop_map(|(f, v)| Step::WriteState(f, v)),
        2 => any::<bool>().prop_map(Step::KeepRegisters),
        6 => Just(Step::Enter),
        6 => (prop::sample::select(vec![0u16, 1, 7, 10, 12, 18, 30, 48]), any::<u64>())
            .prop_map(|(reason, bits)| Step::Exit(reason, bits)),
        1 => any::<bool>().prop_map(Step::Load),
        1 => any::<bool>().prop_map(Step::Clear),
    ]
}

fn lent_fields() -> Vec<usize> {
    Lent::InPart.written().iter().map(Field::index).collect()
}

fn state_fields() -> Vec<usize> {
    Lent::WholeWithRegisters
        .written()
        .iter()
        .map(Field::index)
        .collect()
}

/// Guest state that any rule lets through.
fn good_state() -> impl Iterator<Item = (Field, u64)> {
    let written = Lent::Whole.written().difference(Lent::InPart.written());
    valid_fields()
        .into_iter()
        .filter(move |(f, _)| written.contains(*f))
}

const fn region(is_other: bool) -> u64 {
    if is_other { OTHER_REGION } else { VMCS_REGION }
}

/// Carries a step out and gives all that can be seen of it.
fn take(hw: &mut Machine, nested: &mut Nested, is_launched: &mut [bool; 2], step: &Step) -> String {
    if nested.in_l2() != matches!(step, Step::Exit(..)) {
        return String::new();
    }
    if let Step::Read(f) | Step::Write(f, _) = *step
        && !nested.fields.contains(field::ALL[f])
    {
        return String::new();
    }
    match *step {
        Step::Read(f) => format!("{:#x}", read(hw, nested, field::ALL[f])),
        Step::Write(f, value) => {
            write(hw, nested, field::ALL[f], value);
            String::new()
        }
        Step::WriteState(f, value) => {
            for (f, value) in good_state() {
                write(hw, nested, f, value);
            }
            if value >> 62 == 0 {
                write(hw, nested, field::ALL[f], value);
            }
            String::new()
        }
        Step::KeepRegisters(is_kept) => {
            keep_registers(hw, nested, is_kept);
            write(hw, nested, field::GUEST_IA32_EFER, 0xd01);
            write(hw, nested, field::GUEST_IA32_PAT, 0x0007_0406_0007_0406);
            write(hw, nested, field::GUEST_DR7, 0x400);
            write(hw, nested, field::GUEST_IA32_DEBUGCTL, 1);
            String::new()
        }
        Step::Enter => {
            let at = usize::from(nested.current_pointer() == OTHER_REGION);
            let reason = match is_launched[at] {
                true => Reason::Vmresume,
                false => Reason::Vmlaunch,
            };
            let done = nested.instruction(hw, reason);
            is_launched[at] |= nested.in_l2();
            let mut seen = format!("{done:?} {}", hw.read(field::GUEST_RFLAGS));
            if nested.in_l2() {
                // Without the valid bit the rest of an event has no effect.
                let has_event = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION) >> 31 != 0;
                let counts = |f: &Field| {
                    !f.is_read_only() && (has_event || !f.name().starts_with("VM_ENTRY_"))
                };
                for f in Lent::WithRegisters.read().iter().filter(counts) {
                    seen += &format!(" {f:?}={:#x}", hw.read(f));
                }
            }
            seen
        }
        Step::Exit(reason, bits) => {
            let rflags = bits >> 40 & 0xed5 | 2;
            // Blocking by STI only where IF is 1.
            let blocking = bits >> 60 & rflags >> 9 & 1;
            let at = [
                (field::GUEST_RIP, bits & 0x7fff_ffff_ffff),
                (field::GUEST_RFLAGS, rflags),
                (field::GUEST_INTERRUPTIBILITY_STATE, blocking),
                (field::GUEST_ACTIVITY_STATE, 0),
                // Now and then a page fault was being delivered: L0 injects it again.
                (
                    field::IDT_VECTORING_INFORMATION,
                    (bits >> 4 & 1) * 0x8000_0b0e,
                ),
                (field::IDT_VECTORING_ERROR_CODE, bits >> 5 & 7),
                (field::EXIT_QUALIFICATION, bits >> 8 & 0x7),
                (field::VM_EXIT_INSTRUCTION_LENGTH, bits >> 20 & 0xf),
                (field::GUEST_PHYSICAL_ADDRESS, bits >> 16 & 0xff_f000),
                (field::GUEST_CR3, bits >> 12 & 0xff_f000),
            ];
            exit_from_l2(hw, reason.into(), &at);
            let done = l2_exit(hw, nested);
            format!("{done:?} {}", hw.read(field::GUEST_RIP))
        }
        Step::Load(is_other) => {
            format!(
                "{:?}",
                pointer(hw, nested, Reason::Vmptrld, region(is_other))
            )
        }
        Step::Clear(is_other) => {
            is_launched[usize::from(is_other)] = false;
            let done = pointer(hw, nested, Reason::Vmclear, region(is_other));
            if !nested.can_lend {
                // Whoever does not lend does not keep a cleared VMCS in its slot, either.
                forget_tag(hw, region(is_other));
            }
            // There is always a current VMCS again.
            pointer(hw, nested, Reason::Vmptrld, region(is_other));
            format!("{done:?}")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lending_cannot_be_told(steps in prop::collection::vec(step(), 1..60)) {
        let (mut a, mut plain) = machine(false);
        let (mut b, mut lender) = machine(true);
        let mut launched = [[false; 2]; 2];
        for (n, step) in steps.iter().enumerate() {
            let seen = take(&mut a, &mut plain, &mut launched[0], step);
            prop_assert_eq!(a.linked, None);
            let lent = take(&mut b, &mut lender, &mut launched[1], step);
            prop_assert_eq!(&seen, &lent, "step {}: {:?}", n, step);
            if seen.starts_with("Abort") {
                // The CPU is shut down.
                break;
            }
            prop_assert_eq!(plain.in_l2(), lender.in_l2());
        }
    }
}

//! The SDM's rules, one assertion each, and that every entry has an answer
//! which passes the checks of VM entry.

use umbra_arch::qualification::{TaskSwitch, TaskSwitchSource};
use umbra_nmi::blocking;
use umbra_nmi::{
    Action, Arm, Entry, EntryWindow, ExitKind, Inbox, Injects, Interruptibility, NMI_ENTRY_INFO,
    NMI_EXIT_INFO, NmiMachine, Policy,
};

const DIRECT: u32 = 0;
const EXIT: u32 = 1 << 3;
const VIRTUAL: u32 = 1 << 3 | 1 << 5;
const WINDOW: u32 = 1 << 22;
const MTF: u32 = 1 << 27;
const EXCEPTION: u32 = 0x8000_0b0e;
const PENDING_MTF: u32 = 0x8000_0700;
const WAIT_FOR_SIPI: u32 = 3;
const BLOCKED: Interruptibility = Interruptibility(8);
const OPEN: Interruptibility = Interruptibility(0);

fn l2(pin: u32, interruptibility: u32) -> Entry {
    Entry::l2(pin, 0, interruptibility, 0, 0, 0, false)
}

#[test]
fn policies_by_pin_controls() {
    let of = Policy::of_pin_controls;
    assert_eq!(of(0x16), Policy::Direct);
    assert_eq!(of(0x1e), Policy::Exit);
    assert_eq!(of(0x3e), Policy::Virtual);
    assert_eq!(of(0x36), Policy::Direct);
}

#[test]
fn the_plain_case_of_each_policy() {
    assert_eq!(Entry::l1(0, 0, 0, 0).action(), Action::Inject);
    assert_eq!(l2(DIRECT, 0).action(), Action::Inject);
    assert_eq!(l2(EXIT, 0).action(), Action::ReflectNmiExit);
    assert_eq!(l2(VIRTUAL, 0).action(), Action::ReflectNmiExit);
}

#[test]
fn blocked_by_nmi() {
    assert_eq!(Entry::l1(8, 0, 0, 0).action(), Action::HoldForWindow);
    assert_eq!(l2(DIRECT, 8).action(), Action::HoldForWindow);
    // IRET does not unblock: only an exit can, and that is L1's.
    assert_eq!(l2(EXIT, 8).action(), Action::Hold);
    // The bit is virtual: the NMI itself is not blocked.
    assert_eq!(l2(VIRTUAL, 8).action(), Action::ReflectNmiExit);
}

#[test]
fn shadows_injections_and_debug_traps_come_first() {
    for pin in [DIRECT, EXIT, VIRTUAL] {
        assert_eq!(l2(pin, 1).action(), Action::Step, "STI");
        assert_eq!(l2(pin, 2).action(), Action::Step, "MOV SS");
        for info in [EXCEPTION, NMI_ENTRY_INFO, 0x8000_0020] {
            let entry = Entry::l2(pin, 0, 0, info, 0, 0, false);
            assert_eq!(entry.action(), Action::Step);
        }
        let single_step = Entry::l2(pin, 0, 0, 0, 0, 1 << 14, false);
        assert_eq!(single_step.action(), Action::Step);
        // B0 alone is no valid pending debug exception.
        let not_valid = Entry::l2(pin, 0, 0, 0, 0, 1, false);
        assert_eq!(not_valid.action(), l2(pin, 0).action());
    }
}

#[test]
fn l1s_own_exits_come_first() {
    for pin in [DIRECT, EXIT, VIRTUAL] {
        let pending_mtf = Entry::l2(pin, 0, 0, PENDING_MTF, 0, 0, false);
        assert_eq!(pending_mtf.action(), Action::Hold);
        let timer = Entry::l2(pin, 0, 0, 0, 0, 0, true);
        assert_eq!(timer.action(), Action::Hold);
        let monitor_trap = Entry::l2(pin, MTF, 2, 0, 0, 0, false);
        assert_eq!(monitor_trap.action(), Action::Hold);
    }
    let window = |bits| Entry::l2(VIRTUAL, WINDOW, bits, 0, 0, 0, false).action();
    assert_eq!(window(0), Action::Hold);
    assert_eq!(window(8), Action::ReflectNmiExit);
    assert_eq!(window(2), Action::Step);
}

#[test]
fn wait_for_sipi_latches_the_nmi_and_init_drops_it() {
    let (mut nmi, inbox) = (NmiMachine::new(), Inbox::new());
    inbox.put();
    let waits = Entry::l1(0, 0, WAIT_FOR_SIPI, 0);
    assert_eq!(nmi.before_entry(&inbox, &waits), Action::Hold);
    assert!(nmi.has_pending(&inbox));
    // The SIPI has come: the NMI is taken at the first instruction.
    let mut woken = nmi.clone();
    let started = Entry::l1(0, 0, 0, 0);
    assert_eq!(woken.before_entry(&inbox, &started), Action::Inject);
    // An INIT instead: nothing is left of it, nor of one that came with it.
    inbox.put();
    nmi.reset(&inbox);
    assert!(!nmi.has_pending(&inbox));
    assert_eq!(nmi.before_entry(&inbox, &started), Action::Enter);
}

#[test]
fn one_fits_and_a_taken_one_is_gone() {
    let (mut nmi, inbox) = (NmiMachine::new(), Inbox::new());
    let entry = Entry::l1(0, 0, 0, 0);
    assert_eq!(nmi.before_entry(&inbox, &entry), Action::Enter);
    inbox.put();
    inbox.put();
    assert_eq!(nmi.before_entry(&inbox, &entry), Action::Inject);
    assert_eq!(nmi.before_entry(&inbox, &entry), Action::Enter);
    assert!(!nmi.has_pending(&inbox));
}

#[test]
fn what_is_armed_holds_for_one_entry_and_its_exit_is_l0s() {
    for (bits, arm, kind) in [
        (2, Arm::MonitorTrap, ExitKind::MonitorTrap),
        (8, Arm::NmiWindow, ExitKind::NmiWindow),
        (8, Arm::NmiWindow, ExitKind::Nmi),
    ] {
        let (mut nmi, inbox) = (NmiMachine::new(), Inbox::new());
        inbox.put();
        let action = nmi.before_entry(&inbox, &Entry::l1(bits, 0, 0, 0));
        assert_eq!(action.arm(), Some(arm));
        // Deciding again before the entry changes nothing.
        inbox.put();
        let again = nmi.before_entry(&inbox, &Entry::l1(bits, 0, 0, 0));
        assert_eq!(again, action);
        assert!(nmi.is_armed());
        let after = nmi.after_exit(kind);
        assert_eq!((after.disarm, after.l0_owns), (Some(arm), true));
        assert!(!nmi.is_armed());
        assert!(nmi.has_pending(&inbox), "it still waits");
    }
}

#[test]
fn exits_that_are_l1s_stay_l1s() {
    let inbox = Inbox::new();
    for kind in [
        ExitKind::Nmi,
        ExitKind::NmiWindow,
        ExitKind::MonitorTrap,
        ExitKind::Other,
    ] {
        let after = NmiMachine::new().after_exit(kind);
        assert_eq!((after.disarm, after.l0_owns), (None, false));
    }
    // Armed for one thing, exited by another.
    for (bits, kind) in [
        (2, ExitKind::NmiWindow),
        (2, ExitKind::Other),
        (8, ExitKind::MonitorTrap),
        (8, ExitKind::Other),
    ] {
        let mut nmi = NmiMachine::new();
        inbox.put();
        nmi.before_entry(&inbox, &Entry::l1(bits, 0, 0, 0));
        assert!(!nmi.after_exit(kind).l0_owns);
        assert!(nmi.has_pending(&inbox));
    }
}

#[test]
fn exit_kinds() {
    assert_eq!(ExitKind::of(0, NMI_EXIT_INFO), ExitKind::Nmi);
    assert_eq!(ExitKind::of(0, 0x8000_0b0e), ExitKind::Other);
    assert_eq!(ExitKind::of(0, NMI_EXIT_INFO & !(1 << 31)), ExitKind::Other);
    assert_eq!(ExitKind::of(8, 0), ExitKind::NmiWindow);
    assert_eq!(ExitKind::of(37, 0), ExitKind::MonitorTrap);
    assert_eq!(ExitKind::of(48, NMI_EXIT_INFO), ExitKind::Other);
}

#[test]
fn control_bits() {
    assert_eq!(Arm::MonitorTrap.pin_bits(), 0);
    assert_eq!(Arm::MonitorTrap.proc_bits(), MTF);
    assert_eq!(Arm::NmiWindow.pin_bits(), VIRTUAL);
    assert_eq!(Arm::NmiWindow.proc_bits(), WINDOW);
}

/// Every entry that could be asked about: what the action makes of it passes
/// the checks of VM entry, and never takes a control away from vmcs12.
#[test]
fn every_answer_can_be_entered() {
    let mut answers = 0;
    let infos = [0, EXCEPTION, NMI_ENTRY_INFO, PENDING_MTF, 0x8000_0020];
    for pin in [DIRECT, EXIT, VIRTUAL] {
        for proc in [0, MTF, WINDOW, MTF | WINDOW] {
            if proc & WINDOW != 0 && pin != VIRTUAL {
                continue; // fails the checks on L1's entry
            }
            for bits in 0..16 {
                for info in infos {
                    for activity in 0..4 {
                        for exits_first in [false, true] {
                            check(pin, proc, bits, info, activity, exits_first);
                            answers += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(answers, 5120);
}

fn check(pin: u32, proc: u32, bits: u32, info: u32, activity: u32, exits_first: bool) {
    let entry = Entry::l2(pin, proc, bits, info, activity, 0, exits_first);
    let action = entry.action();
    let at = format!("{entry:x?}: {action:?}");
    if let Some(arm) = action.arm() {
        assert_eq!(pin & arm.pin_bits(), 0, "{at}");
        assert_eq!(proc & arm.proc_bits(), 0, "{at}");
        // With virtual NMIs, an injected NMI needs the blocking bit clear.
        let virtual_nmis = (pin | arm.pin_bits()) & 1 << 5 != 0;
        let both_before = pin == VIRTUAL && bits & 8 != 0;
        let both = virtual_nmis && bits & 8 != 0;
        assert!(both_before || !both || info != NMI_ENTRY_INFO, "{at}");
    }
    if action == Action::Inject {
        assert_eq!(info, 0, "{at}: the entry injects something else");
        assert_ne!(activity, WAIT_FOR_SIPI, "{at}");
        let with = entry.interruptibility.for_injected_nmi();
        assert!(with.nmi() && !with.shadow(), "{at}");
    }
    if action == Action::ReflectNmiExit {
        assert_ne!(pin, DIRECT, "{at}");
    }
}

#[test]
fn blocking_of_l1_after_an_exit_of_l2() {
    let after = blocking::l1_after_exit;
    for policy in [Policy::Direct, Policy::Exit, Policy::Virtual] {
        assert!(after(policy, OPEN, true).nmi(), "an NMI exit blocks");
        assert!(!after(policy, OPEN, false).nmi());
    }
    assert!(after(Policy::Direct, BLOCKED, false).nmi());
    assert!(after(Policy::Exit, BLOCKED, false).nmi());
    assert!(!after(Policy::Virtual, BLOCKED, false).nmi());
    assert!(!after(Policy::Direct, Interruptibility(11), false).shadow());
}

#[test]
fn iret_is_executed_again() {
    let retry = |policy, word, vectoring| {
        blocking::before_retry(policy, Interruptibility(2), word, vectoring, false).0
    };
    let bit12 = 1 << 12;
    assert_eq!(retry(Policy::Direct, bit12, 0), 10);
    assert_eq!(retry(Policy::Virtual, bit12, 0), 10);
    assert_eq!(retry(Policy::Exit, bit12, 0), 2, "undefined there");
    assert_eq!(retry(Policy::Direct, bit12, EXCEPTION), 2, "undefined");
    assert_eq!(retry(Policy::Direct, !bit12, 0), 2);
    let double_fault = blocking::before_retry(Policy::Direct, OPEN, bit12, 0, true);
    assert_eq!(double_fault, OPEN, "undefined");
}

#[test]
fn an_event_is_injected_again() {
    let again = blocking::before_reinjection;
    assert_eq!(again(Policy::Virtual, BLOCKED, 0x202), None);
    let undefined = NMI_ENTRY_INFO | 1 << 12;
    let nmi = Some(NMI_ENTRY_INFO);
    let info = |r: Option<(u32, Interruptibility)>| r.map(|r| r.0);
    let bits = |r: Option<(u32, Interruptibility)>| r.map(|r| r.1.0);
    assert_eq!(info(again(Policy::Virtual, BLOCKED, undefined)), nmi);
    assert_eq!(bits(again(Policy::Virtual, BLOCKED, undefined)), Some(0));
    assert_eq!(bits(again(Policy::Direct, BLOCKED, undefined)), Some(8));
    assert_eq!(bits(again(Policy::Exit, BLOCKED, undefined)), Some(8));
    // An exception in an NMI handler leaves virtual-NMI blocking alone, keeps
    // its error code, and ends a shadow.
    let in_handler = again(Policy::Virtual, Interruptibility(10), EXCEPTION);
    assert_eq!(in_handler, Some((EXCEPTION, BLOCKED)));
}

#[test]
fn task_switches() {
    let after = blocking::after_task_switch;
    let of = |qualification| TaskSwitch::from_bits(qualification).source();
    assert_eq!(of(0x08), TaskSwitchSource::Call);
    assert_eq!(of(0x4000_0008), TaskSwitchSource::Iret);
    assert_eq!(of(0x8000_0008), TaskSwitchSource::Jmp);
    assert_eq!(of(0xc000_0008), TaskSwitchSource::Gate);
    assert_eq!(
        after(Policy::Direct, BLOCKED, TaskSwitchSource::Iret, 0),
        OPEN
    );
    assert_eq!(
        after(Policy::Virtual, BLOCKED, TaskSwitchSource::Iret, 0),
        OPEN
    );
    assert_eq!(
        after(Policy::Exit, BLOCKED, TaskSwitchSource::Iret, 0),
        BLOCKED
    );
    let gate = |info| after(Policy::Direct, OPEN, TaskSwitchSource::Gate, info);
    assert_eq!(gate(NMI_ENTRY_INFO), BLOCKED);
    assert_eq!(gate(EXCEPTION), OPEN);
    assert_eq!(gate(0x202), OPEN, "not valid");
    let jmp = after(
        Policy::Direct,
        Interruptibility(11),
        TaskSwitchSource::Jmp,
        0,
    );
    assert_eq!(jmp, BLOCKED);
}

#[test]
fn the_window_has_two_ends() {
    let window = EntryWindow {
        start: 0x100,
        last_entry: 0x140,
        retry: 0x80,
    };
    assert_eq!(window.resume_at(0xff), 0xff);
    assert_eq!(window.resume_at(0x100), 0x80);
    assert_eq!(window.resume_at(0x140), 0x80);
    assert_eq!(window.resume_at(0x141), 0x141);
}

#[test]
fn what_an_entry_injects() {
    assert_eq!(Injects::of_entry_info(0x202), Injects::Nothing);
    assert_eq!(Injects::of_entry_info(NMI_ENTRY_INFO), Injects::Nmi);
    assert_eq!(Injects::of_entry_info(EXCEPTION), Injects::Event);
    assert_eq!(Injects::of_entry_info(PENDING_MTF), Injects::PendingMtf);
}

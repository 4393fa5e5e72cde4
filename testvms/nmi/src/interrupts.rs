//! NMIs beside maskable interrupts, beside other events that wait, and in inactive states.
//!
//! SDM "External-Interrupt Exiting", "Interrupt-Window Exiting", "Acknowledge Interrupt on Exit",
//! "Activity State", "Priority Among Simultaneous Exceptions and Interrupts".

use rt::vmx::insn::write;
use umbra_vmcs::controls::{Exit, Pin, Proc};
use umbra_vmcs::field;

use crate::apic;
use crate::code::{self, Code, piece};
use crate::l1;
use crate::lab::{BY_MOV_SS, BY_STI, Lab, POLICIES, Policy};

/// Activity state: HLT.
const HALTED: u64 = 1;
/// Activity state: shutdown.
const SHUTDOWN: u64 = 2;
/// An injected event that makes an MTF exit wait.
const PENDING_MTF: u64 = 1 << 31 | 7 << 8;
/// Ticks after which the interval timer sends its NMI: 50 ms, in which L2 has long been entered,
/// however many hypervisors take part in that, and halts.
const LATER: u16 = 60_000;

/// Runs them all.
pub fn run(lab: &mut Lab) {
    for policy in POLICIES {
        both(lab, policy);
        shadows(lab, policy);
        inactive(lab, policy);
        priorities(lab, policy);
    }
}

/// An NMI and an interrupt wait at the entry.
fn both(lab: &mut Lab, policy: Policy) {
    for (name, is_exiting, acknowledges, has_if) in [
        ("interrupt waits too, IF 0", false, false, false),
        ("interrupt waits too, IF 1", false, false, true),
        ("interrupt waits too, exiting, IF 0", true, false, false),
        ("interrupt waits too, exiting, IF 1", true, false, true),
        ("interrupt waits too, acknowledged, IF 0", true, true, false),
        ("interrupt waits too, acknowledged, IF 1", true, true, true),
    ] {
        lab.begin_l2(policy, name, piece::sti);
        if is_exiting {
            lab.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
        }
        if acknowledges {
            lab.vm
                .exit_controls(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT, Exit::empty());
        }
        if has_if {
            lab.set_if();
        }
        l1::block();
        apic::send_interrupt();
        apic::send_nmi();
        lab.finish(2);
    }

    lab.begin_l2(
        policy,
        "L2 sends itself an interrupt and an NMI",
        piece::send_both,
    );
    lab.finish(1);

    lab.begin_l2(policy, "interrupt window, an NMI waits", piece::idle);
    lab.latch();
    lab.set_if();
    lab.ask_interrupt_window();
    lab.finish(2);

    lab.begin_l2(
        policy,
        "interrupt window opened by STI, NMI in L2 after it",
        piece::sti_send,
    );
    lab.ask_interrupt_window();
    lab.finish(1);
}

/// Blocking by STI and by MOV SS.
fn shadows(lab: &mut Lab, policy: Policy) {
    for (name, state) in [
        ("waits, L2 blocked by STI", BY_STI),
        ("waits, L2 blocked by MOV SS", BY_MOV_SS),
    ] {
        lab.begin_l2(policy, name, piece::idle);
        lab.latch();
        lab.set_if();
        lab.set_blocking(state);
        lab.finish(2);
    }
    lab.begin_l2(policy, "sent in L2 after STI", piece::sti_send);
    lab.finish(1);
    lab.begin_l2(policy, "sent in L2 after MOV SS", piece::mov_ss_send);
    lab.finish(1);
}

/// L2 in HLT and in shutdown.
fn inactive(lab: &mut Lab, policy: Policy) {
    for (name, activity) in [
        ("waits, L2 in HLT", HALTED),
        ("waits, L2 in shutdown", SHUTDOWN),
    ] {
        lab.begin_l2(policy, name, piece::idle);
        lab.latch();
        write(field::GUEST_ACTIVITY_STATE, activity);
        lab.finish(2);
    }

    for (name, code) in [
        ("comes while L2 halts", piece::halt as Code),
        ("comes while L2 halts with interrupts on", piece::sti_halt),
    ] {
        lab.begin_l2(policy, name, code);
        apic::start_timer(LATER);
        lab.go();
        apic::stop_timer();
        lab.settle(1);
    }

    for (name, activity) in [
        ("comes while L2 is in HLT by the entry", HALTED),
        ("comes while L2 is in shutdown", SHUTDOWN),
    ] {
        lab.begin_l2(policy, name, piece::idle);
        write(field::GUEST_ACTIVITY_STATE, activity);
        apic::start_timer(LATER);
        lab.go();
        apic::stop_timer();
        lab.settle(1);
    }

    lab.begin_l2(policy, "waits, HLT exiting", piece::halt);
    lab.vm.proc(Proc::HLT_EXITING, Proc::empty());
    lab.latch();
    lab.finish(2);

    lab.begin_l2(policy, "comes while L2 spins", piece::spin);
    lab.set_handler(2, &code::ENDING);
    apic::start_timer(LATER);
    if policy == Policy::Direct {
        lab.go();
    } else {
        lab.step();
    }
    apic::stop_timer();
    lab.settle(1);
}

/// What comes before an NMI.
fn priorities(lab: &mut Lab, policy: Policy) {
    lab.begin_l2(
        policy,
        "waits, preemption timer at 0, timer first",
        piece::idle,
    );
    lab.latch();
    lab.ask_timer(0);
    lab.finish(2);

    lab.begin_l2(
        policy,
        "waits, an MTF exit waits too and is first",
        piece::idle,
    );
    lab.latch();
    write(field::VM_ENTRY_INTERRUPTION_INFORMATION, PENDING_MTF);
    lab.finish(2);

    lab.begin_l2(policy, "waits, monitor trap flag", piece::idle);
    lab.latch();
    lab.vm.proc(Proc::MONITOR_TRAP_FLAG, Proc::empty());
    lab.finish(2);

    lab.begin_l2(policy, "waits, an interrupt is injected", piece::idle);
    lab.latch();
    lab.set_if();
    let event = 1u64 << 31 | u64::from(apic::VECTOR);
    write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
    lab.finish(2);

    lab.begin_l2(policy, "waits, an exception is injected", piece::idle);
    lab.latch();
    write(
        field::VM_ENTRY_INTERRUPTION_INFORMATION,
        1 << 31 | 3 << 8 | 6,
    );
    lab.finish(2);
}

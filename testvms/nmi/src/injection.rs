//! NMIs that a VM entry injects, and the NMI window.
//!
//! SDM "Event Injection", "NMI-Window Exiting", "Other Causes of VM Exits".

use umbra_vmcs::controls::Pin;
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field;

use rt::vmx::insn::write;
use rt::vmx::vm::layout;

use crate::apic;
use crate::code::{self, piece};
use crate::l1;
use crate::lab::{BY_MOV_SS, BY_NMI, Lab, POLICIES, Policy};

/// Runs them all.
pub fn run(lab: &mut Lab) {
    for policy in POLICIES {
        unobserved(lab, policy);
        observed(lab, policy);
        refused(lab, policy);
    }
    windows(lab);
}

/// L2's handler counts and returns: who is blocked in between does not show.
fn unobserved(lab: &mut Lab, policy: Policy) {
    if policy == Policy::Exiting {
        // IRET unblocks nothing there.
        let sdm = "NMIs are not blocked when it has returned";
        lab.leave_out(policy, "injected, L2's handler returns", sdm);
        return;
    }
    lab.begin_l2(policy, "injected, L2's handler returns", piece::idle);
    lab.set_handler(2, &code::COUNTING);
    lab.inject();
    lab.finish_counting(1);

    lab.begin_l2(
        policy,
        "injected, blocked by NMI in L1, not in L2",
        piece::idle,
    );
    lab.set_handler(2, &code::COUNTING);
    l1::block();
    lab.inject();
    lab.finish_counting(2);
}

/// L2's handler shows the blocking, and another NMI is sent in it.
fn observed(lab: &mut Lab, policy: Policy) {
    const SHOWN: &str = "injected, L2's handler calls";
    const SENT: &str = "injected, another sent in L2's handler";
    const WAITS: &str = "injected, another waits in L1";
    if policy != Policy::Virtual {
        lab.leave_out(policy, SHOWN, "NMIs are not blocked in the handler");
        lab.leave_out(policy, SENT, "it comes in the handler");
        lab.leave_out(
            policy,
            WAITS,
            "it comes before the handler's first instruction",
        );
        return;
    }
    lab.begin_l2(policy, SHOWN, piece::idle);
    lab.inject();
    lab.finish(1);

    lab.begin_l2(policy, SENT, piece::idle);
    lab.set_handler(2, &code::SENDING);
    lab.inject();
    lab.finish(2);

    lab.begin_l2(policy, WAITS, piece::idle);
    lab.latch();
    lab.inject();
    lab.finish(3);

    lab.begin_l2(
        policy,
        "injected, an exception in the handler unblocks",
        piece::idle,
    );
    lab.set_handler(2, &code::NESTING);
    lab.inject();
    lab.ask_nmi_window();
    lab.finish(1);
}

/// Entries that must fail leave L1's blocking, and what waits, alone.
fn refused(lab: &mut Lab, policy: Policy) {
    lab.begin_l2(
        policy,
        "injected under MOV SS, one waits in L1",
        piece::idle,
    );
    lab.latch();
    lab.set_blocking(BY_MOV_SS);
    lab.inject();
    lab.step();
    lab.mark("still waits");
    lab.settle(2);

    lab.begin_l2(policy, "broken guest state, one waits in L1", piece::idle);
    lab.latch();
    write(field::GUEST_RFLAGS, 0);
    lab.step();
    lab.mark("still waits");
    lab.settle(2);

    lab.begin_l2(policy, "broken controls, one waits in L1", piece::idle);
    lab.latch();
    match policy {
        // Virtual NMIs without NMI exiting.
        Policy::Direct => {
            lab.vm.pin(Pin::VIRTUAL_NMIS, Pin::empty());
        }
        // The NMI window without virtual NMIs.
        Policy::Exiting => lab.ask_nmi_window(),
        // A CR3-target count that no CPU has.
        Policy::Virtual => write(field::CR3_TARGET_COUNT, 300),
    }
    lab.step();
    lab.mark("still waits");
    lab.settle(2);
}

fn windows(lab: &mut Lab) {
    let policy = Policy::Virtual;
    lab.begin_l2(policy, "NMI window, open", piece::call);
    lab.ask_nmi_window();
    lab.finish(0);

    lab.begin_l2(policy, "NMI window, after IRET", piece::iret);
    lab.set_blocking(BY_NMI);
    lab.ask_nmi_window();
    lab.finish(0);

    lab.begin_l2(policy, "NMI window, then the NMI injected", piece::iret);
    lab.set_blocking(BY_NMI);
    lab.ask_nmi_window();
    for _ in 0..2 {
        lab.step();
    }
    lab.inject();
    lab.finish(1);

    lab.begin_l2(policy, "NMI window and injection at one entry", piece::idle);
    lab.ask_nmi_window();
    lab.inject();
    lab.finish(1);

    lab.begin_l2(
        policy,
        "NMI window, an NMI waits, window first",
        piece::idle,
    );
    lab.latch();
    lab.ask_nmi_window();
    lab.finish(2);

    lab.begin_l2(policy, "NMI window shut, an NMI waits", piece::iret);
    lab.latch();
    lab.set_blocking(BY_NMI);
    lab.ask_nmi_window();
    lab.finish(2);

    lab.begin_l2(policy, "NMI window under MOV SS", piece::idle);
    lab.set_blocking(BY_MOV_SS);
    lab.ask_nmi_window();
    lab.finish(0);

    lab.begin_l2(policy, "NMI window, L2 halted", piece::idle);
    write(field::GUEST_ACTIVITY_STATE, 1);
    lab.ask_nmi_window();
    lab.finish(0);

    lab.begin_l2(policy, "both windows, NMI window first", piece::idle);
    lab.set_if();
    lab.ask_nmi_window();
    lab.ask_interrupt_window();
    lab.finish(0);

    lab.begin_l2(
        policy,
        "NMI window and preemption timer at 0, timer first",
        piece::idle,
    );
    lab.ask_nmi_window();
    lab.ask_timer(0);
    lab.finish(0);

    lab.begin_l2(policy, "NMI window and monitor trap flag", piece::idle);
    lab.vm.proc(Proc::MONITOR_TRAP_FLAG, Proc::empty());
    lab.ask_nmi_window();
    lab.finish(0);

    lab.begin_l2(
        policy,
        "injected, with window, stack page missing",
        piece::idle,
    );
    lab.take_page(layout::STACK_TOP - 4096);
    lab.inject();
    lab.ask_nmi_window();
    apic::send_nmi();
    lab.finish(2);
}

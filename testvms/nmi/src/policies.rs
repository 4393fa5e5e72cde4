//! The three policies: where an NMI goes that comes before the entry, in L2, or while blocked.
//!
//! SDM "Pin-Based VM-Execution Controls", "Interruptibility State", "Changes to Instruction Behavior
//! in VMX Non-Root Operation" (IRET), "Other Causes of VM Exits".

use crate::apic;
use crate::code::{self, piece};
use crate::l1;
use crate::lab::{BY_NMI, Lab, POLICIES, Policy};

/// Runs them all.
pub fn run(lab: &mut Lab) {
    for policy in POLICIES {
        before_the_entry(lab, policy);
        in_l2(lab, policy);
        blocked_in_l2(lab, policy);
        after_an_exit(lab, policy);
    }
    nested_handlers(lab);
}

fn before_the_entry(lab: &mut Lab, policy: Policy) {
    lab.begin_l2(
        policy,
        "sent right before VMLAUNCH, not blocked",
        piece::idle,
    );
    apic::send_nmi();
    lab.finish(1);

    lab.begin_l2(
        policy,
        "sent right before VMRESUME, not blocked",
        piece::call,
    );
    lab.step();
    apic::send_nmi();
    lab.finish(1);

    lab.begin_l2(policy, "waits at VMLAUNCH, L2 not blocked", piece::idle);
    lab.latch();
    lab.finish(2);

    lab.begin_l2(policy, "waits at VMRESUME, L2 not blocked", piece::call);
    lab.step();
    lab.latch();
    lab.finish(2);

    lab.begin_l2(policy, "waits at the entry, L2 blocked", piece::iret);
    lab.latch();
    lab.set_blocking(BY_NMI);
    lab.finish(2);

    lab.begin_l2(policy, "L1 blocked, L2 not, none waits", piece::send);
    l1::block();
    lab.finish(2);

    lab.begin_l2(policy, "L1 not blocked, L2 blocked", piece::call);
    lab.set_blocking(BY_NMI);
    lab.step();
    lab.mark("send");
    apic::send_nmi();
    lab.finish(1);
}

fn in_l2(lab: &mut Lab, policy: Policy) {
    lab.begin_l2(policy, "sent in L2", piece::send);
    lab.finish(1);

    lab.begin_l2(policy, "two sent in L2", piece::send_two);
    lab.finish(2);

    lab.begin_l2(policy, "IRET in L2, not blocked", piece::iret);
    lab.finish(0);
}

fn blocked_in_l2(lab: &mut Lab, policy: Policy) {
    lab.begin_l2(policy, "IRET in L2, blocked", piece::iret);
    lab.set_blocking(BY_NMI);
    lab.finish(0);

    lab.begin_l2(policy, "sent in L2, blocked, then IRET", piece::send_iret);
    lab.set_blocking(BY_NMI);
    lab.finish(1);

    lab.begin_l2(
        policy,
        "two sent in L2, blocked, then IRET",
        piece::send_two_iret,
    );
    lab.set_blocking(BY_NMI);
    lab.finish(if policy == Policy::Virtual { 2 } else { 1 });

    lab.begin_l2(
        policy,
        "waits at the entry, L2 blocked, IRET twice",
        piece::iret_twice,
    );
    lab.latch();
    lab.set_blocking(BY_NMI);
    lab.finish(2);
}

fn after_an_exit(lab: &mut Lab, policy: Policy) {
    lab.begin_l2(policy, "another in L1 after L2 met the first", piece::send);
    lab.step();
    lab.mark("send");
    apic::send_nmi();
    lab.mark("unblock");
    rt::trap::unblock_nmis();
    lab.finish(2);

    lab.begin_l2(policy, "another in L1, which then resumes L2", piece::send);
    lab.step();
    apic::send_nmi();
    lab.mark("resume");
    lab.finish(2);

    lab.begin_l2(
        policy,
        "two more in L1 while blocked, one is lost",
        piece::send,
    );
    lab.step();
    apic::send_nmi();
    apic::send_nmi();
    lab.mark("resume");
    lab.finish(2);
}

fn nested_handlers(lab: &mut Lab) {
    let policy = Policy::Direct;
    lab.begin_l2(policy, "another in L2's handler", piece::send);
    lab.set_handler(2, &code::SENDING);
    lab.step();
    lab.mark("calm");
    // What sent is done with.
    lab.set_handler(2, &[0x90; 11]);
    lab.finish(2);

    lab.begin_l2(policy, "an exception in L2's handler unblocks", piece::send);
    lab.set_handler(2, &code::NESTING);
    lab.step();
    lab.mark("send");
    apic::send_nmi();
    lab.finish(2);
}

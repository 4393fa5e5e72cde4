//! NMIs and EPT violations: of the delivery, and of the IRET.
//!
//! SDM "Information for VM Exits That Occur During Event Delivery", "Information About NMI Unblocking
//! Due to IRET".

use rt::vmx::vm::layout;

use crate::apic;
use crate::code::piece;
use crate::l1;
use crate::lab::{BY_NMI, Lab, POLICIES, Policy, STACK_PAGE};

/// Runs them all.
pub fn run(lab: &mut Lab) {
    for policy in POLICIES {
        of_the_delivery(lab, policy);
        of_the_iret(lab, policy);
    }
}

fn of_the_delivery(lab: &mut Lab, policy: Policy) {
    for (name, page) in [
        ("stack page missing", STACK_PAGE),
        ("table page missing", layout::IDT),
        ("handler's page missing", layout::HANDLERS),
    ] {
        match policy {
            Policy::Direct if page == layout::HANDLERS => {
                lab.leave_out(policy, name, "RIP is the handler's first instruction");
            }
            Policy::Direct => {
                lab.begin_l2(policy, name, piece::send);
                lab.take_page(page);
                lab.finish(1);
            }
            Policy::Exiting => lab.leave_out(policy, name, "the handler runs unblocked"),
            Policy::Virtual => {
                lab.begin_l2(policy, name, piece::idle);
                lab.take_page(page);
                lab.inject();
                lab.finish(1);
            }
        }
    }
    if policy == Policy::Exiting {
        return;
    }
    lab.begin_l2(
        policy,
        "stack page missing, another sent after the exit",
        piece::send,
    );
    lab.take_page(STACK_PAGE);
    if policy == Policy::Virtual {
        lab.inject();
    }
    lab.step();
    lab.mark("send");
    apic::send_nmi();
    lab.finish(if policy == Policy::Virtual { 3 } else { 2 });
}

/// The IRET that unblocks reads its frame from a page that is missing.
fn of_the_iret(lab: &mut Lab, policy: Policy) {
    for (name, state, waits) in [
        ("IRET's stack missing, not blocked", 0, false),
        ("IRET's stack missing, blocked", BY_NMI, false),
        ("IRET's stack missing, blocked, one waits", BY_NMI, true),
    ] {
        lab.begin_l2(policy, name, piece::framed_iret);
        lab.set_blocking(state);
        // As far as the frame is pushed: the IRET itself must meet the page.
        lab.step();
        lab.take_page(STACK_PAGE);
        let mut nmis = 0;
        if waits {
            // Without virtual NMIs the exit has left L1 blocked already, as L2 is.
            if policy == Policy::Virtual {
                l1::block();
                nmis += 1;
            }
            lab.mark("send");
            apic::send_nmi();
            nmis += 1;
        }
        lab.finish(nmis);
    }
}

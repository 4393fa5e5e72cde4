//! L1 alone: what an NMI does to a CPU that runs no L2.
//!
//! SDM "Nonmaskable Interrupt (NMI)", "Handling Multiple NMIs", "Masking Exceptions and Interrupts
//! When Switching Stacks", "Priority Among Simultaneous Exceptions and Interrupts".

use rt::lab::Stop;
use rt::vmx::{Vmx, insn};

use crate::apic;
use crate::l1::{self, Action};
use crate::lab::Lab;

/// Outside VMX operation, then in it. VMX operation is on afterwards.
pub fn run(lab: &mut Lab, vmx: &Vmx) -> Result<(), Stop> {
    all(lab, "plain");
    l1::block();
    vmx.on().map_err(|error| Stop::Vmx("VMXON", error))?;
    lab.begin("root", "blocked through VMXON");
    apic::send_nmi();
    lab.mark("sent");
    lab.settle(1);
    all(lab, "root");
    lab.begin("root", "blocked through VMXOFF and VMXON");
    l1::block();
    apic::send_nmi();
    insn::vmxoff().map_err(|error| Stop::Vmx("VMXOFF", error))?;
    lab.mark("vmxoff");
    vmx.on().map_err(|error| Stop::Vmx("VMXON", error))?;
    lab.mark("vmxon");
    lab.settle(2);
    Ok(())
}

fn all(lab: &mut Lab, place: &'static str) {
    lab.begin(place, "NMI");
    apic::send_nmi();
    lab.settle(1);

    for (name, action, nmis) in [
        ("NMI in the handler", Action::Send, 2),
        ("two NMIs in the handler, one is lost", Action::SendTwo, 2),
        ("interrupt in the handler", Action::Nest, 1),
        (
            "NMI and interrupt in the handler, whose IRET unblocks",
            Action::SendAndNest,
            2,
        ),
    ] {
        lab.begin(place, name);
        l1::set_action(action);
        apic::send_nmi();
        lab.settle(nmis);
    }

    lab.begin(place, "NMI while blocked");
    l1::block();
    apic::send_nmi();
    lab.mark("sent");
    rt::trap::unblock_nmis();
    lab.mark("unblocked");
    lab.settle(2);

    lab.begin(place, "NMI and interrupt while both are blocked, NMI first");
    l1::block();
    apic::send_interrupt();
    apic::send_nmi();
    lab.mark("sent");
    rt::trap::unblock_nmis();
    lab.mark("unblocked");
    l1::open_interrupts();
    lab.settle(2);

    lab.begin(place, "interrupt while NMIs are blocked");
    l1::block();
    apic::send_interrupt();
    l1::open_interrupts();
    lab.mark("its IRET has unblocked");
    apic::send_nmi();
    lab.settle(2);

    lab.begin(place, "interrupt waits, NMI after STI");
    apic::send_interrupt();
    l1::send_after_sti();
    lab.settle(1);

    lab.begin(place, "NMI after MOV SS");
    l1::send_after_mov_ss();
    lab.settle(1);

    lab.begin(place, "NMI wakes from HLT, interrupts off");
    apic::start_timer(200);
    l1::halt();
    lab.mark("awake");
    apic::stop_timer();
    lab.settle(1);
}

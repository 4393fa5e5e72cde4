//! An L2 on every CPU at the same time, and interrupts between CPUs that are in L2.
//!
//! SDM "External-Interrupt Exiting", "Acknowledge Interrupt on Exit".

use core::sync::atomic::Ordering::SeqCst;
use rt::case;

use rt::apic::{self, Ipi};
use rt::smp::wait_for;
use rt::vmx::vm::{Outcome, layout};
use umbra_vmcs::controls::{Exit as ExitCtl, Pin};
use umbra_vmcs::exit::Reason;

use crate::Others;
use crate::lab::{self, RESULTS};

/// The vector sent to CPU `index`.
fn vector(index: usize) -> u8 {
    0x60 + index as u8
}

/// What L2 of CPU `index` adds up.
fn numbers(index: usize) -> u64 {
    200 + 10 * index as u64
}

/// L2 adds up, with an exit for each number.
fn add(index: usize) {
    let lab = lab::enter_vmx(index, &lab::adding());
    lab.vm.registers.rdi = numbers(index);
    let (mut exits, mut last) = (0, 0);
    while let Outcome::Exit(exit) = lab.vm.run() {
        exits += 1;
        last = u64::from(exit.reason);
        if exit.known() != Some(Reason::Cpuid) {
            break;
        }
        lab.vm.skip(&exit);
    }
    let values = [exits, last, lab.vm.registers.rsi, 0];
    for (to, value) in RESULTS[index].iter().zip(values) {
        to.store(value, SeqCst);
    }
    lab::leave_vmx();
}

/// L2 spins; an interrupt comes to L1 by a VM exit that acknowledges it.
fn exit_on_interrupt(index: usize) {
    apic::enable();
    let lab = lab::enter_vmx(index, &lab::spinning());
    lab.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
    lab.vm
        .exit_controls(ExitCtl::ACKNOWLEDGE_INTERRUPT_ON_EXIT, ExitCtl::empty());
    lab::run_and_store(index);
    // Where in its loop L2 was depends on time.
    RESULTS[index][3].store(0, SeqCst);
    apic::end_of_interrupt();
    lab::leave_vmx();
}

/// L2 spins; an interrupt goes through its own table, to a handler that calls L1.
fn deliver_interrupt(index: usize) {
    apic::enable();
    lab::enter_vmx(index, &lab::spinning_with_interrupts());
    lab::run_and_store(index);
    apic::end_of_interrupt();
    lab::leave_vmx();
}

/// Sends to the CPU after this one, from VMX root operation.
fn send_on(index: usize) {
    lab::enter_vmx(index, &lab::ending());
    apic::send(NEXT.load(SeqCst), Ipi::Fixed(0x77));
    lab::leave_vmx();
}

static NEXT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// All at once, then one after another.
pub fn run(mode: &str, others: &Others) {
    for cpu in others.iter() {
        cpu.begin(add);
    }
    add(0);
    for cpu in others.iter() {
        case!("adding on cpu {}: {}", cpu.index, cpu.wait());
    }
    for index in core::iter::once(0).chain(others.iter().map(|cpu| cpu.index)) {
        let [exits, last, sum] = [0, 1, 2].map(|n: usize| RESULTS[index][n].load(SeqCst));
        let expected = numbers(index) * (numbers(index) + 1) / 2;
        case!("cpu {index}: {exits} exits, the last {last}, sum {sum} of {expected}");
    }

    for (name, work) in [
        ("interrupt exits", exit_on_interrupt as fn(usize)),
        ("interrupt delivered", deliver_interrupt),
    ] {
        for cpu in others.iter() {
            lab::forget(cpu.index);
            cpu.begin(work);
        }
        for cpu in others.iter() {
            case!(
                "{name}: cpu {} runs {}",
                cpu.index,
                wait_for(|| lab::is_running(cpu.index))
            );
        }
        for cpu in others.iter() {
            apic::send(cpu.id, Ipi::Fixed(vector(cpu.index)));
        }
        for cpu in others.iter() {
            case!("{name}: cpu {} done {}", cpu.index, cpu.wait());
            lab::show(name, cpu.index);
        }
        case!("{name}: handlers at {:x}", layout::HANDLERS);
    }

    // A ring: each of the others sends to the one before it, which is in L2.
    let mut before = others.first();
    for cpu in others.iter().skip(1) {
        lab::forget(before.index);
        before.begin(exit_on_interrupt);
        let runs = wait_for(|| lab::is_running(before.index));
        NEXT.store(before.id, SeqCst);
        let sent = cpu.run(send_on);
        case!(
            "cpu {} to {}: runs {runs}, sent {sent}, done {}",
            cpu.index,
            before.index,
            before.wait()
        );
        lab::show("there", before.index);
        before = cpu;
    }
    case!("{mode}: end");
}

//! Interrupts that one CPU posts to an L2 that runs on another, and NMIs sent there.
//!
//! SDM "Posted-Interrupt Processing", "Virtual-Interrupt Delivery", "NMI Exiting".

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use rt::{case, more};

use rt::apic::{self, Ipi};
use rt::page::Page;
use rt::smp::{Cpu, delay, wait_for};
use rt::vmx::insn::{read, write};
use umbra_vmcs::controls::{Exit as ExitCtl, Pin, Proc, Proc2};
use umbra_vmcs::field;

use crate::Others;
use crate::lab::{self, RESULTS};

/// The notification vector.
const NOTIFICATION: u8 = 0x71;
/// The descriptor's word for outstanding notifications.
const OUTSTANDING: u64 = 0x20;
/// Where the virtual-APIC page has the task priority, and what has been requested.
const REQUESTED: u64 = 0x200;

/// The virtual-APIC page, and the descriptor behind it.
static PAGES: AtomicU64 = AtomicU64::new(0);

/// L2 spins with interrupts on, and takes what is posted.
fn take_posted(index: usize) {
    let pages = PAGES.load(SeqCst);
    let lab = lab::enter_vmx(index, &lab::spinning_with_interrupts());
    write(field::VIRTUAL_APIC_ADDRESS, pages);
    write(field::TPR_THRESHOLD, 0);
    write(field::GUEST_INTERRUPT_STATUS, 0);
    for bitmap in [
        field::EOI_EXIT_BITMAP_0,
        field::EOI_EXIT_BITMAP_1,
        field::EOI_EXIT_BITMAP_2,
        field::EOI_EXIT_BITMAP_3,
    ] {
        write(bitmap, 0);
    }
    write(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, pages + 4096);
    write(
        field::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
        NOTIFICATION.into(),
    );
    lab.vm.proc(
        Proc::USE_TPR_SHADOW,
        Proc::CR8_LOAD_EXITING | Proc::CR8_STORE_EXITING,
    );
    lab.vm
        .proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY, Proc2::empty());
    lab.vm.pin(
        Pin::EXTERNAL_INTERRUPT_EXITING | Pin::PROCESS_POSTED_INTERRUPTS,
        Pin::empty(),
    );
    lab.vm
        .exit_controls(ExitCtl::ACKNOWLEDGE_INTERRUPT_ON_EXIT, ExitCtl::empty());
    lab::run_and_store(index);
    RESULTS[index][2].store(read(field::GUEST_INTERRUPT_STATUS), SeqCst);
    lab::leave_vmx();
}

/// L2 spins, or halts; NMIs go to it.
fn take_nmi(index: usize) {
    lab::enter_vmx(index, &lab::spinning());
    lab::run_and_store(index);
    lab::leave_vmx();
}

/// The same in HLT.
fn take_nmi_halted(index: usize) {
    lab::enter_vmx(index, &lab::halting());
    lab::run_and_store(index);
    lab::leave_vmx();
}

/// An NMI exits.
fn exit_on_nmi(index: usize) {
    let lab = lab::enter_vmx(index, &lab::halting());
    lab.vm.pin(Pin::NMI_EXITING, Pin::empty());
    lab::run_and_store(index);
    RESULTS[index][3].store(0, SeqCst);
    // The exit blocks NMIs; IRET lets them in again.
    // From an NMI that was an exit.
    rt::trap::unblock_nmis();
    lab::leave_vmx();
}

/// An NMI exits, and NMIs are virtual.
fn exit_on_virtual_nmi(index: usize) {
    let lab = lab::enter_vmx(index, &lab::spinning());
    lab.vm
        .pin(Pin::NMI_EXITING | Pin::VIRTUAL_NMIS, Pin::empty());
    lab::run_and_store(index);
    RESULTS[index][3].store(0, SeqCst);
    // From an NMI that was an exit.
    rt::trap::unblock_nmis();
    lab::leave_vmx();
}

/// Has the CPU run L2, and waits until it does.
fn begin(cpu: &Cpu, work: fn(usize)) -> bool {
    lab::forget(cpu.index);
    cpu.begin(work);
    let runs = wait_for(|| lab::is_running(cpu.index));
    // Behind the first instructions.
    delay(20_000);
    runs
}

/// Runs them on the first of the others.
pub fn run(others: &Others) {
    let cpu = others.first();
    let caps = &lab::own(0).vmx.caps;
    let has_posted = caps.offers_proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
        && caps.pin().may_be_one() & Pin::PROCESS_POSTED_INTERRUPTS.bits() != 0;
    if has_posted {
        posted(cpu);
    } else {
        case!("posted interrupts: not offered");
    }
    for (name, work) in [
        ("NMI to an L2 that spins", take_nmi as fn(usize)),
        ("NMI to an L2 in HLT", take_nmi_halted),
        ("NMI exits from HLT", exit_on_nmi),
        ("NMI exits, virtual NMIs", exit_on_virtual_nmi),
    ] {
        for _ in 0..2 {
            let runs = begin(cpu, work);
            apic::send(cpu.id, Ipi::Nmi);
            case!("{name}: runs {runs}, comes back {}", cpu.wait());
            lab::show(name, cpu.index);
        }
    }
    // A CPU that took an NMI through L2's table never returned from it; INIT unblocks.
    case!("restart: {}", cpu.restart(crate::VECTORS[2]));
}

fn posted(cpu: &Cpu) {
    let pages = Page::alloc(2);
    PAGES.store(pages.address(), SeqCst);
    cpu.run(|_| apic::enable());
    for vectors in [&[0x31u64][..], &[0x61, 0x91], &[0xff, 0x20, 0x80]] {
        pages.fill(0);
        let runs = begin(cpu, take_posted);
        for vector in vectors {
            let at = 4096 + vector / 64 * 8;
            let bits: u64 = pages.read(at);
            pages.write(at, bits | 1 << (vector % 64));
        }
        pages.write(4096 + OUTSTANDING, 1u64);
        apic::send(cpu.id, Ipi::Fixed(NOTIFICATION));
        case!(
            "posted {vectors:x?}: runs {runs}, comes back {}",
            cpu.wait()
        );
        lab::show("there", cpu.index);
        let requested: [u32; 8] = core::array::from_fn(|n| pages.read(REQUESTED + 0x10 * n as u64));
        let left: [u64; 5] = core::array::from_fn(|n| pages.read(4096 + 8 * n as u64));
        more!("requested {requested:x?}, left {left:x?}");
    }
}

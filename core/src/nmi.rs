//! NMIs that arrived while L0 ran, and how L1 gets them.
//!
//! While nothing waits, vmcs01 leaves NMIs to L1: no exit. One that came to L0
//! instead is injected at the next entry. If L1 blocks NMIs just then, vmcs01
//! takes NMI exiting, virtual NMIs and the NMI window until it is delivered;
//! one that arrives meanwhile makes an exit and is the same single pending
//! NMI, as on a CPU.

use crate::current::{change, read, write};
use crate::percpu::Cpu;
use crate::run::{Event, inject};
use core::sync::atomic::Ordering;
use umbra_vmcs::controls::{Pin, Proc};
use umbra_vmcs::field;

/// Blocking by STI, by MOV SS and by NMI. An NMI is held back while any holds:
/// some CPUs refuse to inject one under STI blocking.
const BLOCKING: u64 = 1 | 1 << 1 | 1 << 3;

/// On the way out to L1: delivers a pending NMI, or arranges for its window.
pub fn deliver(cpu: &mut Cpu) {
    if cpu.shared.nmi_count.load(Ordering::Relaxed) != 0 {
        cpu.shared.nmi_count.store(0, Ordering::Relaxed);
        cpu.is_nmi_waiting = true;
    } else if !cpu.is_nmi_waiting {
        return;
    }
    let has_event = read(field::VM_ENTRY_INTERRUPTION_INFORMATION) & 1 << 31 != 0;
    let is_blocked = read(field::GUEST_INTERRUPTIBILITY_STATE) & BLOCKING != 0;
    // In wait-for-SIPI and shutdown states no NMI is taken.
    let is_asleep = read(field::GUEST_ACTIVITY_STATE) > 1;
    if has_event || is_blocked || is_asleep {
        open_window(true);
        return;
    }
    cpu.is_nmi_waiting = false;
    open_window(false);
    inject(Event::NON_MASKABLE);
}

/// An NMI exit, which happens only while one waits: there is one pending NMI
/// at a time.
pub fn arrived(cpu: &mut Cpu) {
    cpu.is_nmi_waiting = true;
}

fn open_window(is_open: bool) {
    let pin = u64::from((Pin::NMI_EXITING | Pin::VIRTUAL_NMIS).bits());
    let primary = u64::from(Proc::NMI_WINDOW_EXITING.bits());
    let is_now = read(field::PIN_BASED_CONTROLS) & pin == pin;
    match (is_open, is_now) {
        (true, false) => {
            change(field::PIN_BASED_CONTROLS, pin, 0);
            change(field::PRIMARY_PROCESSOR_BASED_CONTROLS, primary, 0);
        }
        (false, true) => {
            change(field::PIN_BASED_CONTROLS, 0, pin);
            change(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 0, primary);
        }
        _ => {}
    }
}

/// IRET had unblocked NMIs when the exit came, but was not completed: they are
/// blocked again. SDM "Exit Qualification for EPT Violations", bit 12.
pub fn block_again(qualification: u64) {
    const NMI_UNBLOCKING: u64 = 1 << 12;
    const NMI_BLOCKING: u64 = 1 << 3;
    let is_vectoring = read(field::IDT_VECTORING_INFORMATION) & 1 << 31 != 0;
    if qualification & NMI_UNBLOCKING != 0 && !is_vectoring {
        let state = read(field::GUEST_INTERRUPTIBILITY_STATE);
        write(field::GUEST_INTERRUPTIBILITY_STATE, state | NMI_BLOCKING);
    }
}

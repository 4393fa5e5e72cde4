//! Interrupts from outside: one that waits at an entry, or none.
//!
//! L1 runs with interrupts off, so an interrupt that it sends to itself waits until L2 takes it,
//! or exits for it, where L2's state lets that be.

use rt::apic::{self, Ipi};
use rt::cpu;
use rt::random::Random;
use rt::trap::{self, Frame};
use rt::vmx::Exit as VmExit;
use rt::vmx::insn::read;
use umbra_vmcs::controls::{Exit, Pin, Proc};
use umbra_vmcs::field;

use crate::world::World;

const VECTOR: u8 = 0x61;
/// Where in a group of eight registers the vector's register lies, and its bit there.
const OFFSET: u32 = 0x10 * (VECTOR as u32 / 32);
const BIT: u32 = 1 << (VECTOR % 32);
const IN_SERVICE: u32 = 0x100 + OFFSET;
const REQUESTED: u32 = 0x200 + OFFSET;

impl World {
    /// Nothing waits and nothing is in service any more.
    pub(crate) fn forget_interrupts(&self) {
        while apic::read(IN_SERVICE) & BIT != 0 {
            apic::end_of_interrupt();
        }
        if apic::read(REQUESTED) & BIT != 0 {
            take_interrupt();
        }
    }

    /// How L2 is left for an interrupt, and perhaps one that waits at the first entry.
    pub(crate) fn interrupts(&self, random: &mut Random) {
        if random.chance(1, 2) {
            self.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
        }
        if random.chance(1, 2) {
            self.vm
                .exit_controls(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT, Exit::empty());
        }
        if random.chance(1, 3) {
            self.send_interrupt();
        }
    }

    /// Sends L1's CPU an interrupt, which waits. Not under the monitor trap flag: Bochs does not exit
    /// behind the delivery of an interrupt (docs/errata.md).
    pub(crate) fn send_interrupt(&self) {
        let proc = read(field::PRIMARY_PROCESSOR_BASED_CONTROLS) as u32;
        if proc & Proc::MONITOR_TRAP_FLAG.bits() != 0 {
            return;
        }
        apic::send(cpu::cpuid(1, 0).ebx >> 24, Ipi::Fixed(VECTOR));
    }

    /// L1's answer to an exit for an interrupt: it takes it, unless the exit did so already.
    pub(crate) fn answer_interrupt(&self, exit: &VmExit) {
        if exit.interruption >> 31 != 0 {
            apic::end_of_interrupt();
        } else {
            take_interrupt();
        }
    }

    /// Whether the interrupt waits, and whether it is in service.
    pub(crate) fn interrupt_state(&self) -> (bool, bool) {
        (
            apic::read(REQUESTED) & BIT != 0,
            apic::read(IN_SERVICE) & BIT != 0,
        )
    }
}

/// Lets L1 have the interrupt that waits.
fn take_interrupt() {
    trap::set_hook(Some(end));
    // SAFETY: the hook takes the interrupt, and nothing else is enabled.
    unsafe { core::arch::asm!("sti", "nop", "nop", "cli", options(nostack)) };
    trap::set_hook(None);
}

fn end(_: &mut Frame) -> bool {
    apic::end_of_interrupt();
    true
}

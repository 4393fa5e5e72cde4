//! Exits after which there is no way on.

use crate::action::{Action, Event};
use crate::console;
use crate::cpu::percpu::Cpu;
use crate::panic::dump_vmcs;
use crate::platform::reset;
use crate::report;
use crate::vmcs::current::read;
use core::fmt;
use umbra_arch::event::vector;
use umbra_arch::{Cr4, Exception};
use umbra_vmcs::InsnError;
use umbra_vmcs::exit::ExitReason;
use umbra_vmcs::field;

/// L1 is at its end, as by a CPU that shuts down, for which a bare machine resets
/// itself: so does this one, once what is printed at the end of a run is out.
fn end(why: fmt::Arguments<'_>, is_l0s_bug: bool) -> ! {
    crate::say!("{why}: the machine is reset");
    if console::may_end() {
        if is_l0s_bug {
            dump_vmcs();
        }
        report::trace();
        report::print();
    }
    console::flush();
    reset::machine_reset()
}

/// L1 shuts its CPU down.
pub fn triple_fault(cpu: &Cpu) -> ! {
    end(
        format_args!(
            "L1 triple fault at CS:RIP {:#x}:{:#x} on CPU {}",
            read(field::GUEST_CS_SELECTOR),
            read(field::GUEST_RIP),
            cpu.index
        ),
        false,
    )
}

/// The CPU takes no such state. What L0 puts into vmcs01 from L1's registers and
/// memory passes the rules of VM entry, so that this is L0's bug, and still no more
/// than L1's end.
pub fn impossible_state(cpu: &Cpu, reason: ExitReason) -> ! {
    end(
        format_args!(
            "L1 on CPU {} in a state that the CPU does not take, exit reason {:#x}, qualification {:#x}",
            cpu.index,
            reason.bits(),
            read(field::EXIT_QUALIFICATION)
        ),
        true,
    )
}

/// The CPU refuses vmcs01 at once, with this VM-instruction error: the same for what
/// is not guest state.
pub fn refused_entry(cpu: &Cpu, error: u32) -> ! {
    end(
        format_args!(
            "L1 on CPU {} cannot be entered, error {error}, {}",
            cpu.index,
            InsnError::describe(error)
        ),
        true,
    )
}

/// A machine check during the entry of L1: L1 gets it, as it would have on the
/// bare machine, where CR4.MCE 0 is a shutdown. SDM "VM-Entry Failures During or
/// After Loading Guest State".
pub fn machine_check(cpu: &Cpu) -> Action {
    if !Cr4::MCE.is_in(read(field::GUEST_CR4)) {
        end(
            format_args!("L1 on CPU {} shut down by a machine check", cpu.index),
            false,
        );
    }
    Action::Trap(Event::exception(Exception::plain(vector::MC)))
}

//! Exits after which there is no way on.

use crate::action::{Action, Event};
use crate::console;
use crate::cpu::percpu::Cpu;
use crate::panic::fatal;
use crate::platform::reset;
use crate::report;
use crate::vmcs::current::read;
use umbra_core::control_registers::cr4;
use umbra_vmcs::field;

/// L1 shuts its CPU down, for which a bare machine resets itself: so does this one,
/// once what is printed at the end of a run is out.
pub fn triple_fault(cpu: &Cpu) -> ! {
    crate::say!(
        "L1 triple fault at CS:RIP {:#x}:{:#x} on CPU {}: the machine is reset",
        read(field::GUEST_CS_SELECTOR),
        read(field::GUEST_RIP),
        cpu.index
    );
    if console::may_end() {
        report::trace();
        report::print();
    }
    console::flush();
    reset::machine_reset()
}

/// The CPU takes no such state: L1 is dead as after a triple fault. What L0 puts
/// into vmcs01 from L1's registers and memory passes the rules of VM entry, so
/// that this is L0's bug, and still no more than L1's end.
pub fn impossible_state(cpu: &Cpu, raw: u32) -> ! {
    fatal(format_args!(
        "L1 on CPU {} in a state that the CPU does not take: exit reason {raw:#x}, qualification {:#x}",
        cpu.index,
        read(field::EXIT_QUALIFICATION)
    ))
}

/// A machine check during the entry of L1: L1 gets it, as it would have on the
/// bare machine, where CR4.MCE 0 is a shutdown. SDM "VM-Entry Failures During or
/// After Loading Guest State".
pub fn machine_check(cpu: &Cpu) -> Action {
    const MACHINE_CHECK: u8 = 18;

    if read(field::GUEST_CR4) & cr4::MCE == 0 {
        fatal(format_args!(
            "L1 on CPU {} shut down by a machine check",
            cpu.index
        ));
    }
    Action::Trap(Event::exception(MACHINE_CHECK))
}

//! XSETBV. The CPU has checked CPL and CR4.OSXSAVE before the exit.

use crate::action::{Action, Event};
use crate::arch::cr;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::machine::machine;
use umbra_arch::Cr4;
use umbra_core::cpuid_list;

/// L0 executes it: XCR0 is L1's, and of the components that L1 is shown the CPU
/// knows best what it takes.
pub fn handle(cpu: &mut Cpu) -> Action {
    let index = cpu.regs.gprs[gpr::RCX] as u32;
    if !Cr4::OSXSAVE.is_in(machine().host_cr4) {
        return Action::Inject(Event::INVALID_OPCODE);
    }
    if cpu.regs.edx_eax() & !cpuid_list::XCR0 != 0 {
        return Action::Inject(Event::GENERAL_PROTECTION);
    }
    // SAFETY: CR4.OSXSAVE is set; L0 uses SSE registers by legacy instructions,
    // which XCR0 does not govern.
    if unsafe { cr::xsetbv_safe(index, cpu.regs.edx_eax()) } {
        Action::Skip
    } else {
        Action::Inject(Event::GENERAL_PROTECTION)
    }
}

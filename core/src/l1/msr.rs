//! RDMSR and WRMSR.

use crate::action::{Action, Event};
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::platform::msr_policy;

/// RDMSR.
pub fn read(cpu: &mut Cpu) -> Action {
    let index = cpu.regs.gprs[gpr::RCX] as u32;
    match msr_policy::read(cpu, index) {
        Ok(value) => {
            cpu.regs.set_edx_eax(value);
            Action::Skip
        }
        Err(msr_policy::GeneralProtection) => Action::Inject(Event::GENERAL_PROTECTION),
    }
}

/// WRMSR.
pub fn write(cpu: &mut Cpu) -> Action {
    let index = cpu.regs.gprs[gpr::RCX] as u32;
    let value = cpu.regs.edx_eax();
    match msr_policy::write(cpu, index, value) {
        Ok(()) => Action::Skip,
        Err(msr_policy::GeneralProtection) => Action::Inject(Event::GENERAL_PROTECTION),
    }
}

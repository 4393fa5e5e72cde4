//! Exits after which there is no way on.

use crate::cpu::percpu::Cpu;
use crate::panic::fatal;
use crate::vmcs::current::read;
use umbra_vmcs::field;

/// L1 is dead: a bare CPU would reset or stop.
pub fn triple_fault(cpu: &Cpu) -> ! {
    fatal(format_args!(
        "L1 triple fault at CS:RIP {:#x}:{:#x} on CPU {}",
        read(field::GUEST_CS_SELECTOR),
        read(field::GUEST_RIP),
        cpu.index
    ))
}

/// An exit that vmcs01 does not ask for.
pub fn unexpected(cpu: &Cpu, reason: &str) -> ! {
    fatal(format_args!(
        "VM exit {reason} of L1 on CPU {}, which nothing asked for",
        cpu.index
    ))
}

/// As [`unexpected`], for an access to a control register that is L1's own.
pub fn unexpected_cr(cpu: &Cpu, register: u8) -> ! {
    fatal(format_args!(
        "VM exit for CR{register} of L1 on CPU {}, which nothing asked for",
        cpu.index
    ))
}

/// An exit that the SDM does not define.
pub fn unknown(cpu: &Cpu, number: u16) -> ! {
    fatal(format_args!(
        "VM exit with the unknown reason {number} on CPU {}",
        cpu.index
    ))
}

//! The hypapp that is built in, and what it is asked.

use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::vmcs::current::read;
use umbra_arch::{AccessRights, Efer};
use umbra_core::cpuid::Words;
use umbra_core::hypercall::Caller;
use umbra_core::ledger_leaf::Level;
use umbra_hypapp::{Answer, Call, Hypapp};
use umbra_vmcs::field;

/// This CPU is about to run L1 for the first time.
pub fn start(cpu: &mut Cpu) {
    cpu.hypapp.start(cpu.index);
}

/// VMCALL, or CPUID of L1, with this number of the hypapp's.
pub fn call(cpu: &mut Cpu, number: u32, caller: Caller) -> Answer<Words> {
    let cs = AccessRights::from_bits(read(field::GUEST_CS_ACCESS_RIGHTS) as u32);
    let is_64_bit = Efer::LMA.is_in(read(field::GUEST_IA32_EFER)) && cs.long();
    let mask = if is_64_bit { u64::MAX } else { u32::MAX.into() };
    let call = Call {
        number,
        arguments: [gpr::RCX, gpr::RDX].map(|at| cpu.regs.gprs[at] & mask),
        level: match caller.level {
            Level::L1 => umbra_hypapp::Level::L1,
            Level::L2 => umbra_hypapp::Level::L2,
        },
        is_kernel: caller.is_kernel,
    };
    if caller.by_vmcall {
        return cpu.hypapp.vmcall(&call);
    }
    match cpu.hypapp.cpuid(&call) {
        Some(words) => Answer::Handled(words),
        None => Answer::Pass,
    }
}

//! CPUID.

use crate::action::Action;
use crate::arch::cpuid;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::machine::machine;
use crate::report;
use crate::vmcs::current::read;
use umbra_core::ledger_leaf::LEAF;
use umbra_vmcs::field;

/// The CPU answers, and what L1 could not use is taken out.
pub fn handle(cpu: &mut Cpu) -> Action {
    let gprs = &cpu.regs.gprs;
    let (leaf, subleaf) = (gprs[gpr::RAX] as u32, gprs[gpr::RCX] as u32);
    let words = if leaf == LEAF && machine().options.ledger && is_kernel() {
        report::answer(subleaf)
    } else {
        // The two bits that are mirrored are not L0's in CR4.
        answer(leaf, subleaf, read(field::GUEST_CR4))
    };
    let gprs = &mut cpu.regs.gprs;
    for (register, value) in [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX]
        .into_iter()
        .zip(words)
    {
        gprs[register] = u64::from(value);
    }
    Action::Skip
}

/// Whether L1 is at privilege level 0: SDM "Guest Register State", the DPL of SS.
fn is_kernel() -> bool {
    const DPL: u64 = 3 << 5;
    read(field::GUEST_SS_ACCESS_RIGHTS) & DPL == 0
}

/// EAX, EBX, ECX and EDX as an L1 with this CR4 is shown them.
pub fn answer(leaf: u32, subleaf: u32, cr4: u64) -> umbra_core::cpuid::Words {
    if machine().has_hypervisor && umbra_core::cpuid::is_of_hypervisor(leaf) {
        return [0; 4];
    }
    let result = cpuid::cpuid(leaf, subleaf);
    let mut words = [result.eax, result.ebx, result.ecx, result.edx];
    umbra_core::cpuid::for_l1(leaf, subleaf, cr4, &machine().vmx, &mut words);
    words
}

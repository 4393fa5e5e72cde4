//! CPUID.

use crate::action::Action;
use crate::arch::cpuid;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::hypercall;
use crate::l1::spoil;
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
    } else if let Some(words) = hypercall::leaf(cpu, leaf, subleaf) {
        words
    } else {
        // The two bits that are mirrored are not L0's in CR4.
        answer(leaf, subleaf, read(field::GUEST_CR4))
    };
    spoil::vmcs01(leaf, subleaf);
    cpu.regs.set_words(words);
    Action::Skip
}

/// Whether L1 is at privilege level 0: SDM "Guest Register State", the DPL of SS.
fn is_kernel() -> bool {
    const DPL: u64 = 3 << 5;
    read(field::GUEST_SS_ACCESS_RIGHTS) & DPL == 0
}

/// Prints the features that the CPU has and L1 is not shown, a word a line.
pub fn show_hidden() {
    let [basic, extended] = machine().cpuid_most;
    for (leaf, subleaf) in umbra_core::cpuid_list::FEATURES {
        if umbra_core::cpuid::answered(leaf, basic, extended) != leaf {
            continue;
        }
        let found = cpuid::cpuid(leaf, subleaf);
        let cr4 = crate::arch::cr::cr4();
        let shown = answer(leaf, subleaf, cr4);
        let words = [found.eax, found.ebx, found.ecx, found.edx];
        for (name, (has, shown)) in ["EAX", "EBX", "ECX", "EDX"]
            .into_iter()
            .zip(words.into_iter().zip(shown))
        {
            let hidden = has & !shown;
            if hidden != 0 {
                crate::say!("CPUID {leaf:x}.{subleaf}: {name} {hidden:#010x} is hidden");
            }
        }
    }
}

/// EAX, EBX, ECX and EDX as an L1 with this CR4 is shown them.
pub fn answer(leaf: u32, subleaf: u32, cr4: u64) -> umbra_core::cpuid::Words {
    if machine().has_hypervisor && umbra_core::cpuid::is_of_hypervisor(leaf) {
        return [0; 4];
    }
    let [basic, extended] = machine().cpuid_most;
    let leaf = umbra_core::cpuid::answered(leaf, basic, extended);
    let result = cpuid::cpuid(leaf, subleaf);
    let mut words = [result.eax, result.ebx, result.ecx, result.edx];
    umbra_core::cpuid::for_l1(leaf, subleaf, cr4, &machine().vmx, &mut words);
    words
}

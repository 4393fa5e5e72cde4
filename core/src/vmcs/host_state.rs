//! The host state of every VMCS: L0 itself. SDM "Host-State Area".

use crate::arch::{cr, desc, msr};
use crate::cpu::percpu::{self, Cpu};
use crate::vmcs::current::write_host;
use crate::vmentry::exit_stub;
use umbra_vmcs::field;

/// Writes the host state of the current VMCS: how the CPU that runs this runs L0
/// after an exit.
pub fn write(cpu: &Cpu) {
    let (gdt, task) = percpu::host_tables(cpu.index);
    let host = [
        (field::HOST_CR0, cr::cr0()),
        (field::HOST_CR3, cr::cr3()),
        (field::HOST_CR4, cr::cr4()),
        (field::HOST_CS_SELECTOR, u64::from(desc::CODE)),
        (field::HOST_SS_SELECTOR, u64::from(desc::DATA)),
        (field::HOST_DS_SELECTOR, u64::from(desc::DATA)),
        (field::HOST_ES_SELECTOR, u64::from(desc::DATA)),
        (field::HOST_FS_SELECTOR, 0),
        (field::HOST_GS_SELECTOR, 0),
        (field::HOST_TR_SELECTOR, u64::from(desc::TSS)),
        (field::HOST_FS_BASE, 0),
        (field::HOST_GS_BASE, percpu::host_gs_base(cpu.index)),
        (field::HOST_TR_BASE, task),
        (field::HOST_GDTR_BASE, gdt),
        (field::HOST_IDTR_BASE, desc::idt_base()),
        (field::HOST_IA32_SYSENTER_CS, 0),
        (field::HOST_IA32_SYSENTER_ESP, 0),
        (field::HOST_IA32_SYSENTER_EIP, 0),
        (field::HOST_IA32_PAT, msr::read(msr::IA32_PAT)),
        (field::HOST_IA32_EFER, msr::read(msr::IA32_EFER)),
        (field::HOST_RSP, percpu::host_rsp(cpu.index)),
        (field::HOST_RIP, exit_stub()),
    ];
    for (to, value) in host {
        // SAFETY: the registers as L0 runs with them now, this CPU's own
        // tables and stack, and the exit stub.
        unsafe { write_host(to, value) };
    }
}

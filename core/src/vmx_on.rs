//! VMX root operation.

use crate::arch::{cr, vmx};
use crate::cpu::percpu::Cpu;
use crate::machine::machine;
use crate::platform::probe;
use core::sync::atomic::Ordering;

/// Turns VMX on, on the CPU that runs this. The firmware's settings were
/// checked on the first CPU; another one that differs stops with a line.
pub fn enter_vmx_operation(cpu: &mut Cpu) {
    probe::unlock_vmx();
    let vmx = &machine().vmx;
    // SAFETY: paging, protection and NE are on already, as L0 runs with them;
    // the fixed bits only add to them.
    unsafe { cr::set_cr0((cr::cr0() | vmx.cr0_fixed0) & vmx.cr0_fixed1) };
    // SAFETY: as planned at boot: bits that this CPU has.
    unsafe { cr::set_cr4((machine().host_cr4 | vmx.cr4_fixed0) & vmx.cr4_fixed1) };
    for region in [&mut cpu.pages.vmxon, &mut cpu.pages.vmcs01] {
        region.words_mut()[0] = u64::from(vmx.revision());
    }
    // SAFETY: a page of this CPU's own, used for nothing else.
    if let Err(fail) = unsafe { vmx::vmxon(cpu.pages.vmxon.base()) } {
        crate::panic::fatal(format_args!("VMXON failed on CPU {}: {fail:?}", cpu.index));
    }
    cpu.shared.is_vmx_on.store(true, Ordering::Release);
}

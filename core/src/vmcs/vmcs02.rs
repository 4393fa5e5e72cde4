//! vmcs02 before vmcs12 has any say in it.

use crate::arch::vmx;
use crate::cpu::percpu::Cpu;
use crate::machine::machine;
use crate::vmcs::current::{write, write_address, write_any};
use crate::vmcs::host_state;
use umbra_arch::Hpa;
use umbra_vmcs::field;

/// Makes a fresh vmcs02 in the page at `region`, this CPU's own, and leaves it
/// current: L0's host state, and zeros for what vmcs12 has no say in. The rest
/// comes from vmcs12.
pub fn make(cpu: &mut Cpu, region: Hpa) {
    let revision = machine().vmx.revision();
    // SAFETY: a page of this CPU's own, mapped and aligned.
    unsafe {
        crate::mem::pointer(region.raw())
            .cast::<u32>()
            .write_volatile(revision)
    };
    // SAFETY: as above, with the revision id in it.
    if let Err(fail) = unsafe { vmx::vmclear(region) } {
        panic!("VMCLEAR of a vmcs02: {fail:?}");
    }
    // SAFETY: as above.
    if let Err(fail) = unsafe { vmx::vmptrld(region) } {
        panic!("VMPTRLD of a vmcs02: {fail:?}");
    }
    for zero in [
        field::VM_EXIT_MSR_STORE_COUNT,
        field::VM_EXIT_MSR_LOAD_COUNT,
        field::VM_ENTRY_MSR_LOAD_COUNT,
    ] {
        write(zero, 0);
    }
    let list = cpu.exit_store_list().raw();
    // SAFETY: a page of this CPU's own, kept for this; the count is 1 at most.
    unsafe { write_any(field::VM_EXIT_MSR_STORE_ADDRESS, list) };
    if cpu.present.contains(field::VM_FUNCTION_CONTROLS) {
        write(field::VM_FUNCTION_CONTROLS, 0);
    }
    write_address(field::VMCS_LINK_POINTER, Hpa::NOWHERE);
    host_state::write(cpu);
}

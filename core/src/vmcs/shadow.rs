//! L0's shadow VMCS: what L2's VMREAD and VMWRITE reach where L1 uses VMCS
//! shadowing. It is never entered.

use crate::arch::vmx;
use crate::cpu::percpu::Cpu;
use crate::machine::machine;
use umbra_arch::Hpa;
use umbra_arch::vmx_cap::SHADOW_VMCS_INDICATOR;
use umbra_nested::Current;
use umbra_vmcs::field::FieldSet;
use umbra_vmcs::{Field, Vmcs12};

/// Makes the region a shadow VMCS; done once, before L1 runs.
pub fn make(cpu: &Cpu) {
    let region = cpu.pages.shadow.base();
    // SAFETY: a page of this CPU's own, mapped and aligned.
    unsafe {
        crate::mem::pointer(region.raw())
            .cast::<u32>()
            .write_volatile(machine().vmx.revision() | SHADOW_VMCS_INDICATOR);
    }
    clear(region);
}

/// Writes these fields, and clears the VMCS. vmcs01 is current afterwards.
pub fn fill(cpu: &mut Cpu, from: &Vmcs12, fields: &FieldSet) {
    let region = cpu.pages.shadow.base();
    load(region);
    fields.for_each(|field| write(field, from.get(field)));
    // SDM "VMCS Types: Ordinary and Shadow": the CPU reads and writes the region
    // that the link pointer names, so that nothing of it may be cached.
    clear(region);
    back_to_vmcs01(cpu);
}

/// Reads these fields, and gives each to `take`. vmcs01 is current afterwards.
pub fn drain(cpu: &mut Cpu, fields: &FieldSet, mut take: impl FnMut(Field, u64)) {
    let region = cpu.pages.shadow.base();
    load(region);
    fields.for_each(|field| match vmx::vmread(field) {
        Ok(value) => take(field, value),
        Err(fail) => panic!("VMREAD of {} in a shadow VMCS: {fail:?}", field.name()),
    });
    clear(region);
    back_to_vmcs01(cpu);
}

fn write(field: Field, value: u64) {
    // SAFETY: a shadow VMCS is data: no VM entry or exit uses it. That read-only
    // fields can be written is a condition of shadowing being offered.
    if let Err(fail) = unsafe { vmx::vmwrite(field, value) } {
        panic!("VMWRITE of {} in a shadow VMCS: {fail:?}", field.name());
    }
}

fn load(region: Hpa) {
    // SAFETY: this CPU's own page, which `make` made a shadow VMCS.
    if let Err(fail) = unsafe { vmx::vmptrld(region) } {
        panic!("VMPTRLD of a shadow VMCS: {fail:?}");
    }
}

fn clear(region: Hpa) {
    // SAFETY: as for `load`.
    if let Err(fail) = unsafe { vmx::vmclear(region) } {
        panic!("VMCLEAR of a shadow VMCS: {fail:?}");
    }
}

fn back_to_vmcs01(cpu: &mut Cpu) {
    // SAFETY: this CPU's own page, made a VMCS by `vmcs01::make`.
    if let Err(fail) = unsafe { vmx::vmptrld(cpu.pages.vmcs01.base()) } {
        panic!("VMPTRLD of vmcs01: {fail:?}");
    }
    cpu.vmcs.switched_to(Current::Vmcs01);
}

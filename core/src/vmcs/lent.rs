//! vmcs02s that are lent to L1: shadow VMCSs, which its VMREAD and VMWRITE reach
//! without an exit. `umbra_nested::lend` says why.
//!
//! SDM "Format of the VMCS Region": the indicator of a VMCS is changed only while the
//! VMCS is not active, so VMCLEAR comes before.

use crate::arch::vmx;
#[cfg(feature = "ledger-accesses")]
use crate::cpu::counters::Access;
#[cfg(feature = "ledger-accesses")]
use crate::cpu::percpu;
use crate::cpu::percpu::Cpu;
use crate::machine::machine;
use crate::vmcs::current::{change, write_address};
use umbra_arch::Hpa;
use umbra_arch::vmx_cap::SHADOW_VMCS_INDICATOR;
use umbra_nested::{Current, Lent, SlotId, lend};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field::{self, FieldSet};

/// Fills the bitmaps for vmcs01: L1 has these of its fields without an exit, once a vmcs02
/// is lent to it. vmcs01 is current.
pub fn set_up(cpu: &mut Cpu, fields: &FieldSet) {
    let bitmaps = cpu.pages.field_bitmaps.bytes_mut();
    bitmaps.fill(0xff);
    let pages = bitmaps.chunks_exact_mut(crate::mem::PAGE_BYTES as usize);
    let sets = Lent::ALL.iter().flat_map(|how| [how.read(), how.written()]);
    for (bitmap, allowed) in pages.zip(sets) {
        allowed.intersection(*fields).for_each(|field| {
            let encoding = field.encoding() as usize;
            bitmap[encoding / 8] &= !(1 << (encoding % 8));
        });
    }
    write_bitmaps(cpu, Lent::InPart);
}

/// Gives vmcs01, which is current, the two bitmaps for a vmcs02 that is lent in this way.
fn write_bitmaps(cpu: &Cpu, how: Lent) {
    let read = 2 * how as u64;
    let bitmaps = &cpu.pages.field_bitmaps;
    let [read, written] = [read, read + 1].map(|n| bitmaps.page(n));
    write_address(field::VMREAD_BITMAP_ADDRESS, read);
    write_address(field::VMWRITE_BITMAP_ADDRESS, written);
}

/// Has L1's VMREAD and VMWRITE reach this vmcs02, lent in this way; or none. vmcs01 is
/// current.
#[inline(always)]
pub fn link(cpu: &mut Cpu, lent: Option<(SlotId, Lent)>) {
    if cpu.vmcs.link(lent) {
        write_link(cpu, lent);
    }
}

#[cold]
fn write_link(cpu: &Cpu, lent: Option<(SlotId, Lent)>) {
    let region = lent.map(|(slot, _)| cpu.pages.vmcs02.page(slot.number() as u64));
    write_address(field::VMCS_LINK_POINTER, region.unwrap_or(Hpa::NOWHERE));
    let shadowing = u64::from(Proc2::VMCS_SHADOWING.bits());
    let (set, clear) = match region {
        Some(_) => (shadowing, 0),
        None => (0, shadowing),
    };
    change(field::SECONDARY_PROCESSOR_BASED_CONTROLS, set, clear);
    if let Some((_, how)) = lent {
        write_bitmaps(cpu, how);
    }
}

/// Makes the region at `region` an ordinary VMCS or a shadow VMCS.
fn set_indicator(region: Hpa, is_shadow: bool) {
    let indicator = if is_shadow { SHADOW_VMCS_INDICATOR } else { 0 };
    // SAFETY: a page of this CPU's own, mapped and aligned, with a VMCS that is not
    // active.
    unsafe {
        crate::mem::pointer(region.raw())
            .cast::<u32>()
            .write_volatile(machine().vmx.revision() | indicator);
    }
}

/// VMCLEAR of a vmcs02.
#[inline(always)]
pub fn clear(region: Hpa) {
    // SAFETY: a page of this CPU's own, made a VMCS by `vmcs02::make`.
    if let Err(fail) = unsafe { vmx::vmclear(region) } {
        panic!("VMCLEAR of a vmcs02: {fail:?}");
    }
}

/// Whether this CPU's vmcs02s can be lent.
pub fn is_possible(cpu: &Cpu) -> bool {
    machine().options.shadowing && lend::can_lend(&machine().vmx, &cpu.present)
}

/// Lends the vmcs02 in this region, the current VMCS. vmcs01 is current afterwards.
#[inline(always)]
pub fn lend(cpu: &mut Cpu, slot: SlotId, region: Hpa, how: Lent) {
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Load);
    clear(region);
    set_indicator(region, true);
    // SAFETY: this CPU's own page, made a VMCS by `vmcs01::make`.
    if let Err(fail) = unsafe { vmx::vmptrld(cpu.pages.vmcs01.base()) } {
        panic!("VMPTRLD of vmcs01: {fail:?}");
    }
    cpu.vmcs.lent(Current::Vmcs02(slot));
    link(cpu, Some((slot, how)));
}

/// Takes it back. It is current afterwards, and to be launched.
#[inline(always)]
pub fn take_back(cpu: &mut Cpu, slot: SlotId, region: Hpa) {
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Load);
    clear(region);
    set_indicator(region, false);
    // SAFETY: as for `clear`.
    if let Err(fail) = unsafe { vmx::vmptrld(region) } {
        panic!("VMPTRLD of a vmcs02: {fail:?}");
    }
    cpu.vmcs.made(Current::Vmcs02(slot));
}

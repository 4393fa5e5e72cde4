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
use crate::vmcs::current::{change, write};
use umbra_nested::{Current, SlotId, lend};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field::{self, FieldSet};

/// The shadow-VMCS indicator.
const INDICATOR: u32 = 1 << 31;

/// Where among the pages of a CPU for them the VMWRITE bitmaps are, behind VMREAD's.
const WRITE: u64 = 1;
const WRITE_WHOLE: u64 = 2;

/// Fills vmcs01's bitmaps: L1 has these of its fields without an exit, once a vmcs02
/// is lent to it. vmcs01 is current.
pub fn set_up(cpu: &mut Cpu, fields: &FieldSet) {
    let bitmaps = cpu.pages.field_bitmaps.bytes_mut();
    bitmaps.fill(0xff);
    let pages = bitmaps.chunks_exact_mut(crate::mem::PAGE_BYTES as usize);
    for (bitmap, allowed) in pages.zip([lend::READ, lend::WRITTEN, lend::WRITTEN_WHOLE]) {
        for field in allowed.intersection(*fields).iter() {
            let encoding = field.encoding() as usize;
            bitmap[encoding / 8] &= !(1 << (encoding % 8));
        }
    }
    write(
        field::VMREAD_BITMAP_ADDRESS,
        cpu.pages.field_bitmaps.page(0),
    );
    write(
        field::VMWRITE_BITMAP_ADDRESS,
        cpu.pages.field_bitmaps.page(WRITE),
    );
}

/// Has L1's VMREAD and VMWRITE reach this vmcs02, and most of it or all; or none. vmcs01
/// is current.
#[inline(always)]
pub fn link(cpu: &mut Cpu, lent: Option<(SlotId, bool)>) {
    let is_whole = matches!(lent, Some((_, true)));
    let slot = lent.map(|(slot, _)| slot);
    if cpu.vmcs.link(slot.map(Current::Vmcs02), is_whole) {
        write_link(cpu, slot, is_whole);
    }
}

#[cold]
fn write_link(cpu: &Cpu, slot: Option<SlotId>, is_whole: bool) {
    let region = slot.map(|slot| cpu.pages.vmcs02.page(slot.number() as u64));
    write(field::VMCS_LINK_POINTER, region.unwrap_or(u64::MAX));
    let shadowing = u64::from(Proc2::VMCS_SHADOWING.bits());
    let (set, clear) = match region {
        Some(_) => (shadowing, 0),
        None => (0, shadowing),
    };
    change(field::SECONDARY_PROCESSOR_BASED_CONTROLS, set, clear);
    let bitmap = if is_whole { WRITE_WHOLE } else { WRITE };
    write(
        field::VMWRITE_BITMAP_ADDRESS,
        cpu.pages.field_bitmaps.page(bitmap),
    );
}

/// Makes the region at `region` an ordinary VMCS or a shadow VMCS.
fn set_indicator(region: u64, is_shadow: bool) {
    let indicator = if is_shadow { INDICATOR } else { 0 };
    // SAFETY: a page of this CPU's own, mapped and aligned, with a VMCS that is not
    // active.
    unsafe {
        crate::mem::pointer(region)
            .cast::<u32>()
            .write_volatile(machine().vmx.revision() | indicator);
    }
}

/// VMCLEAR of a vmcs02.
#[inline(always)]
pub fn clear(region: u64) {
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
pub fn lend(cpu: &mut Cpu, slot: SlotId, region: u64, is_whole: bool) {
    #[cfg(feature = "ledger-accesses")]
    percpu::count_access(Access::Load);
    clear(region);
    set_indicator(region, true);
    // SAFETY: this CPU's own page, made a VMCS by `vmcs01::make`.
    if let Err(fail) = unsafe { vmx::vmptrld(cpu.pages.vmcs01.base()) } {
        panic!("VMPTRLD of vmcs01: {fail:?}");
    }
    cpu.vmcs.lent(Current::Vmcs02(slot));
    link(cpu, Some((slot, is_whole)));
}

/// Takes it back. It is current afterwards, and to be launched.
#[inline(always)]
pub fn take_back(cpu: &mut Cpu, slot: SlotId, region: u64) {
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

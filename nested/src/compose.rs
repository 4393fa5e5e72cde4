//! vmcs12 into vmcs02: what L1 changed since the last entry, and no more.

use umbra_arch::{Gpa1, Hpa};
use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::{Entry, Exit, Proc, Proc2};
use umbra_vmcs::field::flow::{self, Into02};
use umbra_vmcs::field::{self, FieldSet};
use umbra_vmcs::rules::CpuFacts;

use crate::derived::{ALWAYS_SAVED, CONTROL_WORDS, shadow_link};
use crate::hw::{Memory, VmcsAccess};
use crate::slots::Slot;

/// Addresses of structures in L1's memory that the CPU itself reads or writes.
/// Each becomes the page that L1 reaches there, so that none can name a page
/// of Umbra's.
const ADDRESSES: FieldSet = flow::into02(Into02::Address);

/// Fields that vmcs02 takes over as they are.
const COPIED: FieldSet = flow::into02(Into02::Copied);

/// Control bits of vmcs12, those of words that are not activated being 0.
impl Slot {
    pub(crate) fn proc(&self, bits: Proc) -> bool {
        self.vmcs12().proc(bits)
    }

    pub(crate) fn proc2(&self, bits: Proc2) -> bool {
        self.vmcs12().proc2(bits)
    }

    pub(crate) fn exit(&self, bits: Exit) -> bool {
        self.vmcs12().exit(bits)
    }

    pub(crate) fn entry(&self, bits: Entry) -> bool {
        self.vmcs12().entry(bits)
    }
}

/// Writes to vmcs02, which is current, what vmcs12 has changed of `fields`. Gives the
/// fields that changed, for what is composed of more than them.
#[inline(always)]
pub(crate) fn compose(
    hw: &mut (impl VmcsAccess + Memory),
    slot: &mut Slot,
    fields: FieldSet,
    caps: &VmxCaps,
    cpu: &CpuFacts,
) -> FieldSet {
    let changed = slot.take_dirty().intersection(fields);
    if !changed.difference(ALWAYS_SAVED).is_empty() {
        let must = Musts {
            exit: caps.exit().must_be_one(),
            entry: caps.entry().must_be_one(),
        };
        compose_changed(hw, slot, changed, &must, cpu.physical_mask());
    }
    changed
}

fn compose_changed(
    hw: &mut (impl VmcsAccess + Memory),
    slot: &mut Slot,
    changed: FieldSet,
    must: &Musts,
    physical_mask: u64,
) {
    let mut changed = changed;
    let has_controls = changed.intersects(&CONTROL_WORDS);
    if has_controls {
        write_controls(hw, slot, must);
    }
    if has_controls || changed.contains(field::VMCS_LINK_POINTER) {
        let link = match shadow_link(slot.vmcs12()) {
            Some(_) => hw.shadow_region(),
            None => Hpa::NOWHERE,
        };
        hw.write_address(field::VMCS_LINK_POINTER, link);
    }
    if changed.contains(field::VM_EXIT_MSR_STORE_COUNT) {
        // L0's own list has one entry, IA32_TSC: L1 is to find the time of the
        // exit, not that of L0's dealing with it.
        let count = slot.get(field::VM_EXIT_MSR_STORE_COUNT).min(1);
        hw.write(field::VM_EXIT_MSR_STORE_COUNT, count);
    }
    changed.drain_within(&COPIED, |field| {
        hw.write(field, slot.get(field));
    });
    changed.drain_within(&ADDRESSES, |field| {
        // Where the control is 0 the address may be anything.
        let address = Gpa1::new(slot.get(field) & physical_mask);
        let backing = hw.backing(address);
        hw.write_address(field, backing);
    });
}

/// Bits that this CPU wants to be 1.
struct Musts {
    exit: u32,
    entry: u32,
}

fn write_controls(hw: &mut impl VmcsAccess, slot: &Slot, must: &Musts) {
    // Interrupts, NMIs and the preemption timer are L1's business entirely.
    hw.write(
        field::PIN_BASED_CONTROLS,
        slot.get(field::PIN_BASED_CONTROLS),
    );

    let proc = slot.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS)
        | Proc::ACTIVATE_SECONDARY_CONTROLS.bits();
    hw.write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, u64::from(proc));

    // Page-modification logging is done by L0, which sees each dirty flag of
    // ept12 change; VM functions exit to L0, since VM_FUNCTION_CONTROLS of
    // vmcs02 stays 0; #VE is decided by L0 on ept12.
    let off = Proc2::ENABLE_PML | Proc2::EPT_VIOLATION_VE;
    let on = Proc2::ENABLE_EPT | Proc2::ENABLE_VPID;
    let proc2 = slot.vmcs12().proc2_word() & !off.bits() | on.bits();
    hw.write(field::SECONDARY_PROCESSOR_BASED_CONTROLS, u64::from(proc2));

    // L0's own state comes back at each exit, and L2's is kept.
    let mut exit = Exit::HOST_ADDRESS_SPACE_SIZE
        | Exit::SAVE_DEBUG_CONTROLS
        | Exit::SAVE_PAT
        | Exit::LOAD_PAT
        | Exit::SAVE_EFER
        | Exit::LOAD_EFER;
    if slot.exit(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT) {
        exit |= Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
    }
    if slot.exit(Exit::SAVE_PREEMPTION_TIMER) {
        exit |= Exit::SAVE_PREEMPTION_TIMER;
    }
    hw.write(
        field::PRIMARY_VM_EXIT_CONTROLS,
        u64::from(exit.bits() | must.exit),
    );

    let mut entry = Entry::LOAD_DEBUG_CONTROLS | Entry::LOAD_PAT | Entry::LOAD_EFER;
    if slot.entry(Entry::IA32E_MODE_GUEST) {
        entry |= Entry::IA32E_MODE_GUEST;
    }
    hw.write(
        field::VM_ENTRY_CONTROLS,
        u64::from(entry.bits() | must.entry),
    );
}

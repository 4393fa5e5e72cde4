//! vmcs12 into vmcs02: what L1 changed since the last entry, and no more.

use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field, FieldSet};

use crate::hw::Hardware;
use crate::slots::Slot;
use crate::state::Nested;

/// Control words: any of them changed, and all are composed anew.
const CONTROLS: FieldSet = FieldSet::of(&[
    field::PIN_BASED_CONTROLS,
    field::PRIMARY_PROCESSOR_BASED_CONTROLS,
    field::SECONDARY_PROCESSOR_BASED_CONTROLS,
    field::TERTIARY_PROCESSOR_BASED_CONTROLS,
    field::PRIMARY_VM_EXIT_CONTROLS,
    field::VM_ENTRY_CONTROLS,
]);

/// Addresses of structures in L1's memory that the CPU itself reads or writes.
/// Each becomes the page that L1 reaches there, so that none can name a page
/// of Umbra's.
const ADDRESSES: FieldSet = FieldSet::of(&[
    field::IO_BITMAP_A,
    field::IO_BITMAP_B,
    field::VIRTUAL_APIC_ADDRESS,
    field::APIC_ACCESS_ADDRESS,
    field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
]);

/// Fields that vmcs02 takes over as they are.
const DIRECT: FieldSet = FieldSet::of(&[
    field::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
    field::GUEST_ES_SELECTOR,
    field::GUEST_CS_SELECTOR,
    field::GUEST_SS_SELECTOR,
    field::GUEST_DS_SELECTOR,
    field::GUEST_FS_SELECTOR,
    field::GUEST_GS_SELECTOR,
    field::GUEST_LDTR_SELECTOR,
    field::GUEST_TR_SELECTOR,
    field::GUEST_INTERRUPT_STATUS,
    field::TSC_OFFSET,
    field::EOI_EXIT_BITMAP_0,
    field::EOI_EXIT_BITMAP_1,
    field::EOI_EXIT_BITMAP_2,
    field::EOI_EXIT_BITMAP_3,
    field::XSS_EXITING_BITMAP,
    field::TSC_MULTIPLIER,
    field::GUEST_PDPTE0,
    field::GUEST_PDPTE1,
    field::GUEST_PDPTE2,
    field::GUEST_PDPTE3,
    field::EXCEPTION_BITMAP,
    field::PAGE_FAULT_ERROR_CODE_MASK,
    field::PAGE_FAULT_ERROR_CODE_MATCH,
    field::CR3_TARGET_COUNT,
    field::VM_ENTRY_INTERRUPTION_INFORMATION,
    field::VM_ENTRY_EXCEPTION_ERROR_CODE,
    field::VM_ENTRY_INSTRUCTION_LENGTH,
    field::TPR_THRESHOLD,
    field::PLE_GAP,
    field::PLE_WINDOW,
    field::GUEST_ES_LIMIT,
    field::GUEST_CS_LIMIT,
    field::GUEST_SS_LIMIT,
    field::GUEST_DS_LIMIT,
    field::GUEST_FS_LIMIT,
    field::GUEST_GS_LIMIT,
    field::GUEST_LDTR_LIMIT,
    field::GUEST_TR_LIMIT,
    field::GUEST_GDTR_LIMIT,
    field::GUEST_IDTR_LIMIT,
    field::GUEST_ES_ACCESS_RIGHTS,
    field::GUEST_CS_ACCESS_RIGHTS,
    field::GUEST_SS_ACCESS_RIGHTS,
    field::GUEST_DS_ACCESS_RIGHTS,
    field::GUEST_FS_ACCESS_RIGHTS,
    field::GUEST_GS_ACCESS_RIGHTS,
    field::GUEST_LDTR_ACCESS_RIGHTS,
    field::GUEST_TR_ACCESS_RIGHTS,
    field::GUEST_INTERRUPTIBILITY_STATE,
    field::GUEST_ACTIVITY_STATE,
    field::GUEST_IA32_SYSENTER_CS,
    field::CR0_GUEST_HOST_MASK,
    field::CR4_GUEST_HOST_MASK,
    field::CR0_READ_SHADOW,
    field::CR4_READ_SHADOW,
    field::CR3_TARGET_VALUE_0,
    field::CR3_TARGET_VALUE_1,
    field::CR3_TARGET_VALUE_2,
    field::CR3_TARGET_VALUE_3,
    field::GUEST_CR0,
    field::GUEST_CR3,
    field::GUEST_CR4,
    field::GUEST_ES_BASE,
    field::GUEST_CS_BASE,
    field::GUEST_SS_BASE,
    field::GUEST_DS_BASE,
    field::GUEST_FS_BASE,
    field::GUEST_GS_BASE,
    field::GUEST_LDTR_BASE,
    field::GUEST_TR_BASE,
    field::GUEST_GDTR_BASE,
    field::GUEST_IDTR_BASE,
    field::GUEST_RSP,
    field::GUEST_RIP,
    field::GUEST_RFLAGS,
    field::GUEST_PENDING_DEBUG_EXCEPTIONS,
    field::GUEST_IA32_SYSENTER_ESP,
    field::GUEST_IA32_SYSENTER_EIP,
]);

/// Control bits of vmcs12, those of words that are not activated being 0.
impl Slot {
    pub(crate) fn pin(&self, bits: Pin) -> bool {
        self.vmcs12.get32(field::PIN_BASED_CONTROLS) & bits.bits() == bits.bits()
    }

    pub(crate) fn proc(&self, bits: Proc) -> bool {
        self.vmcs12.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS) & bits.bits() == bits.bits()
    }

    pub(crate) fn proc2_word(&self) -> u32 {
        if self.proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            self.vmcs12.get32(field::SECONDARY_PROCESSOR_BASED_CONTROLS)
        } else {
            0
        }
    }

    pub(crate) fn proc2(&self, bits: Proc2) -> bool {
        self.proc2_word() & bits.bits() == bits.bits()
    }

    pub(crate) fn exit(&self, bits: Exit) -> bool {
        self.vmcs12.get32(field::PRIMARY_VM_EXIT_CONTROLS) & bits.bits() == bits.bits()
    }

    pub(crate) fn entry(&self, bits: Entry) -> bool {
        self.vmcs12.get32(field::VM_ENTRY_CONTROLS) & bits.bits() == bits.bits()
    }
}

impl Nested {
    /// Writes to vmcs02, which is current, what vmcs12 has changed.
    pub(crate) fn compose(&mut self, hw: &mut impl Hardware, number: usize) {
        let fields = self.fields;
        let must = Musts {
            exit: self.caps.exit().must_be_one(),
            entry: self.caps.entry().must_be_one(),
        };
        let physical_mask = self.cpu.physical_mask();
        let slot = self.slots.get(number);
        let mut dirty = slot.dirty;
        slot.dirty = FieldSet::EMPTY;
        let has = |field: Field| fields.contains(field);

        if dirty.intersects(&CONTROLS) {
            write_controls(hw, slot, &must);
        }
        if dirty.contains(field::VM_EXIT_MSR_STORE_COUNT) {
            // L0's own list has one entry, IA32_TSC: L1 is to find the time of the
            // exit, not that of L0's dealing with it.
            let count = slot.vmcs12.get(field::VM_EXIT_MSR_STORE_COUNT).min(1);
            hw.write(field::VM_EXIT_MSR_STORE_COUNT, count);
        }
        dirty.drain_within(&DIRECT, |field| {
            if has(field) {
                hw.write(field, slot.vmcs12.get(field));
            }
        });
        dirty.drain_within(&ADDRESSES, |field| {
            if has(field) {
                // Where the control is 0 the address may be anything.
                let address = slot.vmcs12.get(field) & physical_mask;
                let page = hw.backing(address & !0xfff);
                hw.write(field, page | address & 0xfff);
            }
        });
    }
}

/// Bits that this CPU wants to be 1.
struct Musts {
    exit: u32,
    entry: u32,
}

fn write_controls(hw: &mut impl Hardware, slot: &Slot, must: &Musts) {
    // Interrupts, NMIs and the preemption timer are L1's business entirely.
    hw.write(
        field::PIN_BASED_CONTROLS,
        slot.vmcs12.get(field::PIN_BASED_CONTROLS),
    );

    let proc = slot.vmcs12.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS)
        | Proc::ACTIVATE_SECONDARY_CONTROLS.bits();
    hw.write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, u64::from(proc));

    // Page-modification logging is done by L0, which sees each dirty flag of
    // ept12 change; VM functions exit to L0, since VM_FUNCTION_CONTROLS of
    // vmcs02 stays 0; #VE is decided by L0 on ept12.
    let off = Proc2::ENABLE_PML | Proc2::EPT_VIOLATION_VE | Proc2::VMCS_SHADOWING;
    let on = Proc2::ENABLE_EPT | Proc2::ENABLE_VPID;
    let proc2 = slot.proc2_word() & !off.bits() | on.bits();
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

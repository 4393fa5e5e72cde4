//! The bounded table of vmcs12s that a CPU keeps at hand.
//!
//! A VMCS of L1 lives in L1's own memory; while it is in a slot, the slot is
//! the truth, as the CPU's own cache is on hardware (SDM "Software Use of the
//! VMCS and Related Structures"). More VMCSs than slots cost a write-back, and
//! nothing else.

use umbra_vmcs::field::{self, Field, FieldSet};
use umbra_vmcs::{InsnError, Vmcs12};

use crate::hw::{Current, Hardware};

/// How many vmcs12s (and as many vmcs02s) a CPU keeps.
pub const SLOTS: usize = 8;

/// The offset of the launch state in L1's VMCS region, after the revision
/// identifier and the abort indicator (SDM "Format of the VMCS Region").
const LAUNCH_STATE_OFFSET: u64 = 8;
/// The offset of the field values.
const VALUES_OFFSET: u64 = 16;
const LAUNCHED: u64 = 1;
const _: () = assert!(Vmcs12::BYTES as u64 + VALUES_OFFSET <= 4096);

/// One vmcs12 and what is known of its vmcs02.
#[derive(Debug)]
pub struct Slot {
    /// The region's address, or `None` for a free slot.
    pub gpa: Option<u64>,
    /// The field values.
    pub vmcs12: Vmcs12,
    /// VMLAUNCH has succeeded since VMCLEAR.
    pub is_launched: bool,
    /// Fields that vmcs02 does not have yet.
    pub dirty: FieldSet,
    /// Fields that changed since the rules last passed.
    pub unchecked: FieldSet,
    /// Fields whose value lies in vmcs02 and has not been read back.
    pub stale: FieldSet,
    /// vmcs02 has to be reset before it is used.
    pub needs_reset: bool,
    last_used: u64,
}

impl Slot {
    const fn free() -> Self {
        Self {
            gpa: None,
            vmcs12: Vmcs12::new(),
            is_launched: false,
            dirty: FieldSet::FULL,
            unchecked: FieldSet::FULL,
            stale: FieldSet::EMPTY,
            needs_reset: true,
            last_used: 0,
        }
    }

    /// Sets a field as L1 does with VMWRITE.
    #[inline]
    pub fn set(&mut self, field: Field, value: u64) {
        self.vmcs12.set(field, value);
        self.dirty.insert(field);
        self.unchecked.insert(field);
        self.stale.remove(field);
    }

    /// Reads a field back if its value lies in vmcs02, which is current.
    #[inline]
    pub fn fetch(&mut self, hw: &mut impl Hardware, field: Field) {
        if self.stale.contains(field) {
            self.stale.remove(field);
            let value = hw.read(field);
            self.set_from_cpu(field, value);
        }
    }

    /// Sets a field to what the CPU itself stored at an exit: vmcs02 has it
    /// already, and the rules need not see it. Should the CPU not take back
    /// what it stored, the entry fails in hardware and L1 is told so.
    #[inline]
    pub fn set_from_cpu(&mut self, field: Field, value: u64) {
        self.vmcs12.set(field, value);
    }
}

/// The table.
#[derive(Debug)]
pub struct Slots {
    slots: [Slot; SLOTS],
    clock: u64,
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

impl Slots {
    /// All slots free.
    pub const fn new() -> Self {
        Self {
            slots: [const { Slot::free() }; SLOTS],
            clock: 0,
        }
    }

    /// The slot of a number that [`load`](Self::load) gave. Numbers are taken
    /// modulo the size, so that no number is out of bounds.
    #[inline]
    pub fn get(&mut self, number: usize) -> &mut Slot {
        &mut self.slots[number % SLOTS]
    }

    fn find(&self, gpa: u64) -> Option<usize> {
        self.slots.iter().position(|s| s.gpa == Some(gpa))
    }

    /// Brings the VMCS at `gpa` into a slot, writing back the least recently
    /// used one if all are taken, and gives the slot's number.
    pub fn load(&mut self, hw: &mut impl Hardware, gpa: u64) -> usize {
        self.clock += 1;
        let number = match self.find(gpa) {
            Some(number) => number,
            None => {
                let number = self.victim();
                self.write_back(hw, number);
                let slot = self.get(number);
                *slot = Slot::free();
                slot.gpa = Some(gpa);
                let mut bytes = [0; Vmcs12::BYTES];
                hw.read_l1(gpa + VALUES_OFFSET, &mut bytes);
                slot.vmcs12.read_from(&bytes);
                let mut state = [0; 8];
                hw.read_l1(gpa + LAUNCH_STATE_OFFSET, &mut state);
                slot.is_launched = u64::from_le_bytes(state) == LAUNCHED;
                number
            }
        };
        let clock = self.clock;
        self.get(number).last_used = clock;
        number
    }

    fn victim(&self) -> usize {
        let mut best = 0;
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.gpa.is_none() {
                return number;
            }
            if slot.last_used < self.slots[best].last_used {
                best = number;
            }
        }
        best
    }

    /// VMCLEAR of the VMCS at `gpa`: its data go to L1's memory, its launch
    /// state becomes clear, its slot free.
    pub fn clear(&mut self, hw: &mut impl Hardware, gpa: u64) {
        match self.find(gpa) {
            Some(number) => {
                self.get(number).is_launched = false;
                self.write_back(hw, number);
                *self.get(number) = Slot::free();
            }
            None => hw.write_l1(gpa + LAUNCH_STATE_OFFSET, &0_u64.to_le_bytes()),
        }
    }

    /// Writes every slot back and frees it.
    pub fn flush(&mut self, hw: &mut impl Hardware) {
        for number in 0..SLOTS {
            self.write_back(hw, number);
            *self.get(number) = Slot::free();
        }
    }

    fn write_back(&mut self, hw: &mut impl Hardware, number: usize) {
        self.sync(hw, number);
        let slot = self.get(number);
        let Some(gpa) = slot.gpa else { return };
        let mut bytes = [0; Vmcs12::BYTES];
        slot.vmcs12.write_to(&mut bytes);
        hw.write_l1(gpa + VALUES_OFFSET, &bytes);
        let state = if slot.is_launched { LAUNCHED } else { 0 };
        hw.write_l1(gpa + LAUNCH_STATE_OFFSET, &state.to_le_bytes());
    }

    /// Reads back what vmcs02 holds newer than vmcs12. Leaves vmcs01 current
    /// if there was anything to read.
    pub fn sync(&mut self, hw: &mut impl Hardware, number: usize) {
        let slot = self.get(number);
        if slot.stale.is_empty() {
            return;
        }
        hw.switch_to(Current::Vmcs02(number));
        let mut stale = slot.stale;
        slot.stale = FieldSet::EMPTY;
        stale.drain_within(&FieldSet::FULL, |field| {
            let value = hw.read(field);
            slot.set_from_cpu(field, value);
        });
        hw.switch_to(Current::Vmcs01);
    }

    /// A field as L1 sees it, read back from vmcs02 if need be.
    #[inline]
    pub fn field(&mut self, hw: &mut impl Hardware, number: usize, field: Field) -> u64 {
        if self.get(number).stale.contains(field) {
            self.sync(hw, number);
        }
        self.get(number).vmcs12.get(field)
    }

    /// VMfailValid: the error goes to the current vmcs12.
    pub fn set_error(&mut self, number: usize, error: InsnError) {
        let error = u64::from(error.number());
        self.get(number)
            .vmcs12
            .set(field::VM_INSTRUCTION_ERROR, error);
    }
}

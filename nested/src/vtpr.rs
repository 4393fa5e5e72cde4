//! The virtual TPR under L0's own entries of L2.
//!
//! VM entry refuses a VTPR below the TPR threshold, or exits at once where
//! "virtualize APIC accesses" is 1. L2 with a mapping of its virtual-APIC page,
//! or another CPU of L1, can lower VTPR at any time, and a bare CPU looks at it
//! again only when L2 writes its TPR. So an entry that L1 did not ask for takes
//! a threshold that VTPR meets, and until the threshold is back L0 carries out
//! L2's MOV to CR8, which would have to exit. SDM "TPR Virtualization", "VMX
//! Controls for APIC Virtualization".

use umbra_arch::Exception;
use umbra_vmcs::controls::{Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::exit::L2Done;
use crate::hw::{Hardware, Memory, VmcsAccess};
use crate::slots::{Slot, SlotId};
use crate::state::Nested;
use crate::step::skip_instruction;

/// VTPR in the virtual-APIC page.
const VTPR: u64 = 0x80;
const CR8_LOAD: u64 = Proc::CR8_LOAD_EXITING.bits() as u64;
const RSP: usize = 4;

/// The TPR threshold of vmcs12, where it counts.
fn threshold12(slot: &Slot) -> Option<u64> {
    let threshold = slot.get(field::TPR_THRESHOLD) & 0xf;
    let counts = threshold != 0
        && slot.proc(Proc::USE_TPR_SHADOW)
        && !slot.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    counts.then_some(threshold)
}

impl Nested {
    /// Before an entry of L2 that L1 did not ask for: the threshold in vmcs02,
    /// which is current, is one that VTPR meets.
    pub(crate) fn fit_tpr_threshold(&mut self, hw: &mut (impl VmcsAccess + Memory)) {
        let id = self.non_root().current;
        let slot = self.slots.get(id);
        let Some(threshold) = threshold12(slot) else {
            return;
        };
        let mut bytes = [0];
        hw.read_l1(
            slot.gpa1(field::VIRTUAL_APIC_ADDRESS).plus(VTPR),
            &mut bytes,
        );
        let [vtpr] = bytes;
        let class = u64::from(vtpr >> 4);
        if class < threshold {
            self.lower_tpr_threshold(hw, id, class);
        }
    }

    /// Gives vmcs02, which is current, a threshold below vmcs12's.
    fn lower_tpr_threshold(&mut self, hw: &mut impl VmcsAccess, id: SlotId, threshold: u64) {
        let slot = self.slots.get(id);
        slot.l0_overwrites(hw, field::TPR_THRESHOLD);
        slot.l0_overwrites(hw, field::PRIMARY_PROCESSOR_BASED_CONTROLS);
        hw.write(field::TPR_THRESHOLD, threshold);
        let controls = hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
        hw.write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, controls | CR8_LOAD);
    }

    /// The CPU refused an entry of L2 that L1 did not ask for: VTPR may have
    /// fallen after the look at it. Whether another try is worth it.
    pub(crate) fn retry_own_entry(&mut self, hw: &mut impl VmcsAccess) -> bool {
        let id = self.non_root().current;
        if threshold12(self.slots.get(id)).is_none() || hw.read(field::TPR_THRESHOLD) == 0 {
            return false;
        }
        self.lower_tpr_threshold(hw, id, 0);
        true
    }

    /// Whether L2's access to a control register, which exited with this
    /// qualification, is a MOV to CR8 that exits for L0's sake.
    pub(crate) fn is_own_cr8_load(&mut self, id: SlotId, qualification: u64) -> bool {
        qualification & 0x3f == 8 && !self.slots.get(id).proc(Proc::CR8_LOAD_EXITING)
    }

    /// MOV to CR8, as the CPU would have carried it out.
    pub(crate) fn l2_cr8_load(&mut self, hw: &mut impl Hardware, id: SlotId) -> L2Done {
        let register = (hw.read(field::EXIT_QUALIFICATION) >> 8 & 0xf) as usize;
        let value = match register {
            RSP => hw.read(field::GUEST_RSP),
            _ => hw.gpr(register),
        };
        if value & !0xf != 0 {
            if !self.raise_in_l2(hw, id, Exception::GP) {
                return self.reflect_event(hw, Reason::ExceptionOrNmi as u32);
            }
            self.continue_l2(hw);
            return L2Done::Resume;
        }
        let slot = self.slots.get(id);
        let vtpr = (value as u32) << 4;
        let page = slot.gpa1(field::VIRTUAL_APIC_ADDRESS);
        hw.write_l1(page.plus(VTPR), &vtpr.to_le_bytes());
        match threshold12(slot) {
            Some(threshold) if value < threshold => {
                skip_instruction(hw);
                self.note_exit_without_event(id, 0);
                self.reflect_event(hw, Reason::TprBelowThreshold as u32)
            }
            threshold => {
                hw.write(field::TPR_THRESHOLD, threshold.unwrap_or(0));
                let controls = hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
                hw.write(
                    field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                    controls & !CR8_LOAD,
                );
                self.end_instruction_of_l2(hw, id)
            }
        }
    }
}

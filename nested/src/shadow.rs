//! VMCS shadowing for L1: the shadow VMCS that L2's VMREAD and VMWRITE reach.
//!
//! SDM "VMCS Types: Ordinary and Shadow", "VMREAD" and "VMWRITE" in the instruction reference.
//!
//! The CPU itself runs L2's VMREADs and VMWRITEs, on a shadow VMCS of L0's: vmcs02 has L1's bitmaps, and names L0's
//! region where vmcs12's link pointer names L1's. While L0's holds the fields of a region of L1's, it is the truth, as
//! a slot is for an ordinary VMCS: it stays so over exits and entries, and goes back to L1's memory when L1 loads or
//! clears that region, leaves VMX operation, or enters an L2 with another link pointer. So an exit costs nothing more.

use umbra_arch::Gpa1;
use umbra_vmcs::Vmcs12;

use crate::derived::shadow_link;
use crate::hw::{Memory, VmcsAccess};
use crate::region;
use crate::slots::SlotId;
use crate::state::Nested;

impl Nested {
    /// Before an entry: L0's shadow VMCS has what L1's has. Whichever VMCS is current.
    pub(crate) fn hold_shadow(&mut self, hw: &mut (impl VmcsAccess + Memory), id: SlotId) {
        let Some(link) = shadow_link(self.slots.get(id).vmcs12()) else {
            return;
        };
        if self.shadow == Some(link) {
            return;
        }
        self.release_shadow(hw);
        self.slots.give_back(hw, link);
        if let Some(slot) = self.slots.kept(hw, link) {
            hw.fill_shadow(slot.vmcs12(), &self.fields);
        } else {
            let mut vmcs12 = Vmcs12::new();
            region::read(hw, link, &mut vmcs12);
            hw.fill_shadow(&vmcs12, &self.fields);
        }
        self.shadow = Some(link);
    }

    /// L1 is about to use the region at `gpa` itself.
    pub(crate) fn release_shadow_at(&mut self, hw: &mut (impl VmcsAccess + Memory), gpa: Gpa1) {
        if self.shadow == Some(gpa) {
            self.release_shadow(hw);
        }
    }

    /// Gives L1's shadow VMCS back what L0's holds of it. vmcs01 is current, and stays so.
    pub(crate) fn release_shadow(&mut self, hw: &mut (impl VmcsAccess + Memory)) {
        let Some(gpa) = self.shadow.take() else {
            return;
        };
        // What L1 lends to its L2 it most often runs itself: it stays in its slot.
        if let Some(slot) = self.slots.kept(hw, gpa) {
            let mut has_changed = false;
            hw.drain_shadow(&self.fields, |field, value| {
                if slot.get(field) != value {
                    slot.l1_writes(field, value);
                    has_changed = true;
                }
            });
            if has_changed {
                self.slots.write_kept(hw, gpa);
            }
            return;
        }
        let mut vmcs12 = Vmcs12::new();
        region::read(hw, gpa, &mut vmcs12);
        hw.drain_shadow(&self.fields, |field, value| vmcs12.set(field, value));
        region::write(hw, gpa, &vmcs12, region::CLEAR);
    }
}

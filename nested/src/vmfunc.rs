//! VMFUNC by L2: VM function 0, EPTP switching. SDM "VM Functions".

use umbra_ept::eptp::Eptp;
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::exit::L2Done;
use crate::hw::Hardware;
use crate::slots::SlotId;
use crate::state::Nested;

/// Entries of an EPTP list.
const EPTP_LIST_ENTRIES: u64 = 512;

impl Nested {
    /// vmcs02 enables VM functions where vmcs12 does and allows none, so each
    /// VMFUNC of L2 comes here.
    pub(crate) fn l2_vmfunc(&mut self, hw: &mut impl Hardware, id: SlotId) -> L2Done {
        let function = hw.gpr(0) & 0xffff_ffff;
        let index = hw.gpr(1) & 0xffff_ffff;
        let slot = self.slots.get(id);
        let controls = slot.get(field::VM_FUNCTION_CONTROLS);
        if function != 0 || controls & 1 == 0 || index >= EPTP_LIST_ENTRIES {
            return self.reflect(hw, Reason::Vmfunc as u32);
        }
        let list = slot.gpa1(field::EPTP_LIST_ADDRESS);
        let mode_based = slot.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL);
        let reports_index = slot.proc2(Proc2::EPT_VIOLATION_VE);
        let mut bytes = [0; 8];
        hw.read_l1(list.plus(8 * index), &mut bytes);
        let pointer = u64::from_le_bytes(bytes);
        let caps = self.ept_caps.with_mode_based_execute(mode_based);
        if Eptp::new(pointer, &caps).is_err() {
            return self.reflect(hw, Reason::Vmfunc as u32);
        }
        let slot = self.slots.get(id);
        slot.l0_records(field::EPT_POINTER, pointer);
        slot.derive_context(&self.ept_caps);
        if reports_index {
            slot.l0_records(field::EPTP_INDEX, index);
        }
        if !self.use_ept(hw, id) {
            return self.reflect(hw, Reason::Vmfunc as u32);
        }
        self.end_instruction_of_l2(hw, id)
    }
}

//! Whether L1 asked for an exit of L2.
//!
//! vmcs02 has the controls of vmcs12, so all but a few exits are L1's by
//! construction; here are the few.

use umbra_arch::msr::bitmap;
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field;

use crate::hw::Memory;
use crate::slots::SlotId;
use crate::state::Nested;

impl Nested {
    /// Whether L1 wants RDMSR or WRMSR of `index` by L2 to exit.
    pub(crate) fn l1_wants_msr(
        &mut self,
        hw: &mut impl Memory,
        id: SlotId,
        index: u32,
        is_write: bool,
    ) -> bool {
        let slot = self.slots.get(id);
        if !slot.proc(Proc::USE_MSR_BITMAPS) {
            return true;
        }
        let Some((byte_at, bit)) = bitmap::place(index, is_write) else {
            return true;
        };
        let at = slot.gpa1(field::MSR_BITMAP).plus(byte_at as u64);
        let mut byte = [0];
        hw.read_l1(at, &mut byte);
        byte[0] & 1 << bit != 0
    }
}

//! Whether L1 asked for an exit of L2.
//!
//! vmcs02 has the controls of vmcs12, so all but a few exits are L1's by
//! construction; here are the few.

use umbra_vmcs::controls::Proc;
use umbra_vmcs::field;

use crate::hw::Memory;
use crate::slots::SlotId;
use crate::state::Nested;

/// The last MSR of the low range that a bitmap covers, and the high range.
const LOW_LAST: u32 = 0x1fff;
const HIGH_FIRST: u32 = 0xc000_0000;
const HIGH_LAST: u32 = 0xc000_1fff;
/// Where in the bitmap the writes begin. SDM "MSR-Bitmap Address".
const WRITES_OFFSET: u64 = 0x800;
const HIGH_OFFSET: u64 = 0x400;

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
        let (range, bit) = match index {
            0..=LOW_LAST => (0, index),
            HIGH_FIRST..=HIGH_LAST => (HIGH_OFFSET, index - HIGH_FIRST),
            _ => return true,
        };
        let writes = if is_write { WRITES_OFFSET } else { 0 };
        let at = slot.get(field::MSR_BITMAP) + range + writes + u64::from(bit / 8);
        let mut byte = [0];
        hw.read_l1(at, &mut byte);
        byte[0] & 1 << (bit % 8) != 0
    }
}

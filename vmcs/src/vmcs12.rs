//! vmcs12: what L1 wrote, as a plain array of field values.

use zerocopy::IntoBytes;

use crate::controls::{Entry, Exit, Pin, Proc, Proc2};
use crate::field::{self, FIELD_COUNT, Field};

/// The fields of one VMCS of L1.
///
/// A value is kept cut to its field's width, so that reading it back gives
/// what a CPU gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmcs12 {
    values: [u64; FIELD_COUNT],
}

/// The bits that each field's value can have.
static MASKS: [u64; FIELD_COUNT] = {
    let mut masks = [0; FIELD_COUNT];
    let mut n = 0;
    while n < FIELD_COUNT {
        masks[n] = field::ALL[n].value_mask();
        n += 1;
    }
    masks
};

impl Default for Vmcs12 {
    fn default() -> Self {
        Self::new()
    }
}

impl Vmcs12 {
    /// How many bytes of a VMCS region the values take.
    pub const BYTES: usize = FIELD_COUNT * 8;

    /// All fields zero.
    pub const fn new() -> Self {
        Self {
            values: [0; FIELD_COUNT],
        }
    }

    /// A field's value.
    #[inline]
    pub const fn get(&self, field: Field) -> u64 {
        self.values[field.index()]
    }

    /// A field's value, for the fields of 32 bits and fewer.
    #[inline]
    pub const fn get32(&self, field: Field) -> u32 {
        self.values[field.index()] as u32
    }

    /// Sets a field, cut to its width.
    #[inline]
    pub const fn set(&mut self, field: Field, value: u64) {
        self.values[field.index()] = value & field.value_mask();
    }

    /// Whether all of the pin-based controls given are 1.
    #[inline]
    pub const fn pin(&self, bits: Pin) -> bool {
        self.get32(field::PIN_BASED_CONTROLS) & bits.bits() == bits.bits()
    }

    /// Whether all of the primary processor-based controls given are 1.
    #[inline]
    pub const fn proc(&self, bits: Proc) -> bool {
        self.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS) & bits.bits() == bits.bits()
    }

    /// The secondary controls in effect: none where they are not activated.
    #[inline]
    pub const fn proc2_word(&self) -> u32 {
        if self.proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            self.get32(field::SECONDARY_PROCESSOR_BASED_CONTROLS)
        } else {
            0
        }
    }

    /// Whether all of the secondary controls given are in effect.
    #[inline]
    pub const fn proc2(&self, bits: Proc2) -> bool {
        self.proc2_word() & bits.bits() == bits.bits()
    }

    /// Whether all of the VM-exit controls given are 1.
    #[inline]
    pub const fn exit(&self, bits: Exit) -> bool {
        self.get32(field::PRIMARY_VM_EXIT_CONTROLS) & bits.bits() == bits.bits()
    }

    /// Whether all of the VM-entry controls given are 1.
    #[inline]
    pub const fn entry(&self, bits: Entry) -> bool {
        self.get32(field::VM_ENTRY_CONTROLS) & bits.bits() == bits.bits()
    }

    /// The values as they lie in L1's VMCS region, little-endian, in the order of the
    /// table: [`BYTES`](Self::BYTES) bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.values.as_bytes()
    }

    /// Has `fill` fill all of those bytes from L1's VMCS region. They are L1's to write,
    /// so every value is cut to its field's width again.
    pub fn fill(&mut self, fill: impl FnOnce(&mut [u8])) {
        fill(self.values.as_mut_bytes());
        for (value, mask) in self.values.iter_mut().zip(&MASKS) {
            *value &= mask;
        }
    }
}

// A region's bytes are taken as they are.
const _: () = assert!(cfg!(target_endian = "little"));

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The region's header takes 8 bytes of the 4096.
    const _: () = assert!(Vmcs12::BYTES + 8 <= 4096);

    proptest! {
        #[test]
        fn a_region_of_any_bytes_reads_back_cut_to_width(seed in any::<u64>()) {
            let mut bytes = [0; Vmcs12::BYTES];
            let mut x = seed | 1;
            for b in &mut bytes {
                x ^= x << 13; x ^= x >> 7; x ^= x << 17;
                *b = x as u8;
            }
            let mut vmcs = Vmcs12::new();
            vmcs.fill(|to| to.copy_from_slice(&bytes));
            for f in field::ALL {
                prop_assert_eq!(vmcs.get(f) & !f.value_mask(), 0);
            }
            let mut again = Vmcs12::new();
            again.fill(|to| to.copy_from_slice(vmcs.as_bytes()));
            prop_assert_eq!(vmcs, again);
        }
    }
}

//! The field table: one row a field. SDM "Field Encoding in VMCS".
//!
//! From the rows come the constants, the names, the index that [`Vmcs12`]
//! stores a field under, and the look-up by encoding.
//!
//! [`Vmcs12`]: crate::Vmcs12

pub mod flow;
mod segment;
mod set;
mod table;

use crate::needs::Needs;
use flow::Flow;
pub use segment::SegmentFields;
pub use set::FieldSet;
pub use table::*;

/// How wide a field is. Bits 14:13 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    W16,
    /// 64 bits, with a second encoding for the upper 32.
    W64,
    /// 32 bits.
    W32,
    /// As wide as a linear address: 64 bits on every CPU Umbra runs on.
    Natural,
}

/// What a field is for. Bits 11:10 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// VM-execution, VM-exit and VM-entry controls.
    Control,
    /// VM-exit information: read-only unless the CPU allows writes to all.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// One field of the VMCS.
///
/// Made only by the table in this module, so its index is always below
/// [`FIELD_COUNT`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field {
    encoding: u16,
    index: u8,
}

impl Field {
    /// The encoding that VMREAD and VMWRITE take (full access).
    #[inline]
    pub const fn encoding(self) -> u32 {
        self.encoding as u32
    }

    /// The row's number in the table.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The field's width.
    #[inline]
    pub const fn width(self) -> Width {
        match (self.encoding >> 13) & 3 {
            0 => Width::W16,
            1 => Width::W64,
            2 => Width::W32,
            _ => Width::Natural,
        }
    }

    /// The field's area.
    #[inline]
    pub const fn area(self) -> Area {
        match (self.encoding >> 10) & 3 {
            0 => Area::Control,
            1 => Area::ExitInformation,
            2 => Area::Guest,
            _ => Area::Host,
        }
    }

    /// Whether the field is one of VM-exit information.
    #[inline]
    pub const fn is_read_only(self) -> bool {
        (self.encoding >> 10) & 3 == 1
    }

    /// The bits a value of this field can have.
    #[inline]
    pub const fn value_mask(self) -> u64 {
        match self.width() {
            Width::W16 => 0xffff,
            Width::W32 => 0xffff_ffff,
            Width::W64 | Width::Natural => u64::MAX,
        }
    }

    /// The SDM's name of the field, in capitals.
    pub const fn name(self) -> &'static str {
        ROWS[self.index as usize].name
    }

    /// What a CPU must support for the field to exist.
    pub const fn needs(self) -> Needs {
        ROWS[self.index as usize].needs
    }

    /// How its value goes from vmcs12 to vmcs02 and back; `None` if L1 is not
    /// offered the field.
    pub const fn flow(self) -> Option<Flow> {
        ROWS[self.index as usize].flow
    }

    /// The field and whether `encoding` names its upper half.
    ///
    /// `None` for an encoding that no row has, one with reserved bits set, and
    /// the "high" access type of a field that is not 64 bits wide.
    #[inline]
    pub const fn from_encoding(encoding: u64) -> Option<(Field, HighHalf)> {
        // Bits 31:15 and 12 are reserved, as is anything above bit 31 (a
        // 64-bit register operand has to be zero there).
        if encoding & !0x6fff != 0 {
            return None;
        }
        let encoding = encoding as u16;
        let high = encoding & 1 != 0;
        let ordinal = (encoding >> 1) & 0x1ff;
        if ordinal >= ORDINALS as u16 {
            return None;
        }
        let class = ((encoding >> 13) & 3) << 2 | (encoding >> 10) & 3;
        let index = BY_ENCODING[class as usize][ordinal as usize];
        if index == NO_FIELD {
            return None;
        }
        let field = ALL[index as usize];
        if high && !matches!(field.width(), Width::W64) {
            return None;
        }
        Some((field, high))
    }
}

impl core::fmt::Debug for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether an encoding names the upper 32 bits of a 64-bit field.
pub type HighHalf = bool;

const NO_FIELD: u8 = u8::MAX;
/// One more than the largest index (bits 9:1 of an encoding) of any row.
const ORDINALS: usize = 64;

/// The rows' numbers by width and area (bits 14:13 and 11:10) and ordinal
/// (bits 9:1).
static BY_ENCODING: [[u8; ORDINALS]; 16] = by_encoding();

const fn by_encoding() -> [[u8; ORDINALS]; 16] {
    let mut table = [[NO_FIELD; ORDINALS]; 16];
    let mut i = 0;
    while i < FIELD_COUNT {
        let e = ALL[i].encoding;
        assert!(e & 1 == 0 && e & !0x6ffe == 0, "not a full-access encoding");
        let class = (((e >> 13) & 3) << 2 | (e >> 10) & 3) as usize;
        let ordinal = ((e >> 1) & 0x1ff) as usize;
        assert!(
            ordinal < ORDINALS,
            "ORDINALS has to be larger for this encoding"
        );
        assert!(table[class][ordinal] == NO_FIELD, "two rows, one encoding");
        table[class][ordinal] = i as u8;
        i += 1;
    }
    table
}

/// The largest index (bits 9:1 of the encoding) of the fields in `set`, as
/// IA32_VMX_VMCS_ENUM reports it in its bits 9:1. SDM "VMCS Enumeration".
pub fn highest_ordinal(set: &FieldSet) -> u64 {
    let mut highest = 0;
    for field in ALL {
        if set.contains(field) {
            highest = highest.max(u64::from(field.encoding >> 1) & 0x1ff);
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_encoding() {
        for field in ALL {
            assert_eq!(
                Field::from_encoding(u64::from(field.encoding())),
                Some((field, false))
            );
            let high = Field::from_encoding(u64::from(field.encoding()) | 1);
            match field.width() {
                Width::W64 => assert_eq!(high, Some((field, true))),
                _ => assert_eq!(high, None),
            }
        }
    }

    #[test]
    fn nothing_else_is_found() {
        let known = (0..=0xffff_u64)
            .filter(|e| Field::from_encoding(*e).is_some())
            .count();
        let wide = ALL.iter().filter(|f| f.width() == Width::W64).count();
        assert_eq!(known, FIELD_COUNT + wide);
        assert_eq!(Field::from_encoding(0x1_0000_0000 | 0x681e), None);
        assert_eq!(Field::from_encoding(0x1_681e), None);
    }

    #[test]
    fn rows_stand_in_the_order_of_their_encodings() {
        for pair in ALL.windows(2) {
            let is_in_order = pair[0].encoding() < pair[1].encoding();
            assert!(is_in_order, "{:?} goes above {:?}", pair[1], pair[0]);
        }
    }

    #[test]
    fn draining_visits_each_field_once() {
        let mut set = FieldSet::of(&[GUEST_RIP, HOST_RIP, EPT_POINTER]);
        let mut seen = FieldSet::EMPTY;
        set.drain_within(&FieldSet::of(&[GUEST_RIP, EPT_POINTER, GUEST_CR0]), |f| {
            seen.insert(f)
        });
        assert_eq!(seen, FieldSet::of(&[GUEST_RIP, EPT_POINTER]));
        assert_eq!(set, FieldSet::of(&[HOST_RIP]));
    }
}

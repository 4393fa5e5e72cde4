//! Sets of fields.

use super::{ALL, FIELD_COUNT, Field};

const WORDS: usize = FIELD_COUNT.div_ceil(64);

/// A set of fields, one bit a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldSet([u64; WORDS]);

impl FieldSet {
    /// No field.
    pub const EMPTY: Self = Self([0; WORDS]);
    /// Every field.
    pub const FULL: Self = Self([u64::MAX; WORDS]);

    /// The set of the fields given.
    pub const fn of(fields: &[Field]) -> Self {
        let mut set = Self::EMPTY;
        let mut i = 0;
        while i < fields.len() {
            set = set.with(fields[i]);
            i += 1;
        }
        set
    }

    /// The set with a field more.
    pub const fn with(self, field: Field) -> Self {
        let mut out = self;
        out.0[field.index() / 64] |= 1 << (field.index() % 64);
        out
    }

    /// How many fields it has.
    pub const fn len(&self) -> usize {
        let mut fields = 0;
        let mut n = 0;
        while n < FIELD_COUNT {
            if self.contains(ALL[n]) {
                fields += 1;
            }
            n += 1;
        }
        fields
    }

    /// Both sets' fields.
    pub const fn union(self, other: Self) -> Self {
        let mut out = self;
        let mut i = 0;
        while i < out.0.len() {
            out.0[i] |= other.0[i];
            i += 1;
        }
        out
    }

    /// The fields that both sets have.
    #[inline]
    pub const fn intersection(self, other: Self) -> Self {
        let mut out = self;
        let mut i = 0;
        while i < out.0.len() {
            out.0[i] &= other.0[i];
            i += 1;
        }
        out
    }

    /// This set's fields that the other has not.
    #[inline]
    pub const fn difference(self, other: Self) -> Self {
        let mut out = self;
        let mut i = 0;
        while i < out.0.len() {
            out.0[i] &= !other.0[i];
            i += 1;
        }
        out
    }

    /// Adds a field.
    #[inline]
    pub fn insert(&mut self, field: Field) {
        self.0[field.index() / 64] |= 1 << (field.index() % 64);
    }

    /// Takes a field out.
    #[inline]
    pub fn remove(&mut self, field: Field) {
        self.0[field.index() / 64] &= !(1 << (field.index() % 64));
    }

    /// Whether the field is in the set.
    #[inline]
    pub const fn contains(&self, field: Field) -> bool {
        self.0[field.index() / 64] & (1 << (field.index() % 64)) != 0
    }

    /// Whether the two sets share a field.
    #[inline]
    pub const fn intersects(&self, other: &Self) -> bool {
        let mut i = 0;
        while i < self.0.len() {
            if self.0[i] & other.0[i] != 0 {
                return true;
            }
            i += 1;
        }
        false
    }

    /// Whether no field is in the set.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        let mut i = 0;
        while i < self.0.len() {
            if self.0[i] != 0 {
                return false;
            }
            i += 1;
        }
        true
    }

    /// Its fields, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = Field> {
        ALL.into_iter().filter(|f| self.contains(*f))
    }

    /// Calls `f` for every field. Quicker than to [iterate](Self::iter).
    #[inline]
    pub fn for_each(mut self, f: impl FnMut(Field)) {
        self.drain_within(&Self::FULL, f);
    }

    /// Calls `f` for every field that both sets have and leaves this set
    /// without them.
    #[inline]
    pub fn drain_within(&mut self, within: &Self, mut f: impl FnMut(Field)) {
        for word in 0..self.0.len() {
            let mut bits = self.0[word] & within.0[word];
            self.0[word] &= !within.0[word];
            while bits != 0 {
                let n = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if n < FIELD_COUNT {
                    f(ALL[n]);
                }
            }
        }
    }
}

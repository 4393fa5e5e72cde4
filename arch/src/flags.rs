//! What every set of flags can do beside what `bitflags` gives it.

/// Adds `is_in`, `any_in` and `of` to flag types over an integer.
macro_rules! on_raw_values {
    ($($name:ident: $raw:ty),* $(,)?) => { $(
        impl $name {
            /// The bits of a register's value, those without a name kept.
            #[inline]
            #[must_use]
            pub const fn of(raw: $raw) -> Self {
                Self::from_bits_retain(raw)
            }

            /// Whether all of these bits are 1 in a register's value.
            #[inline]
            #[must_use]
            pub const fn is_in(self, raw: $raw) -> bool {
                raw & self.bits() == self.bits()
            }

            /// Whether any of these bits is 1 in a register's value.
            #[inline]
            #[must_use]
            pub const fn any_in(self, raw: $raw) -> bool {
                raw & self.bits() != 0
            }
        }
    )* };
}
pub(crate) use on_raw_values;

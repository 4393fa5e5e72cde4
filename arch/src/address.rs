//! The kinds of addresses, which are not to be mixed up.
//!
//! A number becomes an address where its meaning is known: a [`Gpa1`] where L1
//! names it, a [`Gpa2`] where L2 or L1's ept12 does. An [`Hpa`](crate::Hpa) is made
//! of no number but by `core`: see [`hpa`](crate::hpa).

use crate::paging::{ADDRESS_BITS, PAGE_BYTES};

macro_rules! addresses {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address that a number is.
            #[inline]
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// `bytes` further on; beyond the last address it goes on at 0.
            #[inline]
            #[must_use]
            pub const fn plus(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// `bytes` further on; `None` beyond the last address.
            #[inline]
            #[must_use]
            pub const fn checked_plus(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        crate::address::common!($name);
    )* };
}

macro_rules! common {
    ($name:ident) => {
        impl $name {
            /// The number.
            #[inline]
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The first byte of the page that it lies in.
            #[inline]
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_BYTES - 1))
            }

            /// The first byte of the aligned block of `bytes`, a power of two, that it
            /// lies in.
            #[inline]
            #[must_use]
            pub const fn block(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }

            /// Its offset in that page, in bytes.
            #[inline]
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_BYTES - 1)
            }

            /// Whether it is a multiple of `bytes`, a power of two.
            #[inline]
            #[must_use]
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

pub(crate) use common;

addresses! {
    /// An L1-physical address: what L1 takes for a machine address, and ept01
    /// translates.
    Gpa1;
    /// An L2-physical address: what ept12 and ept02 translate.
    Gpa2;
    /// A linear address, of L1 or L2: what their paging translates.
    Linear;
}

impl Linear {
    /// As it is outside 64-bit mode: 32 bits wide.
    #[inline]
    #[must_use]
    pub const fn in_32_bits(self) -> Self {
        Self(self.0 & 0xffff_ffff)
    }
}

impl Gpa1 {
    /// The address in bits 51:12 of an entry, a CR3 or an EPT pointer.
    #[inline]
    #[must_use]
    pub const fn in_entry(raw: u64) -> Self {
        Self(raw & ADDRESS_BITS)
    }
}

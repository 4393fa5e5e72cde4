//! Which of a CPU's slots.

/// How many vmcs12s (and as many vmcs02s) a CPU keeps.
pub const SLOTS: usize = 8;

/// Which slot, and so which vmcs02.
///
/// Made only here, so its number is always below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(u8);

const _: () = assert!(SLOTS <= 1 << u8::BITS);

impl SlotId {
    /// Its number, below [`SLOTS`].
    #[inline]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// The first slot.
    pub(crate) const FIRST: Self = Self(0);

    /// All of them, in order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).take(SLOTS).map(Self)
    }
}

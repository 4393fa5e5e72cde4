//! Which of a CPU's slots.

/// How many vmcs12s (and as many vmcs02s) a CPU keeps at most.
pub const MAX_SLOTS: usize = 256;

/// Which slot, and so which vmcs02.
///
/// Given only by the table of slots, so it always names a slot that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(u8);

const _: () = assert!(MAX_SLOTS == 1 << u8::BITS);

impl SlotId {
    /// Its number, below [`MAX_SLOTS`].
    #[inline]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// The slot of this number, which the table has.
    #[inline]
    pub(crate) const fn new(number: u8) -> Self {
        Self(number)
    }

    /// As a number that fits a table of hints.
    #[inline]
    pub(crate) const fn hint(self) -> u8 {
        self.0
    }

    /// The first slot.
    pub(crate) const FIRST: Self = Self(0);

    /// All of a table of `count`, in order.
    pub(crate) fn all(count: usize) -> impl Iterator<Item = Self> {
        (0..=u8::MAX).take(count).map(Self)
    }
}

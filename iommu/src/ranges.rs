//! Which memory a device may reach: ranges that do not touch one another, in
//! order.

use crate::mem::PAGE_BYTES;

/// A range of machine addresses, by whole pages; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start_hpa: u64,
    /// The first address behind it.
    pub end_hpa: u64,
}

impl Range {
    /// The pages that hold any byte from `start_hpa` to `last_hpa`, both
    /// included; `None` if there are none.
    #[must_use]
    pub const fn touching(start_hpa: u64, last_hpa: u64) -> Option<Self> {
        if start_hpa > last_hpa {
            return None;
        }
        let start = start_hpa & !(PAGE_BYTES - 1);
        // The last page of the address space is left out: nothing lies there,
        // and an end behind it would not fit.
        let end = match (last_hpa | (PAGE_BYTES - 1)).checked_add(1) {
            Some(end) => end,
            None => !(PAGE_BYTES - 1),
        };
        if start < end {
            Some(Self {
                start_hpa: start,
                end_hpa: end,
            })
        } else {
            None
        }
    }

    /// Whether the two have a page in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start_hpa < other.end_hpa && other.start_hpa < self.end_hpa
    }

    /// Whether `hpa` lies in it.
    #[must_use]
    pub const fn contains(&self, hpa: u64) -> bool {
        self.start_hpa <= hpa && hpa < self.end_hpa
    }
}

/// More ranges than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Up to `N` ranges, in order, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges<const N: usize> {
    all: heapless::Vec<Range, N>,
}

impl<const N: usize> Ranges<N> {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            all: heapless::Vec::new(),
        }
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.all.iter()
    }

    /// Whether `hpa` lies in one of them.
    #[must_use]
    pub fn contains(&self, hpa: u64) -> bool {
        self.iter().any(|range| range.contains(hpa))
    }

    /// Adds a range.
    ///
    /// # Errors
    /// [`TooMany`]; nothing has changed then.
    pub fn add(&mut self, range: Range) -> Result<(), TooMany> {
        // Those that it overlaps or touches melt into it.
        let mut whole = range;
        let mut rest = heapless::Vec::<Range, N>::new();
        for old in &self.all {
            if old.start_hpa <= whole.end_hpa && whole.start_hpa <= old.end_hpa {
                whole.start_hpa = whole.start_hpa.min(old.start_hpa);
                whole.end_hpa = whole.end_hpa.max(old.end_hpa);
            } else {
                rest.push(*old).map_err(|_| TooMany)?;
            }
        }
        let at = rest
            .iter()
            .position(|old| old.start_hpa > whole.start_hpa)
            .unwrap_or(rest.len());
        rest.insert(at, whole).map_err(|_| TooMany)?;
        self.all = rest;
        Ok(())
    }

    /// Takes a range out.
    ///
    /// # Errors
    /// [`TooMany`]: it would cut one into two and there is no room; nothing has
    /// changed then.
    pub fn remove(&mut self, hole: Range) -> Result<(), TooMany> {
        let mut left = heapless::Vec::<Range, N>::new();
        for old in &self.all {
            for (start_hpa, end_hpa) in [
                (old.start_hpa, old.end_hpa.min(hole.start_hpa)),
                (old.start_hpa.max(hole.end_hpa), old.end_hpa),
            ] {
                if start_hpa < end_hpa {
                    left.push(Range { start_hpa, end_hpa })
                        .map_err(|_| TooMany)?;
                }
            }
        }
        self.all = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hole_that_is_not_met_leaves_a_range_whole() {
        let mut ranges = Ranges::<4>::new();
        ranges
            .add(Range::touching(0x1000, 0x2fff).unwrap())
            .unwrap();
        ranges
            .remove(Range::touching(0x8000, 0x8fff).unwrap())
            .unwrap();
        assert_eq!(ranges.iter().count(), 1);
        ranges.remove(Range::touching(0, 0xfff).unwrap()).unwrap();
        assert_eq!(ranges.iter().count(), 1);
    }

    #[test]
    fn too_many_ranges_are_refused_and_change_nothing() {
        let mut ranges = Ranges::<1>::new();
        ranges.add(Range::touching(0, 0x2fff).unwrap()).unwrap();
        let before = ranges.clone();
        let middle = Range::touching(0x1000, 0x1fff).unwrap();
        assert_eq!(ranges.remove(middle), Err(TooMany));
        assert_eq!(ranges, before);
        let far = Range::touching(0x9000, 0x9fff).unwrap();
        assert_eq!(ranges.add(far), Err(TooMany));
        assert_eq!(ranges, before);
    }

    #[test]
    fn the_end_of_the_address_space_is_no_overflow() {
        let all = Range::touching(0, u64::MAX).unwrap();
        assert_eq!(all.end_hpa, !(PAGE_BYTES - 1));
        assert_eq!(Range::touching(u64::MAX, u64::MAX), None);
        assert_eq!(Range::touching(2, 1), None);
    }

    proptest! {
        #[test]
        fn the_last_word_on_a_page_counts(
            steps in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..16), 1..40)
        ) {
            let mut ranges = Ranges::<64>::new();
            let mut pages = [false; 96];
            for (add, first, more) in steps {
                let last = first + more;
                let range = Range::touching(first << 12, (last << 12) + 0xfff).unwrap();
                if add { ranges.add(range) } else { ranges.remove(range) }.unwrap();
                pages[first as usize..=last as usize].fill(add);
            }
            for (page, inside) in pages.iter().enumerate() {
                prop_assert_eq!(ranges.contains((page as u64) << 12), *inside);
            }
            let mut end = None;
            for range in ranges.iter() {
                prop_assert!(end.is_none_or(|end| end < range.start_hpa));
                end = Some(range.end_hpa);
            }
        }
    }
}

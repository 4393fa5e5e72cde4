//! Where one CPU's records are kept: the newest, in a ring.

use core::sync::atomic::{AtomicU64, Ordering};

use super::Record;

/// The words that a record takes: its number, then [`Record::to_words`].
pub const RECORD_WORDS: usize = 7;

/// One CPU's records. That CPU alone writes; any may read.
#[derive(Debug)]
pub struct Ring<'a> {
    words: &'a [AtomicU64],
    /// The number of the record begun last. Numbers begin with 1.
    last: AtomicU64,
    /// Records up to this number have been printed.
    printed: AtomicU64,
}

impl<'a> Ring<'a> {
    /// A ring in `words`, all zero. Without words nothing is kept.
    pub const fn new(words: &'a [AtomicU64]) -> Self {
        Self {
            words,
            last: AtomicU64::new(0),
            printed: AtomicU64::new(0),
        }
    }

    fn capacity(&self) -> u64 {
        (self.words.len() / RECORD_WORDS) as u64
    }

    fn place(&self, number: u64) -> Option<(&'a AtomicU64, &'a [AtomicU64])> {
        let index = number.checked_rem(self.capacity())? as usize;
        self.words
            .chunks_exact(RECORD_WORDS)
            .nth(index)?
            .split_first()
    }

    fn put(&self, number: u64, record: Record) {
        let Some((mark, words)) = self.place(number) else {
            return;
        };
        // Whoever reads meanwhile sees the mark change.
        mark.store(0, Ordering::SeqCst);
        for (word, value) in words.iter().zip(record.to_words()) {
            word.store(value, Ordering::SeqCst);
        }
        mark.store(number, Ordering::SeqCst);
    }

    /// Adds a record; the oldest goes where there is no room.
    pub fn begin(&self, record: Record) {
        let number = self.last.load(Ordering::Relaxed) + 1;
        self.put(number, record);
        self.last.store(number, Ordering::Release);
    }

    /// Replaces the record that was added last.
    pub fn finish(&self, record: Record) {
        self.put(self.last.load(Ordering::Relaxed), record);
    }

    /// Whether the next record would push one out that was not printed.
    pub fn is_full(&self) -> bool {
        let waiting = self.last.load(Ordering::Relaxed) - self.printed.load(Ordering::Relaxed);
        waiting >= self.capacity()
    }

    /// Gives out what was not printed yet, oldest first: how many records were
    /// lost, then each with its number.
    pub fn drain(&self, lost: impl FnOnce(u64), mut each: impl FnMut(u64, Record)) {
        let last = self.last.load(Ordering::Acquire);
        let printed = self.printed.swap(last, Ordering::AcqRel);
        let oldest = last.saturating_sub(self.capacity()) + 1;
        let first = oldest.max(printed + 1);
        if first > printed + 1 {
            lost(first - printed - 1);
        }
        for number in first..=last {
            if let Some(record) = self.get(number) {
                each(number, record);
            }
        }
    }

    /// The record of this number, unless it has been, or is being, overwritten.
    fn get(&self, number: u64) -> Option<Record> {
        let (mark, words) = self.place(number)?;
        let before = mark.load(Ordering::SeqCst);
        let mut values = [0; RECORD_WORDS - 1];
        for (value, word) in values.iter_mut().zip(words) {
            *value = word.load(Ordering::SeqCst);
        }
        let is_whole = before == number && mark.load(Ordering::SeqCst) == number;
        is_whole.then(|| Record::from_words(values))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Became, Before};
    use super::*;
    use std::vec::Vec;

    fn record(rip: u64) -> Record {
        Record {
            exit: Before {
                rip,
                ..Before::default()
            },
            became: Became::Unfinished,
            event: 0,
        }
    }

    fn words(records: usize) -> Vec<AtomicU64> {
        (0..records * RECORD_WORDS)
            .map(|_| AtomicU64::new(0))
            .collect()
    }

    fn drained(ring: &Ring<'_>) -> (u64, Vec<(u64, u64)>) {
        let (mut missing, mut got) = (0, Vec::new());
        ring.drain(
            |count| missing = count,
            |number, record| got.push((number, record.exit.rip)),
        );
        (missing, got)
    }

    #[test]
    fn the_newest_are_kept_in_order_and_the_lost_are_counted() {
        let words = words(3);
        let ring = Ring::new(&words);
        assert_eq!(drained(&ring), (0, Vec::new()));
        for rip in 1..=5 {
            ring.begin(record(rip));
        }
        assert!(ring.is_full());
        assert_eq!(drained(&ring), (2, [(3, 3), (4, 4), (5, 5)].to_vec()));
        assert_eq!(drained(&ring), (0, Vec::new()), "printed once");
        assert!(!ring.is_full());
        ring.begin(record(6));
        assert_eq!(drained(&ring), (0, [(6, 6)].to_vec()));
    }

    #[test]
    fn a_ring_is_full_right_before_one_would_be_lost() {
        let words = words(2);
        let ring = Ring::new(&words);
        ring.begin(record(1));
        assert!(!ring.is_full());
        ring.begin(record(2));
        assert!(ring.is_full());
    }

    #[test]
    fn finish_replaces_the_last() {
        let words = words(2);
        let ring = Ring::new(&words);
        ring.begin(record(1));
        ring.begin(record(2));
        ring.finish(record(7));
        assert_eq!(drained(&ring), (0, [(1, 1), (2, 7)].to_vec()));
    }

    #[test]
    fn one_that_is_being_written_is_left_out() {
        let words = words(2);
        let ring = Ring::new(&words);
        ring.begin(record(1));
        ring.begin(record(2));
        // As the writer leaves it between its first and its last store.
        words[RECORD_WORDS].store(0, Ordering::SeqCst);
        assert_eq!(drained(&ring), (0, [(2, 2)].to_vec()));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let ring = Ring::new(&[]);
        ring.begin(record(1));
        ring.finish(record(1));
        assert_eq!(drained(&ring).1, Vec::new());
    }
}

//! The MSR bitmap that L2 runs with: L1's merged with what L0 intercepts itself.
//! SDM "MSR-Bitmap Address".
//!
//! An L2 goes through few of the bitmap's 512 words. Only those are open, and read
//! again from L1's page at each VM entry; all others are ones. Their first access
//! exits to L0, which opens the word if L1 lets the access through.

use crate::mem::{PAGE_BYTES, layout, pointer};
use umbra_arch::msr::bitmap;
use umbra_arch::{Gpa1, Hpa};

/// How many words are open at most. One more closes the oldest.
const OPEN: usize = 16;

/// The words that are open.
#[derive(Debug)]
pub struct OpenWords {
    words: heapless::Vec<Word, OPEN>,
    /// The one to be closed next.
    oldest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    /// Its number in the page, below 512.
    number: u16,
    /// What L0 intercepts in it.
    own: u64,
}

/// Where an MSR has its bit: the number of the word, and the bit.
const fn place(index: u32, is_write: bool) -> Option<(u16, u64)> {
    match bitmap::place(index, is_write) {
        Some((byte, bit)) => Some(((byte / 8) as u16, 1 << (byte % 8 * 8 + bit as usize))),
        None => None,
    }
}

/// The page at which L0 reads L1's bitmap; `None` where nothing answers.
fn readable(gpa: Gpa1) -> Option<u64> {
    let gpa = gpa.page();
    let layout = layout();
    let from = match layout.touches_hidden(gpa, PAGE_BYTES) {
        // What L1 reads there, and what is looked at when an MSR exits.
        true => layout.void_page.raw(),
        false => gpa.raw(),
    };
    layout.maps(from, PAGE_BYTES).then_some(from)
}

impl OpenWords {
    /// None; `merged`, the address of this CPU's page, is to be all ones.
    pub const fn new() -> Self {
        Self {
            words: heapless::Vec::new(),
            oldest: 0,
        }
    }

    /// Closes all words of the page at `merged`, which is this CPU's own.
    pub fn close_all(&mut self, merged: Hpa) {
        self.words.clear();
        for number in 0..(PAGE_BYTES / 8) as u16 {
            store(merged, number, u64::MAX);
        }
    }

    /// Reads the open words again from L1's bitmap at `gpa`.
    #[inline]
    pub fn merge(&self, merged: Hpa, gpa: Gpa1) {
        if self.words.is_empty() {
            return;
        }
        let from = readable(gpa);
        for word in &self.words {
            store(merged, word.number, theirs(from, word.number) | word.own);
        }
    }

    /// Opens the word of an MSR access that L1's bitmap at `gpa` lets through.
    /// `own` is L0's own bitmap; false if it intercepts this access.
    pub fn open(
        &mut self,
        merged: Hpa,
        gpa: Gpa1,
        own: &[u64],
        index: u32,
        is_write: bool,
    ) -> bool {
        let Some((number, bit)) = place(index, is_write) else {
            return false;
        };
        let own = own.get(usize::from(number)).copied().unwrap_or(u64::MAX);
        if own & bit != 0 {
            return false;
        }
        let word = Word { number, own };
        if !self.words.iter().any(|w| w.number == number) && self.words.push(word).is_err() {
            if let Some(old) = self.words.get_mut(self.oldest) {
                store(merged, old.number, u64::MAX);
                *old = word;
            }
            self.oldest = (self.oldest + 1) % OPEN;
        }
        let value = theirs(readable(gpa), number) | own;
        store(merged, number, value);
        // Another CPU of L1 may have changed its mind meanwhile.
        value & bit == 0
    }
}

/// A word of L1's bitmap; all ones where nothing answers, as a bus reads.
fn theirs(from: Option<u64>, number: u16) -> u64 {
    let Some(from) = from else { return u64::MAX };
    let word = pointer(from)
        .cast::<u64>()
        .wrapping_add(usize::from(number));
    // SAFETY: a word of a mapped page of L1's or of the void; L1 may be writing
    // it, and it is read once, whatever it then is.
    unsafe { word.read_volatile() }
}

fn store(merged: Hpa, number: u16, value: u64) {
    let word = pointer(merged.raw())
        .cast::<u64>()
        .wrapping_add(usize::from(number));
    // SAFETY: a word of a page of this CPU's own; `number` is below 512.
    unsafe { word.write_volatile(value) };
}

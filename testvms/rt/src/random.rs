//! Numbers that look random and are the same in each run.

/// A generator: xorshift, by George Marsaglia.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that starts from `seed`; from 0, which it could not leave, it starts at 1.
    pub fn new(seed: u64) -> Self {
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is small and not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.bits() >> 24) % end
    }

    /// True in `count` of `end` cases.
    pub fn chance(&mut self, count: u64, end: u64) -> bool {
        self.below(end) < count
    }

    /// One of the values, of which there is at least one.
    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

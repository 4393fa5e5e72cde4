//! Writing the information block of a boot protocol.

use crate::bytes::align_up;
use crate::phys::{PhysMemory, Unreachable};

/// Appends bytes to a block in memory, or only counts them.
///
/// A block is made twice by the same code: once without memory, to learn how
/// long it is, and then in the place found for it.
pub(crate) struct Emit<'m, M> {
    mem: Option<&'m mut M>,
    base: u64,
    len: u64,
}

impl<'m, M: PhysMemory> Emit<'m, M> {
    /// Counts, and writes nothing.
    pub(crate) fn count() -> Self {
        Self {
            mem: None,
            base: 0,
            len: 0,
        }
    }

    /// Writes from `base` on.
    pub(crate) fn at(mem: &'m mut M, base: u64) -> Self {
        Self {
            mem: Some(mem),
            base,
            len: 0,
        }
    }

    /// The physical address of the next byte.
    pub(crate) fn address(&self) -> u64 {
        self.base.saturating_add(self.len)
    }

    /// How many bytes there are so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The memory below, unless this only counts.
    pub(crate) fn mem(&mut self) -> Option<&mut M> {
        self.mem.as_deref_mut()
    }

    /// Appends `bytes`.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Unreachable> {
        let address = self.address();
        if let Some(mem) = self.mem.as_deref_mut() {
            mem.write(address, bytes)?;
        }
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Appends a string and its terminating NUL.
    pub(crate) fn string(&mut self, bytes: &[u8]) -> Result<(), Unreachable> {
        self.bytes(bytes)?;
        self.bytes(&[0])
    }

    /// Appends a 32-bit number.
    pub(crate) fn u32(&mut self, value: u32) -> Result<(), Unreachable> {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a 64-bit number.
    pub(crate) fn u64(&mut self, value: u64) -> Result<(), Unreachable> {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends `len` zeros.
    pub(crate) fn zeros(&mut self, len: u64) -> Result<(), Unreachable> {
        let address = self.address();
        if let Some(mem) = self.mem.as_deref_mut() {
            mem.zero(address, len)?;
        }
        self.len = self.len.saturating_add(len);
        Ok(())
    }

    /// Appends zeros up to a multiple of `align` bytes from the beginning.
    pub(crate) fn align(&mut self, align: u64) -> Result<(), Unreachable> {
        let to = align_up(self.len, align).unwrap_or(self.len);
        self.zeros(to - self.len)
    }

    /// Overwrites the 32-bit number at `offset` from the beginning.
    pub(crate) fn patch_u32(&mut self, offset: u64, value: u32) -> Result<(), Unreachable> {
        let address = self.base.saturating_add(offset);
        match self.mem.as_deref_mut() {
            Some(mem) => mem.write(address, &value.to_le_bytes()),
            None => Ok(()),
        }
    }
}

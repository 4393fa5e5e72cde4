//! A kernel file, read piece by piece.

use crate::error::Error;
use crate::phys::{PhysMemory, Region};

/// A file that can be read at any offset.
pub(crate) trait Source {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// [`Error::Truncated`], naming `what`, if the file ends before that.
    fn read(&self, offset: u64, out: &mut [u8], what: &'static str) -> Result<(), Error>;

    /// Checks that `len` bytes at `offset` lie in the file.
    fn check(&self, offset: u64, len: u64, what: &'static str) -> Result<(), Error> {
        let end = offset.saturating_add(len);
        if end > self.len() || offset.checked_add(len).is_none() {
            return Err(Error::Truncated {
                what,
                end,
                len: self.len(),
            });
        }
        Ok(())
    }

    /// `N` bytes at `offset`.
    fn array<const N: usize>(&self, offset: u64, what: &'static str) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        self.read(offset, &mut out, what)?;
        Ok(out)
    }

    /// The little-endian 32-bit number at `offset`.
    fn u32(&self, offset: u64, what: &'static str) -> Result<u32, Error> {
        self.array(offset, what).map(u32::from_le_bytes)
    }

    /// The little-endian 16-bit number at `offset`.
    fn u16(&self, offset: u64, what: &'static str) -> Result<u16, Error> {
        self.array(offset, what).map(u16::from_le_bytes)
    }
}

impl Source for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&self, offset: u64, out: &mut [u8], what: &'static str) -> Result<(), Error> {
        self.check(offset, out.len() as u64, what)?;
        let found = usize::try_from(offset)
            .ok()
            .and_then(|from| self.get(from..from.checked_add(out.len())?));
        match found {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::Truncated {
                what,
                end: offset,
                len: Source::len(self),
            }),
        }
    }
}

/// A file that lies in L1's physical memory.
pub(crate) struct InMemory<'m, M> {
    mem: &'m M,
    region: Region,
}

impl<'m, M: PhysMemory> InMemory<'m, M> {
    /// The file that lies in `region`. One that would run past the end of the
    /// 64-bit space counts as empty.
    pub(crate) fn new(mem: &'m M, region: Region) -> Self {
        let region = match region.last() {
            Some(_) => region,
            None => Region::new(region.start, 0),
        };
        Self { mem, region }
    }
}

impl<M: PhysMemory> Source for InMemory<'_, M> {
    fn len(&self) -> u64 {
        self.region.len
    }

    fn read(&self, offset: u64, out: &mut [u8], what: &'static str) -> Result<(), Error> {
        self.check(offset, out.len() as u64, what)?;
        // Cannot wrap: the offset lies in the region, and the region ends.
        Ok(self.mem.read(self.region.start.wrapping_add(offset), out)?)
    }
}

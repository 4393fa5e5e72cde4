//! Looking for a header in a file.

use crate::bytes::u32_at;
use crate::error::Error;
use crate::source::Source;

/// The first place in the first `within` bytes, at a multiple of `step`, at
/// which the 32-bit number `magic` stands and `is_header` agrees.
///
/// `step` is 4 or 8.
pub(crate) fn search<S: Source>(
    file: &S,
    magic: u32,
    step: usize,
    within: u64,
    mut is_header: impl FnMut(u64) -> Result<bool, Error>,
) -> Result<Option<u64>, Error> {
    const CHUNK_BYTES: usize = 512;
    let end = file.len().min(within);
    let mut offset = 0;
    while offset < end {
        let mut chunk = [0; CHUNK_BYTES];
        let there = usize::try_from(end - offset)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        let (read, _) = chunk.split_at_mut(there);
        file.read(offset, read, "its beginning")?;
        for at in (0..there).step_by(step) {
            if u32_at(read, at) == Some(magic) && is_header(offset + at as u64)? {
                return Ok(Some(offset + at as u64));
            }
        }
        offset += CHUNK_BYTES as u64;
    }
    Ok(None)
}

//! Little-endian numbers out of byte slices, without a panic.

/// The byte at `offset`, if the slice holds it.
pub(crate) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// The 16-bit number at `offset`, if the slice holds all of it.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// The 32-bit number at `offset`, if the slice holds all of it.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// The 64-bit number at `offset`, if the slice holds all of it.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// `N` bytes at `offset`, if the slice holds them all.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    let end = offset.checked_add(N)?;
    bytes.get(offset..end)?.try_into().ok()
}

/// `value` rounded up to a multiple of `align` (0 counts as 1), if it fits.
pub(crate) fn align_up(value: u64, align: u64) -> Option<u64> {
    let align = align.max(1);
    match value % align {
        0 => Some(value),
        rest => value.checked_add(align - rest),
    }
}

/// `value` rounded down to a multiple of `align` (0 counts as 1).
pub(crate) fn align_down(value: u64, align: u64) -> u64 {
    value - value % align.max(1)
}

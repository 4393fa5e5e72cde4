//! What kind of kernel a file is.

use core::fmt;

use crate::boot_sector::SECTOR_BYTES;
use crate::error::Error;
use crate::linux;
use crate::multiboot1;
use crate::multiboot2;
use crate::source::Source;

/// The boot protocols that Umbra speaks.
///
/// A file can carry the marks of several: Xen has both multiboot headers.
/// They are looked for in the order of the variants here. Linux comes first
/// because its mark has a fixed place, and multiboot2 before multiboot because
/// Umbra itself was loaded by it, so that what L1 gets is closest to what the
/// boot loader would have given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// Linux bzImage, entered by the 32-bit boot protocol.
    Linux,
    /// Multiboot2.
    Multiboot2,
    /// Multiboot 0.6.96.
    Multiboot1,
    /// A BIOS boot sector of 512 bytes.
    BootSector,
}

impl fmt::Display for KernelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "Linux",
            Self::Multiboot2 => "multiboot2",
            Self::Multiboot1 => "multiboot",
            Self::BootSector => "BIOS boot sector",
        })
    }
}

/// What kind of kernel `file` is. It may be cut after its first 32 KiB, unless
/// it is shorter than that: no mark lies further in.
///
/// # Errors
/// [`Error::Compressed`] for a file that has to be unpacked first, and
/// [`Error::NotAKernel`].
pub fn identify(file: &[u8]) -> Result<KernelKind, Error> {
    identify_source(&file)
}

pub(crate) fn identify_source<S: Source>(file: &S) -> Result<KernelKind, Error> {
    if linux::is_linux(file)? {
        return Ok(KernelKind::Linux);
    }
    if multiboot2::find_header(file)?.is_some() {
        return Ok(KernelKind::Multiboot2);
    }
    if multiboot1::find_header(file)?.is_some() {
        return Ok(KernelKind::Multiboot1);
    }
    if file.len() == SECTOR_BYTES && file.u16(510, "the boot sector")? == 0xaa55 {
        return Ok(KernelKind::BootSector);
    }
    match compression(file)? {
        Some(name) => Err(Error::Compressed(name)),
        None => Err(Error::NotAKernel { len: file.len() }),
    }
}

/// The name of the compressor that made the file, by its magic number.
fn compression<S: Source>(file: &S) -> Result<Option<&'static str>, Error> {
    const MAGICS: [(&[u8], &str); 5] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"BZh", "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    ];
    if file.len() < 8 {
        return Ok(None);
    }
    let head: [u8; 8] = file.array(0, "its beginning")?;
    Ok(MAGICS
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|&(_, name)| name))
}

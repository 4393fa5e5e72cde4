//! Telling what kind of kernel a file is, by its header.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;

use crate::fail;

/// How a boot loader starts a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Multiboot Specification 0.6.96.
    Multiboot1,
    /// Multiboot2 Specification 2.0.
    Multiboot2,
    /// The Linux/x86 boot protocol, with a protected-mode part (bzImage).
    Linux,
    /// A BIOS boot sector: one sector that the BIOS would load at 0x7c00.
    BootSector,
}

/// Where the multiboot header may be: "It must be contained completely
/// within the first 8192 bytes", on a 4-byte boundary.
const MULTIBOOT1_SEARCH_BYTES: usize = 8192;
const MULTIBOOT1_MAGIC: u32 = 0x1bad_b002;
/// The multiboot2 header: in the first 32768 bytes, on an 8-byte boundary.
const MULTIBOOT2_SEARCH_BYTES: usize = 32768;
const MULTIBOOT2_MAGIC: u32 = 0xe852_50d6;
/// The architecture field of multiboot2 for 32-bit protected mode of i386.
const MULTIBOOT2_I386: u32 = 0;
/// The Linux/x86 boot protocol, "The Real-Mode Kernel Header".
const LINUX_BOOT_FLAG: (usize, u16) = (0x1fe, 0xaa55);
const LINUX_MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const LINUX_VERSION: usize = 0x206;
/// The oldest protocol in which a kernel can be loaded high.
const LINUX_OLDEST_VERSION: u16 = 0x0200;
const LINUX_LOADFLAGS: usize = 0x211;
const LINUX_LOADED_HIGH: u8 = 1;
/// The size of a boot sector, which ends with the same flag.
const SECTOR_BYTES: usize = 512;

/// The kind of kernel that the (uncompressed) `file` is.
///
/// A file that is several is taken as Linux first, whose mark has a fixed
/// place, then as multiboot2, then as multiboot: Umbra chooses in the same
/// order. `file` may be cut after 32 KiB.
pub fn detect(file: &[u8]) -> Option<Kind> {
    if is_linux(file) {
        Some(Kind::Linux)
    } else if is_multiboot2(file) {
        Some(Kind::Multiboot2)
    } else if is_multiboot1(file) {
        Some(Kind::Multiboot1)
    } else if is_boot_sector(file) {
        Some(Kind::BootSector)
    } else {
        None
    }
}

/// Reads the kernel file `path`, gzipped or not, and tells its kind.
///
/// # Errors
/// A usage error when the file is not there, cannot be read, or is no kernel.
pub fn read(path: &Path) -> Result<(Kind, Vec<u8>)> {
    let shown = path.display();
    if !path.is_file() {
        return Err(fail::usage(format!("{shown}: {}", fail::why_no_file(path))));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| fail::usage(format!("{shown}: cannot be read: {error}")))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut plain)
            .with_context(|| format!("{shown}: cannot be unzipped"))?;
        bytes = plain;
    }
    match detect(&bytes) {
        Some(kind) => Ok((kind, bytes)),
        None => Err(fail::usage(format!(
            "{shown}: is no kernel: no multiboot, multiboot2 or Linux boot header, no boot sector"
        ))),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn is_multiboot1(head: &[u8]) -> bool {
    (0..MULTIBOOT1_SEARCH_BYTES - 8).step_by(4).any(|at| {
        u32_at(head, at) == Some(MULTIBOOT1_MAGIC)
            && match (u32_at(head, at + 4), u32_at(head, at + 8)) {
                (Some(flags), Some(checksum)) => {
                    MULTIBOOT1_MAGIC.wrapping_add(flags).wrapping_add(checksum) == 0
                }
                _ => false,
            }
    })
}

fn is_multiboot2(head: &[u8]) -> bool {
    (0..MULTIBOOT2_SEARCH_BYTES - 8).step_by(8).any(|at| {
        let field = |index: usize| u32_at(head, at + 4 * index);
        match (field(0), field(1), field(2), field(3)) {
            (Some(MULTIBOOT2_MAGIC), Some(MULTIBOOT2_I386), Some(length), Some(checksum)) => {
                MULTIBOOT2_MAGIC.wrapping_add(length).wrapping_add(checksum) == 0
            }
            _ => false,
        }
    })
}

fn is_linux(head: &[u8]) -> bool {
    let (flag_at, flag) = LINUX_BOOT_FLAG;
    let (magic_at, magic) = LINUX_MAGIC;
    u16_at(head, flag_at) == Some(flag)
        && head.get(magic_at..magic_at + magic.len()) == Some(magic)
        && u16_at(head, LINUX_VERSION).is_some_and(|version| version >= LINUX_OLDEST_VERSION)
        && head
            .get(LINUX_LOADFLAGS)
            .is_some_and(|flags| flags & LINUX_LOADED_HIGH != 0)
}

fn is_boot_sector(file: &[u8]) -> bool {
    let (flag_at, flag) = LINUX_BOOT_FLAG;
    file.len() == SECTOR_BYTES && u16_at(file, flag_at) == Some(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, words: &[u32]) {
        for (index, word) in words.iter().enumerate() {
            bytes[at + 4 * index..at + 4 * index + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn multiboot1(at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let flags = 3_u32;
        let sum = 0_u32.wrapping_sub(MULTIBOOT1_MAGIC).wrapping_sub(flags);
        put(&mut bytes, at, &[MULTIBOOT1_MAGIC, flags, sum]);
        bytes
    }

    fn multiboot2(at: usize, arch: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let sum = 0_u32
            .wrapping_sub(MULTIBOOT2_MAGIC)
            .wrapping_sub(arch)
            .wrapping_sub(24);
        put(&mut bytes, at, &[MULTIBOOT2_MAGIC, arch, 24, sum]);
        bytes
    }

    fn linux() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        bytes[0x211] = 1;
        bytes
    }

    #[test]
    fn multiboot1_is_found_up_to_the_end_of_its_window() {
        assert_eq!(detect(&multiboot1(0, 12)), Some(Kind::Multiboot1));
        assert_eq!(detect(&multiboot1(8192 - 12, 8192)), Some(Kind::Multiboot1));
        assert_eq!(detect(&multiboot1(8192 - 8, 16384)), None);
        assert_eq!(detect(&multiboot1(2, 64)), None, "not on a 4-byte boundary");
    }

    #[test]
    fn a_wrong_checksum_or_a_cut_header_is_no_kernel() {
        let mut bytes = multiboot1(64, 256);
        bytes[72] ^= 1;
        assert_eq!(detect(&bytes), None);
        assert_eq!(detect(&multiboot1(64, 256)[..72]), None);
        let mut bytes = multiboot2(64, 0, 256);
        bytes[76] ^= 1;
        assert_eq!(detect(&bytes), None);
    }

    #[test]
    fn multiboot2_is_found_on_8_byte_boundaries_for_i386_alone() {
        assert_eq!(
            detect(&multiboot2(32768 - 16, 0, 32768)),
            Some(Kind::Multiboot2)
        );
        assert_eq!(detect(&multiboot2(4, 0, 64)), None);
        assert_eq!(detect(&multiboot2(8, 4, 64)), None, "MIPS");
    }

    #[test]
    fn multiboot2_goes_before_multiboot1() {
        let mut bytes = multiboot1(0, 256);
        bytes[64..80].copy_from_slice(&multiboot2(0, 0, 16));
        assert_eq!(detect(&bytes), Some(Kind::Multiboot2));
    }

    #[test]
    fn linux_needs_the_magic_and_a_high_load_address() {
        assert_eq!(detect(&linux()), Some(Kind::Linux));
        let mut old = linux();
        old[0x211] = 0;
        assert_eq!(detect(&old), None);
        let mut boot_sector = linux();
        boot_sector[0x202] = b'h';
        assert_eq!(detect(&boot_sector), None);
    }

    #[test]
    fn a_boot_sector_is_one_sector_with_the_flag_at_its_end() {
        let mut sector = vec![0; 512];
        assert_eq!(detect(&sector), None);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(detect(&sector), Some(Kind::BootSector));
        sector.push(0);
        assert_eq!(detect(&sector), None);
    }

    #[test]
    fn nothing_is_read_beyond_short_files() {
        for len in (0..0x212).filter(|len| *len != SECTOR_BYTES) {
            assert_eq!(detect(&linux()[..len]), None, "{len} bytes");
        }
        assert_eq!(detect(&[]), None);
    }

    #[test]
    fn a_gzipped_kernel_is_unzipped() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.gz");
        let mut gz = flate2::write::GzEncoder::new(
            File::create(&file).unwrap(),
            flate2::Compression::fast(),
        );
        gz.write_all(&linux()).unwrap();
        gz.finish().unwrap();
        assert_eq!(read(&file).unwrap(), (Kind::Linux, linux()));
    }

    #[test]
    fn what_is_no_kernel_is_a_usage_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        std::fs::write(&file, "hello").unwrap();
        for path in [file, dir.path().join("missing"), dir.path().to_path_buf()] {
            let error = read(&path).unwrap_err();
            let fail = error.downcast_ref::<fail::Fail>().unwrap();
            assert_eq!(fail.status, fail::USAGE);
            assert!(fail.line.contains(&path.display().to_string()));
        }
    }
}

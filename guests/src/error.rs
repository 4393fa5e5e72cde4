//! Why an L1 cannot be started, in words.

use crate::memmap::TooManyEntries;
use crate::phys::Unreachable;

/// Why an L1 cannot be started: one line, made to follow "cannot start L1: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The memory behind the [`crate::PhysMemory`] ended before the map did.
    #[error("{0}")]
    Unreachable(#[from] Unreachable),

    /// The memory map does not fit the one kept.
    #[error("{0}")]
    TooManyEntries(#[from] TooManyEntries),

    /// No boot protocol's mark is in the file.
    #[error(
        "the file of {len} bytes is no kernel: it has neither a Linux, multiboot2 or multiboot header, nor is it a 512-byte boot sector"
    )]
    NotAKernel {
        /// Length of the file in bytes.
        len: u64,
    },

    /// The file is a compressed one.
    #[error(
        "the kernel file is compressed with {0}: unpack it first, or let GRUB do it (insmod gzio)"
    )]
    Compressed(&'static str),

    /// Something in the file reaches past its end.
    #[error("the kernel file is cut short: {what} reaches to byte {end:#x} of {len:#x}")]
    Truncated {
        /// What reaches too far.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// Length of the file in bytes.
        len: u64,
    },

    /// A Linux kernel from before protocol 2.06.
    #[error(
        "the Linux kernel speaks boot protocol {}.{:02}: 2.06 (Linux 2.6.22) or later is needed",
        version >> 8,
        version & 0xff
    )]
    LinuxTooOld {
        /// The `version` field of the setup header.
        version: u16,
    },

    /// A Linux zImage, loaded low.
    #[error("the Linux kernel is a zImage that loads below 1 MiB: build a bzImage")]
    LinuxNotHigh,

    /// The setup header of a Linux kernel contradicts itself.
    #[error("the Linux kernel's setup header is damaged: {0}")]
    LinuxHeader(&'static str),

    /// The command line is longer than the kernel takes.
    #[error("the command line has {len} bytes, and the kernel takes at most {limit}: shorten it")]
    CommandLineTooLong {
        /// Length in bytes.
        len: u64,
        /// What the kernel takes, in bytes.
        limit: u64,
    },

    /// More modules than are kept.
    #[error("{count} modules are too many: Umbra hands over at most {limit}")]
    TooManyModules {
        /// How many there are.
        count: usize,
        /// How many are taken.
        limit: usize,
    },

    /// A multiboot header flag or tag that must be understood and is not.
    #[error("the kernel's {header} header {what} {value:#x}, which Umbra does not know")]
    Unsupported {
        /// Which header.
        header: &'static str,
        /// What about it.
        what: &'static str,
        /// The offending number.
        value: u32,
    },

    /// A multiboot header that contradicts itself.
    #[error("the kernel's {header} header is damaged: {what}")]
    BadHeader {
        /// Which header.
        header: &'static str,
        /// What is wrong.
        what: &'static str,
    },

    /// The ELF part of a kernel file cannot be used.
    #[error("the kernel's ELF file cannot be loaded: {0}")]
    Elf(&'static str),

    /// The kernel wants memory that is no usable RAM, or is needed twice.
    #[error(
        "{what} has to lie at {start:#x}-{last:#x}, which is not free RAM of L1: the kernel is linked for an address that this machine or Umbra occupies"
    )]
    NotFree {
        /// What has to lie there.
        what: &'static str,
        /// First address.
        start: u64,
        /// Last address.
        last: u64,
    },

    /// No room.
    #[error(
        "{what} does not fit: {len} bytes (aligned to {align:#x}) are not free in one piece between {first:#x} and {last:#x}: give the machine more memory"
    )]
    DoesNotFit {
        /// What does not fit.
        what: &'static str,
        /// Length in bytes.
        len: u64,
        /// Alignment in bytes.
        align: u64,
        /// Lowest address allowed.
        first: u64,
        /// Highest address allowed, inclusive.
        last: u64,
    },

    /// A boot sector's drive that is no number.
    #[error("the boot sector's `drive=` is no number from 0 to 255 (the first hard disk is 0x80)")]
    BadDrive,

    /// A boot sector on a machine that UEFI started.
    #[error(
        "the kernel is a BIOS boot sector, and this machine was started by UEFI firmware, without a BIOS"
    )]
    NoBios,

    /// No place for the INT 15h block.
    #[error(
        "no {len} bytes are free at the top of base memory, of which the BIOS reports {base_kib} KiB"
    )]
    BaseMemory {
        /// Base memory in KiB, as the BIOS data area says.
        base_kib: u16,
        /// Length of the block in bytes.
        len: u64,
    },
}

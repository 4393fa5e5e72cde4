//! The setup header of a bzImage, checked.

use crate::bytes::{align_up, u8_at, u16_at, u32_at, u64_at};
use crate::error::Error;
use crate::source::Source;
use crate::space::{LAST_32BIT, ONE_MIB};

/// Where the setup header begins, in the file and in the boot parameters.
pub(crate) const HEADER_START: usize = 0x1f1;
/// Where the room for it ends in the boot parameters (`edd_mbr_sig_buffer`).
pub(crate) const HEADER_END: usize = 0x290;
const HEADER_ROOM: usize = HEADER_END - HEADER_START;

const SECTOR_BYTES: u64 = 512;
const LOADED_HIGH: u8 = 1 << 0;

/// Whether the file carries the marks of a Linux kernel with a setup header.
pub(crate) fn is_linux<S: Source>(file: &S) -> Result<bool, Error> {
    if file.len() < HEADER_END as u64 {
        return Ok(false);
    }
    Ok(file.u16(0x1fe, "the boot flag")? == 0xaa55
        && file.array(0x202, "the setup header")? == *b"HdrS")
}

/// What the loader has to know of the setup header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// The bytes from 0x1f1 on, as far as the header says it reaches.
    raw: [u8; HEADER_ROOM],
    raw_bytes: usize,
    /// Boot sector and setup code: the kernel proper follows them in the file.
    pub(crate) setup_bytes: u64,
    /// Length of the kernel proper in the file.
    pub(crate) kernel_bytes: u64,
    /// Where it would like to run.
    pub(crate) preferred_address: u64,
    /// Whether it can run elsewhere.
    pub(crate) relocatable: bool,
    /// The alignment it needs when it runs elsewhere, in bytes.
    pub(crate) alignment: u64,
    /// How much memory from its load address on it needs until it knows the
    /// memory map, in bytes.
    pub(crate) space_bytes: u64,
    /// The last address that the initial RAM disk may reach.
    pub(crate) initrd_last: u64,
    command_line_limit: u64,
}

impl Header {
    /// Reads and checks the header of a file that [`is_linux`].
    pub(crate) fn read<S: Source>(file: &S) -> Result<Self, Error> {
        let mut page = [0; HEADER_END];
        file.read(0, &mut page, "the setup header")?;
        let u8 = |at| u8_at(&page, at).unwrap_or(0);
        let u16 = |at| u16_at(&page, at).unwrap_or(0);
        let u32 = |at| u32_at(&page, at).unwrap_or(0);

        let version = u16(0x206);
        if version < 0x206 {
            return Err(Error::LinuxTooOld { version });
        }
        if u8(0x211) & LOADED_HIGH == 0 {
            return Err(Error::LinuxNotHigh);
        }

        // 0 stands for 4, for the sake of very old kernels.
        let setup_sectors = match u8(0x1f1) {
            0 => 4,
            n => u64::from(n),
        };
        let setup_bytes = (setup_sectors + 1) * SECTOR_BYTES;
        file.check(0, setup_bytes, "the setup code")?;
        // `syssize` counts paragraphs of 16 bytes. What follows in the file
        // beyond it (a signature, say) is no part of the kernel.
        let said = u64::from(u32(0x1f4)) * 16;
        let there = file.len() - setup_bytes;
        // The file may lack the padding of the last paragraph.
        if said == 0 || said > there + 15 {
            return Err(Error::Truncated {
                what: "the protected-mode code",
                end: setup_bytes + said,
                len: file.len(),
            });
        }
        let kernel_bytes = said.min(there);

        let relocatable = u8(0x234) != 0;
        let alignment = match u64::from(u32(0x230)) {
            0 => ONE_MIB,
            a if a.is_power_of_two() => a.max(4096),
            _ => return Err(Error::LinuxHeader("kernel_alignment is no power of two")),
        };
        let (preferred_address, init_bytes) = if version >= 0x20a {
            (u64_at(&page, 0x258).unwrap_or(0), u64::from(u32(0x260)))
        } else {
            // Before 2.10 the header did not say. Unpacking in place needs
            // room for the kernel and for what it becomes.
            (ONE_MIB, kernel_bytes.saturating_mul(3))
        };
        let preferred_address = if relocatable {
            align_up(preferred_address.max(ONE_MIB), alignment)
                .ok_or(Error::LinuxHeader("pref_address is out of range"))?
        } else if version >= 0x20a && preferred_address != 0 {
            preferred_address
        } else {
            ONE_MIB
        };

        // The word after the jump over the header tells where it ends.
        let end = (0x202 + usize::from(u8(0x201))).clamp(0x238, HEADER_END);
        let raw_bytes = end - HEADER_START;
        let mut raw = [0; HEADER_ROOM];
        for (to, from) in raw.iter_mut().zip(&page[HEADER_START..]).take(raw_bytes) {
            *to = *from;
        }

        Ok(Self {
            raw,
            raw_bytes,
            setup_bytes,
            kernel_bytes,
            preferred_address,
            relocatable,
            alignment,
            space_bytes: init_bytes.max(kernel_bytes),
            initrd_last: match u64::from(u32(0x22c)) {
                0 => 0x37ff_ffff,
                last => last,
            },
            command_line_limit: match u64::from(u32(0x238)) {
                0 => 255,
                limit => limit,
            },
        })
    }

    /// The header as it stands in the file, from [`HEADER_START`] on.
    pub(crate) fn raw(&self) -> &[u8] {
        self.raw.get(..self.raw_bytes).unwrap_or(&[])
    }

    /// The `loadflags` byte.
    pub(crate) fn load_flags(&self) -> u8 {
        u8_at(&self.raw, 0x211 - HEADER_START).unwrap_or(0)
    }

    /// The longest command line in bytes, without the terminating NUL.
    pub(crate) fn command_line_limit(&self) -> u64 {
        self.command_line_limit
    }
}

/// The 32-bit entry point: the load address itself.
pub(crate) fn entry(load: u64) -> Result<u32, Error> {
    u32::try_from(load).map_err(|_| Error::NotFree {
        what: "the Linux kernel",
        start: load,
        last: LAST_32BIT,
    })
}

//! Faults that a unit records. VT-d "Fault Recording Registers", "Fault
//! Status Register", "Fault Reason Encodings".

use crate::caps::Caps;
use crate::regs::{self, Registers};

/// `FSTS_REG`: a record was lost.
pub const OVERFLOW: u32 = 1 << 0;
/// `FSTS_REG`: there is a record.
pub const PENDING: u32 = 1 << 1;
/// `FSTS_REG`: the invalidation queue stopped at a descriptor.
pub const QUEUE_ERROR: u32 = 1 << 4;
/// `FSTS_REG`: a device gave a wrong answer to an invalidation.
pub const COMPLETION_ERROR: u32 = 1 << 5;
/// `FSTS_REG`: a device gave no answer to an invalidation.
pub const TIMEOUT_ERROR: u32 = 1 << 6;

/// Record: it is valid; writing it clears it.
const VALID: u64 = 1 << 63;
/// Record: the request was a read.
const IS_READ: u64 = 1 << 62;

/// What a device did that its unit did not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bus in bits 15:8, device in 7:3, function in 2:0.
    pub source: u16,
    /// The page of the device's address; for interrupt requests the index.
    pub address: u64,
    /// A read; else a write.
    pub is_read: bool,
    /// The reason's number.
    pub reason: u8,
}

impl Fault {
    /// The reason in words.
    #[must_use]
    pub const fn reason_name(&self) -> &'static str {
        match self.reason {
            0x1 => "no root entry",
            0x2 => "no context entry",
            0x3 => "invalid context entry",
            0x4 => "address beyond the width",
            0x5 => "write not permitted",
            0x6 => "read not permitted",
            0x7 => "a table cannot be read",
            0x8 => "the root table cannot be read",
            0x9 => "the context table cannot be read",
            0xa => "reserved bits in a root entry",
            0xb => "reserved bits in a context entry",
            0xc => "reserved bits in a table",
            0xd => "request of a blocked kind",
            0x20 => "interrupt request with reserved bits",
            0x21 => "interrupt index too large",
            0x22 => "no interrupt entry",
            0x23 => "the interrupt table cannot be read",
            0x24 => "reserved bits in an interrupt entry",
            0x25 => "interrupt request in the old format",
            0x26 => "interrupt request of another device",
            _ => "another reason",
        }
    }

    fn decode(low: u64, high: u64) -> Option<Self> {
        if high & VALID == 0 {
            return None;
        }
        Some(Self {
            source: high as u16,
            address: low & !0xfff,
            is_read: high & IS_READ != 0,
            reason: (high >> 32) as u8,
        })
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "device {:02x}:{:02x}.{} {} {:#x}: {}",
            self.source >> 8,
            self.source >> 3 & 0x1f,
            self.source & 7,
            if self.is_read { "read" } else { "wrote" },
            self.address,
            self.reason_name()
        )
    }
}

/// Takes the records of a unit, oldest first, and clears them: each record once,
/// so that a device that goes on faulting keeps nobody here. Gives whether
/// records were lost.
pub fn drain(regs: &mut impl Registers, caps: &Caps, mut seen: impl FnMut(Fault)) -> bool {
    let status = regs.read32(regs::FSTS);
    let count = u32::from(caps.cap.fault_records_less_1()) + 1;
    // Bits 15:8: the record that came first.
    let first = (status >> 8 & 0xff) % count;
    for number in 0..count {
        let at = caps.fault_offset() + 16 * ((first + number) % count);
        let high = regs.read64(at + 8);
        let low = regs.read64(at);
        let Some(fault) = Fault::decode(low, high) else {
            continue;
        };
        regs.write64(at + 8, VALID);
        seen(fault);
    }
    let is_overflow = status & OVERFLOW != 0;
    if is_overflow {
        regs.write32(regs::FSTS, OVERFLOW);
    }
    is_overflow
}

//! The registers of a unit. VT-d "Remapping Hardware Register Description".

/// A unit's registers, 4 or 8 bytes wide, by their offset in bytes.
pub trait Registers {
    /// Reads 32 bits.
    fn read32(&mut self, offset: u32) -> u32;
    /// Writes 32 bits.
    fn write32(&mut self, offset: u32, value: u32);
    /// Reads 64 bits.
    fn read64(&mut self, offset: u32) -> u64;
    /// Writes 64 bits.
    fn write64(&mut self, offset: u32, value: u64);
    /// Waits a moment before a register is read again.
    fn pause(&mut self) {}
}

/// Version.
pub const VER: u32 = 0x00;
/// Capability.
pub const CAP: u32 = 0x08;
/// Extended capability.
pub const ECAP: u32 = 0x10;
/// Global command.
pub const GCMD: u32 = 0x18;
/// Global status.
pub const GSTS: u32 = 0x1c;
/// Root table address.
pub const RTADDR: u32 = 0x20;
/// Context command.
pub const CCMD: u32 = 0x28;
/// Fault status.
pub const FSTS: u32 = 0x34;
/// Fault event control.
pub const FECTL: u32 = 0x38;
/// Protected memory enable.
pub const PMEN: u32 = 0x64;
/// Protected low memory, base.
pub const PLMBASE: u32 = 0x68;
/// Protected low memory, limit.
pub const PLMLIMIT: u32 = 0x6c;
/// Protected high memory, base.
pub const PHMBASE: u32 = 0x70;
/// Protected high memory, limit.
pub const PHMLIMIT: u32 = 0x78;
/// Invalidation queue, head.
pub const IQH: u32 = 0x80;
/// Invalidation queue, tail.
pub const IQT: u32 = 0x88;
/// Invalidation queue, address.
pub const IQA: u32 = 0x90;

/// `GCMD_REG` and `GSTS_REG`: translation.
pub const GLOBAL_TRANSLATION: u32 = 1 << 31;
/// `GCMD_REG` and `GSTS_REG`: the root-table pointer was taken. One shot.
pub const GLOBAL_ROOT_TABLE: u32 = 1 << 30;
/// `GCMD_REG` and `GSTS_REG`: write-buffer flush. One shot.
pub const GLOBAL_WRITE_BUFFER: u32 = 1 << 27;
/// `GCMD_REG` and `GSTS_REG`: queued invalidation.
pub const GLOBAL_QUEUE: u32 = 1 << 26;
/// `GCMD_REG` and `GSTS_REG`: interrupt remapping.
pub const GLOBAL_INTERRUPT_REMAPPING: u32 = 1 << 25;
/// The bits of `GSTS_REG` that stand for a state, not for a command that was
/// carried out: what a write of `GCMD_REG` has to repeat.
pub const GLOBAL_STATES: u32 = 0x96ff_ffff;

/// `PMEN_REG`: enable.
pub const PMEN_ENABLE: u32 = 1 << 31;
/// `PMEN_REG`: the regions are protected.
pub const PMEN_STATUS: u32 = 1;

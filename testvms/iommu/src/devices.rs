//! Two devices that can be told where to read and write.

use crate::mmio::Mmio;
use crate::pci::Function;
use rt::page::Page;

/// QEMU's `edu`: a buffer of its own, and a DMA engine. QEMU, "EDU device".
pub struct Edu {
    registers: Mmio,
    /// What an IOMMU calls it.
    pub source: u8,
}

/// Where its buffer lies in its own address space.
const BUFFER: u64 = 0x4_0000;
/// How often its command register is read before it counts as hung.
const PATIENCE: u32 = 20_000_000;

impl Edu {
    /// The device, if the machine has it.
    pub fn find() -> Option<Self> {
        let function = Function::find(0x1234, 0x11e8)?;
        Some(Self {
            registers: Mmio::new(function.enable()),
            source: function.source,
        })
    }

    fn transfer(&self, from: u64, to: u64, direction: u64) -> bool {
        const START: u64 = 1;

        self.registers.write64(0x80, from);
        self.registers.write64(0x88, to);
        self.registers.write64(0x90, 8);
        self.registers.write64(0x98, START | direction << 1);
        (0..PATIENCE).any(|_| self.registers.read64(0x98) & START == 0)
    }

    /// Has the device read 8 bytes of memory into its buffer; whether it came to an end.
    pub fn read(&self, from: u64) -> bool {
        self.transfer(from, BUFFER, 0)
    }

    /// Has the device write the first 8 bytes of its buffer to memory; whether it came to an end.
    pub fn write(&self, to: u64) -> bool {
        self.transfer(BUFFER, to, 1)
    }
}

/// An Intel 82540EM network card: it reads descriptors from memory and writes back that they are
/// done. Its manual, "Transmit Descriptor Ring Structure", "Legacy Transmit Descriptor Format".
pub struct Nic {
    registers: Mmio,
    /// What an IOMMU calls it.
    pub source: u8,
}

impl Nic {
    /// The device, if the machine has it.
    pub fn find() -> Option<Self> {
        let function = Function::find(0x8086, 0x100e)?;
        Some(Self {
            registers: Mmio::new(function.enable()),
            source: function.source,
        })
    }

    /// Makes a descriptor that sends nothing and reports its end.
    pub fn prepare(ring: &Page) {
        const END_OF_PACKET_AND_REPORT: u64 = 0x9 << 24;

        ring.fill(0);
        ring.write(8_u64, END_OF_PACKET_AND_REPORT);
    }

    /// Whether the device has written that the descriptor is done.
    pub fn is_done(ring: &Page) -> bool {
        ring.read::<u64>(8) & 1 << 32 != 0
    }

    /// Has the device take the first descriptor of the ring at `ring`.
    pub fn send(&self, ring: u64) {
        const TRANSMIT_ENABLE: u32 = 1 << 1;

        self.registers.write32(0x400, 0);
        self.registers.write32(0x3800, ring as u32);
        self.registers.write32(0x3804, (ring >> 32) as u32);
        self.registers.write32(0x3808, 128);
        self.registers.write32(0x3810, 0);
        self.registers.write32(0x3818, 0);
        self.registers.write32(0x400, TRANSMIT_ENABLE);
        self.registers.write32(0x3818, 1);
    }
}

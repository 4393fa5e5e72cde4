//! PCI devices, by configuration mechanism #1. PCI Local Bus Specification, "Configuration Space
//! Access Mechanism #1".

use rt::cpu::{inl, outl};

/// A function of a device on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Device in bits 7:3, function in 2:0: what an IOMMU calls it, too.
    pub source: u8,
}

impl Function {
    fn select(self, offset: u8) {
        let address = 1 << 31 | u32::from(self.source) << 8 | u32::from(offset & 0xfc);
        outl(0xcf8, address);
    }

    /// Reads a word of configuration space.
    pub fn read(self, offset: u8) -> u32 {
        self.select(offset);
        inl(0xcfc)
    }

    /// Writes a word of configuration space.
    pub fn write(self, offset: u8, value: u32) {
        self.select(offset);
        outl(0xcfc, value);
    }

    /// The first function on bus 0 with this device and vendor identifier.
    pub fn find(vendor: u16, device: u16) -> Option<Self> {
        let identity = u32::from(device) << 16 | u32::from(vendor);
        (0..=u8::MAX)
            .map(|source| Self { source })
            .find(|function| function.read(0) == identity)
    }

    /// Lets the device answer in memory and be a bus master; gives where its first memory region
    /// lies.
    pub fn enable(self) -> u64 {
        self.write(0x04, self.read(0x04) & 0xffff | 0b110);
        u64::from(self.read(0x10) & !0xf)
    }
}

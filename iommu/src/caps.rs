//! What a unit can do. VT-d "Capability Register", "Extended Capability
//! Register".

use bitfield_struct::bitfield;

use crate::regs::{self, Registers};

/// `CAP_REG`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Capability {
    /// ND: the number of domains, encoded.
    #[bits(3)]
    pub domains_code: u8,
    /// AFL: advanced fault logging.
    pub advanced_fault_log: bool,
    /// RWBF: write buffers have to be flushed.
    pub needs_write_buffer_flush: bool,
    /// PLMR: a protected low-memory region.
    pub low_region: bool,
    /// PHMR: a protected high-memory region.
    pub high_region: bool,
    /// CM: entries that are not present may be cached too.
    pub caching_mode: bool,
    /// SAGAW: supported adjusted guest address widths; bit 1: 39 bits by three
    /// levels, bit 2: 48 by four, bit 3: 57 by five.
    #[bits(5)]
    pub address_widths: u8,
    #[bits(3)]
    __: u8,
    /// MGAW: the widest address of a device, in bits, less one.
    #[bits(6)]
    pub max_address_bits_less_1: u8,
    /// ZLR: reads of no bytes from pages that may only be written.
    pub zero_length_read: bool,
    __: bool,
    /// FRO: the fault-recording registers, in 16 bytes.
    #[bits(10)]
    pub fault_offset: u16,
    /// SLLPS: large pages; bit 0: 2 MiB, bit 1: 1 GiB.
    #[bits(4)]
    pub large_pages: u8,
    __: bool,
    /// PSI: invalidation by page.
    pub page_invalidation: bool,
    /// NFR: fault-recording registers, less one.
    #[bits(8)]
    pub fault_records_less_1: u8,
    /// MAMV: the greatest address mask of an invalidation.
    #[bits(6)]
    pub max_address_mask: u8,
    /// DWD: writes can be drained.
    pub write_draining: bool,
    /// DRD: reads can be drained.
    pub read_draining: bool,
    #[bits(8)]
    __: u8,
}

impl Capability {
    /// How many domain identifiers there are.
    #[must_use]
    pub const fn domain_count(self) -> u32 {
        // Code 7 is reserved, and taken for the fewest.
        if self.domains_code() == 7 {
            16
        } else {
            1 << (4 + 2 * self.domains_code() as u32)
        }
    }

    /// The widest address of a device, in bits.
    #[must_use]
    pub const fn max_address_bits(self) -> u32 {
        self.max_address_bits_less_1() as u32 + 1
    }
}

/// `ECAP_REG`, as far as it matters here.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Extended {
    /// C: walks look into the caches.
    pub coherent: bool,
    /// QI: queued invalidation.
    pub queue: bool,
    /// DT: device TLBs.
    pub device_tlb: bool,
    /// IR: interrupt remapping.
    pub interrupt_remapping: bool,
    /// EIM: 32-bit APIC ids in interrupt remapping.
    pub wide_apic_ids: bool,
    __: bool,
    /// PT: pass-through.
    pub pass_through: bool,
    /// SC: snoop control.
    pub snoop_control: bool,
    /// IRO: the IOTLB registers, in 16 bytes.
    #[bits(10)]
    pub iotlb_offset: u16,
    #[bits(2)]
    __: u8,
    /// MHMV: the greatest handle mask.
    #[bits(4)]
    pub max_handle_mask: u8,
    #[bits(19)]
    __: u32,
    /// SMTS: scalable mode.
    pub scalable_mode: bool,
    #[bits(20)]
    __: u32,
}

/// What a unit says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// `CAP_REG`.
    pub cap: Capability,
    /// `ECAP_REG`.
    pub ecap: Extended,
}

/// How many levels the second-level tables of a domain have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Levels {
    /// 39 bits.
    Three,
    /// 48 bits.
    Four,
    /// 57 bits.
    Five,
}

impl Levels {
    /// The number.
    #[must_use]
    pub const fn count(self) -> u32 {
        match self {
            Self::Three => 3,
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// The bits of an address that they translate.
    #[must_use]
    pub const fn address_bits(self) -> u32 {
        12 + 9 * self.count()
    }

    /// The AW field of a context entry.
    #[must_use]
    pub const fn address_width_code(self) -> u64 {
        self.count() as u64 - 2
    }
}

/// Why a unit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The registers read as all ones: nothing answers there.
    Absent,
    /// A major version that is not known.
    Version(u32),
    /// It translates by no number of levels that is known; it may know
    /// scalable mode alone, which is not built.
    NoLegacyWidth {
        /// Whether it has scalable mode.
        scalable_mode: bool,
    },
    /// Its IOTLB or fault registers would lie outside of its register pages.
    RegistersOutside {
        /// Their offset in bytes.
        offset: u32,
    },
}

impl core::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Absent => write!(f, "no unit answers at its address"),
            Self::Version(version) => write!(f, "it has the unknown version {version:#x}"),
            Self::NoLegacyWidth {
                scalable_mode: true,
            } => write!(
                f,
                "it translates in scalable mode alone, which is not supported"
            ),
            Self::NoLegacyWidth { .. } => write!(f, "it offers no known address width"),
            Self::RegistersOutside { offset } => {
                write!(f, "its registers at {offset:#x} lie outside of its pages")
            }
        }
    }
}

impl Caps {
    /// Reads what the unit says of itself. `register_bytes` is how many bytes
    /// of registers the firmware's table gives it.
    ///
    /// # Errors
    /// [`Unsupported`]: the unit is not there or cannot be driven.
    pub fn read(regs: &mut impl Registers, register_bytes: u64) -> Result<Self, Unsupported> {
        let version = regs.read32(regs::VER);
        if version == u32::MAX {
            return Err(Unsupported::Absent);
        }
        // Major version in bits 7:4; 1 to 6 are compatible with one another.
        if !(1..=6).contains(&(version >> 4 & 0xf)) {
            return Err(Unsupported::Version(version));
        }
        let caps = Self {
            cap: Capability::from(regs.read64(regs::CAP)),
            ecap: Extended::from(regs.read64(regs::ECAP)),
        };
        caps.levels().ok_or(Unsupported::NoLegacyWidth {
            scalable_mode: caps.ecap.scalable_mode(),
        })?;
        let fault_bytes = 16 * (u64::from(caps.cap.fault_records_less_1()) + 1);
        for (offset, bytes) in [(caps.iotlb_offset(), 8), (caps.fault_offset(), fault_bytes)] {
            if u64::from(offset) + bytes > register_bytes {
                return Err(Unsupported::RegistersOutside { offset });
            }
        }
        Ok(caps)
    }

    /// The fewest levels that the unit offers and that reach the widest address
    /// its devices have; the most it offers where none does.
    #[must_use]
    pub fn levels(&self) -> Option<Levels> {
        let offered = self.cap.address_widths();
        let all = [Levels::Three, Levels::Four, Levels::Five];
        let mut known = all
            .into_iter()
            .filter(|l| offered & 1 << l.address_width_code() != 0);
        let reach = self.cap.max_address_bits();
        known
            .clone()
            .find(|l| l.address_bits() >= reach)
            .or_else(|| known.next_back())
    }

    /// How many bits of an address the unit lets through, by its levels and by
    /// the widest address of a device.
    #[must_use]
    pub fn address_bits(&self) -> u32 {
        let levels = self.levels().map_or(0, Levels::address_bits);
        levels.min(self.cap.max_address_bits())
    }

    /// Whether a leaf may map 2 MiB.
    #[must_use]
    pub const fn has_2m(&self) -> bool {
        self.cap.large_pages() & 1 != 0
    }

    /// Whether a leaf may map 1 GiB.
    #[must_use]
    pub const fn has_1g(&self) -> bool {
        self.cap.large_pages() & 2 != 0
    }

    /// The offset of `IVA_REG`, in bytes; `IOTLB_REG` follows it.
    #[must_use]
    pub const fn iva_offset(&self) -> u32 {
        self.ecap.iotlb_offset() as u32 * 16
    }

    /// The offset of `IOTLB_REG`, in bytes.
    #[must_use]
    pub const fn iotlb_offset(&self) -> u32 {
        self.iva_offset() + 8
    }

    /// The offset of the first fault-recording register, in bytes.
    #[must_use]
    pub const fn fault_offset(&self) -> u32 {
        self.cap.fault_offset() as u32 * 16
    }
}

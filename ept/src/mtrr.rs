//! The memory type range registers: their MSRs, and the type of an address.
//!
//! SDM "Memory Type Range Registers (MTRRs)".

use umbra_arch::msr::{
    IA32_MTRR_DEF_TYPE, IA32_MTRR_PHYSBASE0, IA32_MTRRCAP, MTRR_FIXED, MtrrCap, MtrrDefType,
    MtrrPhysMask,
};

use crate::addr::{ADDRESS_BITS, ENTRIES, Level, PAGE_BYTES};
use crate::memtype::{MemType, meet};

/// Pairs of variable-range MSRs that are modelled. The MSR numbers of the
/// architecture leave room for no more.
pub const MAX_VARIABLE: usize = 32;

/// Fixed ranges end here: 1 MiB.
const FIXED_END: u64 = 0x10_0000;

/// The MTRRs of one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtrrs {
    cap: u64,
    def_type: u64,
    fixed: [u64; 11],
    variable: [[u64; 2]; MAX_VARIABLE],
    maxphyaddr: u8,
}

/// WRMSR would cause #GP(0): a reserved bit, a reserved memory type, or a
/// register that is not there or read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

impl Mtrrs {
    /// All registers 0, which makes everything UC. `cap` is IA32_MTRRCAP,
    /// `maxphyaddr` the physical-address width in bits (12 to 52).
    #[must_use]
    pub const fn new(cap: u64, maxphyaddr: u8) -> Self {
        Self {
            cap,
            def_type: 0,
            fixed: [0; 11],
            variable: [[0; 2]; MAX_VARIABLE],
            maxphyaddr: if maxphyaddr > 52 { 52 } else { maxphyaddr },
        }
    }

    /// Pairs of variable-range registers that the CPU has.
    #[must_use]
    pub const fn variable_count(&self) -> usize {
        let count = (self.cap & 0xff) as usize;
        if count < MAX_VARIABLE {
            count
        } else {
            MAX_VARIABLE
        }
    }

    /// Address bits that a base or a mask may have.
    const fn width_mask(&self) -> u64 {
        ADDRESS_BITS & ((1u64 << self.maxphyaddr) - 1)
    }

    /// The numbers of all MSRs that [`Mtrrs::read_msr`] knows and that can be
    /// written, for copying a CPU's registers.
    pub fn msrs(&self) -> impl Iterator<Item = u32> + use<> {
        let fixed = if MtrrCap::FIX.is_in(self.cap) {
            MTRR_FIXED.len()
        } else {
            0
        };
        let pairs = self.variable_count() as u32;
        (IA32_MTRR_PHYSBASE0..IA32_MTRR_PHYSBASE0 + 2 * pairs)
            .chain(MTRR_FIXED.into_iter().take(fixed))
            .chain(core::iter::once(IA32_MTRR_DEF_TYPE))
    }

    /// RDMSR; `None` if `msr` is not an MTRR of this CPU.
    #[must_use]
    pub fn read_msr(&self, msr: u32) -> Option<u64> {
        match msr {
            IA32_MTRRCAP => Some(self.cap),
            IA32_MTRR_DEF_TYPE => Some(self.def_type),
            _ => {
                if let Some((pair, half)) = self.variable_register(msr) {
                    return self.variable.get(pair)?.get(half).copied();
                }
                self.fixed.get(self.fixed_register(msr)?).copied()
            }
        }
    }

    /// WRMSR.
    ///
    /// # Errors
    /// [`Rejected`] where a CPU raises #GP(0); nothing is changed.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), Rejected> {
        if msr == IA32_MTRR_DEF_TYPE {
            let reserved = !(0xff | MtrrDefType::all().bits());
            if value & reserved != 0 || !self.type_is_valid(value as u8) {
                return Err(Rejected);
            }
            self.def_type = value;
            return Ok(());
        }
        if let Some((pair, half)) = self.variable_register(msr) {
            let (low, type_ok) = if half == 0 {
                (0xff, self.type_is_valid(value as u8))
            } else {
                (MtrrPhysMask::V.bits(), true)
            };
            if value & !(self.width_mask() | low) != 0 || !type_ok {
                return Err(Rejected);
            }
            if let Some(slot) = self.variable.get_mut(pair).and_then(|p| p.get_mut(half)) {
                *slot = value;
            }
            return Ok(());
        }
        let index = self.fixed_register(msr).ok_or(Rejected)?;
        if !value
            .to_le_bytes()
            .into_iter()
            .all(|t| self.type_is_valid(t))
        {
            return Err(Rejected);
        }
        if let Some(slot) = self.fixed.get_mut(index) {
            *slot = value;
        }
        Ok(())
    }

    fn type_is_valid(&self, bits: u8) -> bool {
        match MemType::from_bits(bits) {
            Some(MemType::WriteCombining) => MtrrCap::WC.is_in(self.cap),
            Some(_) => true,
            None => false,
        }
    }

    fn variable_register(&self, msr: u32) -> Option<(usize, usize)> {
        let offset = msr.checked_sub(IA32_MTRR_PHYSBASE0)? as usize;
        (offset < 2 * self.variable_count()).then_some((offset / 2, offset % 2))
    }

    fn fixed_register(&self, msr: u32) -> Option<usize> {
        if !MtrrCap::FIX.is_in(self.cap) {
            return None;
        }
        MTRR_FIXED.into_iter().position(|m| m == msr)
    }

    /// The memory type of the byte at `address`.
    #[must_use]
    pub fn type_at(&self, address: u64) -> MemType {
        // A 4 KiB block is uniform: no register reaches inside one.
        self.uniform(address, Level::Pt)
            .unwrap_or(MemType::Uncacheable)
    }

    /// The memory type of the whole block of `level`'s size that holds
    /// `address`, or `None` if it has more than one. `level` is `Pt`, `Pd` or
    /// `Pdpt`.
    ///
    /// A 1 GiB block that several registers cover piecemeal with one type is
    /// recognised; a 2 MiB block covered so may be reported as mixed.
    #[must_use]
    pub fn uniform(&self, address: u64, level: Level) -> Option<MemType> {
        if !MtrrDefType::E.is_in(self.def_type) {
            return Some(MemType::Uncacheable);
        }
        let base = level.base(address);
        let fixed_on = MtrrDefType::FE.is_in(self.def_type) && MtrrCap::FIX.is_in(self.cap);
        if base < FIXED_END && fixed_on {
            if level == Level::Pt {
                return Some(self.fixed_type(base));
            }
            return self.uniform_with_fixed(base, level);
        }
        if let Some(found) = self.variable_uniform(base, level.span_bytes()) {
            return Some(found);
        }
        if level != Level::Pdpt {
            return None;
        }
        let part = Level::Pd.span_bytes();
        let first = self.variable_uniform(base, part)?;
        for index in 1..ENTRIES as u64 {
            if self.variable_uniform(base + index * part, part) != Some(first) {
                return None;
            }
        }
        Some(first)
    }

    /// The largest of 1 GiB, 2 MiB and 4 KiB whose block around `address` has
    /// one type, and that type.
    #[must_use]
    pub fn largest_uniform(&self, address: u64) -> (Level, MemType) {
        for level in [Level::Pdpt, Level::Pd] {
            if let Some(found) = self.uniform(address, level) {
                return (level, found);
            }
        }
        (Level::Pt, self.type_at(address))
    }

    /// The fixed-range type of an address below 1 MiB (SDM "Fixed Range
    /// MTRRs").
    fn fixed_type(&self, address: u64) -> MemType {
        let (register, byte) = if address < 0x8_0000 {
            (0, address >> 16)
        } else if address < 0xc_0000 {
            let n = (address - 0x8_0000) >> 14;
            (1 + n / 8, n % 8)
        } else {
            let n = (address - 0xc_0000) >> 12;
            (3 + n / 8, n % 8)
        };
        let raw = self.fixed.get(register as usize).copied().unwrap_or(0);
        MemType::from_bits((raw >> (8 * byte)) as u8).unwrap_or(MemType::Uncacheable)
    }

    /// For a block that begins below 1 MiB and reaches beyond it.
    fn uniform_with_fixed(&self, base: u64, level: Level) -> Option<MemType> {
        let end = base + level.span_bytes();
        let found = self.fixed_type(base);
        let mut address = base;
        while address < end.min(FIXED_END) {
            if self.fixed_type(address) != found {
                return None;
            }
            address += PAGE_BYTES;
        }
        (self.variable_uniform(base, end - base)? == found).then_some(found)
    }

    /// The type that the variable ranges and the default give to a block,
    /// whose size is a power of two and which is aligned to it; `None` if a
    /// register covers a part of it and that makes a difference.
    fn variable_uniform(&self, base: u64, span_bytes: u64) -> Option<MemType> {
        let within = span_bytes - 1;
        let width = self.width_mask();
        let mut whole: Option<MemType> = None;
        let mut parts: Option<MemType> = None;
        for [phys_base, phys_mask] in self.variable.iter().take(self.variable_count()) {
            if !MtrrPhysMask::V.is_in(*phys_mask) {
                continue;
            }
            let mask = phys_mask & width;
            if (base ^ phys_base) & mask & !within != 0 {
                continue;
            }
            let found = MemType::from_bits(*phys_base as u8).unwrap_or(MemType::Uncacheable);
            let side = if mask & within == 0 {
                &mut whole
            } else {
                &mut parts
            };
            *side = Some(side.map_or(found, |t| meet(t, found)));
        }
        match (whole, parts) {
            (None, None) => MemType::from_bits(self.def_type as u8),
            (Some(t), None) => Some(t),
            // UC cannot be lowered by whatever else covers a part.
            (Some(MemType::Uncacheable), Some(_)) => Some(MemType::Uncacheable),
            _ => None,
        }
    }
}

//! L1's writes of CR0 and CR4 that exit: what a CPU would make of them.
//! SDM "Control Registers", "MOV - Move to/from Control Registers",
//! "Initializing IA-32e Mode", "PDPTE Registers".

/// Bits of CR0.
pub mod cr0 {
    #![allow(missing_docs)]
    pub const PE: u64 = 1;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    /// The bits that can be written.
    pub const WRITABLE: u64 = PE | MP | EM | TS | NE | WP | AM | NW | CD | PG;
}

/// Bits of CR4.
pub mod cr4 {
    #![allow(missing_docs)]
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const LA57: u64 = 1 << 12;
    pub const VMXE: u64 = 1 << 13;
    pub const SMXE: u64 = 1 << 14;
    pub const PCIDE: u64 = 1 << 17;
    pub const SMEP: u64 = 1 << 20;
    pub const CET: u64 = 1 << 23;
    pub const FRED: u64 = 1 << 32;
}

/// Bits of IA32_EFER.
pub mod efer {
    #![allow(missing_docs)]
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
}

/// The write causes #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// The state that such a write is judged by, as L1 sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// CR0 as L1 reads it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as L1 reads it.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// CS.L: with EFER.LMA, the CPU is in 64-bit mode.
    pub cs_is_long: bool,
    /// The bits of CR0 and CR4 that VMX operation holds at 1, when L1 is in
    /// VMX operation; 0 otherwise.
    pub cr0_fixed: u64,
    /// See `cr0_fixed`.
    pub cr4_fixed: u64,
    /// The bits of CR4 that this CPU has.
    pub cr4_supported: u64,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The new value of the register, as L1 reads it.
    pub value: u64,
    /// The new IA32_EFER.
    pub efer: u64,
    /// PAE paging is or comes on: the four PDPTEs are loaded from CR3, which
    /// may still cause #GP(0).
    pub loads_pdptes: bool,
    /// Cached translations go.
    pub flushes: bool,
}

/// MOV to CR0.
///
/// # Errors
/// [`GeneralProtection`] where a CPU raises #GP(0).
pub fn write_cr0(mode: &Mode, new: u64) -> Result<Effect, GeneralProtection> {
    if new >> 32 != 0 {
        return Err(GeneralProtection);
    }
    let value = new & cr0::WRITABLE | cr0::ET;
    let is_on = |bit: u64| value & bit != 0;
    if is_on(cr0::PG) && !is_on(cr0::PE)
        || is_on(cr0::NW) && !is_on(cr0::CD)
        || !is_on(cr0::WP) && mode.cr4 & cr4::CET != 0
        || value & mode.cr0_fixed != mode.cr0_fixed
    {
        return Err(GeneralProtection);
    }
    let was_paging = mode.cr0 & cr0::PG != 0;
    let mut efer = mode.efer;
    if is_on(cr0::PG) && !was_paging && efer & efer::LME != 0 {
        if mode.cr4 & cr4::PAE == 0 || mode.cs_is_long {
            return Err(GeneralProtection);
        }
        efer |= efer::LMA;
    }
    if !is_on(cr0::PG) && was_paging {
        let in_64_bit_mode = efer & efer::LMA != 0 && mode.cs_is_long;
        if in_64_bit_mode || mode.cr4 & cr4::PCIDE != 0 {
            return Err(GeneralProtection);
        }
        efer &= !efer::LMA;
    }
    let uses_pdptes = is_on(cr0::PG) && mode.cr4 & cr4::PAE != 0 && efer & efer::LMA == 0;
    let changed = value ^ mode.cr0;
    Ok(Effect {
        value,
        efer,
        loads_pdptes: uses_pdptes && changed & (cr0::PG | cr0::CD | cr0::NW) != 0,
        flushes: changed & (cr0::PG | cr0::PE | cr0::WP) != 0,
    })
}

/// LMSW with a 16-bit source: the low four bits, and PE can only be set.
///
/// # Errors
/// As [`write_cr0`].
pub fn lmsw(mode: &Mode, source: u16) -> Result<Effect, GeneralProtection> {
    let taken = u64::from(source) & 0xf | mode.cr0 & cr0::PE;
    write_cr0(mode, mode.cr0 & !0xf | taken)
}

/// MOV to CR4.
///
/// # Errors
/// [`GeneralProtection`] where a CPU raises #GP(0).
pub fn write_cr4(mode: &Mode, new: u64) -> Result<Effect, GeneralProtection> {
    let is_long = mode.efer & efer::LMA != 0;
    let changed = new ^ mode.cr4;
    if new & !mode.cr4_supported != 0
        || new & mode.cr4_fixed != mode.cr4_fixed
        || is_long && changed & cr4::LA57 != 0
        || is_long && new & cr4::PAE == 0
        || new & cr4::CET != 0 && mode.cr0 & cr0::WP == 0
    {
        return Err(GeneralProtection);
    }
    let turns_pcid_on = changed & new & cr4::PCIDE != 0;
    if turns_pcid_on && (!is_long || mode.cr3 & 0xfff != 0) {
        return Err(GeneralProtection);
    }
    let uses_pdptes = mode.cr0 & cr0::PG != 0 && new & cr4::PAE != 0 && !is_long;
    Ok(Effect {
        value: new,
        efer: mode.efer,
        loads_pdptes: uses_pdptes && changed & (cr4::PAE | cr4::PSE | cr4::PGE | cr4::SMEP) != 0,
        flushes: changed & (cr4::PAE | cr4::PSE | cr4::PGE | cr4::PCIDE | cr4::SMEP) != 0,
    })
}

/// Whether a PDPTE can be loaded: reserved bits of a present one are clear.
/// `address_bits` is the physical-address width.
pub fn pdpte_is_valid(entry: u64, address_bits: u32) -> bool {
    // Bits 2:1 and 8:5, and those from the physical width up.
    let reserved = 0x1e6 | u64::MAX.checked_shl(address_bits).unwrap_or(0);
    entry & 1 == 0 || entry & reserved == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: Mode = Mode {
        cr0: cr0::ET,
        cr3: 0x1000,
        cr4: 0,
        efer: 0,
        cs_is_long: false,
        cr0_fixed: 0,
        cr4_fixed: 0,
        cr4_supported: 0x3727ff,
    };
    const LONG: Mode = Mode {
        cr0: cr0::PG | cr0::PE | cr0::ET | cr0::NE,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        cs_is_long: true,
        ..REAL
    };

    #[test]
    fn cr0_follows_the_sdm() {
        let refused = [
            (REAL, 1 << 32),
            (REAL, cr0::PG),
            (REAL, cr0::NW),
            // Long mode needs PAE, and must not start with CS.L set.
            (
                Mode {
                    efer: efer::LME,
                    ..REAL
                },
                cr0::PG | cr0::PE,
            ),
            (
                Mode {
                    efer: efer::LME,
                    cr4: cr4::PAE,
                    cs_is_long: true,
                    ..REAL
                },
                cr0::PG | cr0::PE,
            ),
            (LONG, cr0::PE),
            (
                Mode {
                    cs_is_long: false,
                    cr4: cr4::PAE | cr4::PCIDE,
                    ..LONG
                },
                cr0::PE,
            ),
            (
                Mode {
                    cr4: cr4::CET,
                    cr0: cr0::WP | cr0::PE,
                    ..REAL
                },
                cr0::PE,
            ),
            (
                Mode {
                    cr0_fixed: cr0::NE,
                    ..LONG
                },
                cr0::PG | cr0::PE,
            ),
        ];
        for (mode, new) in refused {
            assert_eq!(write_cr0(&mode, new), Err(GeneralProtection), "{new:#x}");
        }
        let entering = Mode {
            efer: efer::LME,
            cr4: cr4::PAE,
            ..REAL
        };
        let effect = write_cr0(&entering, cr0::PG | cr0::PE).expect("long mode");
        assert_eq!(effect.efer, efer::LME | efer::LMA);
        assert!(!effect.loads_pdptes && effect.flushes);
        let leaving = Mode {
            cs_is_long: false,
            ..LONG
        };
        let effect = write_cr0(&leaving, cr0::PE).expect("compatibility mode");
        assert_eq!(effect.efer, efer::LME);
        let pae = Mode {
            cr4: cr4::PAE,
            ..REAL
        };
        assert!(
            write_cr0(&pae, cr0::PG | cr0::PE)
                .expect("PAE")
                .loads_pdptes
        );
        // Reserved low bits are ignored, ET cannot be cleared.
        assert_eq!(write_cr0(&REAL, 0xffc0).expect("ignored").value, cr0::ET);
    }

    #[test]
    fn lmsw_sets_pe_and_never_clears_it() {
        assert_eq!(lmsw(&REAL, 1).expect("PE").value, cr0::ET | cr0::PE);
        let protected = Mode {
            cr0: cr0::ET | cr0::PE,
            ..REAL
        };
        assert_eq!(lmsw(&protected, 0).expect("stays").value, cr0::ET | cr0::PE);
        assert_eq!(lmsw(&REAL, 0xfff0).expect("nothing").value, cr0::ET);
    }

    #[test]
    fn cr4_follows_the_sdm() {
        let refused = [
            (REAL, 1 << 40),
            (LONG, 0),
            (REAL, cr4::PCIDE),
            (
                Mode {
                    cr3: 0x1001,
                    ..LONG
                },
                cr4::PAE | cr4::PCIDE,
            ),
            (
                Mode {
                    cr4_supported: u64::MAX,
                    ..LONG
                },
                cr4::PAE | cr4::LA57,
            ),
            (
                Mode {
                    cr4_supported: u64::MAX,
                    ..REAL
                },
                cr4::CET,
            ),
            (
                Mode {
                    cr4_fixed: cr4::VMXE,
                    ..LONG
                },
                cr4::PAE,
            ),
        ];
        for (mode, new) in refused {
            assert_eq!(write_cr4(&mode, new), Err(GeneralProtection), "{new:#x}");
        }
        assert!(
            write_cr4(&LONG, cr4::PAE | cr4::PCIDE)
                .expect("PCID")
                .flushes
        );
        let effect = write_cr4(&LONG, cr4::PAE | cr4::VMXE).expect("VMXE");
        assert!(!effect.flushes && !effect.loads_pdptes);
        let paging = Mode {
            cr0: cr0::PG | cr0::PE,
            ..REAL
        };
        assert!(write_cr4(&paging, cr4::PAE).expect("PAE").loads_pdptes);
    }

    #[test]
    fn pdptes_are_checked() {
        assert!(pdpte_is_valid(0, 40));
        assert!(pdpte_is_valid(0x1e6, 40));
        assert!(pdpte_is_valid(0x1001, 40));
        assert!(!pdpte_is_valid(0x1003, 40));
        assert!(!pdpte_is_valid(1 << 40 | 1, 40));
        assert!(pdpte_is_valid(1 << 39 | 1, 40));
    }
}

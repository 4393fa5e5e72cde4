//! L1's writes of CR0 and CR4 that exit: what a CPU would make of them.
//! SDM "Control Registers", "MOV - Move to/from Control Registers",
//! "Initializing IA-32e Mode", "PDPTE Registers".

use umbra_arch::{Cr0, Cr4, Efer};

/// The bits of CR0 that can be written: all that are defined but ET.
const CR0_WRITABLE: u64 = Cr0::all().difference(Cr0::ET).bits();

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
    let value = new & CR0_WRITABLE | Cr0::ET.bits();
    let is_on = |bit: Cr0| bit.is_in(value);
    if is_on(Cr0::PG) && !is_on(Cr0::PE)
        || is_on(Cr0::NW) && !is_on(Cr0::CD)
        || !is_on(Cr0::WP) && Cr4::CET.is_in(mode.cr4)
        || value & mode.cr0_fixed != mode.cr0_fixed
    {
        return Err(GeneralProtection);
    }
    let was_paging = Cr0::PG.is_in(mode.cr0);
    let mut efer = mode.efer;
    if is_on(Cr0::PG) && !was_paging && Efer::LME.is_in(efer) {
        if !Cr4::PAE.is_in(mode.cr4) || mode.cs_is_long {
            return Err(GeneralProtection);
        }
        efer |= Efer::LMA.bits();
    }
    if !is_on(Cr0::PG) && was_paging {
        let in_64_bit_mode = Efer::LMA.is_in(efer) && mode.cs_is_long;
        if in_64_bit_mode || Cr4::PCIDE.is_in(mode.cr4) {
            return Err(GeneralProtection);
        }
        efer &= !Efer::LMA.bits();
    }
    let uses_pdptes = is_on(Cr0::PG) && Cr4::PAE.is_in(mode.cr4) && !Efer::LMA.is_in(efer);
    let changed = value ^ mode.cr0;
    Ok(Effect {
        value,
        efer,
        loads_pdptes: uses_pdptes && Cr0::PG.union(Cr0::CD).union(Cr0::NW).any_in(changed),
        flushes: Cr0::PG.union(Cr0::PE).union(Cr0::WP).any_in(changed),
    })
}

/// LMSW with a 16-bit source: the low four bits, and PE can only be set.
///
/// # Errors
/// As [`write_cr0`].
pub fn lmsw(mode: &Mode, source: u16) -> Result<Effect, GeneralProtection> {
    let taken = u64::from(source) & 0xf | mode.cr0 & Cr0::PE.bits();
    write_cr0(mode, mode.cr0 & !0xf | taken)
}

/// MOV to CR4.
///
/// # Errors
/// [`GeneralProtection`] where a CPU raises #GP(0).
pub fn write_cr4(mode: &Mode, new: u64) -> Result<Effect, GeneralProtection> {
    let is_long = Efer::LMA.is_in(mode.efer);
    let changed = new ^ mode.cr4;
    if new & !mode.cr4_supported != 0
        || new & mode.cr4_fixed != mode.cr4_fixed
        || is_long && Cr4::LA57.is_in(changed)
        || is_long && !Cr4::PAE.is_in(new)
        || Cr4::CET.is_in(new) && !Cr0::WP.is_in(mode.cr0)
    {
        return Err(GeneralProtection);
    }
    let turns_pcid_on = Cr4::PCIDE.is_in(changed & new);
    if turns_pcid_on && (!is_long || mode.cr3 & 0xfff != 0) {
        return Err(GeneralProtection);
    }
    let uses_pdptes = Cr0::PG.is_in(mode.cr0) && Cr4::PAE.is_in(new) && !is_long;
    Ok(Effect {
        value: new,
        efer: mode.efer,
        loads_pdptes: uses_pdptes
            && Cr4::PAE
                .union(Cr4::PSE)
                .union(Cr4::PGE)
                .union(Cr4::SMEP)
                .any_in(changed),
        flushes: Cr4::PAE
            .union(Cr4::PSE)
            .union(Cr4::PGE)
            .union(Cr4::PCIDE)
            .union(Cr4::SMEP)
            .any_in(changed),
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
        cr0: Cr0::ET.bits(),
        cr3: 0x1000,
        cr4: 0,
        efer: 0,
        cs_is_long: false,
        cr0_fixed: 0,
        cr4_fixed: 0,
        cr4_supported: 0x3727ff,
    };
    const LONG: Mode = Mode {
        cr0: Cr0::PG.bits() | Cr0::PE.bits() | Cr0::ET.bits() | Cr0::NE.bits(),
        cr4: Cr4::PAE.bits(),
        efer: Efer::LME.bits() | Efer::LMA.bits(),
        cs_is_long: true,
        ..REAL
    };

    #[test]
    fn cr0_follows_the_sdm() {
        let refused = [
            (REAL, 1 << 32),
            (REAL, Cr0::PG.bits()),
            (REAL, Cr0::NW.bits()),
            // Long mode needs PAE, and must not start with CS.L set.
            (
                Mode {
                    efer: Efer::LME.bits(),
                    ..REAL
                },
                Cr0::PG.bits() | Cr0::PE.bits(),
            ),
            (
                Mode {
                    efer: Efer::LME.bits(),
                    cr4: Cr4::PAE.bits(),
                    cs_is_long: true,
                    ..REAL
                },
                Cr0::PG.bits() | Cr0::PE.bits(),
            ),
            (LONG, Cr0::PE.bits()),
            (
                Mode {
                    cs_is_long: false,
                    cr4: Cr4::PAE.bits() | Cr4::PCIDE.bits(),
                    ..LONG
                },
                Cr0::PE.bits(),
            ),
            (
                Mode {
                    cr4: Cr4::CET.bits(),
                    cr0: Cr0::WP.bits() | Cr0::PE.bits(),
                    ..REAL
                },
                Cr0::PE.bits(),
            ),
            (
                Mode {
                    cr0_fixed: Cr0::NE.bits(),
                    ..LONG
                },
                Cr0::PG.bits() | Cr0::PE.bits(),
            ),
        ];
        for (mode, new) in refused {
            assert_eq!(write_cr0(&mode, new), Err(GeneralProtection), "{new:#x}");
        }
        let entering = Mode {
            efer: Efer::LME.bits(),
            cr4: Cr4::PAE.bits(),
            ..REAL
        };
        let effect = write_cr0(&entering, Cr0::PG.bits() | Cr0::PE.bits()).expect("long mode");
        assert_eq!(effect.efer, Efer::LME.bits() | Efer::LMA.bits());
        assert!(!effect.loads_pdptes && effect.flushes);
        let leaving = Mode {
            cs_is_long: false,
            ..LONG
        };
        let effect = write_cr0(&leaving, Cr0::PE.bits()).expect("compatibility mode");
        assert_eq!(effect.efer, Efer::LME.bits());
        let pae = Mode {
            cr4: Cr4::PAE.bits(),
            ..REAL
        };
        assert!(
            write_cr0(&pae, Cr0::PG.bits() | Cr0::PE.bits())
                .expect("PAE")
                .loads_pdptes
        );
        // Reserved low bits are ignored, ET cannot be cleared.
        assert_eq!(
            write_cr0(&REAL, 0xffc0).expect("ignored").value,
            Cr0::ET.bits()
        );
    }

    #[test]
    fn lmsw_sets_pe_and_never_clears_it() {
        assert_eq!(
            lmsw(&REAL, 1).expect("PE").value,
            Cr0::ET.bits() | Cr0::PE.bits()
        );
        let protected = Mode {
            cr0: Cr0::ET.bits() | Cr0::PE.bits(),
            ..REAL
        };
        assert_eq!(
            lmsw(&protected, 0).expect("stays").value,
            Cr0::ET.bits() | Cr0::PE.bits()
        );
        assert_eq!(lmsw(&REAL, 0xfff0).expect("nothing").value, Cr0::ET.bits());
    }

    #[test]
    fn cr4_follows_the_sdm() {
        let refused = [
            (REAL, 1 << 40),
            (LONG, 0),
            (REAL, Cr4::PCIDE.bits()),
            (
                Mode {
                    cr3: 0x1001,
                    ..LONG
                },
                Cr4::PAE.bits() | Cr4::PCIDE.bits(),
            ),
            (
                Mode {
                    cr4_supported: u64::MAX,
                    ..LONG
                },
                Cr4::PAE.bits() | Cr4::LA57.bits(),
            ),
            (
                Mode {
                    cr4_supported: u64::MAX,
                    ..REAL
                },
                Cr4::CET.bits(),
            ),
            (
                Mode {
                    cr4_fixed: Cr4::VMXE.bits(),
                    ..LONG
                },
                Cr4::PAE.bits(),
            ),
        ];
        for (mode, new) in refused {
            assert_eq!(write_cr4(&mode, new), Err(GeneralProtection), "{new:#x}");
        }
        assert!(
            write_cr4(&LONG, Cr4::PAE.bits() | Cr4::PCIDE.bits())
                .expect("PCID")
                .flushes
        );
        let effect = write_cr4(&LONG, Cr4::PAE.bits() | Cr4::VMXE.bits()).expect("VMXE");
        assert!(!effect.flushes && !effect.loads_pdptes);
        let paging = Mode {
            cr0: Cr0::PG.bits() | Cr0::PE.bits(),
            ..REAL
        };
        assert!(
            write_cr4(&paging, Cr4::PAE.bits())
                .expect("PAE")
                .loads_pdptes
        );
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

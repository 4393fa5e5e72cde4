//! SMRAM, whose handler runs past EPT: closed and locked before L1 runs, an L1
//! cannot put one of its own there. Chipset data sheets, "SMRAM - System
//! Management RAM Control".

/// A host bridge, PCI device 0:0.0, by vendor (low) and device, and its SMRAM
/// control register. The bits are the same in all.
const BRIDGES: [(u32, u8); 2] = [
    // 82441FX (i440FX) and 82G33/Q35.
    (0x1237_8086, 0x72),
    (0x29c0_8086, 0x9d),
];

/// D_OPEN: SMRAM is there outside of SMM.
const OPEN: u8 = 1 << 6;
/// D_LCK: no further change, D_OPEN is 0.
const LOCK: u8 = 1 << 4;

/// The offset of a host bridge's SMRAM control register, where it is known.
pub fn register_of(bridge: u32) -> Option<u8> {
    BRIDGES
        .iter()
        .find(|(known, _)| *known == bridge)
        .map(|&(_, register)| register)
}

/// What to write to lock it.
pub const fn locked(value: u8) -> u8 {
    value & !OPEN | LOCK
}

/// Whether it is locked.
pub const fn is_locked(value: u8) -> bool {
    value & (OPEN | LOCK) == LOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_register_is_closed_and_locked() {
        for value in 0..=u8::MAX {
            assert!(is_locked(locked(value)));
            // Where SMRAM is and whether it is enabled stays.
            assert_eq!(locked(value) & !(OPEN | LOCK), value & !(OPEN | LOCK));
        }
        assert!(!is_locked(0x0a) && !is_locked(0x5a));
        assert_eq!(register_of(0x1237_8086), Some(0x72));
        assert_eq!(register_of(0xffff_ffff), None);
    }
}

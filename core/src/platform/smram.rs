//! Locks SMRAM, see `umbra_core::smram`.

use crate::arch::io::{in8, in32, out8, out32};
use crate::say;
use umbra_core::smram;

/// PCI configuration mechanism 1.
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Locks SMRAM where the host bridge is one whose register is known. One CPU
/// runs, and no L1.
pub fn lock() {
    let kept = in32(ADDRESS);
    out32(ADDRESS, ENABLE);
    if let Some(register) = smram::register_of(in32(DATA)) {
        out32(ADDRESS, ENABLE | u32::from(register & !3));
        let port = DATA + u16::from(register & 3);
        let value = in8(port);
        if !smram::is_locked(value) {
            out8(port, smram::locked(value));
        }
        if !smram::is_locked(in8(port)) {
            say!("SMRAM is not locked: an SMI handler that L1 installs reaches Umbra's memory");
        }
    }
    out32(ADDRESS, kept);
}

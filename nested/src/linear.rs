//! Linear addresses of data accesses in 64-bit mode: canonical form, and
//! linear-address masking.
//!
//! SDM "Canonical Addressing", "Linear-Address Masking (LAM)".

use umbra_arch::{Cr3, Cr4, Linear};

/// What a data address has to look like under given control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearForm {
    /// Bits of a linear address, 48 or 57.
    width: u32,
    /// The bits that are left of an address whose bit 63 is 0 (user) and 1
    /// (supervisor); 64 where nothing is masked.
    kept: [u32; 2],
}

impl LinearForm {
    /// For these CR3 and CR4. Bits that the CPU lacks are 0 in them.
    pub const fn new(cr3: u64, cr4: u64) -> Self {
        let width = if Cr4::LA57.is_in(cr4) { 57 } else { 48 };
        let user = if Cr3::LAM_U57.is_in(cr3) {
            57
        } else if Cr3::LAM_U48.is_in(cr3) {
            48
        } else {
            64
        };
        let supervisor = if Cr4::LAM_SUP.is_in(cr4) { width } else { 64 };
        Self {
            width,
            kept: [user, supervisor],
        }
    }

    /// The linear address that an access of `length_bytes` bytes (1 or more)
    /// at `address` goes to, without metadata; `None` if it is not canonical.
    #[inline]
    pub const fn resolve(self, address: u64, length_bytes: u64) -> Option<Linear> {
        let first = self.masked(address);
        let last = first.wrapping_add(length_bytes - 1);
        if is_canonical(first, self.width) && is_canonical(last, self.width) {
            Some(Linear::new(first))
        } else {
            None
        }
    }

    /// The address with its metadata replaced by copies of the bit below, if
    /// that bit agrees with bit 63; else as it is, which is not canonical.
    #[expect(clippy::indexing_slicing, reason = "one bit chooses of two")]
    const fn masked(self, address: u64) -> u64 {
        let kept = self.kept[(address >> 63) as usize];
        let extended = sign_extended(address, kept);
        if extended >> 63 == address >> 63 {
            extended
        } else {
            address
        }
    }
}

/// The low `bits` bits of an address, sign-extended.
const fn sign_extended(address: u64, bits: u32) -> u64 {
    let unused = 64 - bits;
    ((address << unused) as i64 >> unused) as u64
}

/// Whether bits 63 down to `bits - 1` of an address are all equal.
pub const fn is_canonical(address: u64, bits: u32) -> bool {
    sign_extended(address, bits) == address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_edges() {
        assert!(is_canonical(0x7fff_ffff_ffff, 48));
        assert!(!is_canonical(0x8000_0000_0000, 48));
        assert!(is_canonical(0xffff_8000_0000_0000, 48));
        assert!(!is_canonical(0xffff_7fff_ffff_ffff, 48));
        assert!(is_canonical(0x8000_0000_0000, 57));
    }

    #[test]
    fn both_ends_of_an_access_are_canonical() {
        let form = LinearForm::new(0, 0);
        let resolve = |address| form.resolve(address, 8).map(Linear::raw);
        assert_eq!(resolve(0x7fff_ffff_fff8), Some(0x7fff_ffff_fff8));
        assert_eq!(resolve(0x7fff_ffff_fff9), None);
        assert_eq!(resolve(u64::MAX - 3), Some(u64::MAX - 3));
    }

    #[test]
    fn metadata_is_masked_as_the_control_registers_say() {
        const U48: u64 = Cr3::LAM_U48.bits();
        const U57: u64 = Cr3::LAM_U57.bits();
        const LA57: u64 = Cr4::LA57.bits();
        const LAM_SUP: u64 = Cr4::LAM_SUP.bits();
        const META: u64 = 0x2aaa << 48;
        const SUP: u64 = 0xffff_8000_0000_1000;
        for (cr3, cr4, address, expected) in [
            (0, 0, META | 0x1000, None),
            (U48, 0, META | 0x1000, Some(0x1000)),
            (U57, 0, 0x15 << 57 | 0x1000, Some(0x1000)),
            // LAM_U57 leaves bits 56:48 to the canonical form, whatever
            // LAM_U48 is.
            (U57, 0, META | 0x1000, None),
            (U57 | U48, 0, META | 0x1000, None),
            (U57, LA57, 0x15 << 57 | 0x1000, Some(0x1000)),
            (U57, LA57, 0x15 << 57 | 1 << 55, Some(1 << 55)),
            // The bit below the metadata has to agree with bit 63.
            (U48, 0, META | 1 << 47, None),
            (U57, LA57, 0x15 << 57 | 1 << 56, None),
            // Supervisor addresses have a bit of their own, and their width is
            // that of the paging mode.
            (U48 | U57, 0, SUP & !META, None),
            (0, LAM_SUP, SUP & !META, Some(SUP)),
            (0, LAM_SUP | LA57, SUP & !(1 << 56), None),
            (0, LAM_SUP | LA57, SUP & !(0x2a << 57), Some(SUP)),
            (0, LAM_SUP, META | 0x1000, None),
            (0, LAM_SUP, SUP & !(1 << 47), None),
        ] {
            let form = LinearForm::new(cr3, cr4);
            assert_eq!(
                form.resolve(address, 8).map(Linear::raw),
                expected,
                "{address:#x} under CR3 {cr3:#x}, CR4 {cr4:#x}"
            );
        }
    }
}

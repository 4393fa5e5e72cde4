//! The page-directory-pointer-table entries of a level with PAE paging.

use umbra_arch::Gpa1;
use umbra_vmcs::field::{self, Field};

use crate::hw::{Memory, VmcsAccess};

pub(crate) const PDPTES: [Field; 4] = [
    field::GUEST_PDPTE0,
    field::GUEST_PDPTE1,
    field::GUEST_PDPTE2,
    field::GUEST_PDPTE3,
];

/// Reads the four PDPTEs at `cr3` into the current VMCS. The rules have seen
/// that they may be loaded, or the caller does.
pub(crate) fn load_pdptes(hw: &mut (impl VmcsAccess + Memory), cr3: u64) -> [u64; 4] {
    let mut bytes = [0; 32];
    hw.read_l1(Gpa1::new(cr3 & 0xffff_ffe0), &mut bytes);
    let mut pdptes = [0; 4];
    for ((pdpte, field), chunk) in pdptes.iter_mut().zip(PDPTES).zip(bytes.chunks_exact(8)) {
        let mut value = [0; 8];
        value.copy_from_slice(chunk);
        *pdpte = u64::from_le_bytes(value);
        hw.write(field, *pdpte);
    }
    pdptes
}

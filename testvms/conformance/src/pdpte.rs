//! Page-directory-pointer-table entries under PAE paging.
//!
//! SDM "Checks on Guest Page-Directory-Pointer-Table Entries".

use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::field;

use crate::lab::Lab;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    let fields = [
        field::GUEST_PDPTE0,
        field::GUEST_PDPTE1,
        field::GUEST_PDPTE2,
        field::GUEST_PDPTE3,
    ];
    if lab.begin("pdpte fields", Mode::Pae, true) {
        for (n, field) in fields.into_iter().enumerate() {
            for bit in 0..64 {
                for present in [0, 1] {
                    if n == 0 && present == 0 {
                        continue;
                    }
                    let good = lab.get(field) & !1;
                    lab.set(field, (good | present) ^ 1 << bit);
                    lab.run(format_args!("{n} p{present} {bit}"));
                }
            }
        }
        lab.end();
    }
    if lab.begin("pdpte fields not used", Mode::Long, true) {
        for field in fields {
            lab.set(field, u64::MAX);
            lab.run(format_args!("{:x}", field.encoding()));
        }
        lab.end();
    }
    if lab.begin("pdpte memory", Mode::Pae, false) {
        let memory = lab.vm.memory;
        for n in 0..4 {
            let at = layout::TABLES + 8 * n;
            let good: u64 = memory.read(at);
            for bit in 0..64 {
                for present in [0, 1] {
                    if n == 0 && present == 0 || bit >= 12 && bit < rt::cpu::maxphyaddr() {
                        // The CPU would walk foreign memory.
                        continue;
                    }
                    memory.write(at, (good | present) ^ 1 << bit);
                    lab.run(format_args!("{n} p{present} {bit}"));
                }
            }
            memory.write(at, good);
        }
        lab.end();
    }
}

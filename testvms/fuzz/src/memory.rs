//! L2's memory, and how it is reached.

use rt::random::Random;
use rt::vmx::ept;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::field;

use crate::world::{APIC_ACCESS, ENTRY, RIGHTS, TYPE, World, is_error_vector};

impl World {
    /// Descriptors beside those of the run-time, handlers that return, data that means something.
    pub(crate) fn fill_memory(&self, random: &mut Random) {
        let memory = &self.vm.memory;
        let mode = self.vm.mode();
        let tss = layout::DATA + 0x800;
        let call_gate =
            layout::HANDLERS & 0xffff | 8 << 16 | 0xec << 40 | (layout::HANDLERS >> 16) << 48;
        for (slot, descriptor) in [
            (7, 0x67 | tss << 16 | 0xe9 << 40),
            (8, 0x38 << 16 | 0xe5 << 40),
            (9, call_gate),
            (10, 0x00cf_fb00_0000_ffff),
        ] {
            memory.write(layout::GDT + 8 * slot, descriptor);
        }
        let is_protected = !mode.is_ia32e() && mode != Mode::Real;
        if is_protected {
            memory.write(layout::IDT + 0x30 * 8, 0x38 << 16 | 0xe5u64 << 40);
        }
        for vector in 0..256u64 {
            let handler = layout::HANDLERS + 16 * vector;
            let at = handler + 3;
            let pushes = is_error_vector(vector) && mode != Mode::Real;
            let code: &[u8] = match (mode.is_ia32e(), pushes) {
                (true, true) => &[0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf],
                (true, false) => &[0x48, 0xcf],
                (false, true) => &[0x83, 0xc4, 0x04, 0xcf],
                (false, false) => &[0xcf],
            };
            memory.write_bytes(at, code);
        }
        for at in (0..0x1000u64).step_by(8) {
            let value = random.of(&[
                0,
                8,
                0x10,
                0x18,
                0x38,
                0x8080,
                0x9000,
                0x1_0000,
                0x0010_0000_9000,
                0x0000_8060_0000_00ff,
                0x8000_0000_0000_0000,
                u64::MAX,
            ]);
            memory.write(layout::DATA + at, value);
        }
        self.virtual_apic.fill(0);
        self.apic_access.fill(0);
        self.log.fill(0);
        self.ve_information.fill(0);
        self.eptp_list.fill(0);
    }

    /// L2's tables and EPT: a page each with something strange, and the APIC-access page.
    pub(crate) fn translations(&mut self, random: &mut Random) {
        let vm = &self.vm;
        let entry = random.of(&[0u64, 1, 3, 5, 7, 1 << 63 | 7, 1 << 51 | 7, 0x67]);
        self.set_page(ENTRY, |old| if entry == 0 { 0 } else { old & !7 | entry });
        if !vm.uses_ept() {
            for page in (layout::TABLES..layout::CODE).step_by(4096) {
                self.set_page(page, |old| old & !2);
            }
            if self.virtualizes_accesses() {
                // L2 does not get there where it could execute: Bochs stops at a fetch from it.
                let address = self.apic_access.address();
                let efer = read(field::GUEST_IA32_EFER) | 1 << 11;
                write(field::GUEST_IA32_EFER, efer);
                self.set_page(APIC_ACCESS, |_| 1 << 63 | address | 7);
            }
            return;
        }
        let ept = vm.ept();
        ept.map(
            APIC_ACCESS,
            self.apic_access.address(),
            ept::READ | ept::WRITE,
        );
        let host = vm.memory.address();
        let rights = random.of(&[0, 1, 3, 4, 5, 6, 7, 2]);
        ept.map(RIGHTS, host + RIGHTS, rights);
        let kind = random.of(&[0u64, 1, 2, 4, 5, 6, 7]);
        let extra = random.of(&[0u64, 0, 1 << 6, 1 << 63, 1 << 10]);
        ept.set_entry(TYPE, 1, (host + TYPE) | (kind << 3) | ept::ALL | extra);
    }

    /// Changes the entry of L2's own tables for a page, if L2 has tables.
    pub(crate) fn set_page(&self, linear: u64, change: impl Fn(u64) -> u64) {
        let memory = &self.vm.memory;
        let index = linear >> 12;
        match self.vm.mode() {
            Mode::Flat32 | Mode::Real => {}
            Mode::Prot32 | Mode::V86 => {
                let at = layout::PAGE_TABLE + 4 * index;
                let old = u64::from(memory.read::<u32>(at));
                memory.write(at, change(old) as u32);
            }
            _ => {
                let at = layout::PAGE_TABLE + 8 * index;
                memory.write(at, change(memory.read(at)));
            }
        }
    }
}

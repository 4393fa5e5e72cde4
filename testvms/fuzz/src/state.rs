//! L2's registers, and the event that a case begins with.

use rt::random::Random;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, SEGMENTS};
use umbra_vmcs::controls::{Entry, Pin};
use umbra_vmcs::field;

use crate::program;
use crate::world::{World, is_error_vector};

impl World {
    pub(crate) fn registers(&mut self, random: &mut Random) {
        let pointers = [
            0x9000u64, 0x9040, 0x9ff8, 0xa000, 0xb080, 0xc000, 0xd000, 0xe000, 0xf000,
        ];
        let values = [
            0u64,
            1,
            2,
            0x10,
            0x4016,
            0x681e,
            0x2800,
            0x8000,
            u64::MAX,
            1 << 63,
        ];
        let registers = &mut self.vm.registers;
        registers.rax = random.of(&values);
        registers.rcx = random.of(&[0, 1, 2, 3]);
        registers.rdx = random.of(&[0, 0xe0, 1, 0x8060]);
        registers.rbx = random.of(&pointers);
        registers.rsi = random.of(&pointers);
        registers.rdi = random.of(&pointers);
        registers.rbp = random.of(&[0xa800, 0x9f00]);
        registers.r8 = random.of(&pointers);
        registers.r9 = random.of(&values);
        registers.r10 = random.of(&values);
    }

    pub(crate) fn guest_state(&mut self, random: &mut Random) {
        let mode = self.vm.mode();
        let mut flags = read(field::GUEST_RFLAGS);
        for (bit, weight) in [
            (9, 8),
            (8, 1),
            (14, 1),
            (18, 2),
            (12, 3),
            (13, 3),
            (16, 1),
            (11, 3),
        ] {
            if random.chance(weight, 16) && (mode != Mode::V86 || bit != 14) {
                flags |= 1 << bit;
            }
        }
        write(field::GUEST_RFLAGS, flags);
        let mut cr0 = read(field::GUEST_CR0) | 1 << 16;
        for bit in [1, 2, 3, 18] {
            if random.chance(1, 5) {
                cr0 |= 1 << bit;
            }
        }
        if self.vm.uses_ept() && random.chance(1, 2) {
            cr0 &= !(1 << 16);
        }
        write(field::GUEST_CR0, cr0);
        let mut cr4 = read(field::GUEST_CR4);
        for bit in [0, 1, 2, 3, 7, 8, 9, 10, 11, 16, 18, 20, 21] {
            if random.chance(1, 5) && self.caps.cr4_fixed1 & 1 << bit != 0 {
                cr4 |= 1 << bit;
            }
        }
        if random.chance(1, 6) && mode.is_ia32e() && self.caps.cr4_fixed1 & 1 << 17 != 0 {
            cr4 |= 1 << 17;
        }
        write(field::GUEST_CR4, cr4);
        if mode.is_ia32e() && self.caps.offers_entry(Entry::LOAD_EFER) {
            let bits = random.of(&[0, 1, 1 << 11, 1 << 11 | 1]);
            write(field::GUEST_IA32_EFER, read(field::GUEST_IA32_EFER) | bits);
        }
        if random.chance(1, 4) && !matches!(mode, Mode::Real | Mode::V86) {
            self.privilege(3);
        }
        for base in [field::GUEST_FS_BASE, field::GUEST_GS_BASE] {
            if mode != Mode::V86 {
                write(base, random.of(&[0, 0, 0x10, 0x1000]));
            }
        }
        write(
            field::GUEST_IA32_SYSENTER_CS,
            random.of(&[0, 8, 0x18, 0x28]),
        );
        write(field::GUEST_IA32_SYSENTER_ESP, 0xa800);
        write(
            field::GUEST_IA32_SYSENTER_EIP,
            program::start(program::SLOTS - 1),
        );
        if random.chance(1, 8) {
            write(
                field::GUEST_DR7,
                random.of(&[0x401, 0x2400, 0xd_0402, 0x455]),
            );
            let watched = random.of(&[program::start(1), program::start(3), 0x9000]);
            // SAFETY: L1's DR7 enables no breakpoint.
            unsafe {
                core::arch::asm!("mov dr0, {at}", "mov dr1, {at}", at = in(reg) watched,
                    options(nomem, nostack, preserves_flags));
            }
        }
        if random.chance(1, 10) {
            let blocking = if flags & 1 << 9 != 0 {
                random.of(&[1, 2])
            } else {
                2
            };
            write(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
            if flags & 1 << 8 != 0 {
                write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 14);
            }
        }
    }

    /// Every segment at one privilege level.
    pub(crate) fn privilege(&self, level: u64) {
        for segment in &SEGMENTS[..6] {
            write(segment.rights, read(segment.rights) & !0x60 | level << 5);
            write(segment.selector, read(segment.selector) & !3 | level);
        }
    }

    /// An event for the first entry, one that the rules allow.
    pub(crate) fn event(&self, random: &mut Random) {
        let is_real = read(field::GUEST_CR0) & 1 == 0;
        let has_nmis = read(field::PIN_BASED_CONTROLS) as u32 & Pin::VIRTUAL_NMIS.bits() != 0;
        let mut length = 0;
        let information = match random.below(8) {
            0 if has_nmis => 2 << 8 | 2,
            0 | 1 => {
                let flags = read(field::GUEST_RFLAGS) | 1 << 9;
                write(field::GUEST_RFLAGS, flags);
                random.of(&[0x20, 0x30, 0x80, 0xff])
            }
            2 | 3 => {
                length = random.of(&[1, 2, 2, 15]);
                let software = random.of(&[
                    4 << 8 | 0x30,
                    4 << 8 | 0x80,
                    5 << 8 | 1,
                    6 << 8 | 3,
                    6 << 8 | 4,
                ]);
                u64::from(software as u32)
            }
            _ => {
                let vector =
                    random.of(&[0u64, 1, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19]);
                let pushes = is_error_vector(vector) && !is_real;
                3 << 8 | vector | u64::from(pushes) << 11
            }
        };
        if information >> 8 & 7 <= 2 {
            // Blocking is not for these.
            write(field::GUEST_INTERRUPTIBILITY_STATE, 0);
            write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
        }
        self.inject(information, random.of(&[0, 2, 4, 0x10, 0x38]), length);
    }

    /// Writes the event-injection fields.
    pub(crate) fn inject(&self, information: u64, error_code: u64, length: u64) {
        write(
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            1 << 31 | information,
        );
        write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, error_code);
        write(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
    }
}

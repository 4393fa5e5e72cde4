//! What a program runs in: controls, registers, memory and its translation, an event to begin with.
//!
//! Whatever is drawn, L2 must not reach memory that is not its own. With EPT that is so. Without it
//! L2's tables are read-only to it, paging stays as it is, and writes of control registers exit.

use rt::cpu;
use rt::page::Page;
use rt::random::Random;
use rt::vmx::Vmx;
use rt::vmx::vm::{Mode, Vm};
use umbra_vmcs::VmxCaps;

use crate::program;

/// The APIC-access page, in L2's addresses.
pub const APIC_ACCESS: u64 = 0xb000;
/// A page whose EPT entry has rights of the case's choice.
pub const RIGHTS: u64 = 0xc000;
/// A page whose entry in L2's own tables is of the case's choice.
pub const ENTRY: u64 = 0xd000;
/// A page whose EPT entry has a memory type of the case's choice.
pub const TYPE: u64 = 0xe000;

/// Pages that controls point at.
pub struct World {
    /// The capability MSRs.
    pub caps: VmxCaps,
    /// L2.
    pub vm: Vm,
    /// The virtual-APIC page.
    pub virtual_apic: Page,
    /// The page-modification log.
    pub log: Page,
    /// The virtualization-exception information.
    pub ve_information: Page,
    pub(crate) apic_access: Page,
    pub(crate) eptp_list: Page,
    /// FXRSTOR's image of the x87 and SSE state that every case begins with.
    fresh_fpu: Page,
}

impl World {
    /// A world in VMX operation.
    pub fn new(vmx: &Vmx) -> Self {
        let fresh_fpu = Page::alloc(1);
        fresh_fpu.write(0, 0x037fu16);
        fresh_fpu.write(24, 0x1f80u32);
        Self {
            caps: vmx.caps,
            vm: Vm::new(vmx),
            virtual_apic: Page::alloc(1),
            log: Page::alloc(1),
            ve_information: Page::alloc(1),
            apic_access: Page::alloc(1),
            eptp_list: Page::alloc(1),
            fresh_fpu,
        }
    }

    /// Everything anew for a case.
    pub fn make(&mut self, mode: Mode, with_ept: bool, random: &mut Random) {
        self.vm.reset(mode, with_ept);
        self.reset_l1();
        self.fill_memory(random);
        let is_wild = random.chance(1, 8);
        program::write(&self.vm.memory, mode, random, is_wild);
        self.registers(random);
        self.controls(random, is_wild);
        self.guest_state(random);
        self.translations(random);
        if random.chance(1, 3) {
            self.event(random);
        }
        self.interrupts(random);
        self.vm.forget_translations();
    }

    /// L1's own registers that L2 can change.
    fn reset_l1(&self) {
        for msr in [
            0xc000_0081u32,
            0xc000_0082,
            0xc000_0083,
            0xc000_0084,
            0xc000_0102,
        ] {
            // SAFETY: L1 executes no system call, and no SWAPGS.
            unsafe { cpu::wrmsr(msr, 0) };
        }
        if cpu::cpuid(0x8000_0001, 0).edx & 1 << 27 != 0 {
            // SAFETY: L1 does not read IA32_TSC_AUX.
            unsafe { cpu::wrmsr(0xc000_0103, 0) };
        }
        // SAFETY: no breakpoint is enabled, L1 takes no interrupt, no page fault is on its way.
        unsafe {
            cpu::set_cr2(0);
            cpu::set_cr8(0);
            core::arch::asm!(
                "mov dr0, {zero}", "mov dr1, {zero}", "mov dr2, {zero}", "mov dr3, {zero}",
                "mov dr6, {status}",
                zero = in(reg) 0u64, status = in(reg) 0xffff_0ff0u64, options(nostack),
            );
            // L2 may store them, and the case before must not show.
            core::arch::asm!("fxrstor64 [{}]", in(reg) self.fresh_fpu.address(), clobber_abi("C"));
        }
        self.forget_interrupts();
    }
}

/// Whether an exception pushes an error code.
pub(crate) fn is_error_vector(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

//! The controls of a case.

use rt::random::Random;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::layout;
use umbra_arch::msr::bitmap;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field;

use crate::system::MSRS;
use crate::world::World;

/// TSC ticks after which L2 is stopped.
const PATIENCE_TICKS: u64 = 2_000_000;

impl World {
    pub(crate) fn controls(&mut self, random: &mut Random, is_wild: bool) {
        let with_ept = self.vm.uses_ept();
        let vm = &self.vm;
        vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty());
        vm.exit_controls(Exit::SAVE_PAT | Exit::LOAD_PAT, Exit::empty());
        vm.entry_controls(Entry::LOAD_PAT, Entry::empty());
        if random.chance(1, 2) && vm.pin(Pin::NMI_EXITING, Pin::empty()) && random.chance(2, 3) {
            vm.pin(Pin::VIRTUAL_NMIS, Pin::empty());
        }
        // What is the same each time exits always: the time, random numbers.
        let mut proc = Proc::RDTSC_EXITING;
        for bit in [
            Proc::HLT_EXITING,
            Proc::INVLPG_EXITING,
            Proc::MWAIT_EXITING,
            Proc::RDPMC_EXITING,
            Proc::CR3_LOAD_EXITING,
            Proc::CR3_STORE_EXITING,
            Proc::CR8_LOAD_EXITING,
            Proc::CR8_STORE_EXITING,
            Proc::USE_TPR_SHADOW,
            Proc::MOV_DR_EXITING,
            Proc::MONITOR_EXITING,
            Proc::PAUSE_EXITING,
            Proc::UNCONDITIONAL_IO_EXITING,
        ] {
            if random.chance(1, 3) {
                proc |= bit;
            }
        }
        for bit in [Proc::MONITOR_TRAP_FLAG, Proc::INTERRUPT_WINDOW_EXITING] {
            if random.chance(1, 12) {
                proc |= bit;
            }
        }
        let mut clear = Proc::empty();
        if is_wild {
            proc |= Proc::UNCONDITIONAL_IO_EXITING | Proc::RDPMC_EXITING;
            clear |= Proc::USE_IO_BITMAPS | Proc::USE_MSR_BITMAPS;
        }
        if !with_ept {
            proc |= Proc::CR3_LOAD_EXITING;
        }
        vm.proc(proc, clear);
        let msrs = random.of(&[0, 0, 0xffu8, 0x5a]);
        // What a program comes upon by chance exits: a machine below may not have it, nor let
        // L1 have it, and says so in its own way.
        vm.msr_bitmap.fill(0xff);
        for (msr, is_write) in MSRS.iter().flat_map(|msr| [(*msr, false), (*msr, true)]) {
            if let Some((byte, bit)) = bitmap::place(msr, is_write)
                && msrs & 1 << bit == 0
            {
                let open = vm.msr_bitmap.read::<u8>(byte as u64) & !(1 << bit);
                vm.msr_bitmap.write(byte as u64, open);
            }
        }
        let ports = random.of(&[0, 0xffu8, 0x92, 0x7f]);
        vm.io_bitmaps.fill(ports);
        self.secondary(random, is_wild);
        self.numbers(random);
    }

    pub(crate) fn secondary(&mut self, random: &mut Random, is_wild: bool) {
        let vm = &self.vm;
        if !self.caps.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            return;
        }
        let mut proc2 = Proc2::RDRAND_EXITING | Proc2::RDSEED_EXITING;
        for bit in [
            Proc2::DESCRIPTOR_TABLE_EXITING,
            Proc2::ENABLE_RDTSCP,
            Proc2::ENABLE_VPID,
            Proc2::WBINVD_EXITING,
            Proc2::ENABLE_INVPCID,
            Proc2::ENABLE_VM_FUNCTIONS,
            Proc2::ENABLE_XSAVES_XRSTORS,
            Proc2::UNRESTRICTED_GUEST,
            Proc2::EPT_VIOLATION_VE,
            Proc2::MODE_BASED_EXECUTE_CONTROL,
        ] {
            let needs_ept = bit.intersects(
                Proc2::UNRESTRICTED_GUEST
                    | Proc2::EPT_VIOLATION_VE
                    | Proc2::MODE_BASED_EXECUTE_CONTROL
                    | Proc2::ENABLE_VM_FUNCTIONS,
            );
            if random.chance(1, 3) && (vm.uses_ept() || !needs_ept) {
                proc2 |= bit;
            }
        }
        let shadows =
            read(field::PRIMARY_PROCESSOR_BASED_CONTROLS) as u32 & Proc::USE_TPR_SHADOW.bits() != 0;
        // Without EPT, where L2's tables can say that nothing is executed there.
        let can_guard =
            vm.uses_ept() || vm.mode().is_ia32e() && self.caps.offers_entry(Entry::LOAD_EFER);
        if random.chance(1, 2) && can_guard {
            proc2 |= Proc2::VIRTUALIZE_APIC_ACCESSES;
        } else if shadows && random.chance(1, 2) && !is_wild {
            proc2 |= Proc2::VIRTUALIZE_X2APIC_MODE;
        }
        if shadows && random.chance(1, 2) {
            proc2 |= Proc2::APIC_REGISTER_VIRTUALIZATION;
        }
        if shadows && random.chance(1, 2) && vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty()) {
            proc2 |= Proc2::VIRTUAL_INTERRUPT_DELIVERY;
        }
        vm.proc2(proc2, Proc2::empty());
        let has =
            |bit: Proc2| read(field::SECONDARY_PROCESSOR_BASED_CONTROLS) as u32 & bit.bits() != 0;
        if has(Proc2::VIRTUALIZE_APIC_ACCESSES) {
            write(field::APIC_ACCESS_ADDRESS, self.apic_access.address());
        }
        if has(Proc2::ENABLE_VPID) {
            write(field::VIRTUAL_PROCESSOR_ID, 1);
        }
        if has(Proc2::ENABLE_XSAVES_XRSTORS) {
            write(field::XSS_EXITING_BITMAP, random.of(&[0, u64::MAX]));
        }
        if has(Proc2::ENABLE_VM_FUNCTIONS) {
            write(field::VM_FUNCTION_CONTROLS, random.of(&[0, 1]));
            write(field::EPTP_LIST_ADDRESS, self.eptp_list.address());
            self.eptp_list.write(0, vm.ept().pointer());
        }
        if has(Proc2::EPT_VIOLATION_VE) {
            write(
                field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
                self.ve_information.address(),
            );
            if self.caps.offers_proc2(Proc2::ENABLE_VM_FUNCTIONS) {
                write(field::EPTP_INDEX, 0);
            }
        }
        if vm.uses_ept() && self.caps.ept_vpid & 1 << 21 != 0 && random.chance(1, 4) {
            write(field::EPT_POINTER, vm.ept().pointer() | 1 << 6);
            if random.chance(1, 2) && vm.proc2(Proc2::ENABLE_PML, Proc2::empty()) {
                write(field::PML_ADDRESS, self.log.address());
                // Never full: Bochs then exits at each walk (docs/errata.md).
                write(field::PML_INDEX, 511);
            }
        }
        self.virtual_interrupts(random, has(Proc2::VIRTUAL_INTERRUPT_DELIVERY));
    }

    pub(crate) fn virtual_interrupts(&self, random: &mut Random, are_delivered: bool) {
        let tpr = random.of(&[0u32, 0x10, 0x20, 0x3f, 0xf0]);
        self.virtual_apic.write(0x80, tpr);
        if self.caps.offers_proc(Proc::USE_TPR_SHADOW) {
            write(field::VIRTUAL_APIC_ADDRESS, self.virtual_apic.address());
            let threshold = if are_delivered {
                0
            } else {
                u64::from(tpr >> 4).min(random.below(4))
            };
            write(field::TPR_THRESHOLD, threshold);
        }
        if !are_delivered {
            return;
        }
        let vector = random.of(&[0u32, 0x21, 0x45, 0xf1]);
        if vector != 0 {
            let register = 0x200 + 0x10 * u64::from(vector / 32);
            self.virtual_apic.write(register, 1u32 << (vector % 32));
        }
        let service = random.of(&[0u64, 0, 0x31]);
        write(
            field::GUEST_INTERRUPT_STATUS,
            service << 8 | u64::from(vector),
        );
        for exits in [
            field::EOI_EXIT_BITMAP_0,
            field::EOI_EXIT_BITMAP_1,
            field::EOI_EXIT_BITMAP_2,
            field::EOI_EXIT_BITMAP_3,
        ] {
            write(exits, random.of(&[0, u64::MAX]));
        }
    }

    pub(crate) fn numbers(&self, random: &mut Random) {
        let any = random.bits() & 0xffff_ffff;
        let bitmap = random.of(&[0, 0, 0xffff_ffff, any]);
        let mask = random.of(&[0, 1, 2, 4, 0x10, 0x1f]);
        let matched = random.of(&[0, mask, 1, 0x10]);
        for (field, value) in [
            (field::EXCEPTION_BITMAP, bitmap),
            (field::PAGE_FAULT_ERROR_CODE_MASK, mask),
            (field::PAGE_FAULT_ERROR_CODE_MATCH, matched),
        ] {
            write(field, value);
        }
        self.wind_timer();
        if self.vm.uses_ept() {
            write(
                field::CR0_GUEST_HOST_MASK,
                random.of(&[0, 0, 1 << 3, 1 << 5 | 1, u64::MAX]),
            );
            write(
                field::CR4_GUEST_HOST_MASK,
                random.of(&[0, 0, 1 << 5, 0x86, u64::MAX]),
            );
            let targets = u64::from(self.caps.misc >> 16 & 0x1ff != 0);
            write(field::CR3_TARGET_COUNT, targets * random.below(2));
            if targets != 0 {
                write(field::CR3_TARGET_VALUE_0, layout::TABLES);
            }
        } else {
            write(field::CR0_GUEST_HOST_MASK, u64::MAX);
            write(field::CR4_GUEST_HOST_MASK, u64::MAX);
        }
        let shadow = read(field::GUEST_CR0) ^ random.of(&[0, 0, 8, 1, 1 << 31]);
        write(field::CR0_READ_SHADOW, shadow);
        let shadow = read(field::GUEST_CR4) ^ random.of(&[0, 0, 1 << 13, 1 << 5, 0x80]);
        write(field::CR4_READ_SHADOW, shadow);
    }

    /// Gives L2 its time anew.
    pub(crate) fn wind_timer(&self) {
        self.vm.wind_timer(PATIENCE_TICKS);
    }

    pub(crate) fn virtualizes_accesses(&self) -> bool {
        let bit = u64::from(Proc2::VIRTUALIZE_APIC_ACCESSES.bits());
        self.caps.offers_proc2(Proc2::VIRTUALIZE_APIC_ACCESSES)
            && read(field::SECONDARY_PROCESSOR_BASED_CONTROLS) & bit != 0
    }
}

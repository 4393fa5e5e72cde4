//! The state that a case changes.

use umbra_arch::{EventInfo, EventType};

use crate::caps::{Allowed, VmxCaps};
use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};
use crate::field::{self, Field, SegmentFields};
use crate::rules::{CpuFacts, Ctx, L1Facts, L1Memory};
use crate::vmcs12::Vmcs12;

/// Pages of L1's memory, by physical address, that the cases may point at and
/// write to.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// For bitmaps and the like.
    pub any: u64,
    /// For the virtual-APIC page.
    pub virtual_apic: u64,
    /// For the VMCS behind the link pointer.
    pub link: u64,
    /// For PDPTEs; below 4 GiB.
    pub pdpt: u64,
    /// A valid EPTP.
    pub eptp: u64,
}

/// What the cases wrote to memory: 4-byte words. All else reads as zero.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    words: [(u64, u32); 16],
    used: usize,
}

impl Memory {
    /// The words written, by physical address.
    pub fn words(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.words.iter().take(self.used).copied()
    }

    fn write(&mut self, address: u64, value: u32) {
        let used = self.words.iter_mut().take(self.used);
        if let Some(slot) = used.into_iter().find(|(at, _)| *at == address) {
            slot.1 = value;
        } else if let Some(slot) = self.words.get_mut(self.used) {
            // Words beyond the room there is are lost; the case that counts
            // on them then gives another answer, and its test fails.
            *slot = (address, value);
            self.used += 1;
        }
    }
}

impl L1Memory for Memory {
    fn read_u32(&self, address: u64) -> u32 {
        self.words()
            .find(|(at, _)| *at == address)
            .map_or(0, |(_, value)| value)
    }

    fn read_u64(&self, address: u64) -> u64 {
        u64::from(self.read_u32(address)) | u64::from(self.read_u32(address.wrapping_add(4))) << 32
    }
}

/// A VMCS and everything else that the rules look at.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The VMCS.
    pub vmcs: Vmcs12,
    /// The CPU's VMX capabilities.
    pub caps: VmxCaps,
    /// The CPU.
    pub cpu: CpuFacts,
    /// L1.
    pub l1: L1Facts,
    /// The pages that the cases may use.
    pub pages: Pages,
    /// What they wrote there.
    pub memory: Memory,
}

/// Access rights of flat segments.
const CODE64: u64 = 0xa09b;
const CODE32: u64 = 0xc09b;
const DATA32: u64 = 0xc093;
const BUSY_TSS: u64 = 0x8b;
const UNUSABLE: u64 = 1 << 16;

/// The default1 classes of the control words, and what may be 1 on a CPU that
/// offers every control the SDM defines.
mod word {
    pub const PIN_MUST: u32 = 0x16;
    pub const PIN_MAY: u32 = 0xff;
    pub const PROC_MUST: u32 = 0x0401_e172;
    pub const PROC_MUST_TRUE: u32 = 0x0400_6172;
    pub const PROC_MAY: u32 = 0xfffb_fffe;
    pub const PROC2_MAY: u32 = 0xdfff_ffff;
    pub const PROC3_MAY: u64 = 0xdf;
    pub const EXIT_MUST: u32 = 0x0003_6dff;
    pub const EXIT_MUST_TRUE: u32 = 0x0003_6dfb;
    pub const EXIT_MAY: u32 = !(0b11 << 10);
    pub const ENTRY_MUST: u32 = 0x0000_11ff;
    pub const ENTRY_MUST_TRUE: u32 = 0x0000_11fb;
    pub const ENTRY_MAY: u32 = 0x017f_ffff;
    pub const EXIT2_MAY: u64 = 0b1100;
}

const fn allowed(must: u32, may: u32) -> Allowed {
    Allowed((may as u64) << 32 | must as u64)
}

impl Bench {
    /// A made-up CPU that offers every control, and on it L1 in 64-bit mode
    /// with a VMCS for 64-bit code that VM entry accepts.
    pub fn new() -> Self {
        let caps = VmxCaps {
            basic: 0x4d | 0x1000 << 32 | 6 << 50 | 1 << 54 | 1 << 55,
            pin_plain: allowed(word::PIN_MUST, word::PIN_MAY),
            pin_true: allowed(word::PIN_MUST, word::PIN_MAY),
            proc_plain: allowed(word::PROC_MUST, word::PROC_MAY),
            proc_true: allowed(word::PROC_MUST_TRUE, word::PROC_MAY),
            exit_plain: allowed(word::EXIT_MUST, word::EXIT_MAY | word::EXIT_MUST),
            exit_true: allowed(word::EXIT_MUST_TRUE, word::EXIT_MAY | word::EXIT_MUST_TRUE),
            entry_plain: allowed(word::ENTRY_MUST, word::ENTRY_MAY),
            entry_true: allowed(word::ENTRY_MUST_TRUE, word::ENTRY_MAY),
            misc: 0b1111 << 5 | 4 << 16 | 1 << 29,
            cr0_fixed0: 0x8000_0021,
            cr0_fixed1: 0xffff_ffff,
            cr4_fixed0: 0x2000,
            cr4_fixed1: 0x03f7_7fff,
            vmcs_enum: 0x30,
            proc2: allowed(0, word::PROC2_MAY),
            // Walk length 4, UC and WB, 2 MiB and 1 GiB, INVEPT and INVVPID
            // with all types, accessed and dirty flags; neither length 5 nor
            // supervisor shadow stacks.
            ept_vpid: 1 << 0
                | 1 << 6
                | 1 << 8
                | 1 << 14
                | 0b11 << 16
                | 0b11 << 20
                | 0b11 << 25
                | 1 << 32
                | 0b1111 << 40,
            vmfunc: 1,
            proc3: word::PROC3_MAY,
            exit2: word::EXIT2_MAY,
        };
        let cpu = CpuFacts {
            physical_address_bits: 46,
            linear_address_bits: 48,
            lam: false,
            rtm: false,
            sgx: false,
            bus_lock_detection: false,
            nmi_needs_no_sti_blocking: true,
            efer_writable: 0xd01,
            debugctl_writable: 0x1fc3,
            perf_global_ctrl_writable: 0x0007_0000_000f,
            rtit_ctl_writable: 0x2c0d,
            lbr_ctl_writable: 0x007f_000f,
            spec_ctrl_writable: 0b111,
            s_cet_writable: !0x3c0,
        };
        let pages = Pages {
            any: 0x10_0000,
            virtual_apic: 0x10_1000,
            link: 0x10_2000,
            pdpt: 0x10_3000,
            eptp: 0x10_4000 | 3 << 3 | 6,
        };
        let l1 = L1Facts {
            ia32e_mode: true,
            current_vmcs: 0x10_5000,
            pt_enabled: false,
        };
        let mut bench = Self {
            vmcs: Vmcs12::new(),
            caps,
            cpu,
            l1,
            pages,
            memory: Memory::default(),
        };
        bench.controls();
        bench.host();
        bench.guest();
        bench
    }

    fn controls(&mut self) {
        self.set(field::PIN_BASED_CONTROLS, word::PIN_MUST.into());
        self.set(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            word::PROC_MUST_TRUE.into(),
        );
        let exit = word::EXIT_MUST_TRUE | Exit::HOST_ADDRESS_SPACE_SIZE.bits();
        self.set(field::PRIMARY_VM_EXIT_CONTROLS, exit.into());
        let entry = word::ENTRY_MUST_TRUE | Entry::IA32E_MODE_GUEST.bits();
        self.set(field::VM_ENTRY_CONTROLS, entry.into());
        self.set(field::VMCS_LINK_POINTER, u64::MAX);
    }

    fn host(&mut self) {
        self.set(field::HOST_CR0, 0x8001_0033);
        self.set(field::HOST_CR3, 0x20_0000);
        self.set(field::HOST_CR4, 0x2020);
        self.set(field::HOST_CS_SELECTOR, 8);
        self.set(field::HOST_SS_SELECTOR, 0x10);
        self.set(field::HOST_DS_SELECTOR, 0x10);
        self.set(field::HOST_ES_SELECTOR, 0x10);
        self.set(field::HOST_FS_SELECTOR, 0x10);
        self.set(field::HOST_GS_SELECTOR, 0x10);
        self.set(field::HOST_TR_SELECTOR, 0x18);
        self.set(field::HOST_RIP, 0xffff_8000_0010_0000);
        self.set(field::HOST_RSP, 0xffff_8000_0020_0000);
    }

    fn guest(&mut self) {
        self.set(field::GUEST_CR0, 0x8001_0033);
        self.set(field::GUEST_CR3, self.pages.pdpt);
        self.set(field::GUEST_CR4, 0x2020);
        self.set(field::GUEST_DR7, 0x400);
        self.set(field::GUEST_RFLAGS, 2);
        self.set(field::GUEST_RIP, 0x1000);
        self.set(field::GUEST_RSP, 0x2000);
        self.set(field::GUEST_CS_SELECTOR, 8);
        for data in SegmentFields::DATA {
            self.set(data.selector, 0x10);
            self.set(data.limit, 0xffff_ffff);
            self.set(data.rights, DATA32);
        }
        self.set(field::GUEST_CS_LIMIT, 0xffff_ffff);
        self.set(field::GUEST_CS_ACCESS_RIGHTS, CODE64);
        self.set(field::GUEST_LDTR_ACCESS_RIGHTS, UNUSABLE);
        self.set(field::GUEST_TR_SELECTOR, 0x18);
        self.set(field::GUEST_TR_LIMIT, 0x67);
        self.set(field::GUEST_TR_ACCESS_RIGHTS, BUSY_TSS);
        self.set(field::GUEST_GDTR_LIMIT, 0xffff);
        self.set(field::GUEST_IDTR_LIMIT, 0xfff);
    }

    /// What the rules are evaluated on.
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx::new(&self.vmcs, &self.caps, &self.cpu, self.l1, &self.memory)
    }

    /// A field.
    pub fn get(&self, field: Field) -> u64 {
        self.vmcs.get(field)
    }

    /// Sets a field.
    pub fn set(&mut self, field: Field, value: u64) {
        self.vmcs.set(field, value);
    }

    /// Sets bits of a field.
    pub fn or(&mut self, field: Field, bits: u64) {
        self.set(field, self.get(field) | bits);
    }

    /// Clears bits of a field.
    pub fn clear(&mut self, field: Field, bits: u64) {
        self.set(field, self.get(field) & !bits);
    }

    /// Writes 4 bytes of memory.
    pub fn poke32(&mut self, address: u64, value: u32) {
        self.memory.write(address, value);
    }

    /// Writes 8 bytes of memory.
    pub fn poke64(&mut self, address: u64, value: u64) {
        self.memory.write(address, value as u32);
        self.memory.write(address + 4, (value >> 32) as u32);
    }

    /// Sets pin-based controls.
    pub fn pin(&mut self, bits: Pin) {
        self.or(field::PIN_BASED_CONTROLS, bits.bits().into());
    }

    /// Sets primary processor-based controls.
    pub fn proc(&mut self, bits: Proc) {
        self.or(field::PRIMARY_PROCESSOR_BASED_CONTROLS, bits.bits().into());
    }

    /// Activates the secondary controls and sets some.
    pub fn proc2(&mut self, bits: Proc2) {
        self.proc(Proc::ACTIVATE_SECONDARY_CONTROLS);
        self.or(
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            bits.bits().into(),
        );
    }

    /// Activates the tertiary controls and sets some.
    pub fn proc3(&mut self, bits: Proc3) {
        self.proc(Proc::ACTIVATE_TERTIARY_CONTROLS);
        self.or(field::TERTIARY_PROCESSOR_BASED_CONTROLS, bits.bits());
    }

    /// Sets VM-exit controls.
    pub fn exit(&mut self, bits: Exit) {
        self.or(field::PRIMARY_VM_EXIT_CONTROLS, bits.bits().into());
    }

    /// Activates the secondary VM-exit controls and sets some.
    pub fn exit2(&mut self, bits: u64) {
        self.exit(Exit::ACTIVATE_SECONDARY_CONTROLS);
        self.or(field::SECONDARY_VM_EXIT_CONTROLS, bits);
    }

    /// Sets VM-entry controls.
    pub fn entry(&mut self, bits: Entry) {
        self.or(field::VM_ENTRY_CONTROLS, bits.bits().into());
    }

    /// The lowest address bit beyond the physical-address width.
    pub fn beyond(&self) -> u64 {
        1 << self.cpu.physical_address_bits
    }

    /// The last page within the physical-address width.
    pub fn top_page(&self) -> u64 {
        self.cpu.physical_mask() & !0xfff
    }

    /// The lowest address that is not canonical.
    pub fn non_canonical(&self) -> u64 {
        1 << (self.cpu.linear_address_bits - 1)
    }

    /// The lowest canonical address of the upper half.
    pub fn upper_half(&self) -> u64 {
        u64::MAX << (self.cpu.linear_address_bits - 1)
    }

    /// Turns EPT on.
    pub fn ept(&mut self) {
        self.proc2(Proc2::ENABLE_EPT);
        self.set(field::EPT_POINTER, self.pages.eptp);
    }

    /// An unrestricted guest, on EPT.
    pub fn unrestricted(&mut self) {
        self.ept();
        self.proc2(Proc2::UNRESTRICTED_GUEST);
    }

    /// TPR shadow, with threshold 0.
    pub fn tpr_shadow(&mut self) {
        self.proc(Proc::USE_TPR_SHADOW);
        self.set(field::VIRTUAL_APIC_ADDRESS, self.pages.virtual_apic);
        self.set(field::TPR_THRESHOLD, 0);
    }

    /// Virtual-interrupt delivery.
    pub fn interrupt_delivery(&mut self) {
        self.tpr_shadow();
        self.pin(Pin::EXTERNAL_INTERRUPT_EXITING);
        self.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    }

    /// Posted interrupts.
    pub fn posted_interrupts(&mut self) {
        self.interrupt_delivery();
        self.pin(Pin::PROCESS_POSTED_INTERRUPTS);
        self.exit(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
        self.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xf2);
        self.set(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, self.pages.any);
    }

    /// EPTP switching.
    pub fn eptp_switching(&mut self) {
        self.ept();
        self.proc2(Proc2::ENABLE_VM_FUNCTIONS);
        self.set(field::VM_FUNCTION_CONTROLS, 1);
        self.set(field::EPTP_LIST_ADDRESS, self.pages.any);
    }

    /// IPI virtualisation, with a table of one page.
    pub fn ipi_virtualization(&mut self) {
        self.tpr_shadow();
        self.proc3(Proc3::IPI_VIRTUALIZATION);
        self.set(field::PID_POINTER_TABLE_ADDRESS, self.pages.any);
        self.set(field::LAST_PID_POINTER_INDEX, 511);
    }

    /// PT with guest-physical addresses.
    pub fn pt_guest_physical(&mut self) {
        self.ept();
        self.proc2(Proc2::PT_USES_GUEST_PHYSICAL_ADDRESSES);
        self.entry(Entry::LOAD_RTIT_CTL);
        self.exit(Exit::CLEAR_RTIT_CTL);
    }

    /// Makes L1 a 32-bit hypervisor, and the guest a 32-bit one.
    pub fn host32(&mut self) {
        self.l1.ia32e_mode = false;
        self.clear(
            field::PRIMARY_VM_EXIT_CONTROLS,
            Exit::HOST_ADDRESS_SPACE_SIZE.bits().into(),
        );
        self.set(field::HOST_RIP, 0x10_0000);
        self.protected32();
    }

    /// 32-bit code without PAE.
    pub fn protected32(&mut self) {
        self.clear(
            field::VM_ENTRY_CONTROLS,
            Entry::IA32E_MODE_GUEST.bits().into(),
        );
        self.clear(field::GUEST_CR4, 1 << 17 | 1 << 5);
        self.set(field::GUEST_CS_ACCESS_RIGHTS, CODE32);
        self.set(field::GUEST_RIP, 0x1000);
    }

    /// 32-bit code with PAE, the PDPTEs in memory.
    pub fn pae(&mut self) {
        self.protected32();
        self.or(field::GUEST_CR4, 1 << 5);
        self.set(field::GUEST_CR3, self.pages.pdpt);
        for n in 0..4 {
            self.poke64(self.pages.pdpt + n * 8, 0);
        }
    }

    /// Real mode, which takes an unrestricted guest.
    pub fn real(&mut self) {
        self.protected32();
        self.unrestricted();
        self.clear(field::GUEST_CR0, 1 << 31 | 1);
        self.set(field::GUEST_CS_ACCESS_RIGHTS, 0x9b);
        self.set(field::GUEST_CS_LIMIT, 0xffff);
        for data in SegmentFields::DATA {
            self.set(data.limit, 0xffff);
            self.set(data.rights, 0x93);
        }
    }

    /// Virtual-8086 mode.
    pub fn v8086(&mut self) {
        self.protected32();
        self.or(field::GUEST_RFLAGS, 1 << 17);
        for segment in SegmentFields::NAMED {
            self.set(segment.selector, 0x1003);
            self.set(segment.base, 0x1_0030);
            self.set(segment.limit, 0xffff);
            self.set(segment.rights, 0xf3);
        }
    }

    /// Compatibility mode.
    pub fn compatibility(&mut self) {
        self.set(field::GUEST_CS_ACCESS_RIGHTS, CODE32);
        self.set(field::GUEST_RIP, 0x1000);
    }

    /// CPL 3.
    pub fn user(&mut self) {
        self.or(field::GUEST_CS_SELECTOR, 3);
        self.or(field::GUEST_CS_ACCESS_RIGHTS, 0x60);
        for data in SegmentFields::DATA {
            self.or(data.selector, 3);
            self.or(data.rights, 0x60);
        }
    }

    /// A usable LDTR.
    pub fn ldtr(&mut self) {
        self.set(field::GUEST_LDTR_SELECTOR, 0x28);
        self.set(field::GUEST_LDTR_LIMIT, 0xfff);
        self.set(field::GUEST_LDTR_ACCESS_RIGHTS, 0x82);
    }

    /// Injects an event of a type and vector.
    pub fn inject(&mut self, kind: EventType, vector: u8) {
        let information = EventInfo::of(kind, vector).into_bits();
        self.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, information.into());
    }

    /// Lets it deliver an error code.
    pub fn error_code(&mut self, code: u32) {
        self.or(field::VM_ENTRY_INTERRUPTION_INFORMATION, 1 << 11);
        self.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code.into());
    }

    /// A valid VMCS link pointer.
    pub fn link(&mut self) {
        self.set(field::VMCS_LINK_POINTER, self.pages.link);
        self.poke32(self.pages.link, self.caps.revision());
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

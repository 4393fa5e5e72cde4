//! The registers an L1 starts with.

use umbra_arch::{Cr0, Rflags};

/// A segment register as VM entry loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes (already scaled by granularity).
    pub limit: u32,
    /// Access rights in the VMCS format (SDM, "Guest Register State").
    pub access_rights: u32,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The general registers that a boot protocol speaks of; R8-R15 start as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the SDM's names say it all
pub struct GeneralRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
}

/// Everything a boot protocol fixes about the CPU at L1's first instruction.
///
/// Control registers are as L1 sees them: what VMX needs besides (CR0.NE,
/// CR4.VMXE) is for the caller to add underneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the SDM's names say it all
pub struct StartState {
    pub gpr: GeneralRegisters,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
}

/// CR0.PE and CR0.ET: protection on, and the bit that is always 1.
const CR0_PROTECTED: u64 = Cr0::PE.union(Cr0::ET).bits();
/// CR0.ET alone.
const CR0_REAL: u64 = Cr0::ET.bits();
/// Bit 1 of RFLAGS always reads as 1.
const RFLAGS_FIXED: u64 = Rflags::FIXED.bits();
const RFLAGS_IF: u64 = Rflags::IF.bits();

/// Selector of the flat code segment, as the Linux 32-bit boot protocol wants
/// it and as GRUB uses it for multiboot.
pub(crate) const CODE_SELECTOR: u16 = 0x10;
/// Selector of the flat data segment.
pub(crate) const DATA_SELECTOR: u16 = 0x18;

/// The descriptor table behind those two selectors: null, unused, code, data;
/// both segments 0 to 4 GiB, 32-bit, already marked accessed.
pub(crate) const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Length of [`GDT`] in bytes.
pub(crate) const GDT_BYTES: u64 = 32;

/// What LDTR holds after reset (SDM, "IA-32 and Intel 64 Processor States
/// Following Power-up, Reset, or INIT").
const LDTR_RESET: Segment = Segment {
    selector: 0,
    base: 0,
    limit: 0xffff,
    access_rights: 0x82,
};
/// TR after reset, but of type "busy TSS": VM entry takes no other.
const TR_RESET: Segment = Segment {
    selector: 0,
    base: 0,
    limit: 0xffff,
    access_rights: 0x8b,
};

impl StartState {
    /// Protected mode with flat 4 GiB segments, paging off and interrupts off:
    /// what Linux's 32-bit protocol, multiboot and multiboot2 all ask for.
    ///
    /// `gdt` is the physical address of a copy of [`GDT`].
    pub(crate) fn protected(entry: u32, gdt: u64) -> Self {
        let data = Segment {
            selector: DATA_SELECTOR,
            base: 0,
            limit: 0xffff_ffff,
            access_rights: 0xc093,
        };
        Self {
            gpr: GeneralRegisters::default(),
            rip: u64::from(entry),
            rflags: RFLAGS_FIXED,
            cr0: CR0_PROTECTED,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cs: Segment {
                selector: CODE_SELECTOR,
                base: 0,
                limit: 0xffff_ffff,
                access_rights: 0xc09b,
            },
            ss: data,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ldtr: LDTR_RESET,
            tr: TR_RESET,
            gdtr: TableRegister {
                base: gdt,
                limit: (GDT_BYTES - 1) as u16,
            },
            // All three protocols forbid L1 to take an interrupt before it has
            // loaded a table of its own: an empty table makes an early fault
            // visible instead of a jump through the real-mode vectors.
            idtr: TableRegister::default(),
        }
    }

    /// Real mode at `ip` in segment 0, interrupts on and the BIOS vectors in
    /// place, as the BIOS enters a boot sector.
    pub(crate) fn real(ip: u16) -> Self {
        let data = Segment {
            selector: 0,
            base: 0,
            limit: 0xffff,
            access_rights: 0x93,
        };
        Self {
            gpr: GeneralRegisters::default(),
            rip: u64::from(ip),
            rflags: RFLAGS_FIXED | RFLAGS_IF,
            cr0: CR0_REAL,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cs: Segment {
                access_rights: 0x9b,
                ..data
            },
            ss: data,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ldtr: LDTR_RESET,
            tr: TR_RESET,
            gdtr: TableRegister {
                base: 0,
                limit: 0xffff,
            },
            idtr: TableRegister {
                base: 0,
                limit: 0x3ff,
            },
        }
    }
}

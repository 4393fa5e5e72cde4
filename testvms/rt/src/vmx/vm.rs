//! One virtual machine (L2) in a state that is known to be good, in any mode.
//!
//! L2 has 256 KiB of memory at guest-physical 0, with EPT through one entry a page, without EPT
//! through L2's own page tables. What lies where is in [`layout`].

use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::{Entry, Exit as ExitCtl, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field, SegmentFields};

use super::ept::{self, Ept};
use super::insn::{self, VmxError, read, write};
use super::stub::{self, Registers, Return};
use super::{Exit, Vmx};
use crate::page::Page;
use crate::trap::Fault;
use crate::{cpu, gdt, trap};

/// Guest-physical addresses, which are also L2's linear addresses.
#[allow(missing_docs)]
pub mod layout {
    pub const IVT: u64 = 0;
    pub const GDT: u64 = 0x1000;
    pub const IDT: u64 = 0x2000;
    pub const TABLES: u64 = 0x4000;
    pub const PAGE_TABLE: u64 = 0x7000;
    pub const CODE: u64 = 0x8000;
    pub const DATA: u64 = 0x9000;
    pub const STACK_TOP: u64 = 0xb000;
    /// One VMCALL every 16 bytes, one for each vector.
    pub const HANDLERS: u64 = 0x1_0000;
    pub const TSS: u64 = 0x2_0000;
    pub const BYTES: u64 = 0x4_0000;
}
use layout::{BYTES, CODE, GDT, HANDLERS, IDT, IVT, PAGE_TABLE, STACK_TOP, TABLES, TSS};

/// TSC ticks after which [`Vm::bound`] has the preemption timer stop L2.
pub const PATIENCE_TICKS: u64 = 20_000_000;

/// The mode that L2 starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 64-bit.
    Long,
    /// 32-bit in compatibility mode.
    Compat,
    /// 32-bit protected, 32-bit paging.
    Prot32,
    /// 32-bit protected, PAE paging.
    Pae,
    /// 32-bit protected without paging: needs unrestricted guest.
    Flat32,
    /// Real: needs unrestricted guest.
    Real,
    /// Virtual-8086, 32-bit paging below.
    V86,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 7] = [
        Self::Long,
        Self::Compat,
        Self::Prot32,
        Self::Pae,
        Self::Flat32,
        Self::Real,
        Self::V86,
    ];
    /// Their names.
    pub const NAMES: [&'static str; 7] = {
        let mut names = [""; 7];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].name();
            at += 1;
        }
        names
    };

    /// The word in transcripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Compat => "compat",
            Self::Prot32 => "prot32",
            Self::Pae => "pae",
            Self::Flat32 => "flat32",
            Self::Real => "real",
            Self::V86 => "v86",
        }
    }

    /// Whether EFER.LMA is set.
    pub fn is_ia32e(self) -> bool {
        matches!(self, Self::Long | Self::Compat)
    }

    /// Whether segments are 16-bit.
    pub fn is_16_bit(self) -> bool {
        matches!(self, Self::Real | Self::V86)
    }

    /// Whether only an unrestricted guest can be in this mode.
    pub fn needs_unrestricted(self) -> bool {
        matches!(self, Self::Flat32 | Self::Real)
    }
}

/// The words in transcripts for an L2 of a mode, with EPT or without.
pub struct Base(pub Mode, pub bool);

impl core::fmt::Display for Base {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ept = if self.1 { "ept" } else { "no-ept" };
        write!(f, "{} {ept}", self.0.name())
    }
}

/// A piece of L2 code in its three sizes, made by [`l2_code!`](crate::l2_code).
pub struct Code {
    /// For 64-bit mode.
    pub bits64: &'static [u8],
    /// For 32-bit code segments.
    pub bits32: &'static [u8],
    /// For 16-bit code segments.
    pub bits16: &'static [u8],
}

impl Code {
    /// Takes the three pieces apart: six offsets, then the code.
    ///
    /// # Safety
    /// `table` must be made by [`l2_code!`](crate::l2_code).
    pub unsafe fn from_table(table: *const u8) -> Self {
        let piece = |n: usize| {
            // SAFETY: the macro puts six 32-bit offsets there, each within the same section.
            unsafe {
                let offsets = table.cast::<u32>();
                let start = offsets.add(2 * n).read_unaligned() as usize;
                let end = offsets.add(2 * n + 1).read_unaligned() as usize;
                core::slice::from_raw_parts(table.add(start), end - start)
            }
        };
        Self {
            bits64: piece(0),
            bits32: piece(1),
            bits16: piece(2),
        }
    }

    /// The piece for a mode.
    pub fn bytes(&self, mode: Mode) -> &'static [u8] {
        match mode {
            Mode::Long => self.bits64,
            Mode::Compat | Mode::Prot32 | Mode::Pae | Mode::Flat32 => self.bits32,
            Mode::Real | Mode::V86 => self.bits16,
        }
    }
}

/// Defines functions that return L2 code, assembled three times: for 64, 32 and 16 bits.
///
/// `l2_code! { fn name = "instruction", "instruction"; }`. Instructions that a size lacks go into
/// the long form: `fn name { 64 = "..."; 32 = "..."; 16 = "..."; }`. The names are symbols, so each is used
/// once in a program.
#[macro_export]
macro_rules! l2_code {
    () => {};
    ($(#[$m:meta])* fn $name:ident = $($line:literal),+; $($rest:tt)*) => {
        $crate::l2_code! { $(#[$m])* fn $name { 64 = $($line),+; 32 = $($line),+; 16 = $($line),+; } $($rest)* }
    };
    ($(#[$m:meta])* fn $name:ident { 64 = $($l64:literal),+; 32 = $($l32:literal),+; 16 = $($l16:literal),+; } $($rest:tt)*) => {
        core::arch::global_asm!(
            ".section .rodata.l2, \"a\"",
            ".balign 4",
            concat!("l2_", stringify!($name), ":"),
            concat!(".long 811f - l2_", stringify!($name), ", 812f - l2_", stringify!($name)),
            concat!(".long 821f - l2_", stringify!($name), ", 822f - l2_", stringify!($name)),
            concat!(".long 831f - l2_", stringify!($name), ", 832f - l2_", stringify!($name)),
            ".code64", "811:", $($l64,)+ "812:",
            ".code32", "821:", $($l32,)+ "822:",
            ".code16", "831:", $($l16,)+ "832:",
            ".code64", ".text",
        );
        $(#[$m])*
        fn $name() -> $crate::vmx::vm::Code {
            let table: *const u8;
            // SAFETY: takes an address.
            unsafe {
                core::arch::asm!(concat!("lea {}, [rip + l2_", stringify!($name), "]"), out(reg) table,
                    options(nomem, nostack, preserves_flags));
            }
            // SAFETY: the table above.
            unsafe { $crate::vmx::vm::Code::from_table(table) }
        }
        $crate::l2_code! { $($rest)* }
    };
}

/// What came of an attempt to run L2.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// A VM exit, or a failed entry that loaded the host state.
    Exit(Exit),
    /// VMfail.
    Failed(VmxError),
    /// L1 met an exception after the exit, at its host RIP.
    HostFault(Fault),
}

impl Outcome {
    /// The exit, unless there was none or the entry failed.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Exit(exit) if !exit.is_entry_failure() => Some(*exit),
            _ => None,
        }
    }
}

impl core::fmt::Display for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exit(exit) => exit.fmt(f),
            Self::Failed(error) => error.fmt(f),
            Self::HostFault(fault) => write!(f, "host {fault}"),
        }
    }
}

/// The virtual machine.
pub struct Vm {
    caps: VmxCaps,
    /// The VMCS region.
    pub vmcs: Page,
    /// L2's memory.
    pub memory: Page,
    /// EPT: all of L2's memory and nothing else.
    pub ept: Option<Ept>,
    /// MSR bitmap, all zero after a reset.
    pub msr_bitmap: Page,
    /// I/O bitmaps A and B, all zero after a reset.
    pub io_bitmaps: Page,
    /// L2's general registers.
    pub registers: Registers,
    mode: Mode,
    uses_ept: bool,
    is_launched: bool,
    /// Leave HOST_RIP as the VMCS has it.
    pub keeps_host_rip: bool,
}

impl Vm {
    /// Takes memory for a virtual machine. [`Vm::reset`] makes it usable.
    pub fn new(vmx: &Vmx) -> Self {
        let memory = Page::alloc((BYTES / 4096) as usize);
        let ept = vmx.has_ept().then(|| {
            let ept = Ept::new();
            for page in 0..BYTES / 4096 {
                ept.map(page * 4096, memory.address() + page * 4096, ept::ALL);
            }
            ept
        });
        Self {
            caps: vmx.caps,
            vmcs: vmx.new_vmcs(),
            memory,
            ept,
            msr_bitmap: Page::alloc(1),
            io_bitmaps: Page::alloc(2),
            registers: Registers::default(),
            mode: Mode::Long,
            uses_ept: false,
            is_launched: false,
            keeps_host_rip: false,
        }
    }

    /// The mode of the last reset.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether EPT is on since the last reset.
    pub fn uses_ept(&self) -> bool {
        self.uses_ept
    }

    /// The EPT hierarchy. Only for tests that run with EPT.
    pub fn ept(&self) -> &Ept {
        self.ept.as_ref().expect("the test needs EPT")
    }

    /// Where L2's page tables say that its memory lies.
    fn base(&self) -> u64 {
        if self.uses_ept {
            0
        } else {
            self.memory.address()
        }
    }

    /// Whether L2 can be in a mode on this CPU.
    pub fn can(&self, mode: Mode, with_ept: bool) -> bool {
        let secondary = self.caps.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS);
        if with_ept && !(secondary && self.caps.offers_proc2(Proc2::ENABLE_EPT)) {
            return false;
        }
        !mode.needs_unrestricted() || with_ept && self.caps.offers_proc2(Proc2::UNRESTRICTED_GUEST)
    }

    /// Makes memory, EPT and VMCS anew: L2 stands before [`CODE`](layout::CODE) in `mode`.
    pub fn reset(&mut self, mode: Mode, with_ept: bool) {
        self.mode = mode;
        self.uses_ept = with_ept;
        self.registers = Registers::default();
        self.keeps_host_rip = false;
        self.memory.fill(0);
        self.msr_bitmap.fill(0);
        self.io_bitmaps.fill(0);
        if let Some(ept) = &self.ept {
            for page in 0..BYTES / 4096 {
                ept.map(page * 4096, self.memory.address() + page * 4096, ept::ALL);
            }
        }
        self.fill_tables();
        self.fill_descriptors();
        self.reset_vmcs();
    }

    /// Makes the VMCS anew, and leaves memory as it is.
    pub fn reset_vmcs(&mut self) {
        let pointer = self.vmcs.address();
        insn::vmclear(&pointer).expect("VMCLEAR of a good VMCS");
        insn::vmptrld(&pointer).expect("VMPTRLD of a good VMCS");
        self.is_launched = false;
        self.write_controls();
        self.write_host();
        self.write_guest();
        if self.uses_ept && self.caps.ept_vpid & 1 << 20 != 0 {
            insn::invept(1, [self.ept().pointer(), 0]).expect("INVEPT of a good pointer");
        }
    }

    /// Makes the VMCS clear again, so that the next entry is a VMLAUNCH.
    pub fn clear(&mut self) {
        let pointer = self.vmcs.address();
        insn::vmclear(&pointer).expect("VMCLEAR of a good VMCS");
        insn::vmptrld(&pointer).expect("VMPTRLD of a good VMCS");
        self.is_launched = false;
    }

    /// Copies code to L2 and points RIP at it.
    pub fn load(&mut self, code: &Code) {
        let bytes = code.bytes(self.mode);
        self.memory.write_bytes(CODE, bytes);
        self.jump(0);
    }

    /// Points RIP `offset` bytes into the code page.
    pub fn jump(&mut self, offset: u64) {
        let start = if self.mode.is_16_bit() { 0 } else { CODE };
        write(field::GUEST_RIP, start + offset);
    }

    /// L2's tables or EPT changed: the CPU is told to forget all that it has cached of them.
    pub fn forget_translations(&self) {
        if self.caps.offers_proc2(Proc2::ENABLE_VPID) {
            insn::invvpid(2, [0, 0]).expect("INVVPID of all contexts");
        }
        if self.caps.offers_proc2(Proc2::ENABLE_EPT) {
            insn::invept(2, [0, 0]).expect("INVEPT of all contexts");
        }
    }

    /// Sets and clears bits of the pin-based controls; `false` when the CPU does not let them.
    pub fn pin(&self, set: Pin, clear: Pin) -> bool {
        change(
            field::PIN_BASED_CONTROLS,
            self.caps.pin(),
            set.bits(),
            clear.bits(),
        )
    }

    /// Sets and clears bits of the primary processor-based controls.
    pub fn proc(&self, set: Proc, clear: Proc) -> bool {
        change(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            self.caps.proc(),
            set.bits(),
            clear.bits(),
        )
    }

    /// Sets and clears bits of the secondary controls, and activates them.
    pub fn proc2(&self, set: Proc2, clear: Proc2) -> bool {
        if !self.caps.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            return set.is_empty();
        }
        let field = field::SECONDARY_PROCESSOR_BASED_CONTROLS;
        if !self.proc_has(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            write(field, 0);
            self.proc(Proc::ACTIVATE_SECONDARY_CONTROLS, Proc::empty());
        }
        change(field, self.caps.proc2, set.bits(), clear.bits())
    }

    /// Sets and clears bits of the VM-exit controls.
    pub fn exit_controls(&self, set: ExitCtl, clear: ExitCtl) -> bool {
        change(
            field::PRIMARY_VM_EXIT_CONTROLS,
            self.caps.exit(),
            set.bits(),
            clear.bits(),
        )
    }

    /// Sets and clears bits of the VM-entry controls.
    pub fn entry_controls(&self, set: Entry, clear: Entry) -> bool {
        change(
            field::VM_ENTRY_CONTROLS,
            self.caps.entry(),
            set.bits(),
            clear.bits(),
        )
    }

    fn proc_has(&self, bits: Proc) -> bool {
        read(field::PRIMARY_PROCESSOR_BASED_CONTROLS) as u32 & bits.bits() == bits.bits()
    }

    /// Gives L2 this many ticks of the TSC anew, as far as the preemption timer runs.
    pub fn wind_timer(&self, tsc_ticks: u64) {
        let encoding = field::VMX_PREEMPTION_TIMER_VALUE.encoding();
        // A CPU may lack the timer.
        let _ = insn::vmwrite_raw(encoding.into(), tsc_ticks >> (self.caps.misc & 31));
    }

    /// Lets no L2 run away: the preemption timer stops it after [`PATIENCE_TICKS`], and every
    /// exception exits.
    pub fn bound(&self) {
        self.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty());
        self.wind_timer(PATIENCE_TICKS);
        write(field::EXCEPTION_BITMAP, 0xffff_ffff);
    }

    /// Enters L2 and waits for the exit.
    pub fn run(&mut self) -> Outcome {
        match stub::enter(&mut self.registers, !self.is_launched, self.keeps_host_rip) {
            Return::Exited => {
                let exit = Exit::read(self.caps.offers_proc2(Proc2::ENABLE_EPT));
                if !exit.is_entry_failure() {
                    self.is_launched = true;
                }
                Outcome::Exit(exit)
            }
            Return::Failed { carry, zero } => match insn::outcome(carry.into(), zero.into()) {
                Ok(()) => panic!("VM entry fell through without a failure"),
                Err(error) => Outcome::Failed(error),
            },
            Return::Fault(fault) => Outcome::HostFault(fault),
        }
    }

    /// Advances RIP by the exit's instruction length.
    pub fn skip(&self, exit: &Exit) {
        write(
            field::GUEST_RIP,
            exit.rip.wrapping_add(u64::from(exit.length)),
        );
    }

    fn write_controls(&self) {
        let caps = &self.caps;
        write(field::PIN_BASED_CONTROLS, caps.pin().adjust(0).into());
        let proc = Proc::USE_MSR_BITMAPS | Proc::USE_IO_BITMAPS;
        write(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            caps.proc().adjust(proc.bits()).into(),
        );
        write(field::IO_BITMAP_A, self.io_bitmaps.address());
        write(field::IO_BITMAP_B, self.io_bitmaps.address() + 4096);
        if caps.offers_proc(Proc::USE_MSR_BITMAPS) {
            write(field::MSR_BITMAP, self.msr_bitmap.address());
        }
        let exit = ExitCtl::HOST_ADDRESS_SPACE_SIZE
            | ExitCtl::SAVE_EFER
            | ExitCtl::LOAD_EFER
            | ExitCtl::SAVE_DEBUG_CONTROLS;
        write(
            field::PRIMARY_VM_EXIT_CONTROLS,
            caps.exit().adjust(exit.bits()).into(),
        );
        let mut entry = Entry::LOAD_EFER | Entry::LOAD_DEBUG_CONTROLS;
        if self.mode.is_ia32e() {
            entry |= Entry::IA32E_MODE_GUEST;
        }
        write(
            field::VM_ENTRY_CONTROLS,
            caps.entry().adjust(entry.bits()).into(),
        );
        for zero in [
            field::EXCEPTION_BITMAP,
            field::PAGE_FAULT_ERROR_CODE_MASK,
            field::PAGE_FAULT_ERROR_CODE_MATCH,
            field::CR3_TARGET_COUNT,
            field::VM_EXIT_MSR_STORE_COUNT,
            field::VM_EXIT_MSR_LOAD_COUNT,
            field::VM_ENTRY_MSR_LOAD_COUNT,
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            field::VM_ENTRY_EXCEPTION_ERROR_CODE,
            field::VM_ENTRY_INSTRUCTION_LENGTH,
            field::TSC_OFFSET,
            field::CR0_GUEST_HOST_MASK,
            field::CR4_GUEST_HOST_MASK,
            field::CR0_READ_SHADOW,
            field::CR4_READ_SHADOW,
        ] {
            write(zero, 0);
        }
        if self.uses_ept {
            self.proc2(Proc2::ENABLE_EPT, Proc2::empty());
            write(field::EPT_POINTER, self.ept().pointer());
            if self.mode.needs_unrestricted() {
                self.proc2(Proc2::UNRESTRICTED_GUEST, Proc2::empty());
            }
        }
    }

    fn write_host(&self) {
        let data = u64::from(gdt::DATA);
        for (field, value) in [
            (field::HOST_CR0, cpu::cr0()),
            (field::HOST_CR3, cpu::cr3()),
            (field::HOST_CR4, cpu::cr4()),
            (field::HOST_CS_SELECTOR, gdt::CODE64.into()),
            (field::HOST_SS_SELECTOR, data),
            (field::HOST_DS_SELECTOR, data),
            (field::HOST_ES_SELECTOR, data),
            (field::HOST_FS_SELECTOR, 0),
            (field::HOST_GS_SELECTOR, 0),
            (field::HOST_TR_SELECTOR, gdt::TSS.into()),
            (field::HOST_FS_BASE, 0),
            (field::HOST_GS_BASE, 0),
            (field::HOST_TR_BASE, gdt::tss_base()),
            (field::HOST_GDTR_BASE, gdt::base()),
            (field::HOST_IDTR_BASE, trap::base()),
            (field::HOST_IA32_SYSENTER_CS, 0),
            (field::HOST_IA32_SYSENTER_ESP, 0),
            (field::HOST_IA32_SYSENTER_EIP, 0),
        ] {
            write(field, value);
        }
        if self.caps.offers_exit(ExitCtl::LOAD_EFER) {
            write(field::HOST_IA32_EFER, cpu::rdmsr(0xc000_0080));
        }
    }

    fn write_guest(&self) {
        let mode = self.mode;
        let fixed = self.caps.cr0_fixed0 & self.caps.cr0_fixed1;
        let cr0 = match mode {
            Mode::Real => fixed & !0x8000_0001 | 0x10,
            Mode::Flat32 => fixed & !0x8000_0000 | 0x11,
            _ => fixed | 0x8000_0011,
        };
        let cr4 = self.caps.cr4_fixed0
            | match mode {
                Mode::Long | Mode::Compat | Mode::Pae => 1 << 5,
                _ => 0,
            };
        let efer = if mode.is_ia32e() { 0x500 } else { 0 };
        let rflags = if mode == Mode::V86 { 0x2_3002 } else { 2 };
        let tr_rights = 0x8b;
        for (field, value) in [
            (field::GUEST_CR0, cr0),
            (field::GUEST_CR3, self.base() + TABLES),
            (field::GUEST_CR4, cr4),
            (field::GUEST_DR7, 0x400),
            (field::GUEST_RSP, STACK_TOP),
            (field::GUEST_RIP, if mode.is_16_bit() { 0 } else { CODE }),
            (field::GUEST_RFLAGS, rflags),
            (field::GUEST_GDTR_BASE, GDT),
            (field::GUEST_GDTR_LIMIT, 0xff),
            (
                field::GUEST_IDTR_BASE,
                if mode == Mode::Real { IVT } else { IDT },
            ),
            (
                field::GUEST_IDTR_LIMIT,
                if mode == Mode::Real { 0x3ff } else { 0xfff },
            ),
            (field::GUEST_LDTR_SELECTOR, 0),
            (field::GUEST_LDTR_BASE, 0),
            (field::GUEST_LDTR_LIMIT, 0),
            (field::GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000),
            (field::GUEST_TR_SELECTOR, 0x18),
            (field::GUEST_TR_BASE, TSS),
            (field::GUEST_TR_LIMIT, 0x2068),
            (field::GUEST_TR_ACCESS_RIGHTS, tr_rights),
            (field::GUEST_INTERRUPTIBILITY_STATE, 0),
            (field::GUEST_ACTIVITY_STATE, 0),
            (field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0),
            (field::GUEST_IA32_DEBUGCTL, 0),
            (field::GUEST_IA32_SYSENTER_CS, 0),
            (field::GUEST_IA32_SYSENTER_ESP, 0),
            (field::GUEST_IA32_SYSENTER_EIP, 0),
            (field::VMCS_LINK_POINTER, u64::MAX),
        ] {
            write(field, value);
        }
        if self.caps.offers_entry(Entry::LOAD_EFER) {
            write(field::GUEST_IA32_EFER, efer);
        }
        self.write_guest_segments();
        if mode == Mode::Pae && self.uses_ept {
            write(field::GUEST_PDPTE0, (self.base() + TABLES + 0x2000) | 1);
            for field in [
                field::GUEST_PDPTE1,
                field::GUEST_PDPTE2,
                field::GUEST_PDPTE3,
            ] {
                write(field, 0);
            }
        }
    }

    fn write_guest_segments(&self) {
        let (code, data) = match self.mode {
            Mode::Long => (0xa09b, 0xc093),
            Mode::Compat | Mode::Prot32 | Mode::Pae | Mode::Flat32 => (0xc09b, 0xc093),
            Mode::Real => (0x9b, 0x93),
            Mode::V86 => (0xf3, 0xf3),
        };
        let limit = if self.mode.is_16_bit() {
            0xffff
        } else {
            0xffff_ffff
        };
        let (cs, cs_base, other) = if self.mode.is_16_bit() {
            (CODE >> 4, CODE, 0)
        } else {
            (if self.mode == Mode::Compat { 0x28 } else { 8 }, 0, 0x10)
        };
        for (n, segment) in SEGMENTS[..6].iter().enumerate() {
            let is_cs = n == 0;
            let (selector, base) = if is_cs { (cs, cs_base) } else { (other, 0) };
            write(segment.selector, selector);
            write(segment.base, base);
            write(segment.limit, limit);
            write(segment.rights, if is_cs { code } else { data });
        }
    }

    /// Paging structures: the first 256 KiB one to one, and with EPT the first 2 MiB.
    fn fill_tables(&self) {
        let base = self.base();
        let memory = &self.memory;
        let pages = if self.uses_ept { 512 } else { BYTES / 4096 };
        match self.mode {
            Mode::Long | Mode::Compat => {
                memory.write(TABLES, (base + TABLES + 0x1000) | 7);
                memory.write(TABLES + 0x1000, (base + TABLES + 0x2000) | 7);
                memory.write(TABLES + 0x2000, (base + PAGE_TABLE) | 7);
            }
            Mode::Pae => {
                memory.write(TABLES, (base + TABLES + 0x2000) | 1);
                memory.write(TABLES + 0x2000, (base + PAGE_TABLE) | 7);
            }
            Mode::Prot32 | Mode::V86 => {
                memory.write(TABLES, (base + PAGE_TABLE) as u32 | 7);
            }
            Mode::Flat32 | Mode::Real => return,
        }
        for page in 0..pages {
            let entry = (base + page * 4096) | 7;
            if matches!(self.mode, Mode::Prot32 | Mode::V86) {
                memory.write(PAGE_TABLE + page * 4, entry as u32);
            } else {
                memory.write(PAGE_TABLE + page * 8, entry);
            }
        }
    }

    /// L2's GDT, IDT or interrupt vectors, TSS, and the handlers.
    fn fill_descriptors(&self) {
        let memory = &self.memory;
        let code = if self.mode == Mode::Long || self.mode == Mode::Compat {
            0x00af_9b00_0000_ffff
        } else {
            0x00cf_9b00_0000_ffff
        };
        let tss = 0x2068 | (TSS & 0xff_ffff) << 16 | 0x8b << 40 | (TSS >> 24) << 56;
        let gdt: [u64; 7] = [
            0,
            code,
            0x00cf_9300_0000_ffff,
            tss,
            0,
            0x00cf_9b00_0000_ffff,
            0x00cf_f300_0000_ffff,
        ];
        for (slot, descriptor) in gdt.into_iter().enumerate() {
            memory.write(GDT + 8 * slot as u64, descriptor);
        }
        for vector in 0..256u64 {
            let handler = HANDLERS + vector * 16;
            memory.write_bytes(handler, &[0x0f, 0x01, 0xc1, 0xf4]);
            match self.mode {
                Mode::Real => {
                    let segment = (HANDLERS >> 4) as u32;
                    memory.write(IVT + vector * 4, (segment << 16) | (vector as u32 * 16));
                }
                Mode::Long | Mode::Compat => {
                    memory.write(IDT + vector * 16, gate(handler));
                    memory.write(IDT + vector * 16 + 8, 0u64);
                }
                _ => memory.write(IDT + vector * 8, gate(handler)),
            }
        }
        if self.mode.is_ia32e() {
            memory.write(TSS + 4, STACK_TOP);
        } else {
            memory.write(TSS + 4, STACK_TOP as u32);
            memory.write(TSS + 8, 0x10u32);
        }
        // The I/O permission map is all zeroes, with the byte of ones behind it.
        memory.write(TSS + 102, 0x68u16);
        memory.write(TSS + 0x2068, 0xffu8);
    }
}

/// The low half of an interrupt gate of DPL 3 to code segment 8. The same bits serve 32 and 64 bits.
fn gate(handler: u64) -> u64 {
    handler & 0xffff | 8 << 16 | 0xee << 40 | (handler >> 16 & 0xffff) << 48
}

/// The fields of one segment register.
pub struct Segment {
    /// Its name in transcripts.
    pub name: &'static str,
    /// The selector.
    pub selector: Field,
    /// The base address.
    pub base: Field,
    /// The limit.
    pub limit: Field,
    /// The access rights.
    pub rights: Field,
}

impl Segment {
    const fn of(name: &'static str, fields: SegmentFields) -> Self {
        Self {
            name,
            selector: fields.selector,
            base: fields.base,
            limit: fields.limit,
            rights: fields.rights,
        }
    }
}

/// Every segment register; LDTR and TR are the last two.
pub const SEGMENTS: [Segment; 8] = [
    Segment::of("cs", SegmentFields::CS),
    Segment::of("ss", SegmentFields::SS),
    Segment::of("ds", SegmentFields::DS),
    Segment::of("es", SegmentFields::ES),
    Segment::of("fs", SegmentFields::FS),
    Segment::of("gs", SegmentFields::GS),
    Segment::of("ldtr", SegmentFields::LDTR),
    Segment::of("tr", SegmentFields::TR),
];

/// Sets and clears bits of a control field within what the CPU allows.
fn change(field: Field, allowed: umbra_vmcs::caps::Allowed, set: u32, clear: u32) -> bool {
    let wanted = (read(field) as u32 | set) & !clear;
    let value = allowed.adjust(wanted);
    write(field, value.into());
    value & set == set && value & clear == 0
}

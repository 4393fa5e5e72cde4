//! Several changes at once, drawn from a fixed seed: what the rules say alone has to hold together,
//! and what an entry loads has to work with everything else that it loads.
//!
//! Each line names the fields and their values, so that one case can be run again by hand. Most
//! changes are legal ones, so that about half of the cases enter L2.
//!
//! SDM "VM Entries", the whole chapter.

use core::fmt;

use rt::random::Random;
use rt::vmx::vm::{Mode, SEGMENTS};
use umbra_vmcs::caps::Allowed;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field};

use crate::host::EDGES;
use crate::lab::Lab;

const BASES: [(Mode, bool); 11] = [
    (Mode::Long, true),
    (Mode::Long, false),
    (Mode::Compat, true),
    (Mode::Prot32, true),
    (Mode::Prot32, false),
    (Mode::Pae, true),
    (Mode::Pae, false),
    (Mode::Flat32, true),
    (Mode::Real, true),
    (Mode::V86, true),
    (Mode::V86, false),
];
/// Cases on each base.
const CASES: u32 = 300;
/// Cases after which L2's memory is made anew, so that what one did to it does not stay.
const REFRESH: u32 = 50;
/// Preemption-timer value for an L2 that executes nothing: it need not wait long.
const NAP: u64 = 1000;
const IF: u64 = 1 << 9;
const VALID: u64 = 1 << 31;
const ERROR: u64 = 1 << 11;

/// How a table entry changes its field.
#[derive(Clone, Copy)]
enum How {
    Set(u64),
    Flip(u64),
}
use How::{Flip, Set};

/// L2's registers. No bit of a physical address within the machine's memory is among them.
const REGISTERS: [(Field, How); 62] = [
    (field::GUEST_CR0, Flip(1)),
    (field::GUEST_CR0, Flip(1 << 5)),
    (field::GUEST_CR0, Flip(1 << 6)),
    (field::GUEST_CR0, Flip(1 << 16)),
    (field::GUEST_CR0, Flip(1 << 18)),
    (field::GUEST_CR0, Flip(1 << 29)),
    (field::GUEST_CR0, Flip(3 << 29)),
    (field::GUEST_CR0, Flip(1 << 30)),
    (field::GUEST_CR0, Flip(1 << 31)),
    (field::GUEST_CR4, Flip(1)),
    (field::GUEST_CR4, Flip(1 << 1)),
    (field::GUEST_CR4, Flip(1 << 4)),
    (field::GUEST_CR4, Flip(1 << 5)),
    (field::GUEST_CR4, Flip(1 << 7)),
    (field::GUEST_CR4, Flip(1 << 9)),
    (field::GUEST_CR4, Flip(1 << 13)),
    (field::GUEST_CR4, Flip(1 << 16)),
    (field::GUEST_CR4, Flip(1 << 17)),
    (field::GUEST_CR4, Flip(1 << 18)),
    (field::GUEST_CR4, Flip(1 << 20)),
    (field::GUEST_CR4, Flip(1 << 21)),
    (field::GUEST_CR3, Flip(1 << 3)),
    (field::GUEST_CR3, Flip(1 << 4)),
    (field::GUEST_CR3, Flip(1 << 63)),
    (field::GUEST_IA32_EFER, Flip(1)),
    (field::GUEST_IA32_EFER, Flip(1 << 1)),
    (field::GUEST_IA32_EFER, Flip(1 << 8)),
    (field::GUEST_IA32_EFER, Flip(1 << 10)),
    (field::GUEST_IA32_EFER, Flip(1 << 11)),
    (field::GUEST_IA32_EFER, Flip(5 << 8)),
    (field::GUEST_RFLAGS, Flip(IF)),
    (field::GUEST_RFLAGS, Flip(IF)),
    (field::GUEST_RFLAGS, Flip(1 << 8)),
    (field::GUEST_RFLAGS, Flip(1 << 14)),
    (field::GUEST_RFLAGS, Flip(1 << 16)),
    (field::GUEST_RFLAGS, Flip(1 << 17)),
    (field::GUEST_RFLAGS, Flip(1 << 18)),
    (field::GUEST_RFLAGS, Flip(3 << 12)),
    (field::GUEST_RFLAGS, Flip(2)),
    (field::GUEST_DR7, Set(0xffff_27ff)),
    (field::GUEST_DR7, Set(1 << 32)),
    (field::GUEST_IA32_DEBUGCTL, Set(1)),
    (field::GUEST_IA32_DEBUGCTL, Set(2)),
    (field::GUEST_IA32_PAT, Set(0x0007_0406_0007_0406)),
    (field::GUEST_IA32_PAT, Flip(2)),
    (field::GUEST_GDTR_LIMIT, Set(0)),
    (field::GUEST_GDTR_LIMIT, Set(0x1_0000)),
    (field::GUEST_IDTR_LIMIT, Set(0)),
    (field::GUEST_IDTR_LIMIT, Set(0xffff)),
    (field::GUEST_TR_LIMIT, Set(0)),
    (field::GUEST_TR_LIMIT, Set(0x67)),
    (field::GUEST_IA32_SYSENTER_CS, Set(0xffff_ffff)),
    (field::GUEST_PDPTE0, Flip(1)),
    (field::GUEST_PDPTE0, Flip(2)),
    (field::GUEST_PDPTE3, Set(1 << 62 | 1)),
    (field::CR0_GUEST_HOST_MASK, Set(u64::MAX)),
    (field::CR0_READ_SHADOW, Set(u64::MAX)),
    (field::CR4_GUEST_HOST_MASK, Set(u64::MAX)),
    (field::CR4_READ_SHADOW, Set(u64::MAX)),
    (field::VMCS_LINK_POINTER, Set(0)),
    (field::VMCS_LINK_POINTER, Flip(1)),
    (field::GUEST_IA32_BNDCFGS, Set(4)),
];

/// Fields that hold a linear address, for the edges of what is canonical.
const LINEAR: [Field; 12] = [
    field::GUEST_RIP,
    field::GUEST_RSP,
    field::GUEST_RSP,
    field::GUEST_GDTR_BASE,
    field::GUEST_IDTR_BASE,
    field::GUEST_TR_BASE,
    field::GUEST_IA32_SYSENTER_ESP,
    field::GUEST_IA32_SYSENTER_EIP,
    field::HOST_FS_BASE,
    field::HOST_GS_BASE,
    field::HOST_IA32_SYSENTER_ESP,
    field::HOST_IA32_SYSENTER_EIP,
];

/// L1's state. What is accepted here L1 survives together with everything else.
const HOST: [(Field, How); 20] = [
    (field::HOST_CR0, Flip(1 << 5)),
    (field::HOST_CR0, Flip(1 << 31)),
    (field::HOST_CR0, Flip(1 << 63)),
    (field::HOST_CR3, Flip(1 << 63)),
    (field::HOST_CR4, Flip(1 << 5)),
    (field::HOST_CR4, Flip(1 << 13)),
    (field::HOST_CR4, Flip(1 << 17)),
    (field::HOST_CR4, Flip(1 << 31)),
    (field::HOST_IA32_EFER, Flip(1 << 8)),
    (field::HOST_IA32_EFER, Flip(1 << 10)),
    (field::HOST_IA32_EFER, Flip(5 << 8)),
    (field::HOST_IA32_EFER, Flip(1 << 1)),
    (field::HOST_IA32_PAT, Flip(2)),
    (field::HOST_ES_SELECTOR, Set(0)),
    (field::HOST_DS_SELECTOR, Set(3)),
    (field::HOST_FS_SELECTOR, Set(4)),
    (field::HOST_SS_SELECTOR, Set(0)),
    (field::HOST_TR_SELECTOR, Set(0)),
    (field::HOST_IDTR_BASE, Set(1 << 63)),
    (field::HOST_IA32_SYSENTER_CS, Set(0x10)),
];

/// Controls that take a number, and the exception bitmap.
const NUMBERS: [(Field, How); 27] = [
    (field::EXCEPTION_BITMAP, Set(0)),
    (field::EXCEPTION_BITMAP, Set(0)),
    (field::EXCEPTION_BITMAP, Flip(1 << 14)),
    (field::EXCEPTION_BITMAP, Flip(1 << 8)),
    (field::EXCEPTION_BITMAP, Flip(1 << 13)),
    (field::PAGE_FAULT_ERROR_CODE_MASK, Set(1)),
    (field::PAGE_FAULT_ERROR_CODE_MASK, Set(0x10)),
    (field::PAGE_FAULT_ERROR_CODE_MATCH, Set(0x10)),
    (field::PAGE_FAULT_ERROR_CODE_MATCH, Set(1)),
    (field::CR3_TARGET_COUNT, Set(4)),
    (field::CR3_TARGET_COUNT, Set(5)),
    (field::TSC_OFFSET, Set(u64::MAX)),
    (field::TSC_OFFSET, Set(1 << 63)),
    (field::TSC_MULTIPLIER, Set(1)),
    (field::TSC_MULTIPLIER, Set(u64::MAX)),
    (field::VIRTUAL_PROCESSOR_ID, Set(0)),
    (field::VIRTUAL_PROCESSOR_ID, Set(0xffff)),
    (field::VMX_PREEMPTION_TIMER_VALUE, Set(0)),
    (field::VMX_PREEMPTION_TIMER_VALUE, Set(0)),
    (field::VM_FUNCTION_CONTROLS, Set(1)),
    (field::VM_FUNCTION_CONTROLS, Set(2)),
    (field::EPT_POINTER, Flip(1 << 6)),
    (field::EPT_POINTER, Flip(1 << 7)),
    (field::EPT_POINTER, Flip(1)),
    (field::EPT_POINTER, Flip(1 << 3)),
    (field::EPTP_LIST_ADDRESS, Flip(1 << 5)),
    (field::EXECUTIVE_VMCS_POINTER, Set(u64::MAX)),
];

/// Entries of the VM-entry MSR-load list: good ones, and ones that fail the entry.
const LOADED: [(u32, u64); 6] = [
    (0x174, 8),
    (0x175, 0x1000),
    (0x176, 1 << 63),
    (0x277, 2),
    (0xc000_0100, 0),
    (0xc000_0080, 1 << 1),
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (n, (mode, with_ept)) in BASES.into_iter().enumerate() {
        if !lab.begin("mix", mode, with_ept) {
            continue;
        }
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15 ^ n as u64);
        for case in 0..CASES {
            if case % REFRESH == 0 {
                lab.refresh(mode, with_ept);
                lab.vm.forget_translations();
            }
            Mix::new(lab, &mut random).run(case);
        }
        lab.pages.virtual_apic.fill(0);
        lab.refresh(mode, with_ept);
        lab.end();
    }
}

/// One case while it is put together.
struct Mix<'a> {
    lab: &'a mut Lab,
    random: &'a mut Random,
    changes: Changes,
}

/// What a case wrote, in the order of writing.
struct Changes {
    list: [(u32, u64); 32],
    len: usize,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (encoding, value) in &self.list[..self.len] {
            write!(f, " {encoding:x}:{value:x}")?;
        }
        Ok(())
    }
}

impl<'a> Mix<'a> {
    fn new(lab: &'a mut Lab, random: &'a mut Random) -> Self {
        Self {
            lab,
            random,
            changes: Changes {
                list: [(0, 0); 32],
                len: 0,
            },
        }
    }

    /// Draws two to five changes and runs the case.
    fn run(mut self, case: u32) {
        self.lab.pages.virtual_apic.fill(0);
        self.lab.pages.posted.fill(0);
        self.lab.pages.ve_information.fill(0);
        let tpr = self.random.of(&[0u8, 0, 0x10, 0xf0]);
        self.lab.pages.virtual_apic.write(0x80, tpr);
        for _ in 0..2 + self.random.below(4) {
            self.change();
        }
        self.bound();
        let Self { lab, changes, .. } = self;
        lab.run(format_args!("{case} tpr {tpr:x}{changes}"));
    }

    fn set(&mut self, field: Field, value: u64) {
        self.lab.set(field, value);
        let change = (field.encoding(), value);
        let known = self.changes.list[..self.changes.len]
            .iter()
            .position(|(encoding, _)| *encoding == field.encoding());
        let at = known.unwrap_or(self.changes.len);
        if let Some(slot) = self.changes.list.get_mut(at) {
            *slot = change;
            self.changes.len = self.changes.len.max(at + 1);
        }
    }

    fn add(&mut self, field: Field, bits: u32) {
        let value = self.lab.get(field) | u64::from(bits);
        self.set(field, value);
    }

    fn draw(&mut self, table: &[(Field, How)]) {
        let (field, how) = self.random.of(table);
        let value = match how {
            Set(value) => value,
            Flip(bits) => self.lab.get(field) ^ bits,
        };
        self.set(field, value);
    }

    fn change(&mut self) {
        match self.random.below(20) {
            0..=4 => self.control(),
            5..=8 => self.event(),
            9 | 10 => self.state(),
            11 | 12 => self.draw(&REGISTERS),
            13 => self.linear(),
            14 | 15 => self.segment(),
            16 => self.draw(&HOST),
            17 => self.interrupts(),
            18 => self.draw(&NUMBERS),
            _ => self.memory(),
        }
    }

    /// One bit of a control word, mostly one that the CPU lets be changed.
    fn control(&mut self) {
        let caps = self.lab.caps;
        let words: [(Field, Allowed); 5] = [
            (field::PIN_BASED_CONTROLS, caps.pin()),
            (field::PRIMARY_PROCESSOR_BASED_CONTROLS, caps.proc()),
            (field::SECONDARY_PROCESSOR_BASED_CONTROLS, caps.proc2),
            (field::PRIMARY_VM_EXIT_CONTROLS, caps.exit()),
            (field::VM_ENTRY_CONTROLS, caps.entry()),
        ];
        let insists = self.random.below(16) == 0;
        for _ in 0..16 {
            let (field, allowed) = self.random.of(&words);
            let bit = 1u32 << self.random.below(32);
            let value = self.lab.get(field) as u32 ^ bit;
            if self.is_left_alone(field, bit) || !insists && allowed.adjust(value) != value {
                continue;
            }
            self.set(field, value.into());
            return;
        }
    }

    /// Controls that no case changes: VMCS shadowing, and with EPT what would turn it off and so
    /// let L2 walk tables in memory that is not its own.
    fn is_left_alone(&self, field: Field, bit: u32) -> bool {
        let secondary = field == field::SECONDARY_PROCESSOR_BASED_CONTROLS;
        let primary = field == field::PRIMARY_PROCESSOR_BASED_CONTROLS;
        let with_ept = self.lab.vm.uses_ept();
        secondary && bit == Proc2::VMCS_SHADOWING.bits()
            || with_ept && secondary && bit == Proc2::ENABLE_EPT.bits()
            || with_ept && primary && bit == Proc::ACTIVATE_SECONDARY_CONTROLS.bits()
    }

    fn event(&mut self) {
        let information = match self.random.below(8) {
            0 | 1 => self.random.of(&[0x20, 0x40, 0xff]),
            2 => 2 << 8 | 2,
            3 | 4 => {
                let vector = self.random.of(&[0, 1, 3, 5, 6, 7, 8, 10, 13, 14, 17, 18]);
                let pushes = matches!(vector, 8 | 10 | 13 | 14 | 17);
                3 << 8 | vector | if pushes { ERROR } else { 0 }
            }
            5 => 4 << 8 | self.random.of(&[3, 0x21, 0x80]),
            6 => self
                .random
                .of(&[5 << 8 | 1, 6 << 8 | 3, 6 << 8 | 4, 7 << 8]),
            _ => self
                .random
                .of(&[3 << 8 | 13, 1 << 8, 2 << 8 | 3, 7 << 8 | 1]),
        };
        self.set(
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            VALID | information,
        );
        let code = self.random.of(&[0u64, 4, 0x18, 0x7fff, 0x8000]);
        self.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
        let length = self.random.of(&[1, 2, 2, 3, 15, 0, 16]);
        self.set(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
        if self.random.below(4) != 0 {
            self.add(field::GUEST_RFLAGS, IF as u32);
        }
    }

    fn state(&mut self) {
        match self.random.below(3) {
            // Not waiting for a SIPI: nobody would send one.
            0 => {
                let state = self.random.of(&[1, 1, 2, 4]);
                self.set(field::GUEST_ACTIVITY_STATE, state);
            }
            1 => {
                let state = self.random.of(&[1, 1, 2, 2, 3, 4, 8, 9, 0x10, 0x20]);
                self.set(field::GUEST_INTERRUPTIBILITY_STATE, state);
                if self.random.below(2) == 0 {
                    self.add(field::GUEST_RFLAGS, IF as u32);
                }
            }
            _ => {
                let pending = self
                    .random
                    .of(&[1, 8, 1 << 12, 1 << 12 | 1, 1 << 14, 1 << 4]);
                self.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending);
            }
        }
    }

    fn linear(&mut self) {
        let field = self.random.of(&LINEAR);
        let address = self.random.of(&EDGES);
        self.set(field, address);
    }

    fn segment(&mut self) {
        let segment = &SEGMENTS[self.random.below(8) as usize];
        let value = |lab: &Lab, field, bits: u64| lab.get(field) ^ bits;
        match self.random.below(6) {
            0 => {
                let bit = 1 << self.random.below(17);
                self.set(segment.rights, value(self.lab, segment.rights, bit));
            }
            1 => {
                let bits = self.random.of(&[1, 2, 3, 4]);
                self.set(segment.selector, value(self.lab, segment.selector, bits));
            }
            2 => {
                let base = self
                    .random
                    .of(&[0x10, 0x1000, 0xffff_ffff, 1 << 32, 1 << 47]);
                self.set(segment.base, base);
            }
            // A first instruction beyond the limit of CS is not the same to Bochs each time.
            3 if segment.name != "cs" => {
                let limit = self.random.of(&[0, 0xfff, 0xffff, 0xf_ffff, 0xffff_ffff]);
                self.set(segment.limit, limit);
            }
            4 => {
                let bits = self.random.of(&[1 << 16, 1 << 7, 1 << 14, 1 << 13, 1 << 4]);
                self.set(segment.rights, value(self.lab, segment.rights, bits));
            }
            _ => self.privilege(),
        }
    }

    /// A privilege level for the whole of L2, as the rules want it.
    fn privilege(&mut self) {
        let level = self.random.below(4);
        for segment in &SEGMENTS[..6] {
            let rights = self.lab.get(segment.rights) & !0x60;
            self.set(segment.rights, rights | level << 5);
            let selector = self.lab.get(segment.selector) & !3;
            self.set(segment.selector, selector | level);
        }
    }

    /// What virtual interrupts need, all of it or almost.
    fn interrupts(&mut self) {
        self.add(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            Proc::USE_TPR_SHADOW.bits(),
        );
        if self.random.below(3) == 0 {
            let threshold = self.random.of(&[0, 1, 2, 0xf, 0x10]);
            self.set(field::TPR_THRESHOLD, threshold);
            return;
        }
        self.add(
            field::PIN_BASED_CONTROLS,
            Pin::EXTERNAL_INTERRUPT_EXITING.bits(),
        );
        self.add(
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            Proc2::VIRTUAL_INTERRUPT_DELIVERY.bits(),
        );
        let status = self
            .random
            .of(&[0, 0x21, 0x41, 0xff, 0x4041, 0x2041, 0xf0f0]);
        self.set(field::GUEST_INTERRUPT_STATUS, status);
        match self.random.below(4) {
            0 => {
                self.add(
                    field::PIN_BASED_CONTROLS,
                    Pin::PROCESS_POSTED_INTERRUPTS.bits(),
                );
                self.add(
                    field::PRIMARY_VM_EXIT_CONTROLS,
                    Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits(),
                );
            }
            1 => self.set(field::EOI_EXIT_BITMAP_1, 1 << 1),
            _ => {}
        }
    }

    /// Tables and lists in memory that the entry, or L2's first access, uses.
    fn memory(&mut self) {
        match self.random.below(4) {
            0 => {
                self.add(
                    field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                    Proc2::ENABLE_PML.bits(),
                );
                self.add(field::EPT_POINTER, 1 << 6);
            }
            1 => self.add(
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                Proc2::EPT_VIOLATION_VE.bits(),
            ),
            2 => {
                let (msr, value) = self.random.of(&LOADED);
                self.lab.pages.lists.write(8192, u64::from(msr));
                self.lab.pages.lists.write(8200, value);
                self.set(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
            }
            _ => {
                let control = u64::from(Entry::LOAD_EFER.bits() | Entry::LOAD_PAT.bits());
                let value = self.lab.get(field::VM_ENTRY_CONTROLS) ^ control;
                self.set(field::VM_ENTRY_CONTROLS, value);
            }
        }
    }

    /// An L2 that may not come to its VMCALL is stopped by the timer. An IA32_DEBUGCTL that is not
    /// loaded is not set either, as Bochs does not save the one that the CPU has (docs/errata.md).
    fn bound(&mut self) {
        let loads = u64::from(Entry::LOAD_DEBUG_CONTROLS.bits());
        if self.lab.get(field::VM_ENTRY_CONTROLS) & loads == 0
            && self.lab.get(field::GUEST_IA32_DEBUGCTL) != 0
        {
            self.set(field::GUEST_IA32_DEBUGCTL, 0);
        }
        let sleeps = self.lab.get(field::GUEST_ACTIVITY_STATE) != 0;
        let timer = Pin::ACTIVATE_PREEMPTION_TIMER.bits();
        if self.lab.get(field::PIN_BASED_CONTROLS) & u64::from(timer) == 0 {
            self.add(field::PIN_BASED_CONTROLS, timer);
            if self.random.below(2) == 0 && !sleeps && !self.moves() {
                let value = self.lab.get(field::PIN_BASED_CONTROLS) & !u64::from(timer);
                self.set(field::PIN_BASED_CONTROLS, value);
            }
        }
        if sleeps && self.lab.get(field::VMX_PREEMPTION_TIMER_VALUE) != 0 {
            self.set(field::VMX_PREEMPTION_TIMER_VALUE, NAP);
        }
    }

    /// Whether L2 starts at another instruction, or may take an event to another one.
    fn moves(&self) -> bool {
        let wrote = |field: Field| {
            self.changes.list[..self.changes.len]
                .iter()
                .any(|(encoding, _)| *encoding == field.encoding())
        };
        [
            field::GUEST_RIP,
            field::GUEST_CS_BASE,
            field::GUEST_IDTR_BASE,
        ]
        .into_iter()
        .any(wrote)
    }
}

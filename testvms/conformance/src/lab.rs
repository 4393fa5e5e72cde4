//! The bench that the cases run on: a known-good VMCS, one mutation, one VM entry, everything back.

use core::fmt::Arguments;

use rt::vmx::insn::{vmread_raw, vmwrite_raw};
use rt::vmx::vm::{Base, Mode, Outcome, Vm, layout};
use rt::vmx::{Vmx, insn};
use rt::{begin_case, case, report};
use umbra_vmcs::VmxCaps;
use umbra_vmcs::controls::{Entry, Exit, Proc, Proc2};
use umbra_vmcs::field::{self, ALL, Area, FIELD_COUNT, Field};
use umbra_vmcs::rules::{CpuFacts, Rule};

use rt::page::Page;

use crate::errata;
use crate::judge::{Judge, agree};
use crate::show::Short;

/// What a run is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A transcript to compare with the bare machine's.
    Transcript,
    /// The cases that a transcript leaves out, compared with the rule table.
    Errata,
    /// All cases, compared with the rule table.
    Rules,
}

/// Pages that controls under test point at, each with contents that are harmless.
pub struct Pages {
    /// The virtual-APIC page.
    pub virtual_apic: Page,
    /// The APIC-access page.
    pub apic_access: Page,
    /// The posted-interrupt descriptor.
    pub posted: Page,
    /// VMREAD and VMWRITE bitmaps.
    pub shadow_bitmaps: Page,
    /// The page-modification log.
    pub log: Page,
    /// The EPTP list.
    pub eptp_list: Page,
    /// The virtualization-exception information.
    pub ve_information: Page,
    /// The three MSR lists, one page each.
    pub lists: Page,
    /// A second VMCS, for the link pointer.
    pub linked: Page,
}

/// The bench.
pub struct Lab {
    /// The capability MSRs.
    pub caps: VmxCaps,
    /// VMX operation.
    pub vmx: Vmx,
    /// L2.
    pub vm: Vm,
    /// Pages for the controls.
    pub pages: Pages,
    /// The known-good values; `None` for a field that the CPU lacks.
    base: [Option<u64>; FIELD_COUNT],
    /// What the VMCS holds now, as far as it was written.
    current: [u64; FIELD_COUNT],
    /// Fields that differ from the known-good values.
    is_dirty: [bool; FIELD_COUNT],
    /// A field of this case that the CPU lacks.
    lacks: Option<Field>,
    start_rip: u64,
    judge: Judge,
    purpose: Purpose,
    /// Bochs departs from the SDM in the next case, whatever it does in others of its rule.
    pub is_erratum: bool,
}

impl Lab {
    /// A bench in VMX operation.
    pub fn new(vmx: Vmx, purpose: Purpose) -> Self {
        let vm = Vm::new(&vmx);
        let vmx_caps = vmx.caps;
        let pages = Pages {
            virtual_apic: Page::alloc(1),
            apic_access: Page::alloc(1),
            posted: Page::alloc(1),
            shadow_bitmaps: Page::alloc(2),
            log: Page::alloc(1),
            eptp_list: Page::alloc(1),
            ve_information: Page::alloc(1),
            lists: Page::alloc(3),
            linked: vmx.new_vmcs(),
        };
        Self {
            caps: vmx.caps,
            vmx,
            vm,
            pages,
            base: [None; FIELD_COUNT],
            current: [0; FIELD_COUNT],
            is_dirty: [false; FIELD_COUNT],
            lacks: None,
            start_rip: 0,
            judge: Judge::new(vmx_caps),
            purpose,
            is_erratum: false,
        }
    }

    /// Whether a base exists on this CPU.
    pub fn can(&self, mode: Mode, with_ept: bool) -> bool {
        self.vm.can(mode, with_ept)
    }

    /// Starts a group on a known-good L2 in `mode`. `false` when the CPU has no such L2.
    pub fn begin(&mut self, group: &str, mode: Mode, with_ept: bool) -> bool {
        if !self.can(mode, with_ept) {
            return false;
        }
        report::group(format_args!("{group} {}", Base(mode, with_ept)));
        self.refresh(mode, with_ept);
        self.run(format_args!("base"));
        true
    }

    /// Makes L2 anew: the base of the group.
    pub fn refresh(&mut self, mode: Mode, with_ept: bool) {
        self.vm.reset(mode, with_ept);
        self.fill_memory();
        self.improve();
        for field in ALL {
            let value = vmread_raw(u64::from(field.encoding())).ok();
            self.base[field.index()] = value;
            self.current[field.index()] = value.unwrap_or(0);
        }
        self.is_dirty = [false; FIELD_COUNT];
        self.start_rip = self.get(field::GUEST_RIP);
    }

    /// Counts a case that does not enter L2, and prints its line.
    pub fn record(&mut self, id: Arguments<'_>, outcome: impl core::fmt::Display) {
        if self.purpose == Purpose::Transcript {
            case!("{id}: {outcome}");
        }
    }

    /// Ends a group: the base must still work.
    pub fn end(&mut self) {
        self.run(format_args!("base"));
    }

    /// Whatever of L2's memory has no purpose is INT3, which exits, so that no L2 runs away.
    fn fill_memory(&self) {
        let memory = &self.vm.memory;
        let is_used = |page: u64| {
            (layout::IVT..layout::CODE).contains(&page)
                || page == layout::HANDLERS
                || (layout::TSS..layout::TSS + 0x3000).contains(&page)
        };
        for page in (0..layout::BYTES).step_by(4096) {
            if !is_used(page) {
                for at in (page..page + 4096).step_by(8) {
                    memory.write(at, 0xcccc_cccc_cccc_ccccu64);
                }
            }
        }
        for vector in 0..256 {
            for at in 3..16 {
                memory.write(layout::HANDLERS + vector * 16 + at, 0xccu8);
            }
        }
        memory.write_bytes(layout::CODE, &[0x0f, 0x01, 0xc1]);
    }

    /// What every base has beyond a plain L2: each exception exits, a timer stops L2, and every
    /// field that a control under test uses has a good value.
    fn improve(&mut self) {
        let vm = &self.vm;
        vm.bound();
        vm.exit_controls(Exit::LOAD_PAT, Exit::empty());
        vm.entry_controls(Entry::LOAD_PAT, Entry::empty());
        if self.caps.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            vm.proc2(Proc2::empty(), Proc2::empty());
        }
        let pages = &self.pages;
        let pat = rt::cpu::rdmsr(0x277);
        for (field, value) in [
            (field::VIRTUAL_APIC_ADDRESS, pages.virtual_apic.address()),
            (field::APIC_ACCESS_ADDRESS, pages.apic_access.address()),
            (
                field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
                pages.posted.address(),
            ),
            (field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xf0),
            (field::VMREAD_BITMAP_ADDRESS, pages.shadow_bitmaps.address()),
            (
                field::VMWRITE_BITMAP_ADDRESS,
                pages.shadow_bitmaps.address() + 4096,
            ),
            (field::PML_ADDRESS, pages.log.address()),
            (field::PML_INDEX, 511),
            (field::EPTP_LIST_ADDRESS, pages.eptp_list.address()),
            (
                field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
                pages.ve_information.address(),
            ),
            (field::VM_EXIT_MSR_STORE_ADDRESS, pages.lists.address()),
            (
                field::VM_EXIT_MSR_LOAD_ADDRESS,
                pages.lists.address() + 4096,
            ),
            (
                field::VM_ENTRY_MSR_LOAD_ADDRESS,
                pages.lists.address() + 8192,
            ),
            (field::VIRTUAL_PROCESSOR_ID, 1),
            (field::TSC_MULTIPLIER, 1 << 48),
            (field::PLE_GAP, 128),
            (field::PLE_WINDOW, 4096),
            (field::VM_FUNCTION_CONTROLS, 0),
            (field::XSS_EXITING_BITMAP, 0),
            (field::TPR_THRESHOLD, 0),
            (field::EOI_EXIT_BITMAP_0, 0),
            (field::EOI_EXIT_BITMAP_1, 0),
            (field::EOI_EXIT_BITMAP_2, 0),
            (field::EOI_EXIT_BITMAP_3, 0),
            (field::GUEST_INTERRUPT_STATUS, 0),
            (field::EPTP_INDEX, 0),
            (field::GUEST_IA32_PAT, pat),
            (field::HOST_IA32_PAT, pat),
        ] {
            // A CPU may lack the field; the cases that need it then say so.
            let _ = vmwrite_raw(u64::from(field.encoding()), value);
        }
        if self.vm.uses_ept() {
            pages.eptp_list.write(0, self.vm.ept().pointer());
        } else if vmread_raw(u64::from(field::EPT_POINTER.encoding())).is_ok() {
            let pointer = self.vm.ept.as_ref().map_or(0, |ept| ept.pointer());
            insn::write(field::EPT_POINTER, pointer);
        }
    }

    /// The value that a field has now; 0 for one that the CPU lacks.
    pub fn get(&self, field: Field) -> u64 {
        self.current[field.index()]
    }

    /// Writes a field for the next case.
    pub fn set(&mut self, field: Field, value: u64) {
        self.is_dirty[field.index()] = true;
        if vmwrite_raw(u64::from(field.encoding()), value).is_err() {
            self.lacks = Some(field);
            return;
        }
        self.current[field.index()] = value & field.value_mask();
    }

    /// Inverts a bit of a field for the next case.
    pub fn flip(&mut self, field: Field, bit: u32) {
        let value = self.get(field);
        self.set(field, value ^ 1 << bit);
    }

    /// Sets bits of a field for the next case.
    pub fn add(&mut self, field: Field, bits: u64) {
        let value = self.get(field);
        self.set(field, value | bits);
    }

    /// Clears bits of a field for the next case.
    pub fn remove(&mut self, field: Field, bits: u64) {
        let value = self.get(field);
        self.set(field, value & !bits);
    }

    /// What CPUID says.
    pub const fn facts(&self) -> CpuFacts {
        self.judge.facts()
    }

    /// The first rule that the next case breaks.
    pub fn first_broken(&self) -> Option<&'static Rule> {
        self.judge.first_broken(|field| self.get(field))
    }

    /// Takes every mutation back instead of running the case.
    pub fn take_back(&mut self) {
        self.restore(false);
    }

    /// Runs the case, prints its line, and takes every mutation back.
    pub fn run(&mut self, id: Arguments<'_>) {
        if let Some(field) = self.lacks.take() {
            if self.purpose == Purpose::Transcript {
                report::lacks(format_args!("{id}: field {:x}", field.encoding()));
            }
            self.restore(false);
            return;
        }
        let broken = self.first_broken();
        let is_erratum = self.is_erratum || broken.is_some_and(|rule| errata::has(rule.id));
        let rule = broken.map_or("none", |rule| rule.id);
        match self.purpose {
            Purpose::Transcript if is_erratum => {
                report::erratum(format_args!("{id}: {rule}"));
                self.restore(false);
                return;
            }
            Purpose::Errata if !is_erratum => {
                self.restore(false);
                return;
            }
            _ => {}
        }
        let outcome = self.vm.run();
        let shown = Short(&outcome, self.start_rip);
        if self.purpose != Purpose::Transcript {
            let is_right = agree(broken, &outcome);
            report::check(format_args!("{id}: {shown} breaks {rule}"), is_right);
            self.restore(!matches!(outcome, Outcome::Failed(_)));
            return;
        }
        begin_case!("{id}: {shown}");
        let entered = match outcome {
            Outcome::Exit(exit) => !exit.is_entry_failure(),
            Outcome::HostFault(_) => true,
            Outcome::Failed(_) => false,
        };
        if entered {
            self.print_changes();
        }
        rt::println!();
        self.restore(entered);
    }

    /// Every field of the guest-state area that the exit left with another value than it had before
    /// the entry.
    fn print_changes(&self) {
        for field in ALL {
            if field.area() != Area::Guest
                || field == field::GUEST_RIP
                || field == field::VMX_PREEMPTION_TIMER_VALUE
                || self.base[field.index()].is_none()
            {
                continue;
            }
            let value = insn::read(field);
            if value != self.get(field) {
                rt::print!(" {:x}={value:x}", field.encoding());
            }
        }
    }

    /// Puts the known-good values back; after an entry also what the CPU may have written.
    fn restore(&mut self, entered: bool) {
        for field in ALL {
            let is_written = entered
                && (field.area() == Area::Guest
                    || field == field::VM_ENTRY_INTERRUPTION_INFORMATION
                    || field == field::VM_ENTRY_CONTROLS
                    || field == field::EPTP_INDEX
                    || field == field::EPT_POINTER);
            if (is_written || self.is_dirty[field.index()])
                && let Some(value) = self.base[field.index()]
            {
                insn::write(field, value);
                self.current[field.index()] = value;
            }
        }
        self.is_dirty = [false; FIELD_COUNT];
        self.vm.registers = Default::default();
        self.vm.keeps_host_rip = false;
        self.lacks = None;
        self.is_erratum = false;
    }
}

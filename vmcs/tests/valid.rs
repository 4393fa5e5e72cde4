//! States that are valid by construction are accepted.
//!
//! Each is built upwards from free choices, mode by mode and feature by
//! feature, the way a hypervisor would; nothing here asks the rules.

use proptest::prelude::*;
use umbra_arch::EventType;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};
use umbra_vmcs::field::{self, Field, FieldSet, SegmentFields, Width};
use umbra_vmcs::rules::cases::Bench;
use umbra_vmcs::rules::check_all;

/// Free choices, used up one by one.
struct Choices {
    numbers: Vec<u64>,
    next: usize,
}

impl Choices {
    fn any(&mut self) -> u64 {
        self.next += 1;
        self.numbers[self.next % self.numbers.len()].rotate_left(self.next as u32)
    }

    fn yes(&mut self) -> bool {
        self.any() & 1 != 0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.any() % n
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A canonical address.
    fn canonical(&mut self) -> u64 {
        ((self.any() << 16) as i64 >> 16) as u64
    }

    /// A page within 46 bits.
    fn page(&mut self) -> u64 {
        self.any() & 0x3fff_ffff_f000
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Long,
    Compatibility,
    Protected,
    PaeMemory,
    PaeFields,
    Real,
    Unpaged,
    V8086,
}

impl Mode {
    fn ia32e(self) -> bool {
        matches!(self, Self::Long | Self::Compatibility)
    }
}

const HOST_SELECTORS: [Field; 4] = [
    field::HOST_ES_SELECTOR,
    field::HOST_DS_SELECTOR,
    field::HOST_FS_SELECTOR,
    field::HOST_GS_SELECTOR,
];

const HOST_BASES: [Field; 7] = [
    field::HOST_FS_BASE,
    field::HOST_GS_BASE,
    field::HOST_TR_BASE,
    field::HOST_GDTR_BASE,
    field::HOST_IDTR_BASE,
    field::HOST_IA32_SYSENTER_ESP,
    field::HOST_IA32_SYSENTER_EIP,
];

/// Fields that no control is needed for, or whose values the rest of the test
/// sets; everything else may hold anything until a control makes it count.
fn garbage(c: &mut Choices, b: &mut Bench) {
    for f in field::ALL {
        let free = match f.area() {
            field::Area::Control => f.width() == Width::W64 || f.width() == Width::W16,
            field::Area::ExitInformation => true,
            field::Area::Host | field::Area::Guest => {
                f.needs() != umbra_vmcs::needs::Needs::Nothing
            }
        };
        if free {
            b.set(f, c.any());
        }
    }
    for f in [
        field::EXCEPTION_BITMAP,
        field::PAGE_FAULT_ERROR_CODE_MASK,
        field::PAGE_FAULT_ERROR_CODE_MATCH,
        field::TPR_THRESHOLD,
        field::PLE_GAP,
        field::PLE_WINDOW,
        field::VM_ENTRY_EXCEPTION_ERROR_CODE,
        field::VM_ENTRY_INSTRUCTION_LENGTH,
        field::CR0_GUEST_HOST_MASK,
        field::CR4_GUEST_HOST_MASK,
        field::CR3_TARGET_VALUE_2,
        field::GUEST_RSP,
        field::HOST_RSP,
        field::GUEST_SMBASE,
        field::GUEST_DR7,
        field::GUEST_IA32_SYSENTER_CS,
    ] {
        b.set(f, c.any());
    }
    b.set(field::CR3_TARGET_COUNT, c.below(5));
}

fn execution_controls(c: &mut Choices, b: &mut Bench) {
    if c.yes() {
        b.pin(Pin::NMI_EXITING);
        if c.yes() {
            b.pin(Pin::VIRTUAL_NMIS);
            if c.yes() {
                b.proc(Proc::NMI_WINDOW_EXITING);
            }
        }
    }
    if c.yes() {
        b.pin(Pin::ACTIVATE_PREEMPTION_TIMER);
        if c.yes() {
            b.exit(Exit::SAVE_PREEMPTION_TIMER);
        }
    }
    for bit in [
        Proc::HLT_EXITING,
        Proc::INVLPG_EXITING,
        Proc::CR3_LOAD_EXITING,
        Proc::MONITOR_TRAP_FLAG,
        Proc::UNCONDITIONAL_IO_EXITING,
        Proc::PAUSE_EXITING,
        Proc::INTERRUPT_WINDOW_EXITING,
        Proc::USE_TSC_OFFSETTING,
    ] {
        if c.yes() {
            b.proc(bit);
        }
    }
    if c.yes() {
        b.proc(Proc::USE_IO_BITMAPS);
        b.set(field::IO_BITMAP_A, c.page());
        b.set(field::IO_BITMAP_B, c.page());
    }
    if c.yes() {
        b.proc(Proc::USE_MSR_BITMAPS);
        b.set(field::MSR_BITMAP, c.page());
    }
    match c.below(6) {
        0 => {}
        1 => {
            b.tpr_shadow();
            let threshold = c.below(16);
            b.set(field::TPR_THRESHOLD, threshold);
            let vtpr = threshold + c.below(16 - threshold);
            b.poke32(b.pages.virtual_apic + 0x80, (vtpr as u32) << 4);
        }
        2 => {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUALIZE_X2APIC_MODE);
            if c.yes() {
                b.proc2(Proc2::APIC_REGISTER_VIRTUALIZATION);
            }
        }
        3 => {
            b.interrupt_delivery();
            b.set(field::TPR_THRESHOLD, c.any());
        }
        4 => {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, c.page() | 0xfc0);
            b.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, c.below(256));
        }
        _ => {
            b.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES);
            b.set(field::APIC_ACCESS_ADDRESS, c.page());
        }
    }
    if c.yes() {
        b.proc2(Proc2::ENABLE_VPID);
        b.set(field::VIRTUAL_PROCESSOR_ID, c.any() | 1);
    }
    if c.yes() {
        b.proc2(Proc2::USE_TSC_SCALING);
        b.set(field::TSC_MULTIPLIER, c.any() | 1);
    }
    if c.yes() {
        b.proc2(Proc2::VMCS_SHADOWING);
        b.set(field::VMREAD_BITMAP_ADDRESS, c.page());
        b.set(field::VMWRITE_BITMAP_ADDRESS, c.page());
    }
    if c.yes() {
        b.proc2(Proc2::EPT_VIOLATION_VE);
        b.set(
            field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
            c.page(),
        );
    }
    if c.yes() {
        b.ept();
        ept_features(c, b);
    }
    for (count, address) in [
        (
            field::VM_EXIT_MSR_STORE_COUNT,
            field::VM_EXIT_MSR_STORE_ADDRESS,
        ),
        (
            field::VM_EXIT_MSR_LOAD_COUNT,
            field::VM_EXIT_MSR_LOAD_ADDRESS,
        ),
        (
            field::VM_ENTRY_MSR_LOAD_COUNT,
            field::VM_ENTRY_MSR_LOAD_ADDRESS,
        ),
    ] {
        if c.yes() {
            b.set(count, c.below(512));
            b.set(address, c.any() & 0x1fff_ffff_fff0);
        }
    }
}

fn ept_features(c: &mut Choices, b: &mut Bench) {
    b.set(
        field::EPT_POINTER,
        c.page() | 3 << 3 | c.of(&[0, 6]) | c.below(2) << 6,
    );
    if c.yes() {
        b.proc2(Proc2::ENABLE_PML);
        b.set(field::PML_ADDRESS, c.page());
    }
    if c.yes() {
        b.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL);
    }
    if c.yes() {
        b.proc2(Proc2::ENABLE_VM_FUNCTIONS);
        b.set(field::VM_FUNCTION_CONTROLS, c.below(2));
        b.set(field::EPTP_LIST_ADDRESS, c.page());
    }
    if c.yes() {
        let controls = Proc3::EPT_PAGING_WRITE | Proc3::GUEST_PAGING_VERIFICATION;
        b.set(field::TERTIARY_PROCESSOR_BASED_CONTROLS, controls.bits());
        b.proc(Proc::ACTIVATE_TERTIARY_CONTROLS);
    }
}

fn host_state(c: &mut Choices, b: &mut Bench, long: bool) {
    for f in HOST_SELECTORS {
        b.set(f, c.any() & 0xfff8);
    }
    b.set(field::HOST_CS_SELECTOR, c.any() & 0xfff8 | 8);
    b.set(field::HOST_TR_SELECTOR, c.any() & 0xfff8 | 8);
    let ss = if long { 0 } else { 8 };
    b.set(field::HOST_SS_SELECTOR, c.any() & 0xfff8 | ss);
    for f in HOST_BASES {
        b.set(f, c.canonical());
    }
    b.set(field::HOST_CR3, c.any() & 0x3fff_ffff_ffff);
    b.or(field::HOST_CR0, c.any() & 0x6005_000e);
    b.or(field::HOST_CR4, c.any() & 0x0031_07df);
    if long {
        b.set(field::HOST_RIP, c.canonical());
    } else {
        b.set(field::HOST_RIP, c.any() & 0xffff_ffff);
    }
    if c.yes() {
        b.exit(Exit::LOAD_PAT);
        b.set(field::HOST_IA32_PAT, pat(c));
    }
    if c.yes() {
        b.exit(Exit::LOAD_EFER);
        let mode = if long { 0x500 } else { 0 };
        b.set(field::HOST_IA32_EFER, c.any() & 0x801 | mode);
    }
    if c.yes() {
        b.exit(Exit::LOAD_PERF_GLOBAL_CTRL);
        b.set(field::HOST_IA32_PERF_GLOBAL_CTRL, c.any() & 0x7_0000_000f);
    }
    if c.yes() {
        b.exit(Exit::LOAD_PKRS);
        b.set(field::HOST_IA32_PKRS, c.any() & 0xffff_ffff);
    }
    if c.yes() {
        b.exit(Exit::LOAD_CET_STATE);
        let address = if long {
            c.canonical()
        } else {
            c.any() & 0xffff_ffff
        };
        b.set(field::HOST_IA32_S_CET, address & !0xbc0);
        b.set(field::HOST_SSP, address & !3);
        b.set(field::HOST_IA32_INTERRUPT_SSP_TABLE_ADDR, c.canonical());
    }
}

fn pat(c: &mut Choices) -> u64 {
    (0..8).fold(0, |pat, _| pat << 8 | c.of(&[0, 1, 4, 5, 6, 7]))
}

fn guest_msrs(c: &mut Choices, b: &mut Bench, mode: Mode) {
    b.set(field::GUEST_IA32_SYSENTER_ESP, c.canonical());
    b.set(field::GUEST_IA32_SYSENTER_EIP, c.canonical());
    b.set(field::GUEST_IA32_DEBUGCTL, c.any() & 0x1fc3);
    if c.yes() {
        b.entry(Entry::LOAD_DEBUG_CONTROLS);
        b.set(field::GUEST_DR7, c.any() & 0xffff_ffff);
    }
    if c.yes() {
        b.entry(Entry::LOAD_PAT);
        b.set(field::GUEST_IA32_PAT, pat(c));
    }
    if c.yes() {
        b.entry(Entry::LOAD_EFER);
        let mode = match mode {
            _ if mode.ia32e() => 0x500,
            // Without paging, LME waits for it.
            Mode::Real | Mode::Unpaged => c.below(2) << 8,
            _ => 0,
        };
        b.set(field::GUEST_IA32_EFER, c.any() & 0x801 | mode);
    }
    if c.yes() {
        b.entry(Entry::LOAD_BNDCFGS);
        b.set(field::GUEST_IA32_BNDCFGS, c.canonical() & !0xffc);
    }
    if c.yes() {
        b.entry(Entry::LOAD_CET_STATE);
        b.set(field::GUEST_IA32_S_CET, c.canonical() & !0xbc0);
        // Any value with the bits from 48 up equal.
        let ssp = c.any() & 0xffff_ffff_fffc;
        b.set(
            field::GUEST_SSP,
            ssp | if c.yes() { 0xffff << 48 } else { 0 },
        );
        b.set(field::GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR, c.canonical());
    }
    if c.yes() {
        b.entry(Entry::LOAD_UINV);
        b.set(field::GUEST_UINV, c.below(256));
    }
}

/// Limit and G that agree.
fn limit(c: &mut Choices) -> (u64, u64) {
    if c.yes() {
        (c.any() & 0xffff_ffff | 0xfff, 1 << 15)
    } else {
        (c.any() & 0xf_ffff, 0)
    }
}

const DATA: [SegmentFields; 4] = [
    SegmentFields::ES,
    SegmentFields::DS,
    SegmentFields::FS,
    SegmentFields::GS,
];

fn guest_segments(c: &mut Choices, b: &mut Bench, mode: Mode, unrestricted: bool) -> u64 {
    if mode == Mode::V8086 {
        let cs = SegmentFields::CS;
        let ss = SegmentFields::SS;
        for s in DATA.iter().chain([&cs, &ss]) {
            let selector = c.any() & 0xffff;
            b.set(s.selector, selector);
            b.set(s.base, selector << 4);
            b.set(s.limit, 0xffff);
            b.set(s.rights, 0xf3);
        }
        return 3;
    }
    let cpl = if mode == Mode::Real { 0 } else { c.below(4) };
    for s in &DATA {
        if c.yes() {
            b.set(s.rights, c.any() | 1 << 16);
            b.set(s.selector, c.any());
            b.set(s.limit, c.any());
        } else {
            let kind = c.of(&[1, 3, 5, 7, 11, 15]);
            let dpl = c.below(4);
            let rpl = if unrestricted || kind == 15 {
                c.below(4)
            } else {
                c.below(dpl + 1)
            };
            let (bytes, g) = limit(c);
            b.set(s.limit, bytes);
            b.set(s.selector, c.any() & 0xfffc | rpl);
            b.set(s.rights, 0x90 | kind | dpl << 5 | c.below(8) << 12 | g);
        }
        let low = c.any() & 0xffff_ffff;
        let fs_or_gs = s.base == field::GUEST_FS_BASE || s.base == field::GUEST_GS_BASE;
        b.set(s.base, if fs_or_gs { c.canonical() } else { low });
    }

    // CS, whose DPL goes with its type; SS, whose DPL is the privilege level.
    let mut kinds = vec![9, 11, 13, 15];
    if unrestricted && cpl == 0 {
        kinds.push(3);
    }
    let kind = c.of(&kinds);
    let dpl = match kind {
        13 | 15 => c.below(cpl + 1),
        _ => cpl,
    };
    let size = match mode {
        Mode::Long => 1 << 13,
        Mode::Compatibility => c.below(2) << 14,
        _ => c.below(4) << 13,
    };
    let (bytes, g) = limit(c);
    b.set(field::GUEST_CS_LIMIT, bytes);
    b.set(field::GUEST_CS_BASE, c.any() & 0xffff_ffff);
    b.set(
        field::GUEST_CS_ACCESS_RIGHTS,
        0x90 | kind | dpl << 5 | size | g,
    );
    let rpl = if unrestricted { c.below(4) } else { cpl };
    b.set(field::GUEST_CS_SELECTOR, c.any() & 0xfffc | rpl);
    let rpl = if unrestricted { c.below(4) } else { cpl };
    b.set(field::GUEST_SS_SELECTOR, c.any() & 0xfffc | rpl);
    if c.yes() {
        b.set(
            field::GUEST_SS_ACCESS_RIGHTS,
            c.any() & !0x60 | cpl << 5 | 1 << 16,
        );
        b.set(field::GUEST_SS_BASE, c.any());
        b.set(field::GUEST_SS_LIMIT, c.any());
    } else {
        let (bytes, g) = limit(c);
        b.set(field::GUEST_SS_LIMIT, bytes);
        b.set(field::GUEST_SS_BASE, c.any() & 0xffff_ffff);
        b.set(
            field::GUEST_SS_ACCESS_RIGHTS,
            0x90 | c.of(&[3, 7]) | cpl << 5 | g,
        );
    }
    cpl
}

fn guest_tables(c: &mut Choices, b: &mut Bench, mode: Mode) {
    if c.yes() {
        b.set(field::GUEST_LDTR_ACCESS_RIGHTS, c.any() | 1 << 16);
        b.set(field::GUEST_LDTR_SELECTOR, c.any());
        b.set(field::GUEST_LDTR_BASE, c.any());
        b.set(field::GUEST_LDTR_LIMIT, c.any());
    } else {
        let (bytes, g) = limit(c);
        b.set(field::GUEST_LDTR_ACCESS_RIGHTS, 0x82 | g);
        b.set(field::GUEST_LDTR_SELECTOR, c.any() & !4);
        b.set(field::GUEST_LDTR_BASE, c.canonical());
        b.set(field::GUEST_LDTR_LIMIT, bytes);
    }
    let (bytes, g) = limit(c);
    let kind = if mode.ia32e() { 11 } else { c.of(&[3, 11]) };
    b.set(
        field::GUEST_TR_ACCESS_RIGHTS,
        0x80 | kind | c.below(4) << 5 | g,
    );
    b.set(field::GUEST_TR_SELECTOR, c.any() & !4);
    b.set(field::GUEST_TR_BASE, c.canonical());
    b.set(field::GUEST_TR_LIMIT, bytes);
    b.set(field::GUEST_GDTR_BASE, c.canonical());
    b.set(field::GUEST_IDTR_BASE, c.canonical());
    b.set(field::GUEST_GDTR_LIMIT, c.any() & 0xffff);
    b.set(field::GUEST_IDTR_LIMIT, c.any() & 0xffff);
}

/// Activity, blocking, an event, pending debug exceptions that go together.
fn guest_events(c: &mut Choices, b: &mut Bench, mode: Mode, cpl: u64) {
    let mut flags = c.any() & 0x3c_7dd5 | 2;
    if mode == Mode::V8086 {
        flags |= 1 << 17;
    }
    let mut activity = if cpl == 0 {
        c.below(4)
    } else {
        c.of(&[0, 2, 3])
    };
    let blocking = c.of(&[0, 0, 0, 1, 2]);
    let mut nmi_blocked = c.yes();
    if blocking != 0 {
        activity = 0;
    }
    // The events that the activity state lets in.
    let event = match activity {
        0 => c.of(&[0, 1, 2, 3, 4, 5, 6, 7]),
        1 => c.of(&[0, 1, 2, 3, 7, 8]),
        2 => c.of(&[0, 2, 8]),
        _ => 0,
    };
    match event {
        0 => b.set(
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            c.any() & 0x7fff_ffff,
        ),
        1 if blocking == 0 => {
            flags |= 1 << 9;
            b.inject(EventType::ExternalInterrupt, c.below(256) as u8);
        }
        2 if blocking == 0 => {
            b.inject(EventType::Nmi, 2);
            if b.get(field::PIN_BASED_CONTROLS) & u64::from(Pin::VIRTUAL_NMIS.bits()) != 0 {
                nmi_blocked = false;
            }
        }
        1 | 2 => b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0),
        3 => b.inject(EventType::HardwareException, 1),
        4 if mode == Mode::Real || mode == Mode::Unpaged => {
            // Protected mode without paging still pushes an error code.
            b.inject(EventType::HardwareException, 13);
            if mode == Mode::Unpaged {
                b.error_code(c.any() as u32 & 0xffff);
            }
        }
        4 => {
            let vector = c.of(&[8, 10, 11, 12, 13, 14, 17]);
            b.inject(EventType::HardwareException, vector);
            b.error_code(c.any() as u32 & 0xffff);
        }
        5 => {
            b.inject(EventType::SoftwareInterrupt, c.below(256) as u8);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1 + c.below(15));
        }
        6 => {
            b.inject(EventType::SoftwareException, c.of(&[3, 4]));
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1 + c.below(15));
        }
        7 => b.inject(EventType::Other, 0),
        _ => b.inject(EventType::HardwareException, 18),
    }
    if blocking == 1 {
        flags |= 1 << 9;
    }
    b.set(field::GUEST_RFLAGS, flags);
    b.set(field::GUEST_ACTIVITY_STATE, activity);
    b.set(
        field::GUEST_INTERRUPTIBILITY_STATE,
        blocking | u64::from(nmi_blocked) << 3,
    );
    let mut pending = c.any() & 0x500f;
    if blocking != 0 || activity == 1 {
        let steps = flags & 1 << 8 != 0 && b.get(field::GUEST_IA32_DEBUGCTL) & 2 == 0;
        pending = pending & !(1 << 14) | u64::from(steps) << 14;
    }
    b.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending);
}

fn build(c: &mut Choices) -> Bench {
    let mut bench = Bench::new();
    let b = &mut bench;
    garbage(c, b);
    let long_host = c.below(4) != 0;
    let mut modes = vec![
        Mode::Protected,
        Mode::PaeMemory,
        Mode::PaeFields,
        Mode::Real,
        Mode::Unpaged,
        Mode::V8086,
    ];
    if long_host {
        modes.extend([Mode::Long, Mode::Long, Mode::Compatibility]);
    } else {
        b.host32();
    }
    let mode = c.of(&modes);
    execution_controls(c, b);
    let mut unrestricted = false;
    if matches!(mode, Mode::Real | Mode::Unpaged) || c.yes() {
        unrestricted = true;
        b.proc2(Proc2::UNRESTRICTED_GUEST | Proc2::ENABLE_EPT);
        ept_features(c, b);
    }
    if mode == Mode::PaeFields {
        b.proc2(Proc2::ENABLE_EPT);
        ept_features(c, b);
    }
    host_state(c, b, long_host);

    b.set(field::GUEST_CR3, c.any() & 0x3fff_ffff_ffff);
    b.or(field::GUEST_CR0, c.any() & 0x6005_000e);
    match mode {
        Mode::Long => {}
        Mode::Compatibility => b.compatibility(),
        Mode::Protected | Mode::V8086 => b.protected32(),
        Mode::PaeMemory | Mode::PaeFields => {
            b.pae();
            for (n, f) in [
                field::GUEST_PDPTE0,
                field::GUEST_PDPTE1,
                field::GUEST_PDPTE2,
                field::GUEST_PDPTE3,
            ]
            .into_iter()
            .enumerate()
            {
                let entry = if c.yes() { c.any() & !1 } else { c.page() | 1 };
                b.set(f, entry);
                b.poke64(b.pages.pdpt + n as u64 * 8, entry);
            }
        }
        Mode::Real | Mode::Unpaged => {
            b.protected32();
            let clear = if mode == Mode::Real {
                1 << 31 | 1
            } else {
                1 << 31
            };
            b.clear(field::GUEST_CR0, clear);
            // PAE without paging loads no PDPTE.
            b.or(field::GUEST_CR4, c.below(2) << 5);
        }
    }
    b.or(field::GUEST_CR4, c.any() & 0x0031_07df);
    if mode.ia32e() {
        b.or(field::GUEST_CR4, c.below(2) << 17);
    }
    let cpl = guest_segments(c, b, mode, unrestricted);
    guest_tables(c, b, mode);
    guest_msrs(c, b, mode);
    guest_events(c, b, mode, cpl);
    b.set(
        field::GUEST_RIP,
        if mode == Mode::Long {
            let low = c.any() & 0xffff_ffff_ffff;
            low | if c.yes() { 0xffff << 48 } else { 0 }
        } else {
            c.any() & 0xffff_ffff
        },
    );
    if b.get(field::PRIMARY_PROCESSOR_BASED_CONTROLS) >> 31 == 0 {
        b.set(field::SECONDARY_PROCESSOR_BASED_CONTROLS, c.any());
    }
    if c.yes() {
        b.set(field::VMCS_LINK_POINTER, b.pages.link);
        let shadow = b.get(field::PRIMARY_PROCESSOR_BASED_CONTROLS) >> 31 != 0
            && b.get(field::SECONDARY_PROCESSOR_BASED_CONTROLS) & 1 << 14 != 0;
        let revision = b.caps.revision() | u32::from(shadow) << 31;
        b.poke32(b.pages.link, revision);
    } else {
        b.set(field::VMCS_LINK_POINTER, u64::MAX);
    }
    bench
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_state_built_to_be_valid_is_accepted(numbers in proptest::collection::vec(any::<u64>(), 97)) {
        let bench = build(&mut Choices { numbers, next: 0 });
        let answer = check_all(&bench.ctx(), &FieldSet::FULL);
        prop_assert_eq!(answer, Ok(()));
    }
}

//! Virtual APIC: TPR shadow, the APIC-access page, APIC-register virtualization, x2APIC mode, virtual
//! interrupts and posted ones.
//!
//! SDM "Virtualizing CR8-Based TPR Accesses", "Virtualizing Memory-Mapped APIC Accesses",
//! "Virtualizing MSR-Based APIC Accesses", "Virtual-Interrupt Delivery", "Posted-Interrupt Processing".

use rt::page::Page;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Outcome};
use rt::{case, l2_code, more};
use umbra_vmcs::controls::{Exit, Pin, Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;
use crate::timing::{VECTOR, end_of_interrupt, open_apic, send_self};

l2_code! {
    fn apic_cr8 { 64 = "mov cr8, rax", "mov rbx, cr8", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_load { 64 = "mov eax, [rbx]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_store { 64 = "mov [rbx], eax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_load_byte { 64 = "mov al, [rbx]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_load_wide { 64 = "mov rax, [rbx]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_modify { 64 = "or dword ptr [rbx], 1", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_copy { 64 = "mov rsi, rbx", "mov edi, 0x9000", "mov ecx, 3", "rep movsd", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_rdmsr { 64 = "rdmsr", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_wrmsr { 64 = "wrmsr", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_wait { 64 = "sti", "nop", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_idle { 64 = "nop", "nop", "nop", "nop", "jmp 2f", "2: nop", "nop", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn apic_nothing { 64 = "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
}

/// The page of L2 that is the APIC-access page.
const PAGE: u64 = 0xc000;
/// Registers of the APIC, by their offset.
const TPR: u64 = 0x80;
const END_OF_INTERRUPT: u64 = 0xb0;
const IN_SERVICE: u64 = 0x100;
const REQUESTED: u64 = 0x200;
const COMMAND: u64 = 0x300;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;
/// What is in the virtual-APIC page at an offset, before a test.
const FILL: u64 = 0x5a00_0000;

/// A virtual-APIC page and the others that the controls name.
struct Pages {
    apic: Page,
    descriptor: Page,
}

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    let pages = Pages {
        apic: Page::alloc(1),
        descriptor: Page::alloc(1),
    };
    t.fresh(&apic_nothing());
    if !t.vm.proc(Proc::USE_TPR_SHADOW, Proc::empty()) {
        t.skip("TPR shadow");
        return;
    }
    shadow(t, &pages);
    accesses(t, &pages);
    msrs(t, &pages);
    interrupts(t, &pages);
    posted(t, &pages);
}

/// L2 anew with a TPR shadow and these secondary controls; whether the CPU has them.
fn fresh(t: &mut Tester, pages: &Pages, code: fn() -> Code, on: Proc2) -> bool {
    t.fresh(&code());
    pages.apic.fill(0);
    write(field::VIRTUAL_APIC_ADDRESS, pages.apic.address());
    write(field::TPR_THRESHOLD, 0);
    t.vm.proc(
        Proc::USE_TPR_SHADOW,
        Proc::CR8_LOAD_EXITING | Proc::CR8_STORE_EXITING,
    );
    if !t.vm.proc2(on, Proc2::empty()) {
        return false;
    }
    if on.contains(Proc2::VIRTUALIZE_APIC_ACCESSES) {
        write(field::APIC_ACCESS_ADDRESS, t.vm.memory.address() + PAGE);
    }
    if on.contains(Proc2::VIRTUAL_INTERRUPT_DELIVERY) {
        t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
        write(field::GUEST_INTERRUPT_STATUS, 0);
        for bitmap in [
            field::EOI_EXIT_BITMAP_0,
            field::EOI_EXIT_BITMAP_1,
            field::EOI_EXIT_BITMAP_2,
            field::EOI_EXIT_BITMAP_3,
        ] {
            write(bitmap, 0);
        }
    }
    true
}

/// Runs L2 and prints what came of it, with RAX and the virtual TPR.
fn show(t: &mut Tester, pages: &Pages, what: core::fmt::Arguments<'_>) {
    let outcome = t.vm.run();
    let tpr: u32 = pages.apic.read(TPR);
    case!(
        "{what}: {outcome}, rax {:x}, tpr {tpr:x}",
        t.vm.registers.rax
    );
    t.check("an exit", matches!(outcome, Outcome::Exit(_)));
}

fn shadow(t: &mut Tester, pages: &Pages) {
    for value in [0, 5, 15] {
        fresh(t, pages, apic_cr8, Proc2::empty());
        t.vm.registers.rax = value;
        t.reach_end("CR8 written and read");
        t.equal("CR8", t.vm.registers.rbx, value);
        t.equal(
            "virtual TPR",
            pages.apic.read::<u32>(TPR),
            (value as u32) << 4,
        );
    }
    for (threshold, before, after) in [(4u64, 5u32, 3u64), (4, 5, 4), (5, 0xf, 0), (1, 1, 0)] {
        fresh(t, pages, apic_cr8, Proc2::empty());
        pages.apic.write(TPR, before << 4);
        write(field::TPR_THRESHOLD, threshold);
        t.vm.registers.rax = after;
        let what = format_args!("threshold {threshold}, CR8 from {before} to {after}");
        show(t, pages, what);
    }
    for (name, set, reason) in [
        ("CR8 load exits", Proc::CR8_LOAD_EXITING, Reason::CrAccess),
        ("CR8 store exits", Proc::CR8_STORE_EXITING, Reason::CrAccess),
    ] {
        fresh(t, pages, apic_cr8, Proc2::empty());
        t.vm.registers.rax = 7;
        t.vm.proc(set, Proc::empty());
        t.exit_and_skip(name, reason);
        t.reach_end("and L2 goes on");
    }
}

/// APIC-register virtualization, by memory.
const WITH_REGISTERS: Proc2 =
    Proc2::VIRTUALIZE_APIC_ACCESSES.union(Proc2::APIC_REGISTER_VIRTUALIZATION);

/// The sets of controls under which the APIC-access page is looked at.
const BY_MEMORY: [(&str, bool, Proc2); 4] = [
    ("access page", false, Proc2::VIRTUALIZE_APIC_ACCESSES),
    ("with TPR shadow", true, Proc2::VIRTUALIZE_APIC_ACCESSES),
    ("with registers", true, WITH_REGISTERS),
    (
        "with interrupts",
        true,
        WITH_REGISTERS.union(Proc2::VIRTUAL_INTERRUPT_DELIVERY),
    ),
];

fn accesses(t: &mut Tester, pages: &Pages) {
    for (name, has_shadow, on) in BY_MEMORY {
        let start = |t: &mut Tester, code: fn() -> Code, offset: u64| {
            let has_it = fresh(t, pages, code, on);
            if !has_shadow {
                t.vm.proc(Proc::empty(), Proc::USE_TPR_SHADOW);
            }
            for at in (0..0x400).step_by(16) {
                // TPR and what is checked on entry stay 0.
                if at != TPR {
                    pages.apic.write(at, (FILL | at) as u32);
                }
            }
            t.vm.registers.rbx = PAGE + offset;
            t.vm.registers.rax = 0x33;
            has_it
        };
        if !start(t, apic_nothing, 0) {
            t.skip(name);
            continue;
        }
        // Every register once; otherwise a few.
        let is_whole = t.with_ept && on == WITH_REGISTERS;
        let few = [
            0x20,
            TPR,
            0xa0,
            END_OF_INTERRUPT,
            0xd0,
            0xf0,
            COMMAND,
            0x310,
            0x380,
        ];
        let all = (0..0x400).step_by(16);
        for offset in all
            .filter(|at| is_whole || few.contains(at))
            .chain([0x400, 0xff0])
        {
            start(t, apic_load, offset);
            show(t, pages, format_args!("{name}: read {offset:x}"));
            start(t, apic_store, offset);
            // An EOI or an IPI by itself needs a state of its own: see below.
            let is_command = offset == END_OF_INTERRUPT || offset == COMMAND;
            if !(is_command && on.contains(Proc2::VIRTUAL_INTERRUPT_DELIVERY)) {
                show(t, pages, format_args!("{name}: write {offset:x}"));
            }
        }
        for (what, code, offset) in [
            ("byte", apic_load_byte as fn() -> Code, TPR),
            ("byte behind", apic_load_byte, TPR + 1),
            ("byte in a gap", apic_load_byte, TPR + 4),
            ("odd", apic_load, TPR + 2),
            ("wide", apic_load_wide, TPR),
            ("modify", apic_modify, TPR),
            ("modify the id", apic_modify, 0x20),
            ("copy", apic_copy, 0x20),
        ] {
            start(t, code, offset);
            show(t, pages, format_args!("{name}: {what}"));
        }
        // An event whose frame would lie in the page. (A fetch from it stops Bochs.)
        start(t, apic_nothing, 0);
        write(field::GUEST_RSP, PAGE + 0x800);
        write(
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            1 << 31 | 3 << 8 | 6,
        );
        show(t, pages, format_args!("{name}: frame of an event"));
    }
}

fn msrs(t: &mut Tester, pages: &Pages) {
    let x2apic = Proc2::VIRTUALIZE_X2APIC_MODE;
    let registers = x2apic.union(Proc2::APIC_REGISTER_VIRTUALIZATION);
    for (name, on) in [
        ("x2apic", x2apic),
        ("x2apic with registers", registers),
        (
            "x2apic with interrupts",
            registers.union(Proc2::VIRTUAL_INTERRUPT_DELIVERY),
        ),
    ] {
        if !fresh(t, pages, apic_nothing, on) {
            t.skip(name);
            continue;
        }
        let is_whole = t.with_ept && on == registers;
        let few = [0x802, 0x808, 0x80a, 0x80b, 0x80f, 0x830, 0x839, 0x83f];
        for index in (0x800..0x840)
            .filter(|n| is_whole || few.contains(n))
            .chain([0x8ff])
        {
            fresh(t, pages, apic_rdmsr, on);
            let offset = (index - 0x800) << 4;
            if index != 0x808 && offset < 0xff0 {
                pages.apic.write(offset, FILL | offset);
            }
            t.vm.registers.rcx = index;
            show(t, pages, format_args!("{name}: read {index:x}"));
        }
        for (index, high, low) in [
            (0x808, 0, 0x30),
            (0x808, 0, 0x100),
            (0x808, 1, 0),
            (0x80b, 0, 1),
            (0x83f, 0, 0x1_0000),
            (0x83f, 1, 0x61),
            (0x802, 0, 0),
            (0x830, 0, 0),
        ] {
            fresh(t, pages, apic_wrmsr, on);
            t.vm.registers.rcx = index;
            t.vm.registers.rdx = high;
            t.vm.registers.rax = low;
            show(
                t,
                pages,
                format_args!("{name}: write {index:x} {high:x}:{low:x}"),
            );
        }
    }
}

/// The bit of a vector among the eight registers from `base` on.
fn has_vector(page: &Page, base: u64, vector: u64) -> bool {
    page.read::<u32>(base + 0x10 * (vector / 32)) >> (vector % 32) & 1 != 0
}

fn request(page: &Page, vector: u64) {
    let at = REQUESTED + 0x10 * (vector / 32);
    page.write(at, page.read::<u32>(at) | 1 << (vector % 32));
}

fn state(pages: &Pages, vector: u64) {
    more!(
        "status {:x}, requested {}, in service {}, ppr {:x}, rip {:x}",
        read(field::GUEST_INTERRUPT_STATUS),
        has_vector(&pages.apic, REQUESTED, vector),
        has_vector(&pages.apic, IN_SERVICE, vector),
        pages.apic.read::<u32>(0xa0),
        read(field::GUEST_RIP),
    );
}

fn interrupts(t: &mut Tester, pages: &Pages) {
    let on = WITH_REGISTERS | Proc2::VIRTUAL_INTERRUPT_DELIVERY;
    if !fresh(t, pages, apic_nothing, on) {
        t.skip("virtual interrupts");
        return;
    }
    for vector in [0x31u64, 0x61, 0xff] {
        for (what, code, rflags, tpr) in [
            ("IF set", apic_nothing as fn() -> Code, 2 | IF, 0u32),
            ("IF clear", apic_nothing, 2, 0),
            ("STI", apic_wait, 2, 0),
            ("TPR above", apic_nothing, 2 | IF, 0xf0),
            ("TPR lowered", apic_cr8, 2 | IF, 0xf0),
        ] {
            fresh(t, pages, code, on);
            request(&pages.apic, vector);
            write(field::GUEST_INTERRUPT_STATUS, vector);
            write(field::GUEST_RFLAGS, rflags);
            pages.apic.write(TPR, tpr);
            show(t, pages, format_args!("virtual {vector:x}, {what}"));
            state(pages, vector);
        }
        // The end of it, with and without an exit.
        for exits in [false, true] {
            fresh(t, pages, apic_nothing, on);
            request(&pages.apic, vector);
            request(&pages.apic, 0x25);
            write(field::GUEST_INTERRUPT_STATUS, vector);
            write(field::GUEST_RFLAGS, 2 | IF);
            if exits {
                let bitmaps = [
                    field::EOI_EXIT_BITMAP_0,
                    field::EOI_EXIT_BITMAP_1,
                    field::EOI_EXIT_BITMAP_2,
                    field::EOI_EXIT_BITMAP_3,
                ];
                write(bitmaps[(vector / 64) as usize], 1 << (vector % 64));
            }
            show(t, pages, format_args!("virtual {vector:x}, delivered"));
            t.vm.load(&apic_store());
            t.vm.registers.rbx = PAGE + END_OF_INTERRUPT;
            show(t, pages, format_args!("its end, exits {exits}"));
            state(pages, vector);
        }
    }
    // IPIs to itself, and others.
    for command in [
        0x4_0061u64,
        0x4_0161,
        0x4_8061,
        0x4_0005,
        0x0_0061,
        0x8_0061,
        0x4_4061,
    ] {
        fresh(t, pages, apic_store, on);
        write(field::GUEST_RFLAGS, 2 | IF);
        t.vm.registers.rbx = PAGE + COMMAND;
        t.vm.registers.rax = command;
        show(t, pages, format_args!("virtual IPI {command:x}"));
        state(pages, command & 0xff);
    }
    // An interrupt window with a virtual interrupt that could be delivered.
    fresh(t, pages, apic_nothing, on);
    request(&pages.apic, 0x61);
    write(field::GUEST_INTERRUPT_STATUS, 0x61);
    write(field::GUEST_RFLAGS, 2 | IF);
    t.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty());
    show(t, pages, format_args!("virtual 61 and a window"));
    state(pages, 0x61);
}

fn posted(t: &mut Tester, pages: &Pages) {
    /// The descriptor's bit for an outstanding notification.
    const OUTSTANDING: u64 = 0x20;
    let on = Proc2::VIRTUAL_INTERRUPT_DELIVERY;
    let start = |t: &mut Tester, notification: u64, vectors: &[u64]| {
        // Bochs may deliver what was posted an instruction late.
        if !fresh(t, pages, apic_idle, on)
            || !t.vm.pin(Pin::PROCESS_POSTED_INTERRUPTS, Pin::empty())
        {
            return false;
        }
        t.vm.exit_controls(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT, Exit::empty());
        pages.descriptor.fill(0);
        for vector in vectors {
            let at = vector / 64 * 8;
            let bits = pages.descriptor.read::<u64>(at) | 1 << (vector % 64);
            pages.descriptor.write(at, bits);
        }
        pages.descriptor.write(OUTSTANDING, 1u64);
        write(
            field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
            pages.descriptor.address(),
        );
        write(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, notification);
        write(field::GUEST_RFLAGS, 2 | IF);
        true
    };
    if !start(t, u64::from(VECTOR), &[]) {
        t.skip("posted interrupts");
        return;
    }
    open_apic();
    for (what, notification, vectors) in [
        ("one", u64::from(VECTOR), &[0x61u64][..]),
        ("two", u64::from(VECTOR), &[0x31, 0x91]),
        ("another vector", 0x52, &[0x61]),
    ] {
        start(t, notification, vectors);
        send_self();
        show(t, pages, format_args!("posted, {what}"));
        let highest = vectors.last().copied().unwrap_or(0);
        state(pages, highest);
        more!(
            "left {:x} {:x} {:x} {:x}, outstanding {:x}",
            pages.descriptor.read::<u64>(0),
            pages.descriptor.read::<u64>(8),
            pages.descriptor.read::<u64>(16),
            pages.descriptor.read::<u64>(24),
            pages.descriptor.read::<u64>(OUTSTANDING),
        );
        if notification != u64::from(VECTOR) {
            // It came as an exit, acknowledged.
            end_of_interrupt();
        }
    }
}

//! Every field of the VMCS that holds a physical address, with every place in it, while L2 does what
//! makes the CPU use it. Where the place is memory, what comes of it is known.

use rt::apic;
use rt::report;
use rt::vmx::ept;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, Outcome, layout};
use umbra_vmcs::controls::{Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field};

use crate::lab::{Lab, TARGET, is_exit, leaf, reason, try_write};
use crate::place::Place;

code64! {
    fn in_code = "mov edx, r8d", "in al, dx", "vmcall";
    fn rdmsr_code = "mov ecx, r8d", "rdmsr", "vmcall";
    fn wrmsr_code = "mov ecx, r8d", "rdmsr", "wrmsr", "vmcall";
    fn tpr_code = "mov eax, 5", "mov cr8, rax", "xor eax, eax", "mov rbx, cr8", "vmcall";
    fn read_code = "mov eax, [0x100020]", "vmcall";
    fn write_code = "mov dword ptr [0x100020], 0", "vmcall";
    fn vmfunc_code = "xor eax, eax", "mov ecx, r8d", "vmfunc", "vmcall";
    fn vmread_code = "mov eax, 0x681e", "vmread rbx, rax", "mov eax, 0x6c16", "vmwrite rax, rbx", "vmcall";
    fn vmcall_code = "vmcall";
}

/// The vector of posted interrupts.
const NOTIFICATION: u8 = 0xf0;
/// EPT pointer: accessed and dirty flags on.
const FLAGS_ON: u64 = 1 << 6;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for place in lab.places() {
        io_bitmaps(lab, place);
        msr_bitmap(lab, place);
        apic_access(lab, place);
        link_pointer(lab, place);
    }
    for place in lab.writable_places() {
        virtual_apic(lab, place);
        posted_descriptor(lab, place);
        page_log(lab, place);
        eptp_list(lab, place);
        ve_information(lab, place);
        shadowing_bitmaps(lab, place);
    }
    many_apic_pages(lab);
    indices(lab);
}

/// Fills a place that is memory; the fills tried: all clear and all set. Others are tried once.
fn fills(place: &Place) -> &'static [u64] {
    if place.is_memory() {
        &[0, u64::MAX]
    } else {
        &[0]
    }
}

fn fill(place: &Place, value: u64) {
    if place.is_memory() {
        place.fill(value);
    }
}

/// Whether a bit is set at the place; `None` where that cannot be told.
fn bit_at(place: &Place, bit: u64) -> Option<bool> {
    place
        .is_readable()
        .then(|| place.peek(bit / 64 * 8) >> (bit % 64) & 1 != 0)
}

/// Runs a case in which a bit of a bitmap decides between an exit and VMCALL.
fn by_bit(lab: &mut Lab, place: &Place, what: &str, bit: u64, exit: u16) {
    let name = place.name;
    match bit_at(place, bit) {
        Some(true) => lab.expect(format_args!("{what} {name}"), &[exit]),
        Some(false) => lab.expect(format_args!("{what} {name}"), &[reason::VMCALL]),
        None => lab.expect(format_args!("{what} {name}"), &[exit, reason::VMCALL]),
    };
}

fn io_bitmaps(lab: &mut Lab, place: Place) {
    for (what, field, port) in [
        ("io-a", field::IO_BITMAP_A, 0x80),
        ("io-b", field::IO_BITMAP_B, 0x8080),
    ] {
        for value in fills(&place) {
            fill(&place, *value);
            lab.prepare(&in_code());
            write(field, place.address);
            lab.vm.registers.r8 = port;
            by_bit(lab, &place, what, port & 0x7fff, reason::IO);
        }
    }
}

fn msr_bitmap(lab: &mut Lab, place: Place) {
    // IA32_SYSENTER_CS, which no hypervisor needs to watch, and IA32_FEATURE_CONTROL, which one may.
    for msr in [0x174u32, 0x3a] {
        for value in fills(&place) {
            fill(&place, *value);
            lab.prepare(&rdmsr_code());
            write(field::MSR_BITMAP, place.address);
            lab.vm.registers.r8 = msr.into();
            by_bit(lab, &place, "msr-read", msr.into(), reason::RDMSR);
            if bit_at(&place, msr.into()) == Some(false) && msr == 0x3a {
                let seen = lab.vm.registers.rax as u32;
                let is_right = seen == rt::cpu::rdmsr(msr) as u32;
                report::check(format_args!("what L2 read: {seen:#x}"), is_right);
            }
        }
    }
    for value in fills(&place) {
        fill(&place, *value);
        lab.prepare(&wrmsr_code());
        write(field::MSR_BITMAP, place.address);
        lab.vm.registers.r8 = 0x174;
        if bit_at(&place, 0x174) == Some(false) {
            by_bit(lab, &place, "msr-write", 8 * 2048 + 0x174, reason::WRMSR);
        } else {
            lab.run(format_args!("msr-write {}", place.name));
        }
    }
}

fn virtual_apic(lab: &mut Lab, place: Place) {
    for value in fills(&place) {
        fill(&place, *value);
        lab.prepare(&tpr_code());
        if !lab.vm.proc(Proc::USE_TPR_SHADOW, Proc::empty()) {
            return;
        }
        write(field::VIRTUAL_APIC_ADDRESS, place.address);
        write(field::TPR_THRESHOLD, 0);
        if place.is_memory() {
            let what = format_args!("virtual-apic {}", place.name);
            lab.expect(what, &[reason::VMCALL]);
            let is_right = lab.vm.registers.rbx == 5 && place.peek(0x80) as u32 == 0x50;
            report::check(format_args!("the TPR at {}", place.name), is_right);
        } else {
            lab.run(format_args!("virtual-apic {}", place.name));
        }
    }
    // All of APIC virtualisation with the page there, an APIC-access page included.
    lab.prepare(&read_code());
    lab.vm.ept().set_entry(TARGET, 1, leaf(place.address));
    lab.flush();
    lab.vm.proc(Proc::USE_TPR_SHADOW, Proc::empty());
    let controls = Proc2::VIRTUALIZE_APIC_ACCESSES | Proc2::APIC_REGISTER_VIRTUALIZATION;
    if lab.has(controls) {
        write(field::VIRTUAL_APIC_ADDRESS, place.address);
        write(field::APIC_ACCESS_ADDRESS, place.address);
        write(field::TPR_THRESHOLD, 0);
        lab.run(format_args!("virtual-apic is apic-access {}", place.name));
    }
}

fn apic_access(lab: &mut Lab, place: Place) {
    for with_ept in [true, false] {
        for code in [read_code(), write_code()] {
            lab.fresh(Mode::Long, with_ept);
            lab.vm.load(&code);
            if !lab.has(Proc2::VIRTUALIZE_APIC_ACCESSES) {
                return;
            }
            write(field::APIC_ACCESS_ADDRESS, place.address);
            if with_ept {
                lab.vm.ept().set_entry(TARGET, 1, leaf(place.address));
                lab.flush();
            } else {
                point(lab, place.address, Mode::Long);
                // Without EPT code and data are at their physical addresses.
                lab.vm.memory.write(
                    layout::PAGE_TABLE + 8 * (layout::CODE >> 12),
                    (lab.vm.memory.address() + layout::CODE) | 7,
                );
            }
            let what = format_args!("apic-access {} ept {with_ept}", place.name);
            lab.expect(what, &[reason::APIC_ACCESS]);
        }
    }
}

/// Without EPT, more APIC-access pages than a hypervisor has tables for, all over memory.
fn many_apic_pages(lab: &mut Lab) {
    lab.fresh(Mode::Long, false);
    lab.vm.load(&read_code());
    if !lab.has(Proc2::VIRTUALIZE_APIC_ACCESSES) {
        return;
    }
    let width = rt::cpu::maxphyaddr();
    for n in 0..240u64 {
        let address = match n % 4 {
            // RAM, the hidden range and the devices; above it, by the gibibyte.
            0 | 1 => n * 0x111_1000,
            2 => n << 32,
            _ => (1 << width) - 4096 - (n << 30),
        };
        let address = address & ((1 << width) - 1) & !0xfff;
        point(lab, address, Mode::Long);
        write(field::APIC_ACCESS_ADDRESS, address);
        let what = format_args!("APIC-access page {address:#x}");
        lab.expect(what, &[reason::APIC_ACCESS]);
    }
}

/// Makes L2's linear [`TARGET`] lead to a guest-physical address.
pub fn point(lab: &mut Lab, gpa: u64, mode: Mode) {
    debug_assert!(mode.is_ia32e());
    let at = layout::PAGE_TABLE + 8 * (TARGET >> 12);
    lab.vm.memory.write(at, gpa | 7);
}

fn posted_descriptor(lab: &mut Lab, place: Place) {
    for value in fills(&place) {
        fill(&place, *value);
        lab.prepare(&vmcall_code());
        let pin = Pin::EXTERNAL_INTERRUPT_EXITING | Pin::PROCESS_POSTED_INTERRUPTS;
        let exit = Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
        let is_there = lab.vm.pin(pin, Pin::empty())
            && lab.vm.proc(Proc::USE_TPR_SHADOW, Proc::empty())
            && lab.has(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
            && lab.vm.exit_controls(exit, Exit::empty());
        if !is_there {
            return;
        }
        let page = rt::page::Page::read_foreign(lab.vm.msr_bitmap.address());
        debug_assert!(page == Some(0));
        write(field::VIRTUAL_APIC_ADDRESS, lab.vm.msr_bitmap.address());
        write(
            field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
            place.address + 0x40,
        );
        let vector = u64::from(NOTIFICATION);
        write(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, vector);
        write(field::GUEST_INTERRUPT_STATUS, 0);
        if place.is_memory() {
            // ON.
            place.poke(0x60, 1);
        }
        apic::enable();
        apic::write(apic::register::COMMAND, 0x4_4000 | u32::from(NOTIFICATION));
        let outcome = lab.vm.run();
        if is_exit(&outcome, reason::EXTERNAL_INTERRUPT) {
            apic::end_of_interrupt();
        }
        lab.survive(format_args!("posted {}", place.name), &outcome);
        if place.is_memory() {
            let is_clear = place.peek(0x60) & 1 == 0 && place.peek(0x40) == 0;
            report::check(format_args!("posted {}: taken", place.name), is_clear);
        }
        lab.vm.msr_bitmap.fill(0);
    }
}

fn page_log(lab: &mut Lab, place: Place) {
    if lab.vmx.caps.ept_vpid & 1 << 21 == 0 {
        return;
    }
    for index in [511, 0, 1, 512, 0xffff] {
        fill(&place, 0);
        lab.prepare(&write_code());
        if !lab.has(Proc2::ENABLE_PML) {
            return;
        }
        let target = lab.vm.msr_bitmap.address();
        lab.vm.ept().set_entry(TARGET, 1, leaf(target));
        write(field::EPT_POINTER, lab.vm.ept().pointer() | FLAGS_ON);
        lab.flush();
        write(field::PML_ADDRESS, place.address);
        write(field::PML_INDEX, index);
        let what = format_args!("log {} {index}", place.name);
        let outcome = lab.expect(what, &[reason::VMCALL, reason::PML_FULL]);
        let full = is_exit(&outcome, reason::PML_FULL);
        let left = read(field::PML_INDEX);
        if index > 511 {
            report::check(format_args!("a full log: {outcome}"), full && left == index);
        } else if place.is_memory() {
            let logged = place.peek(8 * index);
            let is_right = logged & 0xfff == 0 && logged <= TARGET && left != index;
            report::check(format_args!("logged {logged:#x} at {index}"), is_right);
        }
    }
}

fn eptp_list(lab: &mut Lab, place: Place) {
    let own = lab.vm.ept().pointer();
    fill(&place, 0);
    if place.is_memory() {
        for (slot, pointer) in [(0, own), (1, u64::MAX), (2, 0), (511, own)] {
            place.poke(8 * slot, pointer);
        }
    }
    for index in [0u64, 1, 2, 511, 512, 0xffff_ffff] {
        lab.prepare(&vmfunc_code());
        if !lab.has(Proc2::ENABLE_VM_FUNCTIONS) {
            return;
        }
        write(field::VM_FUNCTION_CONTROLS, 1);
        write(field::EPTP_LIST_ADDRESS, place.address);
        lab.vm.registers.r8 = index;
        let what = format_args!("eptp-list {} {index}", place.name);
        if !place.is_memory() {
            lab.run(what);
        } else if matches!(index, 0 | 511) {
            lab.expect(what, &[reason::VMCALL]);
        } else {
            lab.expect(what, &[reason::VMFUNC]);
        }
    }
    // The place as EPT's root, by way of a good list.
    fill(&place, 0);
    lab.prepare(&vmfunc_code());
    if lab.has(Proc2::ENABLE_VM_FUNCTIONS) {
        write(field::VM_FUNCTION_CONTROLS, 1);
        write(field::EPTP_LIST_ADDRESS, lab.vm.msr_bitmap.address());
        lab.vm.proc(Proc::empty(), Proc::USE_MSR_BITMAPS);
        lab.vm.msr_bitmap.write(0, place.address | 0x1e);
        lab.vm.registers.r8 = 0;
        let what = format_args!("switch to {}", place.name);
        lab.run(what);
    }
}

fn ve_information(lab: &mut Lab, place: Place) {
    for value in fills(&place) {
        fill(&place, *value);
        lab.prepare(&read_code());
        if !lab.has(Proc2::EPT_VIOLATION_VE) {
            return;
        }
        write(field::EXCEPTION_BITMAP, !(1 << 20));
        write(
            field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
            place.address,
        );
        let outcome = lab.run(format_args!("#VE {}", place.name));
        if !place.is_memory() {
            continue;
        }
        let name = place.name;
        if *value != 0 {
            let is_right = is_exit(&outcome, reason::EPT_VIOLATION) && place.peek(0) == u64::MAX;
            report::check(format_args!("#VE {name}, area in use: {outcome}"), is_right);
        } else {
            let handler = layout::HANDLERS + 20 * 16;
            let is_right = matches!(outcome, Outcome::Exit(exit) if exit.rip == handler)
                && place.peek(0) == 0xffff_ffff_0000_0030
                && place.peek(16) == TARGET + 0x20
                && place.peek(24) == TARGET + 0x20;
            report::check(format_args!("#VE {name}: {outcome}"), is_right);
        }
    }
}

fn link_pointer(lab: &mut Lab, place: Place) {
    let revision = lab.vmx.caps.revision();
    for (word, is_good) in [(revision, true), (revision ^ 1, false), (u32::MAX, false)] {
        if place.is_memory() {
            place.poke32(0, word);
        }
        lab.prepare(&vmcall_code());
        write(field::VMCS_LINK_POINTER, place.address);
        let what = format_args!("link {} {is_good}", place.name);
        if place.is_memory() && is_good {
            lab.expect(what, &[reason::VMCALL]);
        } else {
            lab.expect(what, &[reason::VMCALL, reason::ENTRY_GUEST_STATE]);
        }
    }
}

/// Where VMCS shadowing is not offered, the entry fails.
fn shadowing_bitmaps(lab: &mut Lab, place: Place) {
    for value in fills(&place) {
        fill(&place, *value);
        lab.prepare(&vmread_code());
        let control = u64::from(Proc2::VMCS_SHADOWING.bits());
        lab.has(Proc2::empty());
        let secondary = read(field::SECONDARY_PROCESSOR_BASED_CONTROLS);
        write(
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            secondary | control,
        );
        for field in [field::VMREAD_BITMAP_ADDRESS, field::VMWRITE_BITMAP_ADDRESS] {
            try_write(field, place.address);
        }
        lab.run(format_args!("shadowing {}", place.name));
    }
}

/// Numbers in the VMCS that select something: beyond what there is.
fn indices(lab: &mut Lab) {
    let fields: [(Field, &[u64]); 9] = [
        (field::CR3_TARGET_COUNT, &[5, 255, 0xffff_ffff]),
        (field::PML_INDEX, &[512, 0xffff]),
        (field::EPTP_INDEX, &[512, 0xffff]),
        (field::VIRTUAL_PROCESSOR_ID, &[0, 0xfffd, 0xfffe, 0xffff]),
        (field::TPR_THRESHOLD, &[16, 0xffff_ffff]),
        (field::VM_FUNCTION_CONTROLS, &[2, u64::MAX]),
        (field::XSS_EXITING_BITMAP, &[u64::MAX]),
        (field::TSC_MULTIPLIER, &[0, 1, u64::MAX]),
        (field::TSC_OFFSET, &[1 << 63, u64::MAX]),
    ];
    for (field, values) in fields {
        for value in values {
            lab.prepare(&rdmsr_code());
            lab.has(Proc2::ENABLE_VPID | Proc2::USE_TSC_SCALING | Proc2::ENABLE_XSAVES_XRSTORS);
            lab.vm.proc(Proc::USE_TSC_OFFSETTING, Proc::empty());
            lab.vm.registers.r8 = 0x10;
            if try_write(field, *value) {
                lab.run(format_args!("{} {value:#x}", field.name()));
            }
        }
    }
    // The EPT pointer: every memory type and walk length, on every place.
    for place in lab.places() {
        for low in [0u64, 6, 0x18, 0x1e, 0x1e | FLAGS_ON, 0x26, 0x9e, 0xfff] {
            lab.prepare(&vmcall_code());
            write(field::EPT_POINTER, place.address | low);
            lab.run(format_args!("EPT pointer {} {low:#x}", place.name));
        }
    }
    let _ = ept::ALL;
}

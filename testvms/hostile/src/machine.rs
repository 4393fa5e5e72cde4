//! Control registers, XCR0, ports, and VMX operation turned on and off without end.

use rt::report;
use rt::vmx::{VmxError, insn};
use rt::{apic, begin_case, cpu};

use crate::lab::{Lab, reason};
use crate::place::Place;

code64! {
    fn init_code = "vmcall";
}

const COM1: u16 = 0x3f8;
/// Bochs's port that ends a run, after the letters of a word.
const WORD_PORT: u16 = 0x8900;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    control_registers();
    extended_state();
    ports(lab);
    strings(lab);
    smram(lab);
    on_and_off(lab);
    init_to_itself(lab);
}

/// Every bit of CR0, CR4, CR8 and DR7 inverted for one instruction; a refusal is #GP.
fn control_registers() {
    for bit in 0..64u64 {
        let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
        // VMX operation is on, so that PE, PG, NE and VMXE are held; the others mean nothing to one MOV.
        let result = rt::vmx_insn!("mov cr0, {v}\nmov cr0, {o}", v = in(reg) cr0 ^ 1 << bit, o = in(reg) cr0);
        refused("CR0", bit, &result);
        let result = rt::vmx_insn!("mov cr4, {v}\nmov cr4, {o}", v = in(reg) cr4 ^ 1 << bit, o = in(reg) cr4);
        refused("CR4", bit, &result);
        let result =
            rt::vmx_insn!("mov cr8, {v}\nmov cr8, {o}", v = in(reg) 1u64 << bit, o = in(reg) 0u64);
        refused("CR8", bit, &result);
        let result = rt::vmx_insn!("mov dr7, {v}\nmov dr7, {o}", v = in(reg) 0x400u64 | (1 << bit & !0x2000), o = in(reg) 0x400u64);
        refused("DR7", bit, &result);
        let is_kept = cpu::cr0() == cr0 && cpu::cr4() == cr4;
        report::check(format_args!("control registers, bit {bit}"), is_kept);
    }
    for value in [0, 1, 0x1_0000_0000, u64::MAX, 0x6000_0010, 0x8000_0000] {
        let old = cpu::cr0();
        let result =
            rt::vmx_insn!("mov cr0, {v}\nmov cr0, {o}", v = in(reg) value, o = in(reg) old);
        refused("CR0", value, &result);
    }
}

/// Looks at what the instruction left: nothing or #GP.
fn refused(what: &str, bit: u64, result: &Result<(), VmxError>) {
    // The flags are no result of these instructions.
    let is_right = match result {
        Err(VmxError::Fault(fault)) => matches!(fault.vector, 6 | 13),
        _ => true,
    };
    report::check(format_args!("{what} {bit:#x}"), is_right);
}

/// XSETBV of every bit, of indices that do not exist, and without CR4.OSXSAVE.
fn extended_state() {
    if cpu::cpuid(1, 0).ecx & 1 << 26 == 0 {
        return;
    }
    let cr4 = cpu::cr4();
    for os_xsave in [true, false] {
        // SAFETY: OSXSAVE means nothing to this program.
        unsafe { cpu::set_cr4(if os_xsave { cr4 | 1 << 18 } else { cr4 }) };
        for index in [0u32, 1, 2, 0xffff_ffff] {
            for bit in 0..64u64 {
                for value in [1u64 << bit, 1 | 1 << bit, u64::MAX << bit] {
                    let result = rt::vmx_insn!("xsetbv", in("ecx") index,
                        in("eax") value as u32, in("edx") (value >> 32) as u32);
                    refused("XCR0", value, &result);
                }
            }
        }
        if os_xsave {
            let result = rt::vmx_insn!("xsetbv", in("ecx") 0u32, in("eax") 1u32, in("edx") 0u32);
            refused("XCR0", 1, &result);
        }
    }
    // SAFETY: as before this function.
    unsafe { cpu::set_cr4(cr4) };
}

/// The serial line half written, its registers set otherwise; the ports that end a run, but not so.
fn ports(lab: &mut Lab) {
    begin_case!("a line: in two");
    lab.sane(format_args!("within a line"));
    rt::println!(" pieces");
    let kept = [1, 3, 4, 7].map(|offset| cpu::inb(COM1 + offset));
    for value in 0..=255u8 {
        // Divisor access, break, loop-back, interrupts: whatever the bits say.
        for offset in [3, 4, 7, 1] {
            cpu::outb(COM1 + offset, value);
        }
        report::check(format_args!("COM1 {value:#x}"), cpu::cpuid(0, 0).eax != 0);
    }
    for (offset, value) in
        [3, 1, 3, 4, 7]
            .into_iter()
            .zip([kept[1] & 0x7f, 0, kept[1], kept[2], kept[3]])
    {
        cpu::outb(COM1 + offset, value);
    }
    // The divisor may have been changed through DLAB: 115200 baud again.
    cpu::outb(COM1 + 3, kept[1] | 0x80);
    cpu::outb(COM1, 1);
    cpu::outb(COM1 + 1, 0);
    cpu::outb(COM1 + 3, kept[1]);
    for word in [
        &b"Shutdow"[..],
        b"ShutShutdow",
        b"hutdown",
        b"Shutdownx".split_at(7).0,
    ] {
        for letter in word {
            cpu::outb(WORD_PORT, *letter);
        }
        cpu::outb(WORD_PORT, b'.');
    }
    cpu::outw(WORD_PORT - 1, u16::from_le_bytes(*b".S"));
    cpu::outb(WORD_PORT, b'.');
    // The reset port without the bit that resets, the keyboard controller without the command.
    cpu::outb(0xcf9, 0);
    cpu::outb(0xcf9, 2);
    cpu::outb(0xcf9, 0);
    lab.sane(format_args!("after the ports"));
}

/// SMRAM of the two host bridges that emulators have: under a hypervisor that hides memory it is
/// locked, since a handler of L1's would run past EPT.
fn smram(lab: &mut Lab) {
    const ADDRESS: u16 = 0xcf8;
    const DATA: u16 = 0xcfc;
    const LOCKED: u8 = 1 << 4;
    const OPEN: u8 = 1 << 6;

    cpu::outl(ADDRESS, 1 << 31);
    let register: u16 = match cpu::inl(DATA) {
        0x1237_8086 => 0x72,
        0x29c0_8086 => 0x9d,
        _ => return,
    };
    if lab.hidden.is_none() {
        return;
    }
    cpu::outl(ADDRESS, 1 << 31 | u32::from(register & !3));
    let port = DATA + (register & 3);
    let value = cpu::inb(port);
    report::check(
        format_args!("SMRAM is locked: {value:#x}"),
        value & (LOCKED | OPEN) == LOCKED,
    );
    for value in [OPEN | 0xa, OPEN | LOCKED | 0xa, 0xff, 0] {
        cpu::outb(port, value);
        let now = cpu::inb(port);
        report::check(
            format_args!("SMRAM stays locked: {now:#x}"),
            now & (LOCKED | OPEN) == LOCKED,
        );
    }
}

/// INS and OUTS at the ports that a hypervisor may watch, with the memory operand at the places.
fn strings(lab: &mut Lab) {
    for place in lab.writable_places().filter(|p| p.address < 1 << 32) {
        if place.is_memory() {
            place.fill(0x2e2e_2e2e_2e2e_2e2e);
        }
        for port in [WORD_PORT, COM1 + 7, 0xcf8] {
            let at = place.address + 0xf00;
            let count = if place.is_memory() { 64u64 } else { 1 };
            // The configuration address port takes double words; nothing is read through it.
            let result = if port == 0xcf8 {
                rt::vmx_insn!("rep outsd", in("edx") u32::from(port), inout("rcx") count => _, inout("rsi") at => _)
            } else {
                rt::vmx_insn!("rep outsb", in("edx") u32::from(port), inout("rcx") count => _, inout("rsi") at => _)
            };
            answered("OUTS", &place, &result);
            if place.kind == crate::place::Kind::Own {
                continue;
            }
            let result = rt::vmx_insn!("rep insb", in("edx") u32::from(port), inout("rcx") count => _, inout("rdi") at => _);
            answered("INS", &place, &result);
        }
        if place.is_memory() {
            // Beside what was asked for nothing was written.
            let is_kept = place.peek(0) == 0x2e2e_2e2e_2e2e_2e2e;
            report::check(format_args!("beside INS at {}", place.name), is_kept);
        }
    }
}

/// The flags are no result of these; a fault would be.
fn answered(what: &str, place: &Place, result: &Result<(), VmxError>) {
    let is_right = !matches!(result, Err(VmxError::Fault(_)));
    report::check(format_args!("{what} at {}", place.name), is_right);
}

/// VMX operation off and on again, many times, with VMCSs left current and launched.
fn on_and_off(lab: &mut Lab) {
    let region = lab.vmx.region.address();
    let own = lab.vm.vmcs.address();
    for round in 0..3000 {
        if round % 3 == 0 {
            let _ = insn::vmclear(&own);
        }
        let is_off = insn::vmxoff().is_ok();
        let is_on = insn::vmxon(&region).is_ok();
        let again = insn::vmxon(&region);
        let is_right = is_off && is_on && again.is_err();
        report::check(format_args!("off and on {round}"), is_right);
        if round % 2 == 0 {
            let _ = insn::vmptrld(&own);
        }
        if round % 500 == 0 {
            lab.sane(format_args!("in round {round}"));
        }
    }
}

/// INIT and start-up IPIs to the CPU itself: blocked in root operation, and an exit of the L2 that is
/// entered next.
fn init_to_itself(lab: &mut Lab) {
    let id = apic::read(apic::register::ID) >> 24;
    for round in 0..3 {
        apic::send(id, apic::Ipi::StartUp(0x55));
        apic::send(id, apic::Ipi::Init);
        apic::send(id, apic::Ipi::Init);
        apic::send(id, apic::Ipi::StartUp(0x55));
        lab.prepare(&init_code());
        let what = format_args!("an INIT is pending, {round}");
        lab.expect(what, &[reason::INIT]);
        let what = format_args!("and then it is not, {round}");
        lab.expect(what, &[reason::VMCALL]);
    }
}

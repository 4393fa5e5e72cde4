//! The VMX instructions' own conditions, in VMX root operation: mode, privilege level, memory
//! operand, and the order in which they are looked at.
//!
//! SDM: the pages of the VMX instruction reference.

use rt::gdt;
use rt::page::Page;
use rt::report;
use rt::run::{self, Place};
use rt::trap::Fault;
use rt::vmx::insn::{self, vmread_raw};
use rt::vmx::stub::Registers;
use rt::vmx::vm::Mode;
use rt::window::{BASE, PRESENT, USER, WRITE, Window};
use umbra_vmcs::field;

use crate::lab::Lab;
use crate::show;

/// An instruction with the memory operand `[rax]` (`[eax]`), and the second operand in RCX.
struct Insn {
    name: &'static str,
    bytes: &'static [u8],
    /// What RCX holds.
    rcx: u64,
    /// What the memory operand holds.
    operand: Operand,
}

/// What the memory operand holds.
#[derive(Clone, Copy)]
enum Operand {
    /// The address of a VMCS that is not current.
    Other,
    /// Nothing that matters.
    Any,
    /// A descriptor: a good EPT pointer, or VPID 1.
    Descriptor,
}

const fn memory(name: &'static str, bytes: &'static [u8], rcx: u64, operand: Operand) -> Insn {
    Insn {
        name,
        bytes,
        rcx,
        operand,
    }
}

const fn plain(name: &'static str, bytes: &'static [u8]) -> Insn {
    Insn {
        name,
        bytes,
        rcx: 0,
        operand: Operand::Any,
    }
}

/// GUEST_RIP, and the exit reason, which is read-only on some CPUs.
const RIP_FIELD: u64 = field::GUEST_RIP.encoding() as u64;

const INSNS: [Insn; 12] = [
    memory("vmclear", &[0x66, 0x0f, 0xc7, 0x30], 0, Operand::Other),
    memory("vmptrld", &[0x0f, 0xc7, 0x30], 0, Operand::Other),
    memory("vmptrst", &[0x0f, 0xc7, 0x38], 0, Operand::Any),
    memory("vmxon", &[0xf3, 0x0f, 0xc7, 0x30], 0, Operand::Other),
    memory("vmread", &[0x0f, 0x78, 0x08], RIP_FIELD, Operand::Any),
    memory("vmwrite", &[0x0f, 0x79, 0x08], RIP_FIELD, Operand::Any),
    memory("vmread?", &[0x0f, 0x78, 0x08], 0x6c20, Operand::Any),
    memory("vmwrite?", &[0x0f, 0x79, 0x08], 0x6c20, Operand::Any),
    memory(
        "invept",
        &[0x66, 0x0f, 0x38, 0x80, 0x08],
        2,
        Operand::Descriptor,
    ),
    memory(
        "invept?",
        &[0x66, 0x0f, 0x38, 0x80, 0x08],
        5,
        Operand::Descriptor,
    ),
    memory(
        "invvpid",
        &[0x66, 0x0f, 0x38, 0x81, 0x08],
        2,
        Operand::Descriptor,
    ),
    memory(
        "invvpid?",
        &[0x66, 0x0f, 0x38, 0x81, 0x08],
        5,
        Operand::Descriptor,
    ),
];

/// Instructions without a memory operand. None of them is in a state to succeed here.
const PLAIN: [Insn; 4] = [
    plain("vmlaunch", &[0x0f, 0x01, 0xc2]),
    plain("vmresume", &[0x0f, 0x01, 0xc3]),
    plain("vmfunc", &[0x0f, 0x01, 0xd4]),
    plain("getsec", &[0x0f, 0x37]),
];

/// Pages of the window, by purpose.
const CODE: u64 = 0;
const DATA: u64 = 1;
const ABSENT: u64 = 2;
const READ_ONLY: u64 = 3;
const KERNEL: u64 = 4;
const STACK: u64 = 5;

/// Segments for FS, in the free slots of the descriptor table.
const SMALL: u16 = gdt::FREE;
const READ_ONLY_DATA: u16 = gdt::FREE + 8;
const EXECUTE_ONLY: u16 = gdt::FREE + 16;
const EXPAND_DOWN: u16 = gdt::FREE + 24;

/// The bench for single instructions.
struct Bench {
    window: Window,
    code: Page,
    data: Page,
    other: Page,
}

/// The places that code runs in: name, code and stack segment.
const PLACES: [(&str, u16, u16); 4] = [
    ("64/0", gdt::CODE64, gdt::DATA),
    ("64/3", gdt::USER_CODE64, gdt::USER_DATA),
    ("32/0", gdt::CODE32, gdt::DATA),
    ("32/3", gdt::USER_CODE32, gdt::USER_DATA),
];

impl Bench {
    fn new(lab: &Lab) -> Self {
        let window = Window::open();
        let (code, data) = (Page::alloc(1), Page::alloc(3));
        window.map(CODE, code.address(), PRESENT | WRITE | USER);
        window.map(DATA, data.address(), PRESENT | WRITE | USER);
        window.map(ABSENT, data.address() + 4096, WRITE | USER);
        window.map(READ_ONLY, data.address() + 8192, PRESENT | USER);
        window.map(KERNEL, data.address(), PRESENT | WRITE);
        window.map(STACK, Page::alloc(1).address(), PRESENT | WRITE | USER);
        let base = (BASE & 0xff_ffff) << 16 | (BASE >> 24) << 56;
        gdt::set_slot(SMALL, 0x0040_f300_0000_0fff | base);
        gdt::set_slot(READ_ONLY_DATA, 0x00cf_f100_0000_ffff);
        gdt::set_slot(EXECUTE_ONLY, 0x00cf_f900_0000_ffff);
        gdt::set_slot(EXPAND_DOWN, 0x0040_f700_0000_1fff | base);
        Self {
            window,
            code,
            data,
            other: lab.vmx.new_vmcs(),
        }
    }

    /// Runs `bytes` at a place with RAX, RBP and RCX set.
    fn run(&self, place: (u16, u16), fs: u16, bytes: &[u8], rax: u64, rcx: u64) -> Fault {
        self.code.fill(0xcc);
        self.code.write_bytes(0, bytes);
        let registers = Registers {
            rax,
            rbp: rax,
            rcx,
            ..Registers::default()
        };
        let place = Place {
            code: place.0,
            stack: place.1,
            rip: BASE + CODE * 4096,
            rsp: BASE + STACK * 4096 + 2048,
            fs,
        };
        run::run(&place, &registers)
    }

    /// Puts what an instruction reads at every place where it may look for it.
    fn fill(&self, lab: &Lab, insn: &Insn) {
        self.data.fill(0);
        let value = match insn.operand {
            Operand::Other => self.other.address(),
            Operand::Any => 0x1234,
            Operand::Descriptor if insn.name.starts_with("invept") => {
                lab.vm.ept.as_ref().map_or(0, |ept| ept.pointer())
            }
            Operand::Descriptor => 1,
        };
        for at in [0, 4088, 4096, 8192, 8192 + 4088] {
            self.data.write(at, value);
        }
    }
}

/// Prints what became of an instruction of `length` bytes.
fn show(lab: &mut Lab, id: core::fmt::Arguments<'_>, fault: &Fault, length: usize) {
    let is_through = fault.vector == 3 && fault.rip == BASE + CODE * 4096 + length as u64 + 1;
    if !is_through {
        lab.record(id, fault);
        return;
    }
    let (carry, zero) = (fault.rflags & 1 != 0, fault.rflags >> 6 & 1 != 0);
    let others = fault.rflags & 0x894;
    let error = if zero {
        vmread_raw(u64::from(field::VM_INSTRUCTION_ERROR.encoding())).unwrap_or(0)
    } else {
        0
    };
    match (carry, zero, others) {
        (false, false, 0) => lab.record(id, "ok"),
        (true, false, 0) => lab.record(id, "fi"),
        (false, true, 0) => lab.record(id, format_args!("f{error}")),
        _ => lab.record(id, format_args!("flags {:x}", fault.rflags)),
    }
}

/// Runs the group.
pub fn run(lab: &mut Lab) {
    if !lab.begin("operands", Mode::Long, false) {
        return;
    }
    let bench = Bench::new(lab);
    for has_current in [true, false] {
        report::group(format_args!("operands, current {has_current}"));
        for insn in &INSNS {
            addresses(lab, &bench, insn, has_current);
        }
        for (name, code, stack) in PLACES {
            for insn in INSNS.iter().chain(&PLAIN) {
                if insn.name == "vmlaunch" && name == "64/0" && has_current {
                    // It would enter L2.
                    continue;
                }
                arrange(lab, &bench, insn, has_current);
                let fault = bench.run((code, stack), 0, insn.bytes, BASE + DATA * 4096, insn.rcx);
                show(
                    lab,
                    format_args!("{name} {}", insn.name),
                    &fault,
                    insn.bytes.len(),
                );
            }
        }
    }
    arrange(lab, &bench, &INSNS[2], true);
    prefixes(lab, &bench);
    segments(lab, &bench);
    pointers(lab, &bench);
    lab.refresh(Mode::Long, false);
    lab.end();
}

/// A current VMCS or none, and fresh memory.
fn arrange(lab: &Lab, bench: &Bench, insn: &Insn, has_current: bool) {
    let own = lab.vm.vmcs.address();
    let _ = insn::vmclear(&bench.other.address());
    let _ = insn::vmclear(&own);
    if has_current {
        let _ = insn::vmptrld(&own);
    }
    bench.fill(lab, insn);
}

/// Bochs 3.0 reads the descriptor before it looks at the type, the SDM has it the other way round: with
/// a type that does not exist only operands that can be read are tried.
fn is_left_out(insn: &Insn, place: &str) -> bool {
    let is_bad_type = matches!(insn.name, "invept?" | "invvpid?");
    is_bad_type
        && (place.contains("absent")
            || place.contains("not canonical")
            || place.starts_with("into"))
}

/// Where the memory operand may lie.
fn addresses(lab: &mut Lab, bench: &Bench, insn: &Insn, has_current: bool) {
    let place = (gdt::CODE64, gdt::DATA);
    for (name, address) in [
        ("good", BASE + DATA * 4096),
        ("odd", BASE + DATA * 4096 + 1),
        ("absent", BASE + ABSENT * 4096),
        ("into absent", BASE + DATA * 4096 + 4092),
        ("read-only", BASE + READ_ONLY * 4096),
        ("into read-only", BASE + READ_ONLY * 4096 - 4),
        ("supervisor", BASE + KERNEL * 4096),
        ("not canonical", 0x8000_0000_0000),
        ("into not canonical", 0x7fff_ffff_fffc),
        ("not canonical, high", 0xffff_7fff_ffff_fff8),
    ] {
        if is_left_out(insn, name) {
            continue;
        }
        arrange(lab, bench, insn, has_current);
        let fault = bench.run(place, 0, insn.bytes, address, insn.rcx);
        show(
            lab,
            format_args!("{} {name}", insn.name),
            &fault,
            insn.bytes.len(),
        );
    }
    // The same through RBP: the stack segment.
    let mut bytes = [0; 8];
    let length = insn.bytes.len();
    bytes[..length].copy_from_slice(insn.bytes);
    bytes[length - 1] = insn.bytes[length - 1] & 0x38 | 0x45;
    let bytes = &bytes[..length + 1];
    for (name, address) in [
        ("rbp good", BASE + DATA * 4096),
        ("rbp absent", BASE + ABSENT * 4096),
        ("rbp not canonical", 0x8000_0000_0000),
    ] {
        if is_left_out(insn, name) {
            continue;
        }
        arrange(lab, bench, insn, has_current);
        let fault = bench.run(place, 0, bytes, address, insn.rcx);
        show(
            lab,
            format_args!("{} {name}", insn.name),
            &fault,
            bytes.len(),
        );
    }
    let mut register = [0; 8];
    register[..length].copy_from_slice(insn.bytes);
    register[length - 1] |= 0xc0;
    if matches!(insn.name, "invept" | "invvpid") {
        let fault = bench.run(place, 0, &register[..length], 0, insn.rcx);
        show(lab, format_args!("{} register", insn.name), &fault, length);
    }
}

/// Prefixes that make another instruction, or none, of it.
fn prefixes(lab: &mut Lab, bench: &Bench) {
    for prefix in [0x66u8, 0xf2, 0xf3, 0xf0, 0x2e, 0x48, 0x67] {
        for insn in [
            &INSNS[2], &INSNS[4], &INSNS[5], &INSNS[8], &INSNS[10], &PLAIN[1],
        ] {
            let mut bytes = [0; 8];
            bytes[0] = prefix;
            bytes[1..=insn.bytes.len()].copy_from_slice(insn.bytes);
            arrange(lab, bench, insn, true);
            // An address-size prefix makes `[eax]` of it: the window lies below 4 GiB.
            let length = insn.bytes.len() + 1;
            let place = (gdt::CODE64, gdt::DATA);
            let fault = bench.run(place, 0, &bytes[..length], BASE + DATA * 4096, insn.rcx);
            show(
                lab,
                format_args!("prefix {prefix:x} {}", insn.name),
                &fault,
                length,
            );
        }
    }
}

/// Segment limits and types do not count in 64-bit mode, and #UD comes first in compatibility mode.
fn segments(lab: &mut Lab, bench: &Bench) {
    for (name, fs) in [
        ("small", SMALL | 3),
        ("read-only", READ_ONLY_DATA | 3),
        ("execute-only", EXECUTE_ONLY | 3),
        ("expand-down", EXPAND_DOWN | 3),
    ] {
        if fs & !3 == EXECUTE_ONLY {
            // FS cannot be loaded with it.
            continue;
        }
        for (place, code, stack) in [PLACES[0], PLACES[2]] {
            for insn in [&INSNS[2], &INSNS[4], &INSNS[5]] {
                let mut bytes = [0; 8];
                bytes[0] = 0x64;
                bytes[1..=insn.bytes.len()].copy_from_slice(insn.bytes);
                arrange(lab, bench, insn, true);
                let length = insn.bytes.len() + 1;
                let offset = if matches!(name, "read-only") {
                    BASE + DATA * 4096
                } else {
                    0x1000
                };
                let fault = bench.run((code, stack), fs, &bytes[..length], offset, insn.rcx);
                show(
                    lab,
                    format_args!("{place} fs {name} {}", insn.name),
                    &fault,
                    length,
                );
            }
        }
    }
}

/// Each bit of the pointers, and what the region says of itself.
fn pointers(lab: &mut Lab, bench: &Bench) {
    let own = lab.vm.vmcs.address();
    let width = rt::cpu::maxphyaddr();
    let result = |lab: &mut Lab, id: core::fmt::Arguments<'_>, result| {
        lab.record(id, show::Result(result));
    };
    for has_current in [true, false] {
        for bit in (0..12).chain(width..64) {
            arrange(lab, bench, &INSNS[2], has_current);
            let pointer = bench.other.address() ^ 1 << bit;
            result(
                lab,
                format_args!("vmclear {has_current} {bit}"),
                insn::vmclear(&pointer),
            );
            result(
                lab,
                format_args!("vmptrld {has_current} {bit}"),
                insn::vmptrld(&pointer),
            );
        }
        for (name, pointer) in [
            ("vmxon region", lab.vmx.region.address()),
            ("own", own),
            ("other", bench.other.address()),
            ("all 1", u64::MAX),
        ] {
            arrange(lab, bench, &INSNS[2], has_current);
            result(
                lab,
                format_args!("vmclear {has_current} {name}"),
                insn::vmclear(&pointer),
            );
            result(
                lab,
                format_args!("vmptrld {has_current} {name}"),
                insn::vmptrld(&pointer),
            );
            let current = insn::vmptrst().unwrap_or(0);
            let is = |address| if current == address { "yes" } else { "no" };
            let (other, none) = (is(bench.other.address()), is(u64::MAX));
            lab.record(
                format_args!("own {}", is(own)),
                format_args!("other {other} none {none}"),
            );
        }
    }
    arrange(lab, bench, &INSNS[2], true);
    // Bit 31 says shadow VMCS, and the answer depends on whether VMCS shadowing is offered.
    for bit in 0..31 {
        bench.other.write(0, lab.caps.revision() ^ 1 << bit);
        let pointer = bench.other.address();
        result(lab, format_args!("revision^{bit}"), insn::vmptrld(&pointer));
    }
    bench.other.write(0, lab.caps.revision());
    let _ = insn::vmclear(&bench.other.address());
    let _ = bench
        .window
        .map(DATA, bench.data.address(), PRESENT | WRITE | USER);
}

//! VMCS shadowing: a shadow VMCS, and VMREAD and VMWRITE of L2.
//!
//! SDM "VMCS Types: Ordinary and Shadow", "VM-Execution Control Fields", VMREAD and VMWRITE in the instruction
//! reference, "VM Exits": "Instructions That Cause VM Exits Conditionally".

use rt::l2_code;
use rt::page::Page;
use rt::vmx::insn::{self, Shown, read, write};
use rt::vmx::vm::{Code, SEGMENTS};
use rt::{case, more};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, Field};

use crate::tester::Tester;

l2_code! {
    fn reads { 64 = "vmread rax, rcx", "pushfq", "pop rbx", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn writes { 64 = "vmwrite rcx, rax", "pushfq", "pop rbx", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn reads_memory { 64 = "vmread [0x9008], rcx", "mov rax, [0x9008]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn writes_memory { 64 = "mov [0x9008], rax", "vmwrite rcx, [0x9008]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn reads_nowhere { 64 = "vmread [0x400000], rcx", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn write_then_read { 64 = "vmwrite rcx, rax", "cpuid", "mov ecx, 0x681e", "vmread rax, rcx", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
}

/// The shadow-VMCS indicator in a region's first word.
const INDICATOR: u32 = 1 << 31;
/// The flags that the VMX instructions leave.
const ARITHMETIC: u64 = 0x8d5;
/// What L2 may reach: guest state, a control, host state, exit information, no field at all, a bit beyond the bitmaps,
/// the upper half of a 64-bit field.
const FIELDS: [u64; 9] = [
    0x681e,
    0x4000,
    0x6c14,
    0x4402,
    0x0802,
    0x7ffe,
    0x681e | 1 << 15,
    0x2011,
    0x2026,
];

struct Shadow {
    region: Page,
    bitmaps: Page,
}

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    if !t.vmx.caps.offers_proc2(Proc2::VMCS_SHADOWING) {
        t.skip("VMCS shadowing");
        with_indicator(t);
        return;
    }
    let shadow = Shadow {
        region: t.vmx.new_vmcs(),
        bitmaps: Page::alloc(2),
    };
    shadow.region.write(0, t.vmx.caps.revision() | INDICATOR);
    root(t, &shadow);
    link(t, &shadow);
    for (name, closed) in [("open", 0), ("closed", 0xff)] {
        shadow.bitmaps.fill(closed);
        for encoding in FIELDS {
            one(
                t,
                &shadow,
                &format_args!("{name}, vmread of {encoding:x}"),
                &reads(),
                encoding,
            );
            one(
                t,
                &shadow,
                &format_args!("{name}, vmwrite of {encoding:x}"),
                &writes(),
                encoding,
            );
        }
    }
    shadow.bitmaps.fill(0);
    memory(t, &shadow);
    rights(t, &shadow);
    turns(t, &shadow);
}

/// Without the feature, the indicator makes no VMCS.
fn with_indicator(t: &mut Tester) {
    let region = t.vmx.new_vmcs();
    region.write(0, t.vmx.caps.revision() | INDICATOR);
    let pointer = region.address();
    case!(
        "vmptrld with the indicator: {}",
        Shown(insn::vmptrld(&pointer))
    );
    region.write(0, t.vmx.caps.revision());
}

/// A shadow VMCS in VMX root operation: read and written like another. That it cannot be entered is tested in
/// `nested/tests/shadow.rs`: Bochs enters it (docs/errata.md).
fn root(t: &mut Tester, shadow: &Shadow) {
    let pointer = shadow.region.address();
    t.fresh(&reads());
    case!("vmclear of a shadow: {}", Shown(insn::vmclear(&pointer)));
    case!("vmptrld of a shadow: {}", Shown(insn::vmptrld(&pointer)));
    for (field, value) in [
        (field::GUEST_RIP, 0x1234_5678_9abc),
        (field::EXIT_REASON, 0x8000_0021),
        (field::HOST_RSP, 0x77),
        (field::GUEST_CS_SELECTOR, 0x1_0008),
    ] {
        write(field, value);
        case!("{}: {:x}", field.name(), read(field));
    }
    case!("vmclear: {}", Shown(insn::vmclear(&pointer)));
    case!("vmptrld again: {}", Shown(insn::vmptrld(&pointer)));
    case!("rip kept: {:x}", read(field::GUEST_RIP));
    case!("reason kept: {:x}", read(field::EXIT_REASON));
    case!("vmclear: {}", Shown(insn::vmclear(&pointer)));
    shadow
        .region
        .write(0, (t.vmx.caps.revision() ^ 1) | INDICATOR);
    case!(
        "vmptrld with another revision: {}",
        Shown(insn::vmptrld(&pointer))
    );
    shadow.region.write(0, t.vmx.caps.revision() | INDICATOR);
}

/// The rules for the controls and for the link pointer.
fn link(t: &mut Tester, shadow: &Shadow) {
    let address = shadow.region.address();
    for (name, on, link, word) in [
        ("no link", true, u64::MAX, INDICATOR),
        ("an ordinary VMCS with shadowing", true, address, 0),
        ("a shadow VMCS without shadowing", false, address, INDICATOR),
        ("an ordinary VMCS without shadowing", false, address, 0),
        ("another revision", true, address, INDICATOR | 1),
        ("not aligned", true, address + 8, INDICATOR),
        ("beyond the width", true, 1 << 60, INDICATOR),
        ("the current VMCS", true, t.vm.vmcs.address(), INDICATOR),
        ("a shadow VMCS", true, address, INDICATOR),
    ] {
        prepare(t, shadow, &reads(), 0x681e);
        if !on {
            t.vm.proc2(Proc2::empty(), Proc2::VMCS_SHADOWING);
        }
        shadow.region.write(0, t.vmx.caps.revision() ^ word);
        write(field::VMCS_LINK_POINTER, link);
        case!("{name}: {}", t.vm.run());
        shadow.region.write(0, t.vmx.caps.revision() | INDICATOR);
    }
    for bitmap in [field::VMREAD_BITMAP_ADDRESS, field::VMWRITE_BITMAP_ADDRESS] {
        for address in [1 << 60, 0x1_0010] {
            prepare(t, shadow, &reads(), 0x681e);
            write(bitmap, address);
            case!("{} {address:x}: {}", bitmap.name(), t.vm.run());
        }
    }
}

/// L2 before `code`, with shadowing on; the shadow VMCS has known values.
fn prepare(t: &mut Tester, shadow: &Shadow, code: &Code, encoding: u64) {
    fill(shadow);
    t.fresh(code);
    t.vm.proc2(Proc2::VMCS_SHADOWING, Proc2::empty());
    write(field::VMREAD_BITMAP_ADDRESS, shadow.bitmaps.address());
    write(
        field::VMWRITE_BITMAP_ADDRESS,
        shadow.bitmaps.address() + 4096,
    );
    write(field::VMCS_LINK_POINTER, shadow.region.address());
    t.vm.registers.rcx = encoding;
    t.vm.registers.rax = 0x1122_3344_5566_7788;
}

const FILLED: [(Field, u64); 5] = [
    (field::GUEST_RIP, 0x0123_4567_89ab_cdef),
    (field::PIN_BASED_CONTROLS, 0x1111_2222),
    (field::HOST_RSP, 0xfeed),
    (field::EXIT_REASON, 0x8000_0030),
    (field::GUEST_CS_SELECTOR, 0x4242),
];

fn fill(shadow: &Shadow) {
    let pointer = shadow.region.address();
    insn::vmclear(&pointer).expect("VMCLEAR of a shadow VMCS");
    insn::vmptrld(&pointer).expect("VMPTRLD of a shadow VMCS");
    for (field, value) in FILLED {
        write(field, value);
    }
    insn::vmclear(&pointer).expect("VMCLEAR of a shadow VMCS");
}

/// What the shadow VMCS has afterwards, on one line.
fn show(t: &Tester, shadow: &Shadow) {
    let pointer = shadow.region.address();
    insn::vmptrld(&pointer).expect("VMPTRLD of a shadow VMCS");
    let [rip, pin, rsp, reason, cs] = FILLED.map(|(field, _)| read(field));
    more!("shadow: rip={rip:x} pin={pin:x} rsp={rsp:x} reason={reason:x} cs={cs:x}");
    insn::vmclear(&pointer).expect("VMCLEAR of a shadow VMCS");
    let ordinary = t.vm.vmcs.address();
    insn::vmptrld(&ordinary).expect("VMPTRLD of a good VMCS");
}

fn one(t: &mut Tester, shadow: &Shadow, name: &dyn core::fmt::Display, code: &Code, encoding: u64) {
    prepare(t, shadow, code, encoding);
    let outcome = t.vm.run();
    case!(
        "{name}: {outcome} rax={:x} flags={:x}",
        t.vm.registers.rax,
        t.vm.registers.rbx & ARITHMETIC
    );
    show(t, shadow);
}

/// Operands in L2's memory.
fn memory(t: &mut Tester, shadow: &Shadow) {
    one(t, shadow, &"vmread to memory", &reads_memory(), 0x681e);
    one(t, shadow, &"vmwrite from memory", &writes_memory(), 0x681e);
    one(
        t,
        shadow,
        &"vmread of 16 bits to memory",
        &reads_memory(),
        0x0802,
    );
    prepare(t, shadow, &reads_nowhere(), 0x681e);
    write(field::EXCEPTION_BITMAP, 1 << 14);
    t.exit("vmread to a page that is not there", Reason::ExceptionOrNmi);
}

/// Privilege level 3: the exit comes first, then the fault.
fn rights(t: &mut Tester, shadow: &Shadow) {
    for (name, closed) in [("open", 0), ("closed", 0xff)] {
        shadow.bitmaps.fill(closed);
        prepare(t, shadow, &reads(), 0x681e);
        for (n, segment) in SEGMENTS[..6].iter().enumerate() {
            write(segment.selector, if n == 0 { 0x0b } else { 0x33 });
            write(segment.rights, read(segment.rights) | 3 << 5);
        }
        write(field::EXCEPTION_BITMAP, 1 << 13);
        case!("{name}, at level 3: {}", t.vm.run());
    }
    shadow.bitmaps.fill(0);
}

/// The same shadow VMCS over several exits, then another one, then the first again.
fn turns(t: &mut Tester, shadow: &Shadow) {
    let other = t.vmx.new_vmcs();
    other.write(0, t.vmx.caps.revision() | INDICATOR);
    prepare(t, shadow, &write_then_read(), 0x681e);
    t.exit_and_skip("an exit behind vmwrite", Reason::Cpuid);
    t.reach_end("vmread behind the exit");
    case!("rax={:x}", t.vm.registers.rax);
    let pointer = other.address();
    insn::vmclear(&pointer).expect("VMCLEAR of a shadow VMCS");
    for (name, link) in [
        ("another", pointer),
        ("the first again", shadow.region.address()),
    ] {
        t.vm.jump(0);
        t.vm.registers.rcx = 0x681e;
        t.vm.registers.rax = link;
        write(field::VMCS_LINK_POINTER, link);
        t.exit_and_skip(name, Reason::Cpuid);
        t.reach_end(name);
        let is_right = t.vm.registers.rax == link;
        t.check("what was written is read", is_right);
    }
    show(t, shadow);
}

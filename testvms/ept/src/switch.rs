//! EPTP switching by L2.
//!
//! SDM "VM Functions", "EPTP Switching".

use rt::page::Page;
use rt::report;
use rt::vmx::ept::{ALL, Ept, WRITE_BACK};
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use crate::lab::{FLAGS_ON, LINEAR, Lab};

/// VMFUNC, MOV EAX from [RDI], VMCALL.
const CODE: [u8; 8] = [0x0f, 0x01, 0xd4, 0x8b, 0x07, 0x0f, 0x01, 0xc1];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    lab.reset(Mode::Long);
    if lab.vmx.caps.vmfunc & 1 == 0 || !lab.turn_on(Proc2::ENABLE_VM_FUNCTIONS, "EPTP switching") {
        return;
    }
    let (own, other, page) = (lab.ept().pointer(), Ept::new(), Page::alloc(1));
    for at in (0..layout::BYTES).step_by(4096) {
        other.map(at, lab.vm.memory.address() + at, ALL);
    }
    let other_path = lab.path;
    let second = crate::path::Path::new(page.address(), 1);
    second.mend(&other);
    report::check(format_args!("same address"), second.gpa == other_path.gpa);
    page.write(0x10, 0x2222_2222u32);
    lab.target.write(0x10, 0x1111_1111u32);

    let list = Page::alloc(1);
    let beyond = 1u64 << rt::cpu::maxphyaddr();
    let pointers = [
        own,
        other.pointer(),
        other.pointer() | FLAGS_ON,
        other.pointer() & !7 | 5,
        other.pointer() & !7,
        other.pointer() & !0x38,
        other.pointer() & !0x38 | 4 << 3,
        other.pointer() | 1 << 7,
        other.pointer() | 1 << 8,
        other.pointer() | 1 << 11,
        other.pointer() | beyond,
        other.pointer() | 1 << 63,
        0,
        u64::MAX,
    ];
    for (at, pointer) in pointers.iter().enumerate() {
        list.write(8 * at as u64, *pointer);
    }
    list.write(8 * 511, other.pointer());
    write(field::EPTP_LIST_ADDRESS, list.address());
    write(field::VM_FUNCTION_CONTROLS, 1);

    let show = |lab: &mut Lab, id: core::fmt::Arguments<'_>, function: u64, index: u64| {
        write(field::EPT_POINTER, own);
        lab.flush();
        lab.vm.registers.rax = function;
        lab.vm.registers.rcx = index;
        lab.vm.registers.rdi = LINEAR + 0x10;
        let answer = lab.execute(&CODE);
        let now = match read(field::EPT_POINTER) {
            pointer if pointer == own => "own",
            pointer if pointer == other.pointer() => "other",
            pointer if pointer == other.pointer() | FLAGS_ON => "other with flags",
            _ => "wrong",
        };
        let rax = lab.vm.registers.rax;
        lab.record(id, format_args!("{answer} rax={rax:x} pointer {now}"));
    };

    for index in 0..pointers.len() as u64 {
        show(lab, format_args!("entry {index}"), 0, index);
    }
    for index in [511, 512, 0xffff_ffff, 1 << 32 | 1, 1 << 32 | 512] {
        show(lab, format_args!("index {index:x}"), 0, index);
    }
    for function in [1, 63, 64, 0xffff_ffff, 1 << 32] {
        show(lab, format_args!("function {function:x}"), function, 1);
    }
    write(field::VM_FUNCTION_CONTROLS, 0);
    show(lab, format_args!("function 0 off"), 0, 1);
    write(field::VM_FUNCTION_CONTROLS, 1);
    lab.vm.proc2(Proc2::empty(), Proc2::ENABLE_VM_FUNCTIONS);
    show(lab, format_args!("VM functions off"), 0, 1);
    lab.vm.proc2(Proc2::ENABLE_VM_FUNCTIONS, Proc2::empty());

    // The other hierarchy's rights and faults count after the switch.
    for (name, entry) in [
        ("absent", 0),
        ("write-only", second.leaf_entry(WRITE_BACK | 2)),
        ("type 2", second.leaf_entry(2 << 3 | ALL)),
    ] {
        second.set(&other, 1, entry);
        let _ = rt::vmx::insn::invept(1, [other.pointer(), 0]);
        show(lab, format_args!("other {name}"), 0, 1);
    }
    second.mend(&other);
    there_and_back(lab, own);
    if lab.turn_on(Proc2::EPT_VIOLATION_VE, "EPTP index") {
        let area = Page::alloc(1);
        write(
            field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
            area.address(),
        );
        for index in [1u64, 511, 3] {
            write(field::EPTP_INDEX, 9);
            show(lab, format_args!("reported index {index}"), 0, index);
            let reported = read(field::EPTP_INDEX);
            lab.record(format_args!("field"), reported);
        }
    }
    lab.reset(Mode::Long);
}

/// L2 switches forty times and adds up what it reads.
fn there_and_back(lab: &mut Lab, own: u64) {
    write(field::EPT_POINTER, own);
    lab.flush();
    lab.vm.registers.rdi = LINEAR + 0x10;
    lab.vm.registers.rdx = 0;
    lab.vm.registers.rcx = 0;
    lab.vm.registers.rbx = 40;
    // again: xor ecx, 1; xor eax, eax; vmfunc; add edx, [rdi]; dec ebx; jnz again; vmcall
    let answer = lab.execute(&[
        0x83, 0xf1, 0x01, 0x31, 0xc0, 0x0f, 0x01, 0xd4, 0x03, 0x17, 0xff, 0xcb, 0x75, 0xf2, 0x0f,
        0x01, 0xc1,
    ]);
    let rdx = lab.vm.registers.rdx;
    lab.record(
        format_args!("forty switches"),
        format_args!("{answer} sum={rdx:x}"),
    );
    report::check(
        format_args!("sum"),
        rdx as u32 == 0x3333_3333u32.wrapping_mul(20),
    );
}

//! Every physical address in a control field: alignment, physical width, and whether it counts.
//!
//! SDM "VM-Execution Control Fields", "VM-Exit Control Fields" and "VM-Entry Control Fields" of the
//! chapter on checks of VMX controls.

use rt::vmx::vm::Mode;
use umbra_vmcs::controls::{Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field};

use crate::lab::Lab;

/// What makes an address count.
#[derive(Clone, Copy)]
enum Used {
    Proc(Proc),
    Proc2(Proc2),
    Posted,
    Functions,
    Count(Field),
}

const ADDRESSES: [(&str, Field, Used); 15] = [
    ("io-a", field::IO_BITMAP_A, Used::Proc(Proc::USE_IO_BITMAPS)),
    ("io-b", field::IO_BITMAP_B, Used::Proc(Proc::USE_IO_BITMAPS)),
    ("msr", field::MSR_BITMAP, Used::Proc(Proc::USE_MSR_BITMAPS)),
    (
        "vapic",
        field::VIRTUAL_APIC_ADDRESS,
        Used::Proc(Proc::USE_TPR_SHADOW),
    ),
    (
        "apic",
        field::APIC_ACCESS_ADDRESS,
        Used::Proc2(Proc2::VIRTUALIZE_APIC_ACCESSES),
    ),
    (
        "pid",
        field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
        Used::Posted,
    ),
    ("pml", field::PML_ADDRESS, Used::Proc2(Proc2::ENABLE_PML)),
    (
        "vmread",
        field::VMREAD_BITMAP_ADDRESS,
        Used::Proc2(Proc2::VMCS_SHADOWING),
    ),
    (
        "vmwrite",
        field::VMWRITE_BITMAP_ADDRESS,
        Used::Proc2(Proc2::VMCS_SHADOWING),
    ),
    ("eptps", field::EPTP_LIST_ADDRESS, Used::Functions),
    (
        "ve",
        field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
        Used::Proc2(Proc2::EPT_VIOLATION_VE),
    ),
    (
        "store",
        field::VM_EXIT_MSR_STORE_ADDRESS,
        Used::Count(field::VM_EXIT_MSR_STORE_COUNT),
    ),
    (
        "load",
        field::VM_EXIT_MSR_LOAD_ADDRESS,
        Used::Count(field::VM_EXIT_MSR_LOAD_COUNT),
    ),
    (
        "entry",
        field::VM_ENTRY_MSR_LOAD_ADDRESS,
        Used::Count(field::VM_ENTRY_MSR_LOAD_COUNT),
    ),
    (
        "sppt",
        field::SUB_PAGE_PERMISSION_TABLE_POINTER,
        Used::Proc2(Proc2::SUB_PAGE_WRITE_PERMISSIONS),
    ),
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (mode, with_ept) in [(Mode::Long, true), (Mode::Prot32, false)] {
        if lab.begin("addresses used", mode, with_ept) {
            for (name, field, used) in ADDRESSES {
                one(lab, name, field, Some(used));
            }
            lab.end();
        }
    }
    if lab.begin("addresses not used", Mode::Long, true) {
        for (name, field, used) in ADDRESSES {
            if let Used::Proc(bits) = used {
                not_used(lab, name, field, bits);
            } else {
                one(lab, name, field, None);
            }
        }
        lab.end();
    }
    if lab.begin("lists end", Mode::Long, true) {
        lists(lab);
        lab.end();
    }
}

fn use_it(lab: &mut Lab, used: Used) {
    match used {
        Used::Proc(bits) => lab.add(field::PRIMARY_PROCESSOR_BASED_CONTROLS, bits.bits().into()),
        Used::Proc2(bits) => lab.add(
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            bits.bits().into(),
        ),
        Used::Posted => {
            let pin = Pin::EXTERNAL_INTERRUPT_EXITING | Pin::PROCESS_POSTED_INTERRUPTS;
            lab.add(field::PIN_BASED_CONTROLS, pin.bits().into());
            let proc2 = Proc2::VIRTUAL_INTERRUPT_DELIVERY.bits();
            lab.add(
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                Proc::USE_TPR_SHADOW.bits().into(),
            );
            lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, proc2.into());
            let exit = Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits();
            lab.add(field::PRIMARY_VM_EXIT_CONTROLS, exit.into());
        }
        Used::Functions => {
            let bits = Proc2::ENABLE_VM_FUNCTIONS.bits();
            lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, bits.into());
            lab.set(field::VM_FUNCTION_CONTROLS, 1);
        }
        Used::Count(count) => lab.set(count, 1),
    }
}

/// A list whose entry is harmless, so that a good address leads to a good entry.
fn prepare_lists(lab: &Lab) {
    for page in 0..3 {
        // IA32_SYSENTER_CS, which VM entry and exit load anyway.
        for at in (0..4096).step_by(16) {
            lab.pages.lists.write(page * 4096 + at, 0x174u64);
            lab.pages.lists.write(page * 4096 + at + 8, 0u64);
        }
    }
}

fn one(lab: &mut Lab, name: &str, field: Field, used: Option<Used>) {
    prepare_lists(lab);
    let width = rt::cpu::maxphyaddr();
    for bit in (0..12).chain(width..64) {
        if let Some(used) = used {
            use_it(lab, used);
        }
        lab.flip(field, bit);
        lab.run(format_args!("{name} {bit}"));
    }
    if let Some(used) = used {
        use_it(lab, used);
        lab.run(format_args!("{name} good"));
    }
}

/// The same where a primary control has to be cleared for the address not to count.
fn not_used(lab: &mut Lab, name: &str, field: Field, bits: Proc) {
    for bit in [0, 3, 11, rt::cpu::maxphyaddr(), 63] {
        lab.remove(field::PRIMARY_PROCESSOR_BASED_CONTROLS, bits.bits().into());
        lab.flip(field, bit);
        lab.run(format_args!("{name} {bit}"));
    }
}

/// The last byte of a list has to be within the physical width too.
fn lists(lab: &mut Lab) {
    let end = 1u64 << rt::cpu::maxphyaddr();
    for (name, address, count) in [
        (
            "store",
            field::VM_EXIT_MSR_STORE_ADDRESS,
            field::VM_EXIT_MSR_STORE_COUNT,
        ),
        (
            "load",
            field::VM_EXIT_MSR_LOAD_ADDRESS,
            field::VM_EXIT_MSR_LOAD_COUNT,
        ),
        (
            "entry",
            field::VM_ENTRY_MSR_LOAD_ADDRESS,
            field::VM_ENTRY_MSR_LOAD_COUNT,
        ),
    ] {
        for (entries, entries_before) in [(2, 1), (256, 255), (512, 2)] {
            lab.set(address, end - 16 * entries_before);
            lab.set(count, entries);
            lab.run(format_args!(
                "{name} {entries} {entries_before} before the end"
            ));
        }
    }
}

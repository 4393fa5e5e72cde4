//! The EPT pointer and the scalar controls: counts, identifiers, thresholds, functions.
//!
//! SDM "Extended-Page-Table Pointer (EPTP)", "VM-Execution Control Fields" of the chapter on checks.

use rt::vmx::vm::Mode;
use umbra_vmcs::controls::{Exit, Pin, Proc, Proc2};
use umbra_vmcs::field;

use crate::lab::Lab;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    if lab.begin("eptp", Mode::Long, true) {
        pointer(lab);
        lab.end();
    }
    if lab.begin("scalars", Mode::Long, true) {
        scalars(lab);
        lab.end();
    }
    if lab.begin("tpr threshold", Mode::Long, true) {
        threshold(lab);
        lab.end();
    }
    if lab.begin("functions", Mode::Long, true) {
        for bit in 0..64 {
            lab.add(
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                Proc2::ENABLE_VM_FUNCTIONS.bits().into(),
            );
            lab.set(field::VM_FUNCTION_CONTROLS, 1 << bit);
            lab.run(format_args!("{bit}"));
        }
        lab.set(field::VM_FUNCTION_CONTROLS, u64::MAX);
        lab.run(format_args!("not used"));
        lab.end();
    }
}

fn pointer(lab: &mut Lab) {
    let width = rt::cpu::maxphyaddr();
    // A flip of a bit between 12 and the physical width would make the CPU walk foreign memory.
    for bit in (0..12).chain(width..64) {
        lab.flip(field::EPT_POINTER, bit);
        lab.run(format_args!("{bit}"));
    }
    let good = lab.get(field::EPT_POINTER);
    for kind in 0..8 {
        lab.set(field::EPT_POINTER, good & !7 | kind);
        lab.run(format_args!("type {kind}"));
    }
    for length in 0..8 {
        lab.set(field::EPT_POINTER, good & !0x38 | length << 3);
        lab.run(format_args!("length {length}"));
    }
    for bits in [0u64, 1 << 6, 1 << 7, 3 << 6] {
        for control in [
            Proc2::ENABLE_PML,
            Proc2::MODE_BASED_EXECUTE_CONTROL,
            Proc2::EPT_VIOLATION_VE,
        ] {
            lab.add(
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                control.bits().into(),
            );
            lab.set(field::EPT_POINTER, good | bits);
            lab.run(format_args!("bits {bits:x} with {:x}", control.bits()));
        }
    }
}

fn scalars(lab: &mut Lab) {
    for count in [0, 1, 2, 3, 4, 5, 8, 255, 256, 0xffff_ffff] {
        lab.set(field::CR3_TARGET_COUNT, count);
        lab.run(format_args!("cr3 targets {count:x}"));
    }
    for vpid in [0, 1, 0x8000, 0xffff] {
        for control in [Proc2::empty(), Proc2::ENABLE_VPID] {
            lab.add(
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                control.bits().into(),
            );
            lab.set(field::VIRTUAL_PROCESSOR_ID, vpid);
            lab.run(format_args!("vpid {vpid:x} with {:x}", control.bits()));
        }
    }
    for vector in [0, 0xf, 0x10, 0xff, 0x100, 0x8000, 0xffff] {
        let pin = Pin::EXTERNAL_INTERRUPT_EXITING | Pin::PROCESS_POSTED_INTERRUPTS;
        lab.add(field::PIN_BASED_CONTROLS, pin.bits().into());
        lab.add(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            Proc::USE_TPR_SHADOW.bits().into(),
        );
        let delivery = Proc2::VIRTUAL_INTERRUPT_DELIVERY.bits();
        lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, delivery.into());
        let ack = Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits();
        lab.add(field::PRIMARY_VM_EXIT_CONTROLS, ack.into());
        lab.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, vector);
        lab.run(format_args!("notification vector {vector:x}"));
    }
    for multiplier in [0u64, 1, 1 << 47, 1 << 48, u64::MAX] {
        let scaling = Proc2::USE_TSC_SCALING.bits();
        lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, scaling.into());
        lab.add(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            Proc::USE_TSC_OFFSETTING.bits().into(),
        );
        // The timer does not scale; the entry is all that is looked at.
        lab.set(field::TSC_MULTIPLIER, multiplier);
        lab.run(format_args!("tsc multiplier {multiplier:x}"));
    }
    for pointer in [0u64, 1, 0x1000, u64::MAX] {
        lab.set(field::EXECUTIVE_VMCS_POINTER, pointer);
        lab.run(format_args!("executive pointer {pointer:x}"));
    }
    // An index above 511 is for the `ept` test VM: Bochs looks at it at every
    // walk and the SDM only where a flag has to be set (docs/errata.md).
    for index in [0, 1, 510, 511] {
        lab.add(
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            Proc2::ENABLE_PML.bits().into(),
        );
        lab.add(field::EPT_POINTER, 1 << 6);
        lab.set(field::PML_INDEX, index);
        lab.run(format_args!("pml index {index:x}"));
    }
}

/// Bits 3:0 of the threshold against bits 7:4 of the virtual TPR.
fn threshold(lab: &mut Lab) {
    let shadow = u64::from(Proc::USE_TPR_SHADOW.bits());
    for tpr in 0..16u8 {
        lab.pages.virtual_apic.write(0x80, tpr << 4);
        for threshold in 0..16 {
            lab.add(field::PRIMARY_PROCESSOR_BASED_CONTROLS, shadow);
            lab.set(field::TPR_THRESHOLD, threshold);
            lab.run(format_args!("{tpr:x} {threshold:x}"));
        }
    }
    lab.pages.virtual_apic.write(0x80, 0x10u8);
    for bit in 4..32 {
        lab.add(field::PRIMARY_PROCESSOR_BASED_CONTROLS, shadow);
        lab.set(field::TPR_THRESHOLD, 1 << bit);
        lab.run(format_args!("bit {bit}"));
        lab.set(field::TPR_THRESHOLD, 1 << bit);
        lab.run(format_args!("bit {bit} not used"));
    }
    for control in [
        Proc2::VIRTUALIZE_APIC_ACCESSES,
        Proc2::VIRTUAL_INTERRUPT_DELIVERY,
    ] {
        for threshold in [0, 1, 2, 15, 16] {
            lab.add(field::PRIMARY_PROCESSOR_BASED_CONTROLS, shadow);
            lab.add(
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                control.bits().into(),
            );
            lab.add(
                field::PIN_BASED_CONTROLS,
                Pin::EXTERNAL_INTERRUPT_EXITING.bits().into(),
            );
            lab.set(field::TPR_THRESHOLD, threshold);
            lab.run(format_args!("{threshold:x} with {:x}", control.bits()));
        }
    }
    lab.pages.virtual_apic.write(0x80, 0u8);
}

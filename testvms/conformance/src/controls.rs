//! Every bit of every control word, alone and in pairs.
//!
//! SDM "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields" of the
//! chapter on checks of VMX controls.

use rt::vmx::vm::Mode;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, Field};

use crate::lab::Lab;

const WORDS: [(&str, Field); 5] = [
    ("pin", field::PIN_BASED_CONTROLS),
    ("proc", field::PRIMARY_PROCESSOR_BASED_CONTROLS),
    ("proc2", field::SECONDARY_PROCESSOR_BASED_CONTROLS),
    ("exit", field::PRIMARY_VM_EXIT_CONTROLS),
    ("entry", field::VM_ENTRY_CONTROLS),
];

/// One control, by its word and bit.
#[derive(Clone, Copy)]
struct Bit(&'static str, Field, u32);

const fn pin(name: &'static str, bit: Pin) -> Bit {
    Bit(name, field::PIN_BASED_CONTROLS, bit.bits())
}
const fn proc(name: &'static str, bit: Proc) -> Bit {
    Bit(name, field::PRIMARY_PROCESSOR_BASED_CONTROLS, bit.bits())
}
const fn proc2(name: &'static str, bit: Proc2) -> Bit {
    Bit(name, field::SECONDARY_PROCESSOR_BASED_CONTROLS, bit.bits())
}
const fn exit(name: &'static str, bit: Exit) -> Bit {
    Bit(name, field::PRIMARY_VM_EXIT_CONTROLS, bit.bits())
}

/// Controls that some rule joins with another one.
const JOINED: [Bit; 27] = [
    pin("ext", Pin::EXTERNAL_INTERRUPT_EXITING),
    pin("nmi", Pin::NMI_EXITING),
    pin("vnmi", Pin::VIRTUAL_NMIS),
    pin("timer", Pin::ACTIVATE_PREEMPTION_TIMER),
    pin("posted", Pin::PROCESS_POSTED_INTERRUPTS),
    proc("intwin", Proc::INTERRUPT_WINDOW_EXITING),
    proc("nmiwin", Proc::NMI_WINDOW_EXITING),
    proc("tpr", Proc::USE_TPR_SHADOW),
    proc("mtf", Proc::MONITOR_TRAP_FLAG),
    proc("sec", Proc::ACTIVATE_SECONDARY_CONTROLS),
    proc("tsco", Proc::USE_TSC_OFFSETTING),
    proc2("apicacc", Proc2::VIRTUALIZE_APIC_ACCESSES),
    proc2("ept", Proc2::ENABLE_EPT),
    proc2("x2", Proc2::VIRTUALIZE_X2APIC_MODE),
    proc2("vpid", Proc2::ENABLE_VPID),
    proc2("ug", Proc2::UNRESTRICTED_GUEST),
    proc2("apicreg", Proc2::APIC_REGISTER_VIRTUALIZATION),
    proc2("vid", Proc2::VIRTUAL_INTERRUPT_DELIVERY),
    proc2("vmfunc", Proc2::ENABLE_VM_FUNCTIONS),
    proc2("shadow", Proc2::VMCS_SHADOWING),
    proc2("pml", Proc2::ENABLE_PML),
    proc2("ve", Proc2::EPT_VIOLATION_VE),
    proc2("mbec", Proc2::MODE_BASED_EXECUTE_CONTROL),
    proc2("scale", Proc2::USE_TSC_SCALING),
    exit("ack", Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
    exit("savetimer", Exit::SAVE_PREEMPTION_TIMER),
    exit("has", Exit::HOST_ADDRESS_SPACE_SIZE),
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (mode, with_ept) in [
        (Mode::Long, true),
        (Mode::Long, false),
        (Mode::Prot32, true),
        (Mode::Prot32, false),
    ] {
        if lab.begin("control bits", mode, with_ept) {
            bits(lab);
            lab.end();
        }
    }
    for (mode, with_ept) in [(Mode::Long, true), (Mode::Prot32, false)] {
        if lab.begin("control pairs", mode, with_ept) {
            pairs(lab);
            lab.end();
        }
    }
    if lab.begin("interrupt delivery", Mode::Long, true) {
        apic(lab);
        lab.end();
    }
    if lab.begin("secondary off", Mode::Long, false) {
        secondary_off(lab);
        lab.end();
    }
}

fn bits(lab: &mut Lab) {
    for (name, word) in WORDS {
        for bit in 0..32 {
            let sign = if lab.get(word) >> bit & 1 == 0 {
                '+'
            } else {
                '-'
            };
            lab.flip(word, bit);
            lab.run(format_args!("{name}{sign}{bit}"));
        }
    }
}

fn pairs(lab: &mut Lab) {
    for (i, first) in JOINED.iter().enumerate() {
        for second in &JOINED[i + 1..] {
            for Bit(_, word, bits) in [first, second] {
                let value = lab.get(*word);
                lab.set(*word, value ^ u64::from(*bits));
            }
            lab.run(format_args!("{}+{}", first.0, second.0));
        }
    }
}

/// All combinations of what virtual-interrupt delivery and posted interrupts need.
fn apic(lab: &mut Lab) {
    let controls: [Bit; 7] = [
        pin("ext", Pin::EXTERNAL_INTERRUPT_EXITING),
        pin("posted", Pin::PROCESS_POSTED_INTERRUPTS),
        proc("tpr", Proc::USE_TPR_SHADOW),
        proc2("x2", Proc2::VIRTUALIZE_X2APIC_MODE),
        proc2("apicreg", Proc2::APIC_REGISTER_VIRTUALIZATION),
        proc2("vid", Proc2::VIRTUAL_INTERRUPT_DELIVERY),
        exit("ack", Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
    ];
    for set in 0..1u32 << controls.len() {
        for (n, Bit(_, word, bits)) in controls.iter().enumerate() {
            if set >> n & 1 != 0 {
                lab.add(*word, u64::from(*bits));
            }
        }
        lab.run(format_args!("{set:02x}"));
    }
}

/// With the secondary controls not activated their bits do not count.
fn secondary_off(lab: &mut Lab) {
    for bit in 0..32 {
        let off = u64::from(Proc::ACTIVATE_SECONDARY_CONTROLS.bits());
        lab.remove(field::PRIMARY_PROCESSOR_BASED_CONTROLS, off);
        lab.flip(field::SECONDARY_PROCESSOR_BASED_CONTROLS, bit);
        lab.run(format_args!("{bit}"));
    }
    let both = u64::from((Entry::LOAD_EFER | Entry::LOAD_PAT).bits());
    lab.remove(field::VM_ENTRY_CONTROLS, both);
    lab.set(field::GUEST_IA32_PAT, 2);
    lab.set(field::GUEST_IA32_EFER, 1 << 63);
    lab.run(format_args!("no EFER, no PAT"));
    lab.remove(
        field::PRIMARY_VM_EXIT_CONTROLS,
        u64::from(Exit::LOAD_PAT.bits()),
    );
    lab.set(field::HOST_IA32_PAT, 2);
    lab.run(format_args!("no host PAT"));
}

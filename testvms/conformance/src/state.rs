//! L2's non-register state: activity, interruptibility, pending debug exceptions, link pointer.
//!
//! SDM "Checks on Guest Non-Register State".

use rt::vmx::vm::{Mode, SEGMENTS};
use umbra_vmcs::controls::{Pin, Proc, Proc2};
use umbra_vmcs::field;

use crate::lab::Lab;

const VALID: u64 = 1 << 31;
const IF: u64 = 1 << 9;
/// The activity state in which only a SIPI ends the waiting: nobody here would send one.
const WAIT_FOR_SIPI: u64 = 3;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (mode, with_ept) in [(Mode::Long, true), (Mode::Prot32, false)] {
        if lab.begin("activity", mode, with_ept) {
            activity(lab);
            lab.end();
        }
        if lab.begin("interruptibility", mode, with_ept) {
            interruptibility(lab);
            lab.end();
        }
        if lab.begin("pending debug", mode, with_ept) {
            pending_debug(lab);
            lab.end();
        }
    }
    if lab.begin("link pointer", Mode::Long, true) {
        link_pointer(lab);
        lab.end();
    }
    if lab.begin("guest interrupt status", Mode::Long, true) {
        for status in [0, 1, 0x20, 0x2000, 0xf0f0, 0xffff] {
            lab.set(field::GUEST_INTERRUPT_STATUS, status);
            lab.run(format_args!("{status:x} not used"));
        }
        lab.end();
    }
}

/// Events worth trying in each activity state.
const EVENTS: [(&str, u64); 12] = [
    ("ext", VALID | 0x40),
    ("nmi", VALID | 2 << 8 | 2),
    ("#db", VALID | 3 << 8 | 1),
    ("#ud", VALID | 3 << 8 | 6),
    ("#df", VALID | 3 << 8 | 1 << 11 | 8),
    ("#mc", VALID | 3 << 8 | 18),
    ("int", VALID | 4 << 8 | 0x41),
    ("priv", VALID | 5 << 8 | 1),
    ("#bp", VALID | 6 << 8 | 3),
    ("mtf", VALID | 7 << 8),
    ("other 1", VALID | 7 << 8 | 1),
    ("none", 0),
];

fn activity(lab: &mut Lab) {
    for bit in 0..32 {
        // 1 and 2 are states of their own, below.
        lab.set(field::GUEST_ACTIVITY_STATE, 4 | 1 << bit);
        lab.run(format_args!("state {:x}", 4u64 | 1 << bit));
    }
    for state in 0..4 {
        for (name, event) in EVENTS {
            if state == WAIT_FOR_SIPI && event == 0 {
                continue;
            }
            lab.set(field::GUEST_ACTIVITY_STATE, state);
            lab.add(field::GUEST_RFLAGS, IF);
            lab.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
            lab.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1);
            lab.run(format_args!("{state} {name}"));
        }
        for blocking in [1, 2, 3, 8] {
            if state == WAIT_FOR_SIPI && blocking == 8 {
                continue;
            }
            lab.set(field::GUEST_ACTIVITY_STATE, state);
            lab.add(field::GUEST_RFLAGS, IF);
            lab.set(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
            lab.run(format_args!("{state} blocking {blocking}"));
        }
    }
    for state in 0..3 {
        for dpl in 0..4 {
            let [cs, ss, ..] = &SEGMENTS;
            lab.set(field::GUEST_ACTIVITY_STATE, state);
            for (segment, selector) in [(cs, 8), (ss, 0x10)] {
                let value = lab.get(segment.rights) & !0x60;
                lab.set(segment.rights, value | dpl << 5);
                lab.set(segment.selector, selector | dpl);
            }
            lab.run(format_args!("{state} dpl {dpl}"));
        }
    }
    for state in 0..3 {
        lab.set(field::GUEST_ACTIVITY_STATE, state);
        lab.add(field::GUEST_RFLAGS, IF);
        lab.add(
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            Proc::INTERRUPT_WINDOW_EXITING.bits().into(),
        );
        lab.run(format_args!("{state} window"));
    }
}

fn interruptibility(lab: &mut Lab) {
    for bit in 0..32 {
        for flags in [0, IF] {
            lab.set(field::GUEST_INTERRUPTIBILITY_STATE, 1 << bit);
            lab.add(field::GUEST_RFLAGS, flags);
            lab.run(format_args!("bit {bit} if {}", flags >> 9));
        }
    }
    for state in 0..32 {
        lab.set(field::GUEST_INTERRUPTIBILITY_STATE, state);
        lab.add(field::GUEST_RFLAGS, IF);
        lab.run(format_args!("{state:02x}"));
    }
    let pins = [
        ("plain", Pin::empty()),
        ("nmi", Pin::NMI_EXITING),
        ("vnmi", Pin::NMI_EXITING.union(Pin::VIRTUAL_NMIS)),
    ];
    for (pin_name, pin) in pins {
        for (name, event) in EVENTS {
            for state in [0, 1, 2, 4, 8] {
                lab.add(field::PIN_BASED_CONTROLS, pin.bits().into());
                lab.add(field::GUEST_RFLAGS, IF);
                lab.set(field::GUEST_INTERRUPTIBILITY_STATE, state);
                lab.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
                lab.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1);
                lab.run(format_args!("{pin_name} {name} {state}"));
            }
        }
    }
}

fn pending_debug(lab: &mut Lab) {
    for bit in 0..64 {
        lab.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << bit);
        lab.run(format_args!("bit {bit}"));
    }
    // BS has to agree with TF and BTF where an instruction's debug trap is still to come.
    for (name, blocking, state) in [
        ("active", 0, 0),
        ("sti", 1, 0),
        ("mov ss", 2, 0),
        ("hlt", 0, 1),
    ] {
        for set in 0..8u64 {
            let (tf, btf, bs) = (set & 1, set >> 1 & 1, set >> 2);
            lab.add(field::GUEST_RFLAGS, IF | tf << 8);
            lab.set(field::GUEST_IA32_DEBUGCTL, btf << 1);
            lab.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, bs << 14);
            lab.set(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
            lab.set(field::GUEST_ACTIVITY_STATE, state);
            lab.run(format_args!("{name} tf {tf} btf {btf} bs {bs}"));
        }
    }
    for value in [
        1u64 << 12 | 1,
        1 << 12 | 1 << 14,
        1 << 16,
        1 << 16 | 1 << 12,
        0xf,
    ] {
        for blocking in [0, 2] {
            lab.set(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
            lab.set(field::GUEST_PENDING_DEBUG_EXCEPTIONS, value);
            lab.run(format_args!("value {value:x} blocking {blocking}"));
        }
    }
}

fn link_pointer(lab: &mut Lab) {
    let linked = lab.pages.linked;
    let revision = lab.caps.revision();
    let shadow = u64::from(Proc2::VMCS_SHADOWING.bits());
    for bit in (0..12).chain(rt::cpu::maxphyaddr()..64) {
        lab.set(field::VMCS_LINK_POINTER, linked.address() ^ 1 << bit);
        lab.run(format_args!("bit {bit}"));
    }
    for (name, first) in [
        ("good", revision),
        ("shadow", revision | 1 << 31),
        ("other revision", revision ^ 1),
        ("other revision, shadow", (revision ^ 1) | 1 << 31),
    ] {
        for control in [0, shadow] {
            linked.write(0, first);
            lab.set(field::VMCS_LINK_POINTER, linked.address());
            lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, control);
            lab.run(format_args!("{name} {control:x}"));
        }
    }
    linked.write(0, revision);
    for (name, pointer) in [
        ("current", lab.vm.vmcs.address()),
        ("vmxon", lab.vmx.region.address()),
        ("all 1", u64::MAX),
    ] {
        for control in [0, shadow] {
            lab.set(field::VMCS_LINK_POINTER, pointer);
            lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, control);
            lab.run(format_args!("{name} {control:x}"));
        }
    }
}

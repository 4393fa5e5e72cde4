//! VMCSs with random bits, from a fixed seed.
//!
//! Three kinds of them: a few bits of a good VMCS inverted, so that many enter; fields drawn from values
//! that mean something; and everything random, host state included, which no CPU enters.
//!
//! What would take the ground from under L1 once it is accepted stays good: host state (but in the third
//! kind, where it is broken for sure), the lists of VM exits, waiting for a SIPI. L2 has EPT that leads to
//! its own memory and to the places, and a timer always stops it.

use rt::random::Random;
use rt::report;
use rt::vmx::insn::{read, vmread_raw, vmwrite_raw, write};
use rt::vmx::vm::{Mode, Outcome, layout};
use rt::{apic, cpu};
use umbra_vmcs::controls::{Pin, Proc, Proc2};
use umbra_vmcs::field::{self, ALL, Area, Field};

use crate::lab::{Lab, TARGET, is_exit, is_known, leaf, reason, try_write};

/// Entries of each kind.
const FLIPPED: u32 = 1800;
const DRAWN: u32 = 1800;
const WHOLE: u32 = 600;
/// Entries of one VMCS, each with further changes.
const SERIES: u32 = 4;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    let mut random = Random::new(0x5eed_1234_5678_9abc);
    for number in 0..FLIPPED {
        if number % SERIES == 0 {
            prepare(lab, &mut random);
        }
        for _ in 0..=random.below(4) {
            flip(&mut random);
        }
        go(lab, "flipped", number);
    }
    for number in 0..DRAWN {
        if number % SERIES == 0 {
            prepare(lab, &mut random);
        }
        for _ in 0..=random.below(8) {
            draw(lab, &mut random);
        }
        go(lab, "drawn", number);
    }
    prepare(lab, &mut random);
    for number in 0..WHOLE {
        for field in ALL.iter().filter(|field| !field.is_read_only()) {
            try_write(*field, random.bits() & random.bits());
        }
        write(field::HOST_TR_SELECTOR, 0);
        let outcome = lab.vm.run();
        let failed = matches!(outcome, Outcome::Failed(_)) && is_known(&outcome);
        report::check(format_args!("whole {number}: {outcome}"), failed);
    }
}

/// A good L2 in a random mode, with the places in its reach.
fn prepare(lab: &mut Lab, random: &mut Random) {
    let mode = random.of(&[
        Mode::Long,
        Mode::Long,
        Mode::Compat,
        Mode::Prot32,
        Mode::Pae,
        Mode::Flat32,
        Mode::Real,
        Mode::V86,
    ]);
    let mode = if lab.vm.can(mode, true) {
        mode
    } else {
        Mode::Long
    };
    lab.fresh(mode, true);
    // Whatever L2 executes ends soon.
    for page in [layout::CODE, layout::DATA, layout::STACK_TOP - 4096] {
        for at in (page..page + 4096).step_by(8) {
            lab.vm.memory.write(at, 0xcccc_cccc_cccc_ccccu64);
        }
    }
    const CODES: [&[u8]; 8] = [
        // VMCALL.
        &[0x0f, 0x01, 0xc1],
        // CPUID; IN AL, 80H; VMCALL.
        &[0x0f, 0xa2, 0xe4, 0x80, 0x0f, 0x01, 0xc1],
        // RDMSR; VMCALL.
        &[0x0f, 0x32, 0x0f, 0x01, 0xc1],
        // MOV EAX, CR0; MOV CR0, EAX; VMCALL.
        &[0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0, 0x0f, 0x01, 0xc1],
        // MOV EAX, CR3; MOV CR3, EAX; MOV EAX, CR4; MOV CR4, EAX; VMCALL.
        &[
            0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x0f, 0x22, 0xe0, 0x0f, 0x01,
            0xc1,
        ],
        // VMFUNC; RDTSC; INT 40H.
        &[0x0f, 0x01, 0xd4, 0x0f, 0x31, 0xcd, 0x40],
        // PUSHF; POPF; HLT.
        &[0x9c, 0x9d, 0xf4],
        // MOV [EDI], EAX; MOV EAX, [EDI]; VMCALL.
        &[0x89, 0x07, 0x8b, 0x07, 0x0f, 0x01, 0xc1],
    ];
    lab.vm.memory.write_bytes(layout::CODE, random.of(&CODES));
    for (page, place) in (0..).zip(lab.writable_places().filter(|p| p.is_readable())) {
        lab.vm
            .ept()
            .set_entry(TARGET + 4096 * page, 1, leaf(place.address));
    }
    lab.vm.registers.rdi = TARGET + 0x20;
    lab.vm.registers.rcx = random.of(&[0x10, 0x174, 0x1b, 0x3a, 0xc000_0080, 0xffff_ffff]);
    // Good values for what a control that gets turned on uses.
    let scratch = lab.vm.msr_bitmap.address();
    for field in POINTERS {
        try_write(field, scratch);
    }
    try_write(field::PML_INDEX, random.below(600));
    try_write(field::VIRTUAL_PROCESSOR_ID, 1 + random.below(0xffff));
    try_write(field::TSC_MULTIPLIER, 1 << 48);
    try_write(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xf0);
}

/// Fields that hold the address of something that a control uses.
const POINTERS: [Field; 10] = [
    field::IO_BITMAP_A,
    field::IO_BITMAP_B,
    field::MSR_BITMAP,
    field::VIRTUAL_APIC_ADDRESS,
    field::APIC_ACCESS_ADDRESS,
    field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
    field::PML_ADDRESS,
    field::EPTP_LIST_ADDRESS,
    field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
    field::VM_ENTRY_MSR_LOAD_ADDRESS,
];

/// Whether a random value there, once accepted, leaves L1 its ground.
fn is_free(field: Field) -> bool {
    field.area() != Area::Host
        && !field.is_read_only()
        && ![
            field::VM_EXIT_MSR_LOAD_COUNT,
            field::VM_EXIT_MSR_STORE_COUNT,
            field::VM_EXIT_MSR_LOAD_ADDRESS,
            field::VM_EXIT_MSR_STORE_ADDRESS,
            field::VM_ENTRY_MSR_LOAD_COUNT,
            field::PRIMARY_VM_EXIT_CONTROLS,
            field::EPT_POINTER,
            field::GUEST_CR3,
        ]
        .contains(&field)
}

fn any_field(random: &mut Random) -> Field {
    loop {
        let field = ALL[random.below(ALL.len() as u64) as usize];
        if is_free(field) && vmread_raw(u64::from(field.encoding())).is_ok() {
            return field;
        }
    }
}

fn flip(random: &mut Random) {
    // Half of the time a control, of which there are few and on which most depends.
    let field = match random.below(2) {
        0 => any_field(random),
        _ => random.of(&CONTROLS),
    };
    let bit = random.below(64) & 63;
    let value = vmread_raw(u64::from(field.encoding())).unwrap_or(0);
    try_write(field, value ^ 1 << bit);
}

const CONTROLS: [Field; 4] = [
    field::PIN_BASED_CONTROLS,
    field::PRIMARY_PROCESSOR_BASED_CONTROLS,
    field::SECONDARY_PROCESSOR_BASED_CONTROLS,
    field::VM_ENTRY_CONTROLS,
];

fn draw(lab: &Lab, random: &mut Random) {
    let field = any_field(random);
    let places = lab.places().count() as u64;
    let place = lab.places().nth(random.below(places) as usize);
    let address = place.map_or(0, |place| place.address);
    let old = vmread_raw(u64::from(field.encoding())).unwrap_or(0);
    let value = match random.below(10) {
        0 => 0,
        1 => u64::MAX,
        2 => address,
        3 => address | random.below(4096),
        4 => 1 << random.below(64),
        5 => u64::MAX << random.below(64),
        6 => random.bits(),
        7 => old.wrapping_add(1),
        8 => old.wrapping_sub(1),
        _ => random.below(32),
    };
    try_write(field, value);
}

/// Keeps what must be, and enters.
fn go(lab: &mut Lab, what: &str, number: u32) {
    let pin = read(field::PIN_BASED_CONTROLS) as u32;
    let timer = Pin::ACTIVATE_PREEMPTION_TIMER.bits();
    if lab.vmx.caps.pin().adjust(timer) & timer != 0 {
        write(field::PIN_BASED_CONTROLS, (pin | timer).into());
        let value = read(field::VMX_PREEMPTION_TIMER_VALUE);
        write(field::VMX_PREEMPTION_TIMER_VALUE, value & 0x3f);
    }
    let secondary = read(field::PRIMARY_PROCESSOR_BASED_CONTROLS) as u32
        | Proc::ACTIVATE_SECONDARY_CONTROLS.bits();
    write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, secondary.into());
    let proc2 = read(field::SECONDARY_PROCESSOR_BASED_CONTROLS) as u32 | Proc2::ENABLE_EPT.bits();
    write(field::SECONDARY_PROCESSOR_BASED_CONTROLS, proc2.into());
    // Not 3, waiting for a SIPI.
    if read(field::GUEST_ACTIVITY_STATE) == 3 {
        write(field::GUEST_ACTIVITY_STATE, 2);
    }
    // An erratum of the machine that plays the bare one: it stops where paging is off in IA-32e mode.
    if read(field::GUEST_CR0) >> 31 & 1 == 0 {
        let entry = read(field::VM_ENTRY_CONTROLS);
        write(field::VM_ENTRY_CONTROLS, entry & !(1 << 9));
    }
    let outcome = lab.vm.run();
    lab.survive(format_args!("{what} {number}"), &outcome);
    if is_exit(&outcome, reason::EXTERNAL_INTERRUPT) {
        apic::end_of_interrupt();
    }
    // What L2 was let have.
    let _ = vmwrite_raw(0, 0);
    restore();
}

/// MSRs that an L2 may have been let write, as L1 wants them.
fn restore() {
    // SAFETY: values that L1 runs on: no debug controls, and the memory types of reset.
    unsafe {
        cpu::wrmsr(0x1d9, 0);
        cpu::set_dr7(0x400);
    }
}

//! Start-up, again and again.
//!
//! SDM "MP Initialization Protocol Algorithm", "Processor State After Reset or INIT".

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use rt::case;

use rt::apic::{self, Ipi, register};
use rt::cpu;
use rt::smp::{StartState, delay, wait_for};
use rt::trap::{self, Frame};

use crate::{Others, VECTORS};

/// Restarts of one CPU.
const RESTARTS: u32 = 100;

static TURNS: AtomicU32 = AtomicU32::new(0);
static NMIS: AtomicU32 = AtomicU32::new(0);
static IS_HALTING: AtomicBool = AtomicBool::new(false);
static APIC: [AtomicU32; 10] = [const { AtomicU32::new(0) }; 10];

fn spin(_: usize) {
    loop {
        TURNS.fetch_add(1, SeqCst);
        core::hint::spin_loop();
    }
}

fn halt(_: usize) {
    IS_HALTING.store(true, SeqCst);
    cpu::halt()
}

/// Leaves registers of all kinds other than INIT does.
fn disturb(_: usize) {
    // SAFETY: addresses in debug registers with nothing enabled, CR2, task switched: the CPU is
    // restarted before it does anything else.
    unsafe {
        core::arch::asm!("mov dr0, {v}", "mov dr3, {v}", "mov cr2, {v}", v = in(reg) 0x1234_5678u64);
        cpu::set_cr4(cpu::cr4() | 0x80);
        cpu::set_cr0(cpu::cr0() & !0x20);
    }
    IS_HALTING.store(true, SeqCst);
    cpu::halt()
}

/// The registers of the APIC that INIT resets.
const APIC_REGISTERS: [u32; 10] = [
    register::TASK_PRIORITY,
    register::SPURIOUS,
    register::LVT_TIMER,
    register::LVT_LINT0,
    register::LVT_LINT1,
    register::LVT_ERROR,
    register::TIMER_COUNT,
    register::TIMER_DIVIDE,
    0x100,
    0x200,
];

fn change_apic(_: usize) {
    apic::enable();
    for (offset, value) in [
        (register::TASK_PRIORITY, 0x50),
        (register::LVT_TIMER, 0x1_0042),
        (register::LVT_LINT0, 0x1_0043),
        (register::LVT_LINT1, 0x1_0044),
        (register::LVT_ERROR, 0x45),
        (register::TIMER_DIVIDE, 0xb),
        (register::TIMER_COUNT, 0x1000_0000),
    ] {
        apic::write(offset, value);
    }
}

fn read_apic(_: usize) {
    for (to, offset) in APIC.iter().zip(APIC_REGISTERS) {
        to.store(apic::read(offset), SeqCst);
    }
}

fn enter_x2apic(_: usize) {
    apic::enter_x2apic();
}

/// CD and NW of CR0: the SDM has INIT keep them, and Bochs sets them.
pub const CACHE_BITS: u32 = 0x6000_0000;

/// What does not depend on the page, for a comparison. CR2 is left out: the SDM has INIT clear it,
/// and Bochs keeps it.
fn comparable(mut state: StartState) -> StartState {
    state.selectors[0] = 0;
    state.cr0 &= !CACHE_BITS;
    state.cr2 = 0;
    state
}

fn show(name: &str, state: &StartState) {
    // EDX holds the signature by the SDM, and 0 on Bochs.
    let mut general = state.general;
    let edx = core::mem::take(&mut general[3]);
    let is_signature = edx == cpu::cpuid(1, 0).eax || edx == 0;
    case!("{name}: general {general:x?}, EDX is the signature or 0: {is_signature}");
    case!("{name}: selectors {:x?}", state.selectors);
    case!(
        "{name}: eflags {:x} ip {:x} cr0 {:x} cr3 {:x} cr4 {:x} dr6 {:x} dr7 {:x} efer {:x}",
        state.eflags,
        state.ip,
        state.cr0 & !CACHE_BITS,
        state.cr3,
        state.cr4,
        state.dr6,
        state.dr7,
        state.efer
    );
    case!("{name}: gdtr and idtr {:x?}", state.tables);
}

/// Starts all of them, then one many times.
pub fn run(mode: &str, others: &Others) {
    for cpu in others.iter() {
        let vector = VECTORS[cpu.index % VECTORS.len()];
        let answered = cpu.restart(vector);
        case!("cpu {}: starts: {answered}", cpu.index);
        show("state", &cpu.start_state(vector));
        if mode == "x2apic" {
            case!(
                "cpu {}: goes to x2APIC: {}",
                cpu.index,
                cpu.run(enter_x2apic)
            );
        }
    }
    let cpu = others.first();
    let start = cpu.starts();
    cpu.restart(VECTORS[0]);
    let first = comparable(cpu.start_state(VECTORS[0]));
    let (mut answered, mut same) = (0, 0);
    for turn in 1..RESTARTS {
        let vector = VECTORS[turn as usize % VECTORS.len()];
        let is_ready = match turn % 4 {
            0 => true,
            1 => {
                let before = TURNS.load(SeqCst);
                cpu.begin(spin);
                wait_for(|| TURNS.load(SeqCst) != before)
            }
            n => {
                IS_HALTING.store(false, SeqCst);
                cpu.begin(if n == 2 { halt } else { disturb });
                wait_for(|| IS_HALTING.load(SeqCst))
            }
        };
        answered += u32::from(is_ready && cpu.restart(vector));
        let state = cpu.start_state(vector);
        same +=
            u32::from(comparable(state) == first && state.selectors[0] == u32::from(vector) << 8);
    }
    case!(
        "restarts: {} of {} answered, {same} with the same state, {} starts",
        answered + 1,
        RESTARTS,
        cpu.starts() - start
    );
    first_nmi(cpu);
    case!("apic changed: {}", cpu.run(change_apic));
    cpu.restart(VECTORS[0]);
    read_apic_of(cpu);

    // INIT twice before the start-up IPI; an INIT alone stops it.
    let turns = || TURNS.load(SeqCst);
    cpu.begin(spin);
    let before = turns();
    case!("spins: {}", wait_for(|| turns() != before));
    cpu.prepare(VECTORS[1]);
    apic::send(cpu.id, Ipi::Init);
    delay(50_000);
    let stopped = turns();
    delay(50_000);
    case!("INIT stops it: {}", turns() == stopped);
    apic::send(cpu.id, Ipi::Init);
    delay(50_000);
    let starts = cpu.starts();
    case!("a second INIT, then starts: {}", cpu.start_up(VECTORS[1]));
    delay(50_000);
    case!("starts then: {}", cpu.starts() - starts);

    first_instruction(cpu);

    // A start-up IPI to a CPU that does not wait for one.
    cpu.begin(spin);
    let before = turns();
    case!("spins: {}", wait_for(|| turns() != before));
    apic::send(cpu.id, Ipi::StartUp(VECTORS[2]));
    delay(50_000);
    let then = turns();
    case!(
        "start-up IPI while it runs: starts {}, goes on: {}",
        cpu.starts() - starts,
        wait_for(|| turns() != then)
    );
    case!("and restarts: {}", cpu.restart(VECTORS[3]));
    if mode == "x2apic" {
        // By the SDM INIT keeps the mode; Bochs goes back to xAPIC mode.
        case!("in x2APIC mode: {}", cpu.run(enter_x2apic));
    }
}

/// The page of the code below is one that the trampoline goes to otherwise.
const STUCK: u8 = VECTORS[2];

/// A CPU that does not get beyond its first instruction, or only just: INIT and a start-up IPI to
/// another page start it all the same.
fn first_instruction(cpu: &rt::smp::Cpu) {
    for (name, code) in [
        ("JMP to itself", [0xeb, 0xfe, 0, 0]),
        ("HLT", [0xf4, 0xeb, 0xfd, 0]),
        ("CPUID", [0x0f, 0xa2, 0xeb, 0xfe]),
        ("CPUID again and again", [0x0f, 0xa2, 0xeb, 0xfc]),
    ] {
        cpu.prepare(STUCK);
        // SAFETY: the page is the trampoline's, which `prepare` writes each time.
        unsafe { ((u64::from(STUCK) << 12) as *mut [u8; 4]).write_volatile(code) };
        apic::send(cpu.id, Ipi::Init);
        delay(50_000);
        apic::send(cpu.id, Ipi::StartUp(STUCK));
        delay(50_000);
        case!("{name} at the start: restarts {}", cpu.restart(VECTORS[1]));
    }
}

fn count_nmi(frame: &mut Frame) -> bool {
    NMIS.fetch_add(1, SeqCst);
    frame.vector == 2
}

/// An NMI to a CPU that has executed no IRET since it was started: nothing blocks it.
fn first_nmi(cpu: &rt::smp::Cpu) {
    trap::set_hook(Some(count_nmi));
    for vector in [VECTORS[1], VECTORS[0]] {
        IS_HALTING.store(false, SeqCst);
        NMIS.store(0, SeqCst);
        let starts = cpu.restart(vector);
        cpu.begin(halt);
        let halts = wait_for(|| IS_HALTING.load(SeqCst));
        delay(20_000);
        apic::send(cpu.id, Ipi::Nmi);
        let comes = wait_for(|| NMIS.load(SeqCst) != 0);
        case!("first NMI after a start: starts {starts}, halts {halts}, comes {comes}");
    }
    trap::set_hook(None);
    cpu.restart(VECTORS[0]);
}

fn read_apic_of(cpu: &rt::smp::Cpu) {
    case!("apic read after INIT: {}", cpu.run(read_apic));
    for (value, offset) in APIC.iter().zip(APIC_REGISTERS) {
        case!("apic {offset:x} after INIT: {:x}", value.load(SeqCst));
    }
}

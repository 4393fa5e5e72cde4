//! INIT and start-up IPIs while a CPU is in VMX operation.
//!
//! SDM "Restrictions on VMX Operation" (INIT is blocked in root operation), "INIT Signals" and
//! "Start-Up IPIs (SIPIs)" among the causes of VM exits, "VMXOFF".
//!
//! An INIT that comes in root operation stays pending until VMXOFF or a VM entry.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use rt::case;

use rt::apic::{self, Ipi};
use rt::smp::{Cpu, delay, wait_for};
use umbra_vmcs::field;

use crate::lab::{self, STEPS};
use crate::restart::CACHE_BITS;
use crate::{Others, VECTORS};

/// "Wait for SIPI" of the activity state.
const WAIT_FOR_SIPI: u64 = 3;

static TURNS: AtomicU32 = AtomicU32::new(0);

fn step(index: usize) -> u32 {
    STEPS[index].load(SeqCst)
}

fn set_step(index: usize, value: u32) {
    STEPS[index].store(value, SeqCst);
}

/// In VMX root operation: spins until told, then VMXOFF, and says whether anything ran after it.
fn stay_in_root(index: usize) {
    lab::enter_vmx(index, &lab::ending());
    set_step(index, 1);
    while step(index) == 1 {
        TURNS.fetch_add(1, SeqCst);
        core::hint::spin_loop();
    }
    let flag = STEPS[index].as_ptr();
    // SAFETY: VMX operation is left once, here; the store is to a live word.
    unsafe { core::arch::asm!("vmxoff", "mov dword ptr [{}], 9", in(reg) flag) };
    loop {
        core::hint::spin_loop();
    }
}

/// In VMX root operation until told, then into L2.
fn root_then_enter(index: usize) {
    lab::enter_vmx(index, &lab::ending());
    set_step(index, 1);
    while step(index) == 1 {
        core::hint::spin_loop();
    }
    lab::run_and_store(index);
    leave(index);
}

/// Whatever ends L2.
fn run_spinning(index: usize) {
    lab::enter_vmx(index, &lab::spinning());
    lab::run_and_store(index);
    leave(index);
}

/// The same for an L2 that halts.
fn run_halting(index: usize) {
    lab::enter_vmx(index, &lab::halting());
    lab::run_and_store(index);
    leave(index);
}

/// An L2 that waits for a start-up IPI.
fn run_waiting(index: usize) {
    lab::enter_vmx(index, &lab::ending());
    rt::vmx::insn::write(field::GUEST_ACTIVITY_STATE, WAIT_FOR_SIPI);
    set_step(index, 1);
    lab::run_and_store(index);
    // The exit saves the state that L2 was in.
    let state = rt::vmx::insn::read(field::GUEST_ACTIVITY_STATE);
    lab::RESULTS[index][2].store(state, SeqCst);
    leave(index);
}

fn leave(index: usize) {
    set_step(index, 7);
    lab::leave_vmx();
    set_step(index, 8);
}

fn begin(cpu: &Cpu, work: fn(usize)) {
    set_step(cpu.index, 0);
    lab::forget(cpu.index);
    cpu.begin(work);
}

/// INIT to L2 that runs or halts: exit 3, and the CPU goes on in root operation and out of it.
fn init_in_l2(cpu: &Cpu, name: &str, work: fn(usize)) {
    begin(cpu, work);
    case!("{name}: runs {}", wait_for(|| lab::is_running(cpu.index)));
    let starts = cpu.starts();
    // Ignored: it does not wait for one.
    apic::send(cpu.id, Ipi::StartUp(VECTORS[2]));
    delay(20_000);
    case!("{name}: ignores a start-up IPI: {}", !cpu.is_done());
    apic::send(cpu.id, Ipi::Init);
    case!("{name}: comes back {}", cpu.wait());
    lab::show(name, cpu.index);
    case!("{name}: starts {}", cpu.starts() - starts);
}

/// Runs them on the first of the others; then L2s in all.
pub fn run(mode: &str, others: &Others) {
    let cpu = others.first();
    let index = cpu.index;

    for round in 0..2 {
        begin(cpu, stay_in_root);
        case!("root operation: enters {}", wait_for(|| step(index) == 1));
        let starts = cpu.starts();
        cpu.prepare(VECTORS[1]);
        apic::send(cpu.id, Ipi::Init);
        delay(50_000);
        apic::send(cpu.id, Ipi::StartUp(VECTORS[1]));
        delay(50_000);
        let turns = TURNS.load(SeqCst);
        case!(
            "root operation: INIT is blocked: {}, starts {}",
            wait_for(|| TURNS.load(SeqCst) != turns),
            cpu.starts() - starts
        );
        set_step(index, 2);
        delay(50_000);
        case!(
            "INIT pending at VMXOFF is taken there: {}",
            step(index) != 9
        );
        case!(
            "root operation: starts after VMXOFF: {}",
            cpu.start_up(VECTORS[1])
        );
        let state = cpu.start_state(VECTORS[1]);
        case!(
            "root operation {round}: cs {:x} cr0 {:x} cr4 {:x} efer {:x}",
            state.selectors[0],
            state.cr0 & !CACHE_BITS,
            state.cr4,
            state.efer
        );
        follow_mode(mode, cpu);
    }

    begin(cpu, root_then_enter);
    case!("pending INIT: enters {}", wait_for(|| step(index) == 1));
    apic::send(cpu.id, Ipi::Init);
    delay(50_000);
    set_step(index, 2);
    case!("pending INIT: comes back {}", cpu.wait());
    lab::show("INIT pending at VM entry", index);

    init_in_l2(cpu, "INIT in L2", run_spinning);
    init_in_l2(cpu, "INIT in HLT", run_halting);

    for vector in [0x00, 0x42, 0xff] {
        begin(cpu, run_waiting);
        case!("wait-for-SIPI: enters {}", wait_for(|| step(index) == 1));
        delay(50_000);
        let is_waiting = !cpu.is_done();
        // One that comes before the CPU waits is lost.
        for _ in 0..50 {
            if cpu.is_done() {
                break;
            }
            apic::send(cpu.id, Ipi::StartUp(vector));
            delay(50_000);
        }
        case!(
            "wait-for-SIPI: waits {is_waiting}, comes back {}",
            cpu.wait()
        );
        lab::show("wait-for-SIPI", index);
    }
    case!(
        "{mode}: restarts after all that: {}",
        cpu.restart(VECTORS[3])
    );
    follow_mode(mode, cpu);
}

/// By the SDM INIT keeps the APIC's mode; Bochs goes back to xAPIC mode.
fn follow_mode(mode: &str, cpu: &Cpu) {
    if mode == "x2apic" {
        case!("back in x2APIC mode: {}", cpu.run(|_| apic::enter_x2apic()));
    }
}

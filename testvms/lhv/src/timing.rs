//! What depends on time or on interrupts from outside: the preemption timer, the TSC offset,
//! external interrupts. Nothing printed here is a time.
//!
//! SDM "VMX-Preemption Timer", "External-Interrupt Exiting", "Acknowledge interrupt on exit".

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rt::page::Page;
use rt::trap::{self, Frame};
use rt::vmx::insn::{read, write};
use rt::{apic, cpu, l2_code};
use umbra_vmcs::controls::{Exit, Pin, Proc};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn spin = "2: jmp 2b";
    fn stop = "vmcall";
    fn halted = "hlt", "vmcall";
    fn enabled = "sti", "nop", "vmcall";
    fn time = "rdtsc", "vmcall";
}

/// The vector that L1 sends itself.
pub const VECTOR: u8 = 0x51;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;

/// Most ticks from L2's last instruction to the time that the exit stores. A public test suite
/// lets 750 pass.
const MOST_TICKS: u64 = 100;

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    preemption_timer(t);
    time_stamp(t);
    time_of_exit(t);
    external_interrupts(t);
}

fn preemption_timer(t: &mut Tester) {
    // Which controls there are is asked of a VMCS.
    t.fresh(&stop());
    if !t.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty()) {
        t.skip("preemption timer");
        return;
    }
    let timed = |t: &mut Tester, value: u64| {
        t.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty());
        write(field::VMX_PREEMPTION_TIMER_VALUE, value);
    };
    t.fresh(&stop());
    timed(t, 0);
    t.exit("preemption timer at 0", Reason::PreemptionTimer);

    t.fresh(&stop());
    timed(t, 0xffff_ffff);
    t.reach_end("preemption timer far away");

    t.fresh(&spin());
    timed(t, 50_000);
    t.vm.exit_controls(Exit::SAVE_PREEMPTION_TIMER, Exit::empty());
    t.exit("preemption timer in a loop", Reason::PreemptionTimer);
    t.equal("value saved", read(field::VMX_PREEMPTION_TIMER_VALUE), 0);

    t.fresh(&spin());
    timed(t, 50_000);
    write(field::GUEST_ACTIVITY_STATE, 1);
    t.exit("preemption timer in HLT", Reason::PreemptionTimer);
    t.equal("activity state", read(field::GUEST_ACTIVITY_STATE), 1);

    t.fresh(&stop());
    timed(t, 0xffff_ffff);
    if t.vm
        .exit_controls(Exit::SAVE_PREEMPTION_TIMER, Exit::empty())
    {
        t.reach_end("preemption timer saved");
        let left = read(field::VMX_PREEMPTION_TIMER_VALUE);
        t.check(
            "the value saved has gone down a little",
            left != 0 && left > 0xf000_0000,
        );
    }
}

fn time_stamp(t: &mut Tester) {
    const OFFSET: u64 = 1 << 60;
    for (name, offset) in [("rdtsc", 0), ("rdtsc with an offset", OFFSET)] {
        t.fresh(&time());
        if offset != 0 && !t.vm.proc(Proc::USE_TSC_OFFSETTING, Proc::RDTSC_EXITING) {
            t.skip(name);
            continue;
        }
        write(field::TSC_OFFSET, offset);
        let before = cpu::tsc();
        t.reach_end(name);
        let after = cpu::tsc();
        let found = t.vm.registers.rdx << 32 | t.vm.registers.rax & 0xffff_ffff;
        t.check(
            "between L1's before and after",
            (before..after).contains(&found.wrapping_sub(offset)),
        );
    }
}

/// An exit stores the TSC as it was at the exit, whatever a hypervisor underneath does then.
fn time_of_exit(t: &mut Tester) {
    const IA32_TSC: u32 = 0x10;
    let list = Page::alloc(1);
    list.write(0, IA32_TSC);
    for round in 0..2 {
        t.fresh(&time());
        write(field::VM_EXIT_MSR_STORE_ADDRESS, list.address());
        write(field::VM_EXIT_MSR_STORE_COUNT, 1);
        list.write(8, 0u64);
        t.reach_end("rdtsc, and the exit stores the TSC");
        let in_l2 = t.vm.registers.rdx << 32 | t.vm.registers.rax & 0xffff_ffff;
        let stored: u64 = list.read(8);
        t.check(
            "stored right after",
            stored > in_l2 && stored - in_l2 < MOST_TICKS,
        );
        if round == 0 {
            continue;
        }
        // Without the list nothing is stored.
        t.fresh(&time());
        list.write(8, 0u64);
        t.reach_end("rdtsc without a list");
        t.equal("stored", list.read(8), 0u64);
    }
}

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// L1's own handler: counts and acknowledges.
fn handler(frame: &mut Frame) -> bool {
    TAKEN.fetch_add(frame.vector << 32 | 1, Relaxed);
    apic::end_of_interrupt();
    true
}

fn apic_write(register: u64, value: u32) {
    // SAFETY: the local APIC's page is device memory at its reset address, mapped one to one.
    unsafe { ((0xfee0_0000 + register) as *mut u32).write_volatile(value) };
}

fn apic_read(register: u64) -> u32 {
    // SAFETY: as above.
    unsafe { ((0xfee0_0000 + register) as *const u32).read_volatile() }
}

/// Acknowledges the interrupt in service.
pub fn end_of_interrupt() {
    apic_write(0xb0, 0);
}

/// Sends this CPU a fixed interrupt; it waits, as interrupts are off.
pub fn send_self() {
    apic_write(0x300, 0x0004_0000 | u32::from(VECTOR));
    let is_pending =
        || apic_read(0x200 + 0x10 * (u64::from(VECTOR) / 32)) >> (VECTOR % 32) & 1 != 0;
    while !is_pending() {
        core::hint::spin_loop();
    }
}

/// Opens L1's interrupts for a moment.
pub fn let_in() {
    trap::set_hook(Some(handler));
    // SAFETY: the handler keeps all registers and only the vector sent can be pending.
    unsafe { asm!("sti", "nop", "nop", "cli") };
    trap::set_hook(None);
}

/// What L1 has taken since the last call: the vectors' sum in the upper half, their number in the
/// lower.
pub fn taken() -> u64 {
    TAKEN.swap(0, Relaxed)
}

/// Turns the local APIC on and lets every vector through.
pub fn open_apic() {
    apic_write(0xf0, 0x1ff);
    apic_write(0x80, 0);
}

fn external_interrupts(t: &mut Tester) {
    open_apic();

    t.fresh(&stop());
    send_self();
    t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
    t.exit("external interrupt, exiting", Reason::ExternalInterrupt);
    t.check("L1 has not taken it yet", TAKEN.swap(0, Relaxed) == 0);
    let_in();
    t.check(
        "L1 takes it now",
        TAKEN.swap(0, Relaxed) == u64::from(VECTOR) << 32 | 1,
    );
    t.reach_end("and L2 goes on");

    t.fresh(&stop());
    send_self();
    t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
    t.vm.exit_controls(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT, Exit::empty());
    let exit = t.exit(
        "external interrupt, acknowledged",
        Reason::ExternalInterrupt,
    );
    t.equal("vector", exit.interruption, 1 << 31 | u32::from(VECTOR));
    let_in();
    t.check("L1 does not get it again", TAKEN.swap(0, Relaxed) == 0);
    end_of_interrupt();
    t.reach_end("and L2 goes on");

    t.fresh(&stop());
    send_self();
    t.reach_end("not exiting, L2 has IF clear");
    t.vm.jump(0);
    write(field::GUEST_RFLAGS, 2 | IF);
    let exit = t.exit("not exiting, L2 has IF set", Reason::Vmcall);
    let handler = rt::vmx::vm::layout::HANDLERS + 16 * u64::from(VECTOR);
    t.equal("in L2's handler", exit.rip, handler);
    end_of_interrupt();

    t.fresh(&enabled());
    send_self();
    let exit = t.exit("not exiting, L2 executes STI", Reason::Vmcall);
    t.equal("in L2's handler", exit.rip, handler);
    end_of_interrupt();

    t.fresh(&halted());
    send_self();
    t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
    write(field::GUEST_ACTIVITY_STATE, 1);
    write(field::GUEST_RFLAGS, 2 | IF);
    t.exit(
        "external interrupt in HLT, exiting",
        Reason::ExternalInterrupt,
    );
    let_in();
    TAKEN.store(0, Relaxed);
    apic_write(0xf0, 0xff);
}

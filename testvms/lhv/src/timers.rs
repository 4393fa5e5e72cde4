//! The local APIC's timer while L2 runs or halts.
//!
//! SDM "APIC Timer", "External-Interrupt Exiting", "Activity State".

use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Outcome};
use rt::{apic, case, l2_code, more};
use umbra_vmcs::controls::{Exit, Pin};
use umbra_vmcs::field;

use crate::tester::Tester;
use crate::timing::{VECTOR, let_in, open_apic, taken};

l2_code! {
    fn timer_spin = "2: jmp 2b";
    fn timer_halt = "hlt", "vmcall";
    fn timer_code = "nop", "vmcall";
}

const IF: u64 = 1 << 9;
/// How long until the interrupt, in ticks: L2 has long been entered, whoever is below.
const LATER: u32 = 8_000_000;
/// The timer's divisor: 1.
const BY_ONE: u32 = 0xb;
/// LVT: masked.
const MASKED: u32 = 1 << 16;

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    open_apic();
    for (name, code, activity) in [
        ("spins", timer_spin as fn() -> Code, 0),
        ("executes HLT", timer_halt, 0),
        ("is entered in HLT", timer_code, 1),
    ] {
        for (what, is_exiting, acknowledges) in [
            ("into L2", false, false),
            ("exits", true, false),
            ("exits, acknowledged", true, true),
        ] {
            t.fresh(&code());
            write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | IF);
            write(field::GUEST_ACTIVITY_STATE, activity);
            if is_exiting {
                t.vm.pin(Pin::EXTERNAL_INTERRUPT_EXITING, Pin::empty());
            }
            if acknowledges {
                t.vm.exit_controls(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT, Exit::empty());
            }
            start();
            let outcome = t.vm.run();
            stop();
            case!(
                "timer, L2 {name}, {what}: {outcome} activity={:x}",
                read(field::GUEST_ACTIVITY_STATE)
            );
            t.check("an exit", matches!(outcome, Outcome::Exit(_)));
            let_in();
            more!("L1 takes {:x}", taken());
            // One that L2 took, or the exit, is in service.
            apic::end_of_interrupt();
        }
    }
    apic::write(apic::register::SPURIOUS, 0xff);
}

fn start() {
    apic::write(apic::register::TIMER_DIVIDE, BY_ONE);
    apic::write(apic::register::LVT_TIMER, VECTOR.into());
    apic::write(apic::register::TIMER_COUNT, LATER);
}

fn stop() {
    apic::write(apic::register::TIMER_COUNT, 0);
    apic::write(apic::register::LVT_TIMER, MASKED);
}

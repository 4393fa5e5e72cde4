//! One exit, start to end: the stub comes here with L1's registers stored,
//! and goes out again with what this returns.

use crate::action::Action;
use crate::cpu::counters::{Began, Counted, Level, Why};
use crate::cpu::percpu::{self, Cpu, PerCpu};
use crate::exit::Exit;
use crate::l1::instruction::{deliver, raise, redeliver};
use crate::panic::fatal;
use crate::platform::msr_policy;
use crate::vmcs::current::read;
use crate::vmentry::{Outcome, umbra_first_entry};
use crate::{l1, nmi, stop};
use core::sync::atomic::Ordering;
use umbra_nested::Nested;
use umbra_nested::step::skip_instruction;
use umbra_vmcs::exit::ExitReason;
use umbra_vmcs::field;

/// Called by the stub; see `vmentry.S`. Gives 0 for VMRESUME, 1 for VMLAUNCH.
#[unsafe(no_mangle)]
pub extern "C" fn umbra_handle_exit(this: *mut PerCpu, outcome: u64) -> u64 {
    // SAFETY: the stub passes this CPU's own area, once at a time.
    let (cpu, nested) = unsafe { percpu::from_stub(this) };
    let began = Began::now();
    let counted = handle(cpu, nested, Outcome::from_stub(outcome));
    let launches = leave(cpu, nested);
    if let Some(exit) = counted {
        cpu.shared.ledger.count(began, exit);
    }
    launches
}

/// Called by the stub when an NMI arrived after everything else about the entry
/// had been settled. Gives what [`umbra_handle_exit`] gives.
#[unsafe(no_mangle)]
extern "C" fn umbra_decide_again(this: *mut PerCpu) -> u64 {
    // SAFETY: as above.
    let (cpu, nested) = unsafe { percpu::from_stub(this) };
    cpu.vmcs.not_entered();
    leave(cpu, nested)
}

#[inline(always)]
fn leave(cpu: &mut Cpu, nested: &mut Nested) -> u64 {
    stop::check(cpu.index);
    msr_policy::settle_mtrrs(cpu);
    if let Err(indicator) = nmi::before_entry(cpu, nested) {
        crate::nested::vmx_abort(cpu, indicator);
    }
    u64::from(cpu.vmcs.next_entry_launches())
}

/// Enters L1 for the first time.
pub fn first_entry(cpu: &mut Cpu) -> ! {
    cpu.shared.is_running.store(true, Ordering::Release);
    stop::check(cpu.index);
    let launches = u64::from(cpu.vmcs.next_entry_launches());
    // SAFETY: vmcs01 is current and complete, the CPU's area adopted; the
    // stack that is left behind is not used again.
    unsafe { umbra_first_entry(percpu::host_rsp(cpu.index), launches) }
}

/// Deals with what the stub came back with. Gives where the exit is counted; `None`
/// for an entry that failed at once, and for what was for an NMI of L0's alone.
#[inline(always)]
fn handle(cpu: &mut Cpu, nested: &mut Nested, outcome: Outcome) -> Option<Counted> {
    if outcome != Outcome::Exited {
        refused(cpu, nested, outcome);
        return None;
    }
    let reason = ExitReason::new(read(field::EXIT_REASON));
    if reason.is_entry_failure() {
        cpu.vmcs.not_entered();
    }
    if nmi::after_exit(cpu, reason.basic()) {
        nested.after_own_exit(cpu);
        return None;
    }
    if nested.in_l2() {
        return Some(crate::nested::l2_exit(cpu, nested, reason));
    }
    let exit = Exit::decode(reason.basic());
    if reason.is_entry_failure() && exit != Exit::MachineCheck {
        l1::stop::impossible_state(cpu, reason);
    }
    let why = match exit {
        Exit::EptViolation { .. } => Why::CacheMiss,
        Exit::Vmx(_) => Why::L1Asked,
        _ => Why::L0Needs,
    };
    match l1::handle(cpu, nested, exit) {
        Action::Resume => redeliver(),
        Action::Restart => {}
        Action::Skip => skip_instruction(cpu),
        Action::Inject(event) => raise(event),
        Action::Trap(event) => deliver(event),
        Action::Entered => {}
    }
    Some(Counted {
        level: Level::L1,
        reason: reason.basic(),
        why,
    })
}

/// The VM entry failed at once, and the VMCS is still current.
#[cold]
fn refused(cpu: &mut Cpu, nested: &mut Nested, outcome: Outcome) {
    cpu.vmcs.not_entered();
    // The exit reason is an earlier exit's; what was armed goes all the same.
    nmi::after_exit(cpu, u16::MAX);
    if outcome != Outcome::VmFailValid {
        fatal(format_args!(
            "CPU {}: VM entry without a current VMCS",
            cpu.index
        ));
    }
    let error = crate::arch::vmx::instruction_error();
    if nested.in_l2() {
        crate::nested::l2_refused(cpu, nested, error);
    } else {
        l1::stop::refused_entry(cpu, error);
    }
}

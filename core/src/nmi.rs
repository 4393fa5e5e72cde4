//! NMIs that arrived while L0 ran: `umbra-nmi` decides, this does it. See
//! `docs/nmi.md`.

use crate::cpu::percpu::Cpu;
use crate::vmcs::current::{change, read, write};
use umbra_nested::{L2Done, Nested};
use umbra_nmi::{Action, Arm, ExitKind, Interruptibility, NMI_ENTRY_INFO, Policy, blocking};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

/// Right after a VM exit with this basic reason, or after an entry that failed
/// (a number that is no reason): what was armed for one entry goes. Says
/// whether the exit was for L0's sake alone.
#[inline(always)]
pub fn after_exit(cpu: &mut Cpu, number: u16) -> bool {
    let is_event = number == Reason::ExceptionOrNmi as u16;
    (cpu.nmi.is_armed() || is_event) && settle_exit(cpu, number, is_event)
}

fn settle_exit(cpu: &mut Cpu, number: u16, is_event: bool) -> bool {
    let event = match is_event {
        true => read(field::VM_EXIT_INTERRUPTION_INFORMATION) as u32,
        false => 0,
    };
    let after = cpu.nmi.after_exit(ExitKind::of(number, event));
    if let Some(arm) = after.disarm {
        set_armed(arm, false);
    }
    after.l0_owns
}

/// The last thing before an entry: where the NMI that waits goes, if one does.
///
/// # Errors
/// The VMX-abort indicator, when an NMI exit to L1 could not be completed.
#[inline(always)]
pub fn before_entry(cpu: &mut Cpu, nested: &mut Nested) -> Result<(), u32> {
    match cpu.nmi.has_pending(&cpu.shared.nmi_inbox) {
        true => settle_pending(cpu, nested),
        false => Ok(()),
    }
}

#[cold]
fn settle_pending(cpu: &mut Cpu, nested: &mut Nested) -> Result<(), u32> {
    while cpu.nmi.has_pending(&cpu.shared.nmi_inbox) {
        let entry = nested.nmi_entry(cpu);
        let action = cpu.nmi.before_entry(&cpu.shared.nmi_inbox, &entry);
        if let Some(arm) = action.arm() {
            set_armed(arm, true);
        }
        match action {
            Action::Inject => {
                let after = entry.interruptibility.for_injected_nmi();
                set_interruptibility(entry.interruptibility, after);
                let event = u64::from(NMI_ENTRY_INFO);
                write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
                break;
            }
            // Another entry then, into L1: it decides about the next NMI.
            Action::ReflectNmiExit => {
                if let L2Done::Abort(indicator) = nested.reflect_nmi(cpu) {
                    return Err(indicator);
                }
                crate::nested::separate_predictions();
            }
            Action::Enter | Action::Step | Action::HoldForWindow | Action::Hold => break,
        }
    }
    Ok(())
}

/// Writes the interruptibility state if it changes.
fn set_interruptibility(before: Interruptibility, after: Interruptibility) {
    if before != after {
        write(field::GUEST_INTERRUPTIBILITY_STATE, u64::from(after.0));
    }
}

/// L1 will execute the instruction again that met an EPT violation with this
/// qualification: an IRET that had unblocked NMIs must find them blocked.
pub fn block_again(qualification: u64) {
    let now = Interruptibility(read(field::GUEST_INTERRUPTIBILITY_STATE) as u32);
    let vectoring = read(field::IDT_VECTORING_INFORMATION) as u32;
    let after = blocking::before_retry(Policy::Direct, now, qualification, vectoring, false);
    set_interruptibility(now, after);
}

fn set_armed(arm: Arm, is_on: bool) {
    for (to, bits) in [
        (field::PIN_BASED_CONTROLS, arm.pin_bits()),
        (field::PRIMARY_PROCESSOR_BASED_CONTROLS, arm.proc_bits()),
    ] {
        if bits != 0 {
            let bits = u64::from(bits);
            let (set, clear) = if is_on { (bits, 0) } else { (0, bits) };
            change(to, set, clear);
        }
    }
}

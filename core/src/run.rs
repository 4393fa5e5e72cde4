//! One exit, start to end: the stub comes here with L1's registers stored,
//! and goes out again with what this returns.

use crate::arch::cr;
use crate::current::{read, write};
use crate::exit::Exit;
use crate::ledger::{Level, Why};
use crate::panic::fatal;
use crate::percpu::{self, Cpu, PerCpu};
use crate::vmentry::{Outcome, umbra_first_entry};
use crate::{l1, nmi, stop};
use core::sync::atomic::Ordering;
use umbra_core::control_registers::cr0;
use umbra_nested::{Fault, Nested};
use umbra_nmi::{Interruptibility, Policy, blocking};
use umbra_vmcs::InsnError;
use umbra_vmcs::exit::ENTRY_FAILURE;
use umbra_vmcs::field;

/// An event for L1, in the form of the VM-entry interruption-information
/// field. SDM "VM-Entry Controls for Event Injection".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// With the valid bit.
    pub information: u32,
    /// For the kinds that have one.
    pub error_code: u32,
    /// For software interrupts and exceptions, in bytes.
    pub instruction_bytes: u32,
}

impl Event {
    const VALID: u32 = 1 << 31;
    const HAS_ERROR_CODE: u32 = 1 << 11;
    const HARDWARE_EXCEPTION: u32 = 3 << 8;

    /// A hardware exception without an error code.
    pub const fn exception(vector: u8) -> Self {
        Self {
            information: Self::VALID | Self::HARDWARE_EXCEPTION | vector as u32,
            error_code: 0,
            instruction_bytes: 0,
        }
    }

    /// A hardware exception with one.
    pub const fn exception_with_code(vector: u8, error_code: u32) -> Self {
        Self {
            information: Self::exception(vector).information | Self::HAS_ERROR_CODE,
            error_code,
            instruction_bytes: 0,
        }
    }

    /// As VM entry takes it: no error code in real mode. SDM "VM-Entry Controls
    /// for Event Injection".
    const fn delivered_in(self, real_mode: bool) -> Self {
        let information = match real_mode {
            true => self.information & !Self::HAS_ERROR_CODE,
            false => self.information,
        };
        Self {
            information,
            ..self
        }
    }

    /// #UD.
    pub const INVALID_OPCODE: Self = Self::exception(6);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self::exception_with_code(13, 0);
}

/// What a handler decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Go on where L1 was; an event whose delivery the exit interrupted is
    /// delivered anew.
    Resume,
    /// L1's state was replaced: nothing of what the exit interrupted counts.
    Restart,
    /// The instruction is done: go on behind it.
    Skip,
    /// Deliver a fault of the instruction.
    Inject(Event),
    /// Deliver a trap: it comes between two instructions.
    Trap(Event),
    /// Go on wherever nested VMX went: L2, or L1 after a failed entry.
    Entered,
}

impl Action {
    /// The exception that L1's instruction raises.
    pub fn raise(fault: Fault) -> Self {
        if let Some(linear) = fault.cr2 {
            cr::set_cr2(linear);
        }
        Self::Inject(match fault.error_code {
            Some(code) => Event::exception_with_code(fault.vector, code),
            None => Event::exception(fault.vector),
        })
    }
}

/// Called by the stub; see `vmentry.S`. Gives 0 for VMRESUME, 1 for VMLAUNCH.
#[unsafe(no_mangle)]
extern "C" fn umbra_handle_exit(this: *mut PerCpu, outcome: u64) -> u64 {
    // SAFETY: the stub passes this CPU's own area, once at a time.
    let (cpu, nested) = unsafe { percpu::from_stub(this) };
    handle(cpu, nested, Outcome::from_stub(outcome));
    leave(cpu, nested)
}

/// Called by the stub when an NMI arrived after everything else about the entry
/// had been settled. Gives what [`umbra_handle_exit`] gives.
#[unsafe(no_mangle)]
extern "C" fn umbra_decide_again(this: *mut PerCpu) -> u64 {
    // SAFETY: as above.
    let (cpu, nested) = unsafe { percpu::from_stub(this) };
    leave(cpu, nested)
}

fn leave(cpu: &mut Cpu, nested: &mut Nested) -> u64 {
    stop::check(cpu.index);
    if let Err(indicator) = nmi::before_entry(cpu, nested) {
        crate::nested::vmx_abort(cpu, indicator);
    }
    u64::from(cpu.next_entry_launches())
}

/// Enters L1 for the first time.
pub fn first_entry(cpu: &mut Cpu) -> ! {
    cpu.shared.is_running.store(true, Ordering::Release);
    stop::check(cpu.index);
    // SAFETY: vmcs01 is current and complete, the CPU's area adopted; the
    // stack that is left behind is not used again.
    unsafe { umbra_first_entry(percpu::host_rsp(cpu.index), 1) }
}

fn handle(cpu: &mut Cpu, nested: &mut Nested, outcome: Outcome) {
    let raw = read(field::EXIT_REASON) as u32;
    let number = raw as u16;
    if outcome == Outcome::Exited {
        if raw & ENTRY_FAILURE == 0 {
            cpu.note_launch();
        }
        if nmi::after_exit(cpu, number) {
            nested.after_own_exit(cpu);
            return;
        }
    } else {
        // The reason is an earlier exit's; what was armed goes all the same.
        nmi::after_exit(cpu, u16::MAX);
    }
    if nested.in_l2() {
        return crate::nested::l2_exit(cpu, nested, outcome);
    }
    if outcome != Outcome::Exited {
        entry_refused(cpu, outcome);
    }
    if raw & ENTRY_FAILURE != 0 {
        fatal(format_args!(
            "CPU {}: VM entry of L1 failed, exit reason {raw:#x}, qualification {:#x}",
            cpu.index,
            read(field::EXIT_QUALIFICATION)
        ));
    }
    let exit = Exit::decode(number);
    let why = match exit {
        Exit::EptViolation { .. } => Why::CacheMiss,
        Exit::Vmx(_) => Why::L1Asked,
        _ => Why::L0Needs,
    };
    cpu.shared.ledger.count(Level::L1, number, why);
    match l1::handle(cpu, nested, exit) {
        Action::Resume => redeliver(),
        Action::Restart => {}
        Action::Skip => skip_instruction(),
        Action::Inject(event) => raise(event),
        Action::Trap(event) => deliver(event),
        Action::Entered => {}
    }
}

/// VMLAUNCH or VMRESUME of vmcs01 failed at once: a bug of L0's.
fn entry_refused(cpu: &Cpu, outcome: Outcome) -> ! {
    match outcome {
        Outcome::VmFailValid => {
            let number = crate::arch::vmx::instruction_error();
            fatal(format_args!(
                "CPU {}: VM entry of L1 refused: {number}, {}",
                cpu.index,
                InsnError::describe(number)
            ))
        }
        Outcome::VmFailInvalid | Outcome::Exited => fatal(format_args!(
            "CPU {}: VM entry of L1 without a current VMCS",
            cpu.index
        )),
    }
}

/// The next entry delivers a fault of the instruction that exited, as the CPU
/// would: the image of RFLAGS has RF set.
fn raise(event: Event) {
    const RFLAGS_RF: u64 = 1 << 16;

    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | RFLAGS_RF);
    deliver(event);
}

/// The next entry delivers an exception; in real mode there is no error code,
/// which VM entry insists on.
fn deliver(event: Event) {
    let in_real_mode = read(field::GUEST_CR0) & cr0::PE == 0;
    inject(event.delivered_in(in_real_mode));
}

/// The next entry delivers `event`.
fn inject(event: Event) {
    write(
        field::VM_ENTRY_INTERRUPTION_INFORMATION,
        u64::from(event.information),
    );
    if event.information & Event::HAS_ERROR_CODE != 0 {
        write(
            field::VM_ENTRY_EXCEPTION_ERROR_CODE,
            u64::from(event.error_code),
        );
    }
    // Software interrupts and exceptions: types 4, 5 and 6.
    if matches!(event.information >> 8 & 7, 4..=6) {
        write(
            field::VM_ENTRY_INSTRUCTION_LENGTH,
            u64::from(event.instruction_bytes),
        );
    }
}

/// Delivers anew what the exit interrupted. SDM "Information for VM Exits That
/// Occur During Event Delivery".
fn redeliver() {
    let vectoring = read(field::IDT_VECTORING_INFORMATION) as u32;
    let now = Interruptibility(read(field::GUEST_INTERRUPTIBILITY_STATE) as u32);
    let Some((information, after)) = blocking::before_reinjection(Policy::Direct, now, vectoring)
    else {
        return;
    };
    if after != now {
        write(field::GUEST_INTERRUPTIBILITY_STATE, u64::from(after.0));
    }
    inject(Event {
        information,
        error_code: read(field::IDT_VECTORING_ERROR_CODE) as u32,
        instruction_bytes: read(field::VM_EXIT_INSTRUCTION_LENGTH) as u32,
    });
}

/// Moves L1 behind the instruction that exited, as if it had been executed:
/// the one place where RIP advances.
pub fn skip_instruction() {
    // Bit 13: CS.L.
    const LONG_CODE: u64 = 1 << 13;

    let mut rip = read(field::GUEST_RIP).wrapping_add(read(field::VM_EXIT_INSTRUCTION_LENGTH));
    if rip >> 32 != 0 {
        let is_64_bit = read(field::GUEST_CS_ACCESS_RIGHTS) & LONG_CODE != 0
            && read(field::GUEST_IA32_EFER) & 1 << 10 != 0;
        if !is_64_bit {
            rip &= 0xffff_ffff;
        }
    }
    write(field::GUEST_RIP, rip);
    end_of_instruction();
}

/// An instruction of L1, or one turn of a repeated one, was executed for it:
/// blocking by STI and MOV SS ends, and a single step is due.
pub fn end_of_instruction() {
    const RFLAGS_TF: u64 = 1 << 8;
    const RFLAGS_RF: u64 = 1 << 16;
    const DEBUGCTL_BTF: u64 = 1 << 1;
    const PENDING_BS: u64 = 1 << 14;
    const STI_OR_MOV_SS: u64 = 3;

    let state = read(field::GUEST_INTERRUPTIBILITY_STATE);
    if state & STI_OR_MOV_SS != 0 {
        write(field::GUEST_INTERRUPTIBILITY_STATE, state & !STI_OR_MOV_SS);
    }
    let rflags = read(field::GUEST_RFLAGS);
    if rflags & RFLAGS_RF != 0 {
        write(field::GUEST_RFLAGS, rflags & !RFLAGS_RF);
    }
    if rflags & RFLAGS_TF != 0 && read(field::GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF == 0 {
        let pending = read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | PENDING_BS);
    }
}

//! The exit trace: what is known of an exit before and after it is handled. The
//! stub comes here instead of to `run` while the trace is on; `report` prints.

use crate::cpu::percpu::{self, Cpu, PerCpu};
use crate::cpu::registers::gpr;
use crate::machine::machine;
use crate::report;
use crate::run::umbra_handle_exit;
use crate::vmcs::current::read;
use umbra_core::trace::{After, Became, Before, Record};
use umbra_nested::Nested;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

/// Called by the stub in place of [`umbra_handle_exit`], and gives what it gives.
#[unsafe(no_mangle)]
extern "C" fn umbra_handle_exit_traced(this: *mut PerCpu) -> u64 {
    let exit = {
        // SAFETY: the stub passes this CPU's own area, once at a time; the
        // references end with the block.
        let (cpu, nested) = unsafe { percpu::from_stub(this) };
        begin(cpu, nested)
    };
    let launches = umbra_handle_exit(this, 0);
    if let Some(exit) = exit {
        // SAFETY: as above; those of the handler have ended.
        let (cpu, nested) = unsafe { percpu::from_stub(this) };
        finish(cpu, nested, exit);
    }
    launches
}

/// Keeps the exit as not finished, if the filter wants it: should L0 stop while
/// it handles the exit, it is the last one printed.
fn begin(cpu: &Cpu, nested: &Nested) -> Option<Before> {
    let reason = read(field::EXIT_REASON) as u32;
    let is_l2 = nested.in_l2();
    let filter = machine().options.trace?;
    if !filter.keeps(is_l2, cpu.index, reason as u16) {
        return None;
    }
    let exit = Before {
        is_l2,
        reason,
        rip: read(field::GUEST_RIP),
        qualification: read(field::EXIT_QUALIFICATION),
        operand: operand(cpu, reason),
        tsc: crate::arch::cr::tsc(),
    };
    cpu.shared.trace.begin(Record {
        exit,
        became: Became::Unfinished,
        event: 0,
    });
    Some(exit)
}

/// See [`Before::operand`].
fn operand(cpu: &Cpu, reason: u32) -> u64 {
    let gprs = &cpu.regs.gprs;
    match Reason::from_number(reason as u16) {
        Some(Reason::Cpuid) => gprs[gpr::RAX] & 0xffff_ffff,
        Some(Reason::Rdmsr | Reason::Wrmsr) => gprs[gpr::RCX] & 0xffff_ffff,
        Some(Reason::EptViolation | Reason::EptMisconfiguration) => {
            read(field::GUEST_PHYSICAL_ADDRESS)
        }
        Some(Reason::ExceptionOrNmi) => read(field::VM_EXIT_INTERRUPTION_INFORMATION),
        Some(Reason::Vmread | Reason::Vmwrite) => {
            // Bits 31:28: the register that holds the encoding.
            match (read(field::VM_EXIT_INSTRUCTION_INFORMATION) >> 28 & 0xf) as usize {
                gpr::RSP => read(field::GUEST_RSP),
                register => gprs[register],
            }
        }
        _ => 0,
    }
}

/// The exit has been handled, and the VMCS of the level that runs next is
/// current.
fn finish(cpu: &Cpu, nested: &Nested, exit: Before) {
    let after = After {
        in_l2: nested.in_l2(),
        rip: read(field::GUEST_RIP),
        event: read(field::VM_ENTRY_INTERRUPTION_INFORMATION) as u32,
        instruction_bytes: read(field::VM_EXIT_INSTRUCTION_LENGTH),
    };
    cpu.shared.trace.finish(Record {
        exit,
        became: Became::of(&exit, &after),
        event: after.event,
    });
    let is_live = machine().options.trace.is_some_and(|filter| filter.is_live);
    if is_live && cpu.shared.trace.is_full() {
        report::trace_of(cpu.index);
    }
}

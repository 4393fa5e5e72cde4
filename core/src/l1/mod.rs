//! What L0 does when L1 exits: one file a family.

pub mod cpuid;
mod cr;
mod ept;
pub mod init_sipi;
pub mod instruction;
mod io;
mod msr;
mod spoil;
pub mod stop;
mod string_io;
mod task;
mod xsetbv;

use crate::action::{Action, Event};
use crate::cpu::percpu::Cpu;
use crate::exit::Exit;
use crate::hypercall;
use umbra_nested::Nested;
use umbra_vmcs::exit::Reason;

/// Handles one exit.
#[inline(always)]
pub fn handle(cpu: &mut Cpu, nested: &mut Nested, exit: Exit) -> Action {
    match exit {
        // NMIs exit, and windows open, only while `nmi` asks for it, and then
        // the exit has been taken there.
        Exit::Nmi => Action::Resume,
        Exit::NmiWindow => Action::Resume,
        Exit::MachineCheck => stop::machine_check(cpu),
        Exit::TripleFault => stop::triple_fault(cpu),
        Exit::Init => {
            if nested.in_vmx_operation() {
                // VMX root operation blocks INIT.
                nested.latch_init();
                return Action::Resume;
            }
            init_sipi::init(cpu)
        }
        Exit::Sipi(vector) => init_sipi::sipi(cpu, vector),
        Exit::PreemptionTimer => init_sipi::started(cpu),
        Exit::TaskSwitch { qualification } => task::switch(cpu, qualification),
        Exit::Cpuid => cpuid::handle(cpu),
        Exit::Hidden => Action::Inject(Event::INVALID_OPCODE),
        Exit::Invd => {
            // INVD would lose what L0 has in its caches.
            crate::arch::cr::wbinvd();
            Action::Skip
        }
        Exit::CrAccess(access) => cr::handle(cpu, access),
        Exit::Io(access) => {
            // This may be the write that ends the run.
            cpu.shared.ept02.publish(&nested.pool.counters());
            match access.is_string {
                true => string_io::handle(cpu, access),
                false => io::handle(cpu, access),
            }
        }
        Exit::Rdmsr => msr::read(cpu),
        Exit::Wrmsr => msr::write(cpu),
        Exit::Xsetbv => xsetbv::handle(cpu),
        Exit::EptViolation {
            gpa1,
            qualification,
        } => ept::violation(cpu, gpa1, qualification),
        Exit::Vmx(reason) => {
            if reason == Reason::Vmcall
                && let Some(action) = hypercall::of_l1(cpu)
            {
                return action;
            }
            crate::nested::instruction(cpu, nested, reason)
        }
        // An instruction that L0 does not know is one that L1's CPU does not
        // have. The ledger names the reason.
        Exit::Unexpected(_) | Exit::Unknown(_) => Action::Inject(Event::INVALID_OPCODE),
    }
}

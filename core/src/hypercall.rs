//! Umbra's own calls. `umbra_core::hypercall` says what there is; here they are answered.

use crate::arch::{cpuid, vmx};
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::machine::machine;
use crate::report;
use crate::vmcs::current::read;
use crate::vmcs::lent;
use crate::{action::Action, hypapp};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use umbra_arch::{AccessRights, Exception};
use umbra_core::cpuid::Words;
use umbra_core::hypercall::{Call, Caller, Capabilities, REFUSED, SIGNATURE, call, is_in_range};
use umbra_core::ledger_leaf::Level;
use umbra_hypapp::Answer;
use umbra_nested::{L2Done, Nested};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

/// The answer to what is no call.
const NO_CALL: Words = [REFUSED, 0, 0, 0];

/// L1 leaves L2's calls to Umbra.
static ALLOWS_L2: AtomicBool = AtomicBool::new(true);

/// VMCALL of L1: what becomes of it if it is one of Umbra's own.
#[cold]
#[inline(never)]
pub fn of_l1(cpu: &mut Cpu) -> Option<Action> {
    Some(match vmcall(cpu, Level::L1)? {
        Ok(()) => Action::Skip,
        Err(fault) => Action::raise(fault),
    })
}

/// VMCALL of L2, whose VMCS is current; `None` where it is L1's.
#[cold]
#[inline(never)]
pub fn of_l2(cpu: &mut Cpu, nested: &mut Nested) -> Option<L2Done> {
    if !ALLOWS_L2.load(Relaxed) {
        return None;
    }
    Some(match vmcall(cpu, Level::L2)? {
        Ok(()) => nested.skip_in_l2(cpu),
        Err(fault) => nested.fault_in_l2(cpu, fault),
    })
}

/// What CPUID answers L1 for this leaf, where it is one of Umbra's own.
#[inline]
pub fn leaf(cpu: &mut Cpu, leaf: u32, subleaf: u32) -> Option<Words> {
    if !is_in_range(machine().options.hypercalls, leaf) {
        return None;
    }
    answer(cpu, leaf, subleaf, Level::L1, false).ok()
}

/// VMCALL: `None` if it is none of Umbra's own; else it is answered, or raises the
/// exception.
fn vmcall(cpu: &mut Cpu, level: Level) -> Option<Result<(), Exception>> {
    let eax = cpu.regs.gprs[gpr::RAX] as u32;
    if !is_in_range(machine().options.hypercalls, eax) {
        return None;
    }
    let ecx = cpu.regs.gprs[gpr::RCX] as u32;
    let answered = answer(cpu, eax, ecx, level, true);
    Some(answered.map(|words| cpu.regs.set_words(words)))
}

/// # Errors
/// The exception that the hypapp has a VMCALL raise.
#[cold]
fn answer(
    cpu: &mut Cpu,
    eax: u32,
    ecx: u32,
    level: Level,
    by_vmcall: bool,
) -> Result<Words, Exception> {
    let options = &machine().options;
    let number = eax.wrapping_sub(options.hypercalls.unwrap_or_default());
    let caller = Caller {
        level,
        is_kernel: AccessRights::from_bits(read(field::GUEST_SS_ACCESS_RIGHTS) as u32).dpl() == 0,
        by_vmcall,
    };
    Ok(match call(number, ecx, caller) {
        Call::Version => umbra_core::hypercall::version(level),
        Call::Capabilities => [
            capabilities(cpu).bits(),
            options.vmcs12s,
            machine().cpu_count(),
            options.max_active_ept,
        ],
        Call::Ledger { subleaf } if options.ledger => report::answer(subleaf),
        Call::Ledger { .. } => [0; 4],
        Call::AllowL2(is_allowed) => {
            ALLOWS_L2.store(is_allowed, Relaxed);
            [0; 4]
        }
        Call::Hypapp { number } => match hypapp::call(cpu, number, caller) {
            Answer::Handled(words) => words,
            Answer::Fault(fault) => return Err(fault),
            Answer::Pass => NO_CALL,
        },
        Call::Refused => NO_CALL,
    })
}

fn capabilities(cpu: &Cpu) -> Capabilities {
    let mut all = Capabilities::empty();
    let offers = |control| cpu.offered.offers_proc2(control);
    all.set(Capabilities::EPT, offers(Proc2::ENABLE_EPT));
    all.set(Capabilities::VPID, offers(Proc2::ENABLE_VPID));
    all.set(Capabilities::VMCS_SHADOWING, offers(Proc2::VMCS_SHADOWING));
    all.set(Capabilities::LENDS_VMCS, lent::is_possible(cpu));
    all.set(Capabilities::LEDGER, machine().options.ledger);
    all
}

/// Where there is another Umbra below, it is told to leave this one's guest its calls:
/// they are for the Umbra that is next to the caller.
pub fn claim() {
    let Some(base) = machine().options.hypercalls else {
        return;
    };
    if cpuid::cpuid(base, 0).eax == SIGNATURE {
        // SAFETY: an Umbra answers this call.
        unsafe { vmx::vmcall(base + 3, 0) };
    }
}

//! Nested VMX on the machine: what L1 asks of VMX, and exits of L2.

use umbra_arch::hpa::TablePages;
use umbra_ept::ept02::Config;
use umbra_nested::step::skip_instruction;
use umbra_nested::{Done, L2Done, Nested, abort, offer};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::exit::{ExitReason, Reason};
use umbra_vmcs::field;
use umbra_vmcs::rules::CpuFacts;
use umbra_vmcs::rules::CpuidLeaf;

use crate::action::Action;
use crate::arch::{cpuid, halt_forever, msr};
use crate::cpu::counters::{Counted, Level, Why};
use crate::cpu::percpu::{self, Cpu};
use crate::hypercall;
use crate::l1::{cpuid as l1_cpuid, init_sipi};
use crate::machine::machine;
use crate::panic::fatal;
use crate::stop;
use crate::vmcs::current::read;
use crate::vmcs::lent;
use crate::vmcs::shadow;
use crate::vmcs::vmcs01;
use umbra_arch::cpuid::Leaf1Ecx;
use umbra_arch::msr::PredCmd;

/// How many leaves are read anew after an INVEPT, at most.
const REFILL: usize = 64;

/// Settles what VMX this CPU offers to L1. vmcs01 is current.
pub fn set_up(cpu: &mut Cpu) {
    let present = cpu.present;
    if let Some(field) = offer::missing(&present) {
        fatal(format_args!("this CPU has no VMCS field {}", field.name()));
    }
    let offered = offer::offer(&machine().vmx, &present);
    cpu.offered = offered;
    cpu.close_merged_bitmap();
    cpu.fill_exit_store_list();
    if offered.offers_proc2(Proc2::VMCS_SHADOWING) {
        shadow::make(cpu);
    }
    let perf = match Leaf1Ecx::PDCM.is_in(cpuid::cpuid(1, 0).ecx) {
        false => 0,
        true => msr::read_safe(msr::IA32_PERF_CAPABILITIES).unwrap_or(0),
    };
    let facts = CpuFacts::from_cpuid(
        // What L1 is not shown, its own VMCSs cannot use either. None of the
        // facts depends on CR4.
        |leaf, subleaf| {
            let [eax, ebx, ecx, edx] = l1_cpuid::answer(leaf, subleaf, 0);
            CpuidLeaf { eax, ebx, ecx, edx }
        },
        perf,
    );
    let can_lend = lent::is_possible(cpu);
    let gib_pages = cpuid::has_gib_pages();
    // SAFETY: this CPU comes here once.
    let slots = unsafe { percpu::slots(cpu) };
    let mut nested = Nested::new(offered, present, facts, gib_pages, slots);
    if can_lend {
        lent::set_up(cpu, &nested.fields);
        nested.can_lend = true;
    }
    let options = &machine().options;
    let config = Config {
        caches: options.max_active_ept as usize,
        pages_per_cache: options.ept02_pages,
        refill: if options.refill { REFILL } else { 0 },
        merge: options.merge,
        hardware: machine().ept,
    };
    let run = &cpu.pages.ept02;
    let count = u32::try_from(run.count()).unwrap_or(u32::MAX);
    // SAFETY: pages of this CPU's own, taken for this alone; it comes here once.
    let pages = unsafe { TablePages::new(run.base().raw(), count) };
    if let Err(error) = nested.pool.configure(pages, &config) {
        fatal(format_args!("the ept02 pool cannot be set up: {error:?}"));
    }
    // SAFETY: this CPU's area was created, and only now does anything refer to
    // this part.
    unsafe { percpu::set_nested(cpu.index, nested) };
}

/// L1 executed the VMX instruction that `reason` names.
#[inline(always)]
pub fn instruction(cpu: &mut Cpu, nested: &mut Nested, reason: Reason) -> Action {
    let done = nested.instruction(cpu, reason);
    report_failed_entry(nested);
    if matches!(reason, Reason::Vmxon | Reason::Vmxoff) {
        follow_vmx_operation(cpu, nested);
        // Another CPU may print the ledger, and read these then.
        cpu.shared.ept02.publish(&nested.pool.counters());
    }
    match done {
        Done::Next => Action::Skip,
        Done::Switched => Action::Entered,
        Done::Abort(indicator) => vmx_abort(cpu, indicator),
        Done::Init => init_sipi::init(cpu),
        Done::Again => Action::Resume,
        Done::Fault(fault) => Action::raise(fault),
    }
}

/// CR0's bits that VMX operation fixes become L0's, or L1's again.
fn follow_vmx_operation(cpu: &mut Cpu, nested: &Nested) {
    let mask = read(field::CR0_GUEST_HOST_MASK);
    let cr0 = read(field::GUEST_CR0) & !mask | read(field::CR0_READ_SHADOW) & mask;
    cpu.is_l1_in_vmx = nested.in_vmx_operation();
    vmcs01::write_cr0(cpu, cr0);
}

/// L2 exited for this reason. Gives where the exit is counted.
pub fn l2_exit(cpu: &mut Cpu, nested: &mut Nested, reason: ExitReason) -> Counted {
    let own = match reason.known() {
        Some(Reason::Vmcall) => hypercall::of_l2(cpu, nested),
        _ => None,
    };
    let done = own.unwrap_or_else(|| nested.l2_exit(cpu, reason));
    let why = match done {
        L2Done::Resume if reason.known() == Some(Reason::EptViolation) => Why::CacheMiss,
        L2Done::Resume => Why::L0Needs,
        L2Done::Reflected | L2Done::Abort(_) => Why::L1Asked,
    };
    if done != L2Done::Resume {
        separate_predictions();
    }
    if let L2Done::Abort(indicator) = done {
        vmx_abort(cpu, indicator);
    }
    Counted {
        level: Level::L2,
        reason: reason.basic(),
        why,
    }
}

/// The VM entry of the current VMCS, a vmcs02, failed at once with this VM-instruction
/// error.
pub fn l2_refused(cpu: &mut Cpu, nested: &mut Nested, error: u32) {
    match nested.l2_vmfail(cpu, error) {
        None => skip_instruction(cpu),
        Some(L2Done::Abort(indicator)) => vmx_abort(cpu, indicator),
        Some(L2Done::Reflected) => separate_predictions(),
        Some(L2Done::Resume) => {}
    }
}

/// L1 runs after L2, both in VMX non-root operation, where the CPU does not keep
/// their branch predictions apart as it does those of a guest and its host.
pub fn separate_predictions() {
    if machine().has_enhanced_ibrs {
        // SAFETY: drops predictions, no state.
        unsafe { msr::write(msr::IA32_PRED_CMD, PredCmd::IBPB.bits()) };
    }
}

/// A VMX abort puts this CPU into a shutdown state of its own, from which only
/// a reset leads: INIT, start-up IPIs, interrupts, NMIs do nothing to it. SDM
/// "VMX Aborts". A CPU in VMX root operation that halts with interrupts off is
/// in just that state: it blocks INIT, and NMIs end in L0's handler.
///
/// The other CPUs go on. Once none is left, the run is over.
pub fn vmx_abort(cpu: &Cpu, indicator: u32) -> ! {
    let what = format_args!(
        "L1 on CPU {}: VMX abort {indicator}: {}",
        cpu.index,
        abort::describe(indicator)
    );
    if stop::leave(cpu.index) {
        fatal(format_args!("{what}; no CPU of L1 is left"))
    }
    crate::say!("{what}");
    halt_forever()
}

/// With the option for it, names the rule that L1's VM entry broke.
#[inline(always)]
fn report_failed_entry(nested: &mut Nested) {
    if let Some(rule) = nested.take_broken_rule()
        && machine().options.log_failed_entries
    {
        crate::say!(
            "L1's VM entry broke {}: {} (SDM \"{}\")",
            rule.id,
            rule.what,
            rule.section
        );
    }
}

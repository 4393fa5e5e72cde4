//! Umbra stops by itself: it found a bug of its own, or a machine in a state
//! that leaves no way on. What it says when it cannot start is in `refusal.rs`.

use crate::arch::halt_forever;
use crate::console;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use umbra_vmcs::field::{self, Field};

/// Set by the first CPU that fails: a failure while reporting one, or on a
/// second CPU, says no more than its own line.
static IS_FAILING: AtomicBool = AtomicBool::new(false);

/// Stops the other CPUs, says in one line what is wrong, dumps the current
/// VMCS and the exit trace, and stops.
pub fn fatal(what: fmt::Arguments<'_>) -> ! {
    crate::stop::all_others();
    console::print_line_now(format_args!("fatal: {what}"));
    if !IS_FAILING.swap(true, Ordering::AcqRel) {
        dump();
    }
    halt_forever()
}

/// What a dump shows: enough to see where the guest was and why it left.
const DUMPED: [Field; 42] = [
    field::EXIT_REASON,
    field::EXIT_QUALIFICATION,
    field::VM_INSTRUCTION_ERROR,
    field::VM_EXIT_INTERRUPTION_INFORMATION,
    field::IDT_VECTORING_INFORMATION,
    field::VM_EXIT_INSTRUCTION_LENGTH,
    field::GUEST_LINEAR_ADDRESS,
    field::GUEST_PHYSICAL_ADDRESS,
    field::GUEST_RIP,
    field::GUEST_RSP,
    field::GUEST_RFLAGS,
    field::GUEST_CR0,
    field::GUEST_CR3,
    field::GUEST_CR4,
    field::GUEST_IA32_EFER,
    field::GUEST_CS_SELECTOR,
    field::GUEST_CS_BASE,
    field::GUEST_CS_LIMIT,
    field::GUEST_CS_ACCESS_RIGHTS,
    field::GUEST_SS_SELECTOR,
    field::GUEST_SS_ACCESS_RIGHTS,
    field::GUEST_DS_ACCESS_RIGHTS,
    field::GUEST_LDTR_ACCESS_RIGHTS,
    field::GUEST_TR_SELECTOR,
    field::GUEST_TR_ACCESS_RIGHTS,
    field::GUEST_GDTR_BASE,
    field::GUEST_IDTR_BASE,
    field::GUEST_INTERRUPTIBILITY_STATE,
    field::GUEST_ACTIVITY_STATE,
    field::GUEST_PENDING_DEBUG_EXCEPTIONS,
    field::VMCS_LINK_POINTER,
    field::PIN_BASED_CONTROLS,
    field::PRIMARY_PROCESSOR_BASED_CONTROLS,
    field::SECONDARY_PROCESSOR_BASED_CONTROLS,
    field::PRIMARY_VM_EXIT_CONTROLS,
    field::VM_ENTRY_CONTROLS,
    field::VM_ENTRY_INTERRUPTION_INFORMATION,
    field::EPT_POINTER,
    field::CR0_READ_SHADOW,
    field::CR4_READ_SHADOW,
    field::HOST_RSP,
    field::HOST_RIP,
];

fn dump() {
    if !crate::cpu::percpu::is_vmx_on() {
        return;
    }
    dump_vmcs();
    crate::report::trace();
}

/// Prints what the current VMCS holds.
pub fn dump_vmcs() {
    for shown in DUMPED {
        if let Ok(value) = crate::arch::vmx::vmread(shown) {
            console::print_line_now(format_args!("  {} = {value:#x}", shown.name()));
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => fatal(format_args!(
            "{} ({}:{})",
            info.message(),
            at.file(),
            at.line()
        )),
        None => fatal(format_args!("{}", info.message())),
    }
}

//! INIT signals and start-up IPIs. SDM "Processor State After Reset or INIT",
//! "MP Initialization Protocol Algorithm".

use crate::action::Action;
use crate::arch::{cpuid, cr, msr};
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::{Registers, gpr};
use crate::machine::machine;
use crate::vmcs::current::{change, read, write};
use crate::vmcs::vmcs01;
use umbra_arch::{AccessRights, Cr0, Dr7, Rflags};
use umbra_vmcs::controls::Pin;
use umbra_vmcs::field::{self, SegmentFields};

/// "Wait for SIPI" in the activity-state field.
const WAIT_FOR_SIPI: u64 = 3;
/// IA32_APIC_BASE bit 8: the CPU that booted.
const BOOTSTRAP: u64 = 1 << 8;

/// INIT: the CPU's registers go to their INIT state. The one that booted goes
/// on at the reset vector, any other waits for a start-up IPI.
///
/// One that came while the CPU was waiting already stays pending through the
/// start-up IPI and arrives only then, before L1's first instruction: a bare
/// CPU would have taken it first, so it changes nothing.
pub fn init(cpu: &mut Cpu) -> Action {
    if let Some(page) = cpu.start_page
        && read(field::GUEST_RIP) == 0
        && read(field::GUEST_CS_SELECTOR) == u64::from(page) << 8
        && read(field::GUEST_CS_BASE) == u64::from(page) << 12
    {
        return started(cpu);
    }
    write_init_state(cpu);
    crate::platform::apic::reset_after_init();
    let is_bootstrap = msr::read(msr::IA32_APIC_BASE) & BOOTSTRAP != 0;
    if !is_bootstrap {
        crate::stop::will_wait(cpu.index);
    }
    let state = if is_bootstrap { 0 } else { WAIT_FOR_SIPI };
    write(field::GUEST_ACTIVITY_STATE, state);
    Action::Restart
}

/// The state in which a CPU other than the one that booted is handed to L1.
pub fn wait_for_sipi(cpu: &mut Cpu) {
    write_init_state(cpu);
    crate::stop::will_wait(cpu.index);
    write(field::GUEST_ACTIVITY_STATE, WAIT_FOR_SIPI);
}

/// A start-up IPI to a CPU that waits for it.
pub fn sipi(cpu: &mut Cpu, vector: u8) -> Action {
    crate::stop::will_run(cpu.index);
    cpu.start_page = Some(vector);
    write(field::GUEST_CS_SELECTOR, u64::from(vector) << 8);
    write(field::GUEST_CS_BASE, u64::from(vector) << 12);
    write(field::GUEST_RIP, 0);
    write(field::GUEST_ACTIVITY_STATE, 0);
    // INIT left nothing blocked. Bochs masks NMIs in a CPU that waits, and saves that
    // as blocking, which would last until L1's first IRET.
    write(field::GUEST_INTERRUPTIBILITY_STATE, 0);
    set_start_timer(true);
    Action::Restart
}

/// The CPU is about to execute the first instruction behind a start-up IPI: an
/// INIT that waited would have come before.
pub fn started(cpu: &mut Cpu) -> Action {
    cpu.start_page = None;
    set_start_timer(false);
    Action::Restart
}

/// An expired preemption timer exits before L1's first instruction, and behind
/// an INIT that waits: so L0 learns that none does. (A CPU without the timer
/// keeps the INIT of an L1 that loops at its first instruction from having an
/// effect.) SDM "VMX-Preemption Timer".
fn set_start_timer(is_on: bool) {
    let bit = Pin::ACTIVATE_PREEMPTION_TIMER;
    if !machine().vmx.offers_pin(bit) {
        return;
    }
    let bit = u64::from(bit.bits());
    if is_on {
        write(field::VMX_PREEMPTION_TIMER_VALUE, 0);
        change(field::PIN_BASED_CONTROLS, bit, 0);
    } else {
        change(field::PIN_BASED_CONTROLS, 0, bit);
    }
}

/// Puts L1's registers on this CPU into the state after INIT: what INIT leaves
/// alone (MSRs, the caches' bits of CR0, x87 and SSE state) stays.
pub fn write_init_state(cpu: &mut Cpu) {
    let kept = read(field::GUEST_CR0) & (Cr0::CD.bits() | Cr0::NW.bits());
    let xmm = cpu.regs.xmm;
    cpu.regs = Registers {
        xmm,
        ..Registers::default()
    };
    // RDX holds the CPU's signature.
    cpu.regs.gprs[gpr::RDX] = u64::from(cpuid::cpuid(1, 0).eax);
    cpu.is_l1_in_vmx = false;
    cpu.start_page = None;
    cpu.nmi.reset(&cpu.shared.nmi_inbox);
    vmcs01::write_cr0(cpu, kept | Cr0::ET.bits());
    vmcs01::write_cr4(0);
    vmcs01::write_efer(0);
    for data in SegmentFields::DATA {
        write(data.selector, 0);
        write(data.base, 0);
        write(data.limit, 0xffff);
        write(data.rights, AccessRights::DATA_16.into_bits().into());
    }
    for (to, value) in [
        (field::GUEST_CS_SELECTOR, 0xf000),
        (field::GUEST_CS_BASE, 0xffff_0000),
        (field::GUEST_CS_LIMIT, 0xffff),
        (
            field::GUEST_CS_ACCESS_RIGHTS,
            AccessRights::CODE_16.into_bits().into(),
        ),
        (field::GUEST_LDTR_SELECTOR, 0),
        (field::GUEST_LDTR_BASE, 0),
        (field::GUEST_LDTR_LIMIT, 0xffff),
        (
            field::GUEST_LDTR_ACCESS_RIGHTS,
            AccessRights::LDT.into_bits().into(),
        ),
        (field::GUEST_TR_SELECTOR, 0),
        (field::GUEST_TR_BASE, 0),
        (field::GUEST_TR_LIMIT, 0xffff),
        (
            field::GUEST_TR_ACCESS_RIGHTS,
            AccessRights::TSS_BUSY.into_bits().into(),
        ),
        (field::GUEST_GDTR_BASE, 0),
        (field::GUEST_GDTR_LIMIT, 0xffff),
        (field::GUEST_IDTR_BASE, 0),
        (field::GUEST_IDTR_LIMIT, 0xffff),
        (field::GUEST_RIP, 0xfff0),
        (field::GUEST_RSP, 0),
        (field::GUEST_RFLAGS, Rflags::FIXED.bits()),
        (field::GUEST_CR3, 0),
        (field::GUEST_DR7, Dr7::FIXED.bits()),
        (field::GUEST_INTERRUPTIBILITY_STATE, 0),
        (field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0),
        (field::VM_ENTRY_INTERRUPTION_INFORMATION, 0),
    ] {
        write(to, value);
    }
    cr::set_cr2(0);
    // SAFETY: L0 uses no breakpoints: DR0-3 and DR6 are L1's.
    unsafe {
        core::arch::asm!(
            "mov dr0, {zero}",
            "mov dr1, {zero}",
            "mov dr2, {zero}",
            "mov dr3, {zero}",
            "mov dr6, {dr6}",
            zero = in(reg) 0u64,
            dr6 = in(reg) 0xffff_0ff0u64,
            options(nomem, nostack)
        );
    }
}

//! The local APIC, as far as L0 uses it: to start the other CPUs at boot, to
//! reset it with its CPU, and to stop all CPUs after a fatal error. In between
//! it is L1's alone. SDM "Advanced Programmable Interrupt Controller (APIC)".

use crate::arch::msr;
use crate::mem::{LOW_BYTES, pointer};
use umbra_arch::apic::{Delivery, IcrLow, register as at};
use umbra_arch::msr::ApicBase;
use umbra_arch::paging::ADDRESS_BITS;
use umbra_core::local_apic;

/// How often to look whether an IPI has left.
const MAX_POLLS: u32 = 1_000_000;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipi {
    /// INIT.
    Init,
    /// Start-up, at this page.
    StartUp(u8),
}

impl Ipi {
    /// The low half of the ICR: physical destination, asserted, edge.
    const fn command(self) -> IcrLow {
        let command = IcrLow::new().with_is_assert(true);
        match self {
            Self::Init => command.with_delivery(Delivery::Init),
            Self::StartUp(page) => command.with_delivery(Delivery::StartUp).with_vector(page),
        }
    }
}

/// Why an IPI cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The firmware left the APIC off.
    ApicIsOff,
    /// The id does not fit an APIC in xAPIC mode.
    IdTooLarge,
    /// L1 moved its registers to where L0 may not see them.
    OutOfReach,
    /// The one before never left.
    Stuck,
}

/// Sends an IPI to the CPU with this local APIC id.
///
/// # Errors
/// [`NotSent`]; nothing was sent.
pub fn send(apic_id: u32, ipi: Ipi) -> Result<(), NotSent> {
    let base = msr::read(msr::IA32_APIC_BASE);
    if !ApicBase::EXTD.is_in(base) && apic_id > 0xfe {
        return Err(NotSent::IdTooLarge);
    }
    write_icr(base, apic_id, ipi.command())
}

/// Sends an IPI to every CPU but this one.
///
/// # Errors
/// [`NotSent`]; nothing was sent.
pub fn send_to_others(ipi: Ipi) -> Result<(), NotSent> {
    // Writes to x2APIC registers do not wait for stores before them.
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    let base = msr::read(msr::IA32_APIC_BASE);
    write_icr(base, 0, ipi.command().with_shorthand(IcrLow::ALL_BUT_SELF))
}

fn write_icr(base: u64, apic_id: u32, command: IcrLow) -> Result<(), NotSent> {
    if !ApicBase::EN.is_in(base) {
        return Err(NotSent::ApicIsOff);
    }
    if ApicBase::EXTD.is_in(base) {
        let value = u64::from(apic_id) << 32 | u64::from(command.into_bits());
        // SAFETY: an INIT or start-up IPI to CPUs that run nothing of L0's
        // yet, or are to stop for good.
        unsafe { msr::write(msr::IA32_X2APIC_ICR, value) };
        return Ok(());
    }
    if base & ADDRESS_BITS >= LOW_BYTES {
        return Err(NotSent::OutOfReach);
    }
    let register = |offset: u32| pointer((base & ADDRESS_BITS) + u64::from(offset)).cast::<u32>();
    // SAFETY: the APIC's page is below 4 GiB, which is always mapped, and its
    // registers are 32-bit words.
    let icr = || IcrLow::from_bits(unsafe { register(at::ICR_LOW).read_volatile() });
    if (0..MAX_POLLS).all(|_| icr().is_pending()) {
        return Err(NotSent::Stuck);
    }
    // SAFETY: as above.
    unsafe { register(at::ICR_HIGH).write_volatile(apic_id << 24) };
    // SAFETY: as above, and as for x2APIC mode.
    unsafe { register(at::ICR_LOW).write_volatile(command.into_bits()) };
    Ok(())
}

/// Resets this CPU's APIC as INIT does: an INIT that is a VM exit leaves it
/// alone. Interrupts that the APIC has accepted and not yet delivered stay:
/// nothing but their delivery takes them back. An APIC that is off, or that L1
/// has moved to where L0 does not reach it, stays as it is.
pub fn reset_after_init() {
    let base = msr::read(msr::IA32_APIC_BASE);
    let is_in_reach = ApicBase::EXTD.is_in(base) || base & ADDRESS_BITS < LOW_BYTES;
    if !ApicBase::EN.is_in(base) || !is_in_reach {
        return;
    }
    let version = register(base, at::VERSION);
    let is_in_service = || {
        local_apic::IN_SERVICE
            .iter()
            .any(|&offset| register(base, offset) != 0)
    };
    if is_in_service() {
        let spurious = local_apic::spurious_while_ending(version);
        set_register(base, at::SPURIOUS, spurious);
        // One for each vector, at most.
        for _ in 0..=u8::MAX {
            if !is_in_service() {
                break;
            }
            set_register(base, at::END_OF_INTERRUPT, 0);
        }
    }
    for (offset, value) in local_apic::after_init(version, ApicBase::EXTD.is_in(base)) {
        set_register(base, offset, value);
    }
}

/// The MSR of a register in x2APIC mode.
const fn x2apic_msr(offset: u32) -> u32 {
    0x800 + offset / 16
}

fn register(base: u64, offset: u32) -> u32 {
    if ApicBase::EXTD.is_in(base) {
        return msr::read(x2apic_msr(offset)) as u32;
    }
    // SAFETY: the APIC's page is below 4 GiB, which is always mapped, its
    // registers are 32-bit words, and reading those that are read here has no effect.
    unsafe {
        pointer((base & ADDRESS_BITS) + u64::from(offset))
            .cast::<u32>()
            .read_volatile()
    }
}

fn set_register(base: u64, offset: u32, value: u32) {
    if ApicBase::EXTD.is_in(base) {
        // SAFETY: no register that is written here makes the APIC send or
        // deliver anything: local vectors are masked.
        unsafe { msr::write(x2apic_msr(offset), u64::from(value)) };
        return;
    }
    // SAFETY: as above.
    unsafe {
        pointer((base & ADDRESS_BITS) + u64::from(offset))
            .cast::<u32>()
            .write_volatile(value)
    };
}

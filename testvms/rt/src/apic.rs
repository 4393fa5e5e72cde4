//! The local APIC of the CPU that runs this, in whichever mode it is.
//!
//! SDM "Advanced Programmable Interrupt Controller (APIC)".

use crate::cpu::{rdmsr, wrmsr};

/// IA32_APIC_BASE.
pub const BASE_MSR: u32 = 0x1b;
/// IA32_APIC_BASE: the x2APIC mode.
pub const X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE: the APIC is on.
pub const ENABLED: u64 = 1 << 11;

/// Register offsets of the xAPIC's page; the x2APIC's MSRs are 0x800 and a sixteenth of it.
#[allow(missing_docs)]
pub mod register {
    pub const ID: u32 = 0x20;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const EOI: u32 = 0xb0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const COMMAND: u32 = 0x300;
    pub const COMMAND_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_COUNT: u32 = 0x380;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
}

/// What to send. SDM "Interrupt Command Register (ICR)".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipi {
    /// A fixed interrupt with its vector.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up at this page.
    StartUp(u8),
}

impl Ipi {
    fn command(self) -> u32 {
        match self {
            Self::Fixed(vector) => 0x4000 | u32::from(vector),
            Self::Nmi => 0x4400,
            Self::Init => 0x4500,
            Self::StartUp(page) => 0x4600 | u32::from(page),
        }
    }
}

fn is_x2apic() -> bool {
    rdmsr(BASE_MSR) & X2APIC != 0
}

fn address(offset: u32) -> *mut u32 {
    ((rdmsr(BASE_MSR) & 0xffff_f000) + u64::from(offset)) as *mut u32
}

/// Reads a register.
pub fn read(offset: u32) -> u32 {
    if is_x2apic() {
        return rdmsr(0x800 + offset / 16) as u32;
    }
    // SAFETY: the page is below 4 GiB, which is mapped, and no register read here has an effect.
    unsafe { address(offset).read_volatile() }
}

/// Writes a register. The caller answers for what interrupts come of it.
pub fn write(offset: u32, value: u32) {
    // SAFETY: an APIC register is no memory that Rust knows of.
    unsafe {
        if is_x2apic() {
            wrmsr(0x800 + offset / 16, value.into());
        } else {
            address(offset).write_volatile(value);
        }
    }
}

/// Enables the APIC by software, spurious vector 0xff.
pub fn enable() {
    write(register::SPURIOUS, 0x1ff);
}

/// Goes over to the x2APIC mode. There is no way back but through off.
pub fn enter_x2apic() {
    // SAFETY: the mode changes how registers are reached, which this module looks up each time.
    unsafe { wrmsr(BASE_MSR, rdmsr(BASE_MSR) | X2APIC) };
}

/// The end of an interrupt.
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Sends to the CPU with this local APIC id.
pub fn send(id: u32, ipi: Ipi) {
    send_command(id, ipi.command());
}

/// Sends to every CPU but this one.
pub fn send_to_others(ipi: Ipi) {
    send_command(0, ipi.command() | 3 << 18);
}

fn send_command(id: u32, command: u32) {
    if is_x2apic() {
        // SAFETY: as for `write`.
        unsafe { wrmsr(0x830, u64::from(id) << 32 | u64::from(command)) };
        return;
    }
    while read(register::COMMAND) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
    write(register::COMMAND_HIGH, id << 24);
    write(register::COMMAND, command);
}

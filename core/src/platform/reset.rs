//! Resetting the machine, as it resets itself when a CPU shuts down.

use crate::arch::{halt_forever, io};
use crate::machine::machine;
use crate::platform::timer;
use umbra_core::ending::{KEYBOARD_PORT, PULSE_RESET, RESET_CPU, RESET_PORT};

/// SYS_RST of the reset control register: all of the machine, not the CPU alone.
const SYSTEM_RESET: u8 = 1 << 1;
/// How long a reset may take before the next way is tried.
const PATIENCE_MICROSECONDS: u64 = 50_000;

/// Resets the machine: by ACPI's register, else the chipset's, else the keyboard
/// controller. Without any of them this CPU stands still, as a CPU in shutdown does
/// where nothing resets it.
pub fn machine_reset() -> ! {
    if let Some((port, value)) = machine().acpi.reset {
        io::out8(port, value);
        timer::wait(PATIENCE_MICROSECONDS);
    }
    io::out8(RESET_PORT, SYSTEM_RESET);
    io::out8(RESET_PORT, SYSTEM_RESET | RESET_CPU);
    timer::wait(PATIENCE_MICROSECONDS);
    io::out8(KEYBOARD_PORT, PULSE_RESET);
    halt_forever()
}

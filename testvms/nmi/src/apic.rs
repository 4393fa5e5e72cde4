//! Where NMIs and interrupts come from: the local APIC, which sends them to its own CPU, and the
//! interval timer through the I/O APIC, whose NMI comes whatever the CPU is doing.

use rt::cpu::outb;

/// The vector of the maskable interrupt.
pub const VECTOR: u8 = 0x51;
/// The address of the local APIC.
pub const ADDRESS: u64 = 0xfee0_0000;
/// Interrupt command, low half.
pub const COMMAND: u64 = 0x300;
/// Delivery mode NMI, level assert, physical destination.
pub const NMI: u32 = 0x4400;
/// Delivery mode fixed, level assert, shorthand "self".
const FIXED_SELF: u32 = 0x4_4000;

const IO_APIC: u64 = 0xfec0_0000;
/// The I/O APIC's input that the interval timer is wired to.
const TIMER_INPUT: u32 = 2;
/// Redirection entry: delivery mode NMI, edge-triggered.
const REDIRECT_NMI: u32 = 0x400;
/// Redirection entry: masked.
const MASKED: u32 = 1 << 16;

fn write(register: u64, value: u32) {
    // SAFETY: device memory at its reset address, mapped one to one; no command sent from here makes
    // the CPU do more than take an interrupt that it has a handler for.
    unsafe { (register as *mut u32).write_volatile(value) };
}

fn read(register: u64) -> u32 {
    // SAFETY: device memory; these registers can be read without effect.
    unsafe { (register as *const u32).read_volatile() }
}

/// Enables the local APIC and names this CPU as the destination of commands.
pub fn init() {
    write(ADDRESS + 0xf0, 0x1ff);
    write(ADDRESS + 0x80, 0);
    write(ADDRESS + 0x310, read(ADDRESS + 0x20));
}

/// Sends this CPU an NMI.
pub fn send_nmi() {
    write(ADDRESS + COMMAND, NMI);
}

/// Sends this CPU the maskable interrupt.
pub fn send_interrupt() {
    write(ADDRESS + COMMAND, FIXED_SELF | u32::from(VECTOR));
}

/// Whether the local APIC holds the maskable interrupt, neither acknowledged nor taken.
pub fn is_requested() -> bool {
    is_set(0x200)
}

/// Ends the maskable interrupt if it is in service.
pub fn end_of_interrupt() {
    if is_set(0x100) {
        write(ADDRESS + 0xb0, 0);
    }
}

/// The vector's bit in one of the 256-bit registers.
fn is_set(register: u64) -> bool {
    let word = read(ADDRESS + register + 0x10 * (u64::from(VECTOR) / 32));
    word >> (VECTOR % 32) & 1 != 0
}

fn redirect(low: u32) {
    for (index, value) in [(1, read(ADDRESS + 0x20)), (0, low)] {
        write(IO_APIC, 0x10 + 2 * TIMER_INPUT + index);
        write(IO_APIC + 0x10, value);
    }
}

/// Starts the interval timer: an NMI after `ticks` of 838 ns. It comes once.
pub fn start_timer(ticks: u16) {
    // Mode 0: the output falls now and rises at the end of the count.
    outb(0x43, 0x30);
    redirect(REDIRECT_NMI);
    outb(0x40, ticks as u8);
    outb(0x40, (ticks >> 8) as u8);
}

/// Takes the interval timer off the NMI.
pub fn stop_timer() {
    redirect(MASKED);
}

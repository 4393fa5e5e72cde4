//! The console: COM1, 115200 baud, 8 data bits, no parity, one stop bit, polled.

use core::fmt;

use crate::cpu::{inb, outb};

const COM1: u16 = 0x3f8;
/// Line status bit 5: the transmit holding register is empty.
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// Line status bit 6: nothing is left in the FIFO or the shift register.
const TRANSMITTER_IDLE: u8 = 1 << 6;

/// Programs the line. No interrupts, FIFO on.
pub(crate) fn init() {
    for (offset, value) in [
        (1, 0x00),
        (3, 0x80),
        (0, 0x01),
        (1, 0x00),
        (3, 0x03),
        (2, 0x07),
        (4, 0x03),
    ] {
        outb(COM1 + offset, value);
    }
}

/// Waits until the transmitter takes a byte, then gives it one.
fn put(byte: u8) {
    while inb(COM1 + 5) & TRANSMIT_EMPTY == 0 {
        core::hint::spin_loop();
    }
    outb(COM1, byte);
}

/// Waits until the last bit of the last byte is on the line: a machine that is switched off before
/// that may lose it.
pub(crate) fn drain() {
    while inb(COM1 + 5) & TRANSMITTER_IDLE == 0 {
        core::hint::spin_loop();
    }
}

/// Where [`println!`](crate::println) writes.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            put(byte);
        }
        Ok(())
    }
}

/// Prints without a line end.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::console::Console, $($arg)*);
    }};
}

/// Prints one line. Lines end in a single line feed.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => {{
        $crate::print!($($arg)*);
        $crate::print!("\n");
    }};
}

//! COM1, shared with L1: Umbra prints whole lines that begin with `umbra: `,
//! and only where L1 is at the start of a line of its own.

use crate::arch::io::{in8, out8};
use crate::sync::SpinLock;
use core::fmt::{self, Write};
use umbra_core::line::{DLAB, LineState, TRANSMIT_EMPTY, Waiting, register};

/// First port of COM1.
pub const COM1: u16 = 0x3f8;

/// Longest line of Umbra's, in bytes; what goes beyond is cut.
const LINE_BYTES: usize = 200;
/// How many bytes may wait while L1 is within a line.
const WAITING_BYTES: usize = 16 * 1024;
/// How often to look for the transmitter to be ready before giving it up.
const MAX_POLLS: u32 = 1_000_000;

struct Console {
    line: LineState,
    waiting: Waiting<WAITING_BYTES>,
    is_absent: bool,
}

static CONSOLE: SpinLock<Console> = SpinLock::new(Console {
    line: LineState::new(),
    waiting: Waiting::new(),
    is_absent: false,
});

/// Sets COM1 to 115200 8n1, interrupts off, FIFOs on.
pub fn init() {
    let mut console = CONSOLE.lock();
    out8(COM1 + register::INTERRUPT_ENABLE, 0);
    out8(COM1 + register::LINE_CONTROL, DLAB | 3);
    out8(COM1 + register::DATA, 1);
    out8(COM1 + register::INTERRUPT_ENABLE, 0);
    out8(COM1 + register::LINE_CONTROL, 3);
    out8(COM1 + register::FIFO_CONTROL, 7);
    // A port with nothing behind it reads as all ones.
    console.is_absent = in8(COM1 + register::LINE_STATUS) == 0xff;
}

/// L1 writes `bytes` from `offset` on, counted from COM1's first port; `out`
/// does it. Lines that waited go out now if a line of L1's begins here.
pub fn l1_writes(offset: u16, bytes: &[u8], out: impl FnOnce()) {
    // Held over the write, so that no line of Umbra's gets between it and the
    // note of it.
    let mut console = CONSOLE.lock();
    out();
    for (at, &byte) in (offset..).zip(bytes) {
        console.line.written(at, byte);
    }
    if console.line.is_at_start() && !console.waiting.is_empty() {
        console.send_waiting();
    }
}

/// Prints what still waits, ending L1's line if need be: the run is over.
pub fn flush() {
    CONSOLE.lock().end_line_and_send();
}

impl Console {
    /// Sends one byte; gives the UART up if it never gets ready.
    fn send(&mut self, byte: u8) {
        for _ in 0..MAX_POLLS {
            if in8(COM1 + register::LINE_STATUS) & TRANSMIT_EMPTY != 0 {
                out8(COM1 + register::DATA, byte);
                return;
            }
        }
        self.is_absent = true;
    }

    fn wait_until_sent(&self) {
        for _ in 0..MAX_POLLS {
            if in8(COM1 + register::LINE_STATUS) & TRANSMIT_EMPTY != 0 {
                return;
            }
        }
    }

    /// Sends what waits, with DLAB clear, and leaves the FIFO empty: L1 may
    /// be in the middle of filling it.
    fn send_waiting(&mut self) {
        if self.is_absent {
            while self.waiting.pop().is_some() {}
            return;
        }
        let line_control = in8(COM1 + register::LINE_CONTROL);
        if line_control & DLAB != 0 {
            out8(COM1 + register::LINE_CONTROL, line_control & !DLAB);
        }
        while let Some(byte) = self.waiting.pop() {
            self.send(byte);
        }
        self.wait_until_sent();
        if line_control & DLAB != 0 {
            out8(COM1 + register::LINE_CONTROL, line_control);
        }
    }

    fn end_line_and_send(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if !self.line.is_at_start() && !self.is_absent {
            self.send(b'\r');
            self.send(b'\n');
            self.line.line_was_ended();
        }
        self.send_waiting();
    }
}

/// A line under construction.
struct Line(heapless::Vec<u8, LINE_BYTES>);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // One line is one line, whatever a name or a message holds; and
            // there is always room left for the line's end.
            let byte = if byte.is_ascii_control() { b' ' } else { byte };
            if self.0.len() < LINE_BYTES - 2 {
                let _ = self.0.push(byte);
            }
        }
        Ok(())
    }
}

fn line_of(arguments: fmt::Arguments<'_>) -> Line {
    let mut line = Line(heapless::Vec::new());
    // Writing to a `Line` cannot fail.
    let _ = write!(line, "umbra: {arguments}");
    let _ = line.0.extend_from_slice(b"\r\n");
    line
}

/// Prints one line, now or when L1 has ended its own.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let line = line_of(arguments);
    let mut console = CONSOLE.lock();
    console.waiting.push_line(&line.0);
    if console.line.is_at_start() {
        console.send_waiting();
    }
}

/// Prints one line now, whatever L1 was doing and whoever holds the console:
/// this CPU is about to stop.
pub fn print_line_now(arguments: fmt::Arguments<'_>) {
    let line = line_of(arguments);
    let mut console = CONSOLE.lock_or_break();
    console.waiting.push_line(&line.0);
    console.end_line_and_send();
}

/// Prints one line that begins with `umbra: `.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::console::print_line(format_args!($($argument)*))
    };
}

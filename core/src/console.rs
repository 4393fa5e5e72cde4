//! COM1, shared with L1: Umbra prints whole lines that begin with `umbra: `,
//! and only where L1 is at the start of a line of its own.

use crate::arch::io::{in8, out8};
use crate::arch::xmm;
use crate::sync::SpinLock;
use core::fmt::{self, Write};
use umbra_core::line::{DLAB, LineState, TRANSMIT_EMPTY, Waiting, register};

/// First port of COM1.
pub const COM1: u16 = 0x3f8;

/// Longest line of Umbra's, in bytes; what goes beyond is cut.
const LINE_BYTES: usize = 200;
/// How many bytes may wait while L1 is within a line.
const WAITING_BYTES: usize = 16 * 1024;
/// How many looks for the transmitter to be ready may be spent before no further
/// line is begun: while L1 writes to the line, and when it ends the run and all is
/// to go out. What is not sent goes on waiting. A look takes about a microsecond,
/// a byte at 115200 baud 87 of them.
const MAX_POLLS: u32 = 100_000;
const MAX_POLLS_AT_END: u32 = 4_000_000;
/// How many for one byte.
const MAX_POLLS_PER_BYTE: u32 = 20_000;
/// How often L1 may end the run: a machine that stays on is asked no more than
/// this for Umbra's last lines.
const MAX_ENDS: u32 = 16;
/// The largest divisor, 9600 baud, that Umbra sends at. At less its lines wait.
const MAX_DIVISOR: u16 = 12;

struct Console {
    line: LineState,
    waiting: Waiting<WAITING_BYTES>,
    is_absent: bool,
    ends_left: u32,
}

static CONSOLE: SpinLock<Console> = SpinLock::new(Console {
    line: LineState::new(),
    waiting: Waiting::new(),
    is_absent: false,
    ends_left: MAX_ENDS,
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
        console.send_waiting(&[], MAX_POLLS);
    }
}

/// L1 is about to end the run: whether Umbra's last lines are due. L1 may ask
/// for that as often as it likes, and the machine may stay on.
pub fn may_end() -> bool {
    let mut console = CONSOLE.lock();
    console.ends_left = console.ends_left.saturating_sub(1);
    console.ends_left != 0
}

/// Prints what still waits, ending L1's line if need be: the run is over.
pub fn flush() {
    CONSOLE.lock().end_line_and_send();
}

impl Console {
    /// Waits until the transmitter is ready; adds the looks that it took.
    fn is_ready(looks: &mut u32) -> bool {
        (0..MAX_POLLS_PER_BYTE).any(|_| {
            *looks += 1;
            in8(COM1 + register::LINE_STATUS) & TRANSMIT_EMPTY != 0
        })
    }

    /// The divisor that the line runs with. DLAB is set meanwhile.
    fn divisor(line_control: u8) -> u16 {
        out8(COM1 + register::LINE_CONTROL, line_control | DLAB);
        let low = in8(COM1 + register::DATA);
        let high = in8(COM1 + register::INTERRUPT_ENABLE);
        out8(COM1 + register::LINE_CONTROL, line_control);
        u16::from_le_bytes([low, high])
    }

    /// Sends what waits, `first` before it, with DLAB clear, and leaves the FIFO
    /// empty: L1 may be in the middle of filling it.
    fn send_waiting(&mut self, first: &[u8], most_looks: u32) {
        if self.is_absent {
            while self.waiting.pop().is_some() {}
            return;
        }
        let line_control = in8(COM1 + register::LINE_CONTROL);
        // 0 counts as 65536.
        if !(1..=MAX_DIVISOR).contains(&Self::divisor(line_control)) {
            return;
        }
        if line_control & DLAB != 0 {
            out8(COM1 + register::LINE_CONTROL, line_control & !DLAB);
        }
        let mut looks = 0;
        for &byte in first {
            if Self::is_ready(&mut looks) {
                out8(COM1 + register::DATA, byte);
            }
        }
        let mut is_line_begun = false;
        while Self::is_ready(&mut looks) && (is_line_begun || looks < most_looks) {
            let Some(byte) = self.waiting.pop() else {
                break;
            };
            out8(COM1 + register::DATA, byte);
            is_line_begun = byte != b'\n';
        }
        if line_control & DLAB != 0 {
            out8(COM1 + register::LINE_CONTROL, line_control);
        }
    }

    fn end_line_and_send(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let end: &[u8] = match self.line.is_at_start() {
            true => b"",
            false => b"\r\n",
        };
        self.line.line_was_ended();
        self.send_waiting(end, MAX_POLLS_AT_END);
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
    xmm::keep(|| {
        let _ = write!(line, "umbra: {arguments}");
    });
    let _ = line.0.extend_from_slice(b"\r\n");
    line
}

/// Prints one line, now or when L1 has ended its own.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let line = line_of(arguments);
    let mut console = CONSOLE.lock();
    console.waiting.push_line(&line.0);
    if console.line.is_at_start() {
        console.send_waiting(&[], MAX_POLLS);
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

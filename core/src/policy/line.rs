//! Sharing one serial line with L1: whose turn it is.
//!
//! Umbra's own lines go out only where a line of L1's begins, so that neither
//! breaks into the other.

/// The registers of a 16550 that matter here, as offsets from its first port.
pub mod register {
    /// Transmit holding; the divisor's low byte while DLAB is set.
    pub const DATA: u16 = 0;
    /// Interrupt enable; the divisor's high byte while DLAB is set.
    pub const INTERRUPT_ENABLE: u16 = 1;
    /// FIFO control.
    pub const FIFO_CONTROL: u16 = 2;
    /// Line control.
    pub const LINE_CONTROL: u16 = 3;
    /// Line status.
    pub const LINE_STATUS: u16 = 5;
}

/// LCR bit 7: the divisor is at offsets 0 and 1.
pub const DLAB: u8 = 0x80;
/// LSR bit 5: the transmit holding register, or the FIFO, is empty.
pub const TRANSMIT_EMPTY: u8 = 0x20;

/// Where L1 stands on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineState {
    at_start: bool,
    line_control: u8,
}

impl LineState {
    /// At the start of a line, DLAB clear.
    pub const fn new() -> Self {
        Self {
            at_start: true,
            line_control: 3,
        }
    }

    /// L1 writes `value` at `offset` from the UART's first port.
    pub fn written(&mut self, offset: u16, value: u8) {
        match offset {
            register::DATA if self.line_control & DLAB == 0 => match value {
                b'\n' => self.at_start = true,
                // Some write "\n\r": still nothing of a new line.
                b'\r' => {}
                _ => self.at_start = false,
            },
            register::LINE_CONTROL => self.line_control = value,
            _ => {}
        }
    }

    /// Whether a line of Umbra's can go out now.
    pub const fn is_at_start(&self) -> bool {
        self.at_start
    }

    /// Umbra had to end L1's line itself.
    pub fn line_was_ended(&mut self) {
        self.at_start = true;
    }
}

impl Default for LineState {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes waiting for their turn, at most `N`; whole lines that find no room
/// are counted and dropped.
pub struct Waiting<const N: usize> {
    bytes: heapless::Deque<u8, N>,
    /// How many lines found no room.
    pub dropped_lines: u32,
}

impl<const N: usize> Waiting<N> {
    /// Nothing waits.
    pub const fn new() -> Self {
        Self {
            bytes: heapless::Deque::new(),
            dropped_lines: 0,
        }
    }

    /// Queues `line` as a whole, or counts it as dropped.
    pub fn push_line(&mut self, line: &[u8]) {
        if line.len() > N - self.bytes.len() {
            self.dropped_lines = self.dropped_lines.saturating_add(1);
            return;
        }
        for &byte in line {
            // There is room: it was measured above.
            let _ = self.bytes.push_back(byte);
        }
    }

    /// The next byte to send.
    pub fn pop(&mut self) -> Option<u8> {
        self.bytes.pop_front()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<const N: usize> Default for Waiting<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(writes: &[(u16, u8)]) -> LineState {
        let mut state = LineState::new();
        for &(offset, value) in writes {
            state.written(offset, value);
        }
        state
    }

    #[test]
    fn a_line_begins_after_newline_and_return_in_either_order() {
        assert!(after(&[]).is_at_start());
        assert!(!after(&[(0, b'a')]).is_at_start());
        assert!(after(&[(0, b'a'), (0, b'\r'), (0, b'\n')]).is_at_start());
        assert!(after(&[(0, b'a'), (0, b'\n'), (0, b'\r')]).is_at_start());
        assert!(!after(&[(0, b'\n'), (0, b' ')]).is_at_start());
    }

    #[test]
    fn a_divisor_is_no_character() {
        let state = after(&[(3, 0x83), (0, 1), (1, 0), (3, 3)]);
        assert!(state.is_at_start());
        // A divisor of 10 is no newline either.
        let state = after(&[(0, b'x'), (3, 0x83), (0, 10), (3, 3)]);
        assert!(!state.is_at_start());
    }

    #[test]
    fn a_line_waits_whole_or_not_at_all() {
        let mut waiting = Waiting::<8>::new();
        waiting.push_line(b"umbra\n");
        waiting.push_line(b"two\n");
        assert_eq!(waiting.dropped_lines, 1);
        let mut out = std::vec::Vec::new();
        while let Some(byte) = waiting.pop() {
            out.push(byte);
        }
        assert_eq!(out, b"umbra\n");
        assert!(waiting.is_empty());
    }
}

//! The serial line as lines, and telling Umbra's from the guest's.

/// The word that begins every line of Umbra.
const UMBRA: &str = "umbra";
/// How Umbra begins its last words.
const LAST_WORDS: [&str; 2] = ["umbra: cannot start: ", "umbra: fatal: "];

/// What the last line before the guest's own (and Umbra's) holds where UEFI
/// starts the machine: OVMF and GRUB both write to the serial line.
pub const FIRMWARE_IS_DONE: &str = "x: the firmware is done";
/// What GRUB may still have to say then.
const GRUBS_LAST: &str = "error: no suitable video mode found.";

/// Keeps back what firmware and boot loader print.
#[derive(Default, Debug)]
pub struct Firmware {
    kept: Vec<String>,
    is_done: bool,
}

impl Firmware {
    /// For a machine whose firmware prints nothing.
    pub fn silent() -> Self {
        Self {
            kept: Vec::new(),
            is_done: true,
        }
    }

    /// Whether `line` is the guest's or Umbra's; keeps it otherwise.
    pub fn lets_through(&mut self, line: &str) -> bool {
        if self.is_done {
            return line != GRUBS_LAST;
        }
        self.is_done = line.ends_with(FIRMWARE_IS_DONE);
        self.kept.push(line.to_owned());
        false
    }

    /// What the firmware printed, where it never got to the guest.
    pub fn kept(&self) -> &[String] {
        if self.is_done { &[] } else { &self.kept }
    }
}

/// Cuts a stream of bytes into lines.
///
/// A line ends with a line feed; carriage returns around it are dropped, and
/// bytes that are no UTF-8 are replaced.
#[derive(Default, Debug)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes further bytes and gives the lines that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                lines.push(self.take());
            } else {
                self.rest.push(byte);
            }
        }
        lines
    }

    /// The line that has begun but not ended, if any.
    pub fn unfinished(&self) -> Option<String> {
        (!self.rest.is_empty()).then(|| text(&self.rest))
    }

    /// Ends the line that has begun.
    pub fn finish(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        text(&std::mem::take(&mut self.rest))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_matches('\r').to_owned()
}

/// Whether Umbra printed this line.
pub fn is_umbra(line: &str) -> bool {
    line.starts_with(UMBRA)
}

/// Whether this line says that an Umbra stopped for good, and why.
pub fn is_last_words(line: &str) -> bool {
    LAST_WORDS.iter().any(|words| line.starts_with(words))
}

/// What the guest alone printed, as lines.
pub fn guest_lines(raw: &[u8]) -> Vec<String> {
    let mut lines = Lines::default();
    let mut all = lines.push(raw);
    all.extend(lines.finish());
    // More than one boot loader may have said so: what the last one starts is the
    // guest.
    let done = all
        .iter()
        .rposition(|line| line.ends_with(FIRMWARE_IS_DONE));
    all.drain(..done.map_or(0, |at| at + 1));
    let mut firmware = Firmware::silent();
    all.retain(|line| firmware.lets_through(line) && !is_umbra(line));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_bytes_arrive() {
        let text = b"one\r\ntwo\n\nthree";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in text.chunks(size) {
                got.extend(lines.push(chunk));
            }
            assert_eq!(got, ["one", "two", ""], "in pieces of {size}");
            assert_eq!(lines.unfinished().as_deref(), Some("three"));
            assert_eq!(lines.finish().as_deref(), Some("three"));
            assert_eq!(lines.finish(), None);
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hurt() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\xff\n"), ["a\u{fffd}"]);
    }

    #[test]
    fn umbras_lines_are_taken_out_wherever_they_are() {
        let raw = b"umbra: 1 CPU\nhello\numbra: exits\n umbra too\nlast";
        assert_eq!(guest_lines(raw), ["hello", " umbra too", "last"]);
    }

    #[test]
    fn what_the_firmware_printed_is_taken_out() {
        let raw = b"BdsDxe: starting\r\n\rx: the firmware is done\n\r\
            error: no suitable video mode found.\n\rumbra: 1 CPU\r\nhello\r\n";
        assert_eq!(guest_lines(raw), ["hello"]);
        let twice = b"x: the firmware is done\numbra: 1 CPU\nWelcome to GRUB!\n\
            x: the firmware is done\nhello\n";
        assert_eq!(guest_lines(twice), ["hello"]);
        let mut firmware = Firmware::default();
        assert!(!firmware.lets_through("no medium"));
        assert_eq!(firmware.kept(), ["no medium"]);
    }

    #[test]
    fn last_words_are_known_by_their_beginning() {
        assert!(is_last_words("umbra: cannot start: no VMX"));
        assert!(is_last_words("umbra: fatal: L1 triple fault"));
        assert!(!is_last_words("umbra: exits 12"));
        assert!(!is_last_words("guest: umbra: fatal: no"));
    }
}

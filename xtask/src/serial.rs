//! The serial line as lines, and telling Umbra's from the guest's.

/// The word that begins every line of Umbra.
const UMBRA: &str = "umbra";
/// How Umbra begins its last words.
const LAST_WORDS: [&str; 2] = ["umbra: cannot start: ", "umbra: fatal: "];

/// Cuts a stream of bytes into lines.
///
/// A line ends with a line feed; carriage returns before it are dropped, and
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
    String::from_utf8_lossy(line)
        .trim_end_matches('\r')
        .to_owned()
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
    all.retain(|line| !is_umbra(line));
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
    fn last_words_are_known_by_their_beginning() {
        assert!(is_last_words("umbra: cannot start: no VMX"));
        assert!(is_last_words("umbra: fatal: L1 triple fault"));
        assert!(!is_last_words("umbra: exits 12"));
        assert!(!is_last_words("guest: umbra: fatal: no"));
    }
}

//! Umbra's own command line.

use core::fmt;
use umbra_ept::memtype::Merge;

/// What the command line settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many EPTPs of L1 have tables of their own on each CPU.
    pub max_active_ept: u32,
    /// Table pages of each.
    pub ept02_pages: u32,
    /// After INVEPT, read the leaves used lately anew and put them back.
    pub refill: bool,
    /// How ept02 gets its memory types.
    pub merge: Merge,
    /// Say which rule a failing VM entry of L1 broke.
    pub log_failed_entries: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_active_ept: 8,
            ept02_pages: 512,
            refill: true,
            merge: Merge::default(),
            log_failed_entries: false,
        }
    }
}

/// A word that cannot be used. Displays as one line that says what can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWord<'a> {
    /// No option of this name.
    Unknown(&'a [u8]),
    /// An option with a value that it does not take.
    Value {
        /// The whole word.
        word: &'a [u8],
        /// What the option takes.
        takes: &'static str,
    },
}

/// Bytes as text, one line's worth of them.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.iter().take(48) {
            let shown = if byte.is_ascii_graphic() { byte } else { b'?' };
            write!(f, "{}", shown as char)?;
        }
        Ok(())
    }
}

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(
                f,
                "option `{}` is unknown; there are max-active-ept=, ept02-pages=, refill=, merge=, log-failed-entries",
                Text(word)
            ),
            Self::Value { word, takes } => write!(f, "option `{}`: it takes {takes}", Text(word)),
        }
    }
}

/// Reads a command line: words between spaces, later ones win.
///
/// # Errors
/// [`BadWord`], with the first word that is unknown or has a bad value.
pub fn parse(line: &[u8]) -> Result<Options, BadWord<'_>> {
    let mut options = Options::default();
    for word in line
        .split(|b| b.is_ascii_whitespace())
        .filter(|w| !w.is_empty())
    {
        let (name, value) = match word.iter().position(|&b| b == b'=') {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        match name {
            b"max-active-ept" => {
                options.max_active_ept = number(value, 1, 8).ok_or(BadWord::Value {
                    word,
                    takes: "a number from 1 to 8",
                })?;
            }
            b"ept02-pages" => {
                options.ept02_pages = number(value, 8, 65535).ok_or(BadWord::Value {
                    word,
                    takes: "a number from 8 to 65535",
                })?;
            }
            b"refill" => {
                options.refill = match value {
                    Some(b"on") => true,
                    Some(b"off") => false,
                    _ => {
                        return Err(BadWord::Value {
                            word,
                            takes: "on or off",
                        });
                    }
                };
            }
            b"merge" => {
                options.merge = match value {
                    Some(b"ept12") => Merge::Ept12Only,
                    Some(b"mtrr") => Merge::MtrrPrecedence,
                    _ => {
                        return Err(BadWord::Value {
                            word,
                            takes: "ept12 or mtrr",
                        });
                    }
                };
            }
            b"log-failed-entries" => match value {
                None => options.log_failed_entries = true,
                Some(_) => {
                    return Err(BadWord::Value {
                        word,
                        takes: "no value",
                    });
                }
            },
            _ => return Err(BadWord::Unknown(word)),
        }
    }
    Ok(options)
}

/// A decimal number between `low` and `high`, both allowed.
fn number(text: Option<&[u8]>, low: u32, high: u32) -> Option<u32> {
    let text = core::str::from_utf8(text?).ok()?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| (low..=high).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(parse(b""), Ok(Options::default()));
        assert_eq!(parse(b"  \t "), Ok(Options::default()));
    }

    #[test]
    fn every_option_is_read() {
        let got =
            parse(b"max-active-ept=3 ept02-pages=64 refill=off merge=mtrr log-failed-entries");
        let want = Options {
            max_active_ept: 3,
            ept02_pages: 64,
            refill: false,
            merge: Merge::MtrrPrecedence,
            log_failed_entries: true,
        };
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn bad_words_are_named() {
        for line in [
            "max-active-ept=0",
            "max-active-ept=9",
            "max-active-ept",
            "ept02-pages=+8",
            "ept02-pages=99999999999999999999",
            "refill=maybe",
            "merge=",
            "log-failed-entries=1",
        ] {
            let error = parse(line.as_bytes()).expect_err(line);
            assert!(error.to_string().contains(line), "{error}");
            assert!(error.to_string().contains("takes"), "{error}");
        }
        let error = parse(b"refill=on frobnicate").expect_err("unknown");
        assert_eq!(error, BadWord::Unknown(b"frobnicate"));
        assert!(parse(b"\xff\n=\x1b").is_err());
    }
}

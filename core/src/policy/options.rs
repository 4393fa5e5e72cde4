//! Umbra's own command line.
//!
//! `docs/options.md` is made of [`ROWS`].

use core::fmt;
use umbra_ept::ept02::SCATTERED_PAGES;
use umbra_ept::memtype::Merge;

use crate::hypercall;
use crate::trace::{BadPiece, Filter};

// What a refused word is told.
const _: () = assert!(SCATTERED_PAGES == 154);

/// What the command line settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many EPTPs of L1 have tables of their own on each CPU.
    pub max_active_ept: u32,
    /// Table pages of each.
    pub ept02_pages: u32,
    /// How many VMCSs of L1 each CPU keeps at hand.
    pub vmcs12s: u32,
    /// After INVEPT, read the leaves used lately anew and put them back.
    pub refill: bool,
    /// Let L1's VMREAD and VMWRITE reach vmcs02 without an exit, where the CPU can.
    pub shadowing: bool,
    /// How ept02 gets its memory types.
    pub merge: Merge,
    /// Say which rule a failing VM entry of L1 broke.
    pub log_failed_entries: bool,
    /// Say which features of the CPU L1 is not shown.
    pub show_hidden: bool,
    /// Which VM exits to keep and print; `None` costs nothing.
    pub trace: Option<Filter>,
    /// Print the ledger as YAML at the end, and answer L1's kernel its leaf.
    pub ledger: bool,
    /// Whether devices are kept out of Umbra's memory.
    pub iommu: Iommu,
    /// The first of the numbers of Umbra's own calls; `None` for none.
    pub hypercalls: Option<u32>,
    /// What to take away from the CPU.
    #[cfg(feature = "fake-caps")]
    pub lacks: Option<crate::fake_caps::Lack>,
    /// VT-d units are made up, too.
    #[cfg(feature = "fake-caps")]
    pub fake_unit: Option<FakeUnit>,
}

/// How a made-up VT-d unit behaves.
#[cfg(feature = "fake-caps")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeUnit {
    /// It obeys.
    Obeys,
    /// It does not begin to translate.
    Stuck,
}

/// What becomes of the machine's VT-d units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// They are L1's.
    Off,
    /// They keep devices out of Umbra's memory, where there are any.
    On,
    /// The same, and Umbra does not start where they cannot.
    Required,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_active_ept: 8,
            ept02_pages: 512,
            vmcs12s: 64,
            refill: true,
            shadowing: true,
            merge: Merge::default(),
            log_failed_entries: false,
            show_hidden: false,
            trace: None,
            ledger: false,
            iommu: Iommu::On,
            hypercalls: Some(hypercall::DEFAULT_BASE),
            #[cfg(feature = "fake-caps")]
            lacks: None,
            #[cfg(feature = "fake-caps")]
            fake_unit: None,
        }
    }
}

/// One option, as the documentation and the messages have it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is typed before the `=`.
    pub name: &'static str,
    /// What is typed behind it, for the documentation; empty for an option
    /// that takes no value.
    pub value: &'static str,
    /// The value that holds when the option is not given.
    pub default: &'static str,
    /// What the option takes.
    pub takes: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// The options.
pub const ROWS: &[Row] = &[
    Row {
        name: "max-active-ept",
        value: "N",
        default: "8",
        takes: "a number from 1 to 8",
        meaning: "EPT pointers of L1 that have tables of their own on each CPU",
    },
    Row {
        name: "ept02-pages",
        value: "N",
        default: "512",
        takes: "a number from 154 to 65535",
        meaning: "table pages of each",
    },
    Row {
        name: "vmcs12s",
        value: "N",
        default: "64",
        takes: "a number from 1 to 256",
        meaning: "VMCSs of L1 that each CPU keeps at hand, each in some 6 KiB",
    },
    Row {
        name: "refill",
        value: "SWITCH",
        default: "on",
        takes: "on or off",
        meaning: "after INVEPT, read the leaves used lately anew and put them back",
    },
    Row {
        name: "shadowing",
        value: "SWITCH",
        default: "on",
        takes: "on or off",
        meaning: "let L1's VMREAD and VMWRITE go without an exit where the CPU has VMCS shadowing",
    },
    Row {
        name: "merge",
        value: "RULE",
        default: "ept12",
        takes: "ept12 or mtrr",
        meaning: "how ept02 gets its memory types",
    },
    Row {
        name: "log-failed-entries",
        value: "",
        default: "",
        takes: "no value",
        meaning: "name the rule that a failing VM entry of L1 broke",
    },
    Row {
        name: "ledger",
        value: "",
        default: "",
        takes: "no value",
        meaning: "print the ledger as YAML at the end, and let L1's kernel read it",
    },
    Row {
        name: "hypercalls",
        value: "BASE",
        default: "4c415000",
        takes: "a number in hexadecimal of at most 8 digits that ends in 00, or off",
        meaning: "the first number of Umbra's own VMCALLs and CPUID leaves (docs/hypercalls.md)",
    },
    Row {
        name: "iommu",
        value: "USE",
        default: "on",
        takes: "on, off or required",
        meaning: "keep devices out of Umbra's memory by VT-d; `required`: do not start without",
    },
    Row {
        name: "show-hidden",
        value: "",
        default: "",
        takes: "no value",
        meaning: "print the CPU's features and MSRs that L1 is not shown",
    },
    Row {
        name: "trace",
        value: "FILTER",
        default: "",
        takes: "words between commas (docs/debugging.md)",
        meaning: "keep and print VM exits",
    },
];

const fn row(name: &'static str) -> &'static Row {
    let mut at = 0;
    while at < ROWS.len() {
        if same(ROWS[at].name.as_bytes(), name.as_bytes()) {
            return &ROWS[at];
        }
        at += 1;
    }
    panic!("no option of this name")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    a.len() == b.len()
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
    /// A trace filter with a piece that is no word of it.
    Trace(BadPiece<'a>),
}

/// Bytes as text, one line's worth of them.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

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
            Self::Unknown(word) => {
                write!(f, "option `{}` is unknown; there are", Text(word))?;
                for (at, row) in ROWS.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    let equals = if row.value.is_empty() { "" } else { "=" };
                    write!(f, "{comma} {}{equals}", row.name)?;
                }
                Ok(())
            }
            Self::Value { word, takes } => write!(f, "option `{}`: it takes {takes}", Text(word)),
            Self::Trace(piece) => piece.fmt(f),
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
        let bad = |row: &'static Row| BadWord::Value {
            word,
            takes: row.takes,
        };
        match name {
            b"max-active-ept" => {
                let bad = bad(const { row("max-active-ept") });
                options.max_active_ept = number(value, 1, 8).ok_or(bad)?;
            }
            b"ept02-pages" => {
                let bad = bad(const { row("ept02-pages") });
                options.ept02_pages = number(value, SCATTERED_PAGES, 65535).ok_or(bad)?;
            }
            b"vmcs12s" => {
                let bad = bad(const { row("vmcs12s") });
                options.vmcs12s = number(value, 1, 256).ok_or(bad)?;
            }
            b"refill" => {
                options.refill = switch(value).ok_or(bad(const { row("refill") }))?;
            }
            b"shadowing" => {
                options.shadowing = switch(value).ok_or(bad(const { row("shadowing") }))?;
            }
            b"merge" => {
                options.merge = match value {
                    Some(b"ept12") => Merge::Ept12Only,
                    Some(b"mtrr") => Merge::MtrrPrecedence,
                    _ => return Err(bad(const { row("merge") })),
                };
            }
            b"log-failed-entries" => match value {
                None => options.log_failed_entries = true,
                Some(_) => return Err(bad(const { row("log-failed-entries") })),
            },
            b"ledger" => match value {
                None => options.ledger = true,
                Some(_) => return Err(bad(const { row("ledger") })),
            },
            b"hypercalls" => {
                let bad = bad(const { row("hypercalls") });
                options.hypercalls = base(value).ok_or(bad)?;
            }
            b"iommu" => {
                options.iommu = match value {
                    Some(b"on") => Iommu::On,
                    Some(b"off") => Iommu::Off,
                    Some(b"required") => Iommu::Required,
                    _ => return Err(bad(const { row("iommu") })),
                };
            }
            b"show-hidden" => match value {
                None => options.show_hidden = true,
                Some(_) => return Err(bad(const { row("show-hidden") })),
            },
            b"trace" => {
                let value = value.ok_or_else(|| bad(const { row("trace") }))?;
                options.trace = Some(Filter::parse(value).map_err(BadWord::Trace)?);
            }
            #[cfg(feature = "fake-caps")]
            b"fake-unit" => {
                options.fake_unit = Some(match value {
                    None => FakeUnit::Obeys,
                    Some(b"stuck") => FakeUnit::Stuck,
                    Some(_) => {
                        return Err(BadWord::Value {
                            word,
                            takes: "stuck, or no value",
                        });
                    }
                });
            }
            #[cfg(feature = "fake-caps")]
            b"lacks" => {
                let lack = value.and_then(crate::fake_caps::Lack::parse);
                options.lacks = Some(lack.ok_or(BadWord::Value {
                    word,
                    takes: "MSR.BIT or field.ENCODING",
                })?);
            }
            _ => return Err(BadWord::Unknown(word)),
        }
    }
    Ok(options)
}

/// Whether a value says on or off.
fn switch(value: Option<&[u8]>) -> Option<bool> {
    match value {
        Some(b"on") => Some(true),
        Some(b"off") => Some(false),
        _ => None,
    }
}

/// A range of calls: its first number, or that there is none.
fn base(value: Option<&[u8]>) -> Option<Option<u32>> {
    let text = core::str::from_utf8(value?).ok()?;
    if text == "off" {
        return Some(None);
    }
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let base = u32::from_str_radix(text, 16).ok()?;
    (base & 0xff == 0).then_some(Some(base))
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
    use std::format;
    use std::string::{String, ToString};

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(parse(b""), Ok(Options::default()));
        assert_eq!(parse(b"  \t "), Ok(Options::default()));
    }

    #[test]
    fn every_option_is_read() {
        let got = parse(
            b"max-active-ept=3 ept02-pages=164 vmcs12s=5 refill=off shadowing=off merge=mtrr log-failed-entries ledger iommu=required hypercalls=50000000 show-hidden trace=l2,cpuid",
        );
        let want = Options {
            max_active_ept: 3,
            ept02_pages: 164,
            vmcs12s: 5,
            refill: false,
            shadowing: false,
            merge: Merge::MtrrPrecedence,
            log_failed_entries: true,
            show_hidden: true,
            trace: Filter::parse(b"l2,cpuid").ok(),
            ledger: true,
            iommu: Iommu::Required,
            hypercalls: Some(0x5000_0000),
            #[cfg(feature = "fake-caps")]
            lacks: None,
            #[cfg(feature = "fake-caps")]
            fake_unit: None,
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
            "vmcs12s=0",
            "vmcs12s=257",
            "refill=maybe",
            "iommu",
            "iommu=maybe",
            "hypercalls=",
            "hypercalls=4c415001",
            "hypercalls=no",
            "hypercalls=100000000",
            "shadowing",
            "merge=",
            "log-failed-entries=1",
            "trace",
            "ledger=on",
        ] {
            let error = parse(line.as_bytes()).expect_err(line);
            assert!(error.to_string().contains(line), "{error}");
            assert!(error.to_string().contains("takes"), "{error}");
        }
        let error = parse(b"refill=on frobnicate").expect_err("unknown");
        assert_eq!(error, BadWord::Unknown(b"frobnicate"));
        assert!(parse(b"\xff\n=\x1b").is_err());
    }

    #[test]
    fn every_row_is_an_option_and_its_default_is_the_default() {
        for row in ROWS {
            let word = match row.value {
                "" => row.name.to_string(),
                _ if row.name == "trace" => "trace=all".to_string(),
                _ => format!("{}={}", row.name, row.default),
            };
            let got = parse(word.as_bytes()).expect(row.name);
            let is_default = got == Options::default();
            assert_eq!(is_default, !row.default.is_empty(), "{word}");
            let error = BadWord::Unknown(b"x").to_string();
            assert!(error.contains(row.name), "{error}");
        }
    }

    #[test]
    fn the_ranges_that_are_named_are_the_ranges_that_are_taken() {
        for row in ROWS {
            let Some(range) = row.takes.strip_prefix("a number from ") else {
                continue;
            };
            let (low, high) = range.split_once(" to ").expect("a range");
            let (low, high): (u32, u32) = (low.parse().expect(low), high.parse().expect(high));
            for (number, is_taken) in [
                (low - 1, false),
                (low, true),
                (high, true),
                (high + 1, false),
            ] {
                let word = format!("{}={number}", row.name);
                assert_eq!(parse(word.as_bytes()).is_ok(), is_taken, "{word}");
            }
        }
    }

    #[test]
    fn a_bad_trace_filter_names_the_piece() {
        let error = parse(b"refill=on trace=l1,frob").expect_err("no word of a filter");
        assert!(error.to_string().contains("`frob`"), "{error}");
    }

    #[test]
    fn the_documentation_has_the_same_options() {
        let mut table = String::from("| option | takes | default | meaning |\n|---|---|---|---|\n");
        for row in ROWS {
            let equals = if row.value.is_empty() { "" } else { "=" };
            let default = if row.default.is_empty() {
                "off"
            } else {
                row.default
            };
            table += &format!(
                "| `{}{equals}{}` | {} | {default} | {} |\n",
                row.name, row.value, row.takes, row.meaning
            );
        }
        let page = include_str!("../../../docs/options.md");
        assert!(
            page.contains(&table),
            "docs/options.md should hold:\n{table}"
        );
    }
}

//! Which exits the trace keeps.

use core::fmt;
use umbra_vmcs::exit::Reason;

use crate::acpi::MAX_CPUS;
use crate::options::Text;

/// Which exits are kept. Words of one kind are alternatives; every kind that
/// is named has to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    l1: bool,
    l2: bool,
    cpus: u64,
    /// By number; the last bit is for numbers that the SDM does not define.
    reasons: u128,
    /// Print a CPU's records whenever there is no room for another.
    pub is_live: bool,
}

const UNDEFINED: u16 = 127;
const _: () = assert!(MAX_CPUS <= 64);

/// A piece of a filter that is no word of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPiece<'a>(pub &'a [u8]);

impl fmt::Display for BadPiece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trace filter: `{}` is not all, live, l1, l2, cpuN (N below {MAX_CPUS}), an exit reason such as cpuid or \
             ept-violation, or no- and a reason",
            Text(self.0)
        )
    }
}

/// The bit of a basic exit reason.
fn bit(reason: u16) -> u128 {
    1 << reason.min(UNDEFINED)
}

fn reason(name: &[u8]) -> Option<u128> {
    Reason::ALL
        .iter()
        .find(|reason| reason.name().as_bytes() == name)
        .map(|&reason| bit(reason as u16))
}

impl Filter {
    /// Reads words between commas.
    ///
    /// # Errors
    /// The first piece that is none of them.
    pub fn parse(text: &[u8]) -> Result<Self, BadPiece<'_>> {
        let mut named = Self {
            l1: false,
            l2: false,
            cpus: 0,
            reasons: 0,
            is_live: false,
        };
        let mut excluded = 0;
        for piece in text.split(|&b| b == b',') {
            match piece {
                b"all" => {}
                b"live" => named.is_live = true,
                b"l1" => named.l1 = true,
                b"l2" => named.l2 = true,
                _ => {
                    if let Some(number) = piece.strip_prefix(b"cpu").and_then(cpu_number) {
                        named.cpus |= 1 << number;
                    } else if let Some(bit) = piece.strip_prefix(b"no-").and_then(reason) {
                        excluded |= bit;
                    } else {
                        named.reasons |= reason(piece).ok_or(BadPiece(piece))?;
                    }
                }
            }
        }
        let any_level = !named.l1 && !named.l2;
        let or_all = |bits: u128| if bits == 0 { u128::MAX } else { bits };
        Ok(Self {
            l1: named.l1 || any_level,
            l2: named.l2 || any_level,
            cpus: if named.cpus == 0 {
                u64::MAX
            } else {
                named.cpus
            },
            reasons: or_all(named.reasons) & !excluded,
            is_live: named.is_live,
        })
    }

    /// Whether an exit of this level, on this CPU, with this basic reason is
    /// kept.
    pub fn keeps(&self, is_l2: bool, cpu: u32, reason: u16) -> bool {
        let level = if is_l2 { self.l2 } else { self.l1 };
        level && self.cpus >> cpu.min(63) & 1 != 0 && self.reasons & bit(reason) != 0
    }
}

/// One or two digits that name a CPU.
fn cpu_number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 2 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    (number < MAX_CPUS as u32).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const CPUID: u16 = Reason::Cpuid as u16;
    const RDMSR: u16 = Reason::Rdmsr as u16;

    fn filter(text: &str) -> Filter {
        Filter::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn all_keeps_everything_numbers_without_a_name_too() {
        let all = filter("all");
        for cpu in [0, 63] {
            for reason in [CPUID, RDMSR, 35, 80, 0x7fff] {
                assert!(all.keeps(false, cpu, reason) && all.keeps(true, cpu, reason));
            }
        }
    }

    #[test]
    fn words_of_a_kind_are_alternatives_and_kinds_add_up() {
        let some = filter("l2,cpuid,rdmsr,cpu1,cpu12");
        assert!(some.keeps(true, 1, CPUID) && some.keeps(true, 12, RDMSR));
        assert!(!some.keeps(false, 1, CPUID), "the level");
        assert!(!some.keeps(true, 2, CPUID), "the CPU");
        assert!(
            !some.keeps(true, 1, Reason::Wrmsr as u16),
            "the exit reason"
        );
        let both = filter("l1,l2");
        assert!(both.keeps(false, 0, CPUID) && both.keeps(true, 0, CPUID));
    }

    #[test]
    fn a_reason_can_be_left_out() {
        let some = filter("no-cpuid,l1");
        assert!(!some.keeps(false, 0, CPUID) && some.keeps(false, 0, RDMSR));
        let some = filter("cpuid,rdmsr,no-cpuid");
        assert!(!some.keeps(false, 0, CPUID) && some.keeps(false, 0, RDMSR));
    }

    #[test]
    fn every_reason_has_its_word() {
        for &reason in Reason::ALL {
            let only = filter(reason.name());
            for &other in Reason::ALL {
                let is_kept = only.keeps(true, 0, other as u16);
                assert_eq!(is_kept, other == reason, "{}", reason.name());
            }
        }
    }

    #[test]
    fn what_is_no_word_is_named_in_one_line() {
        for (text, bad) in [
            ("", ""),
            ("l1,,l2", ""),
            ("l3", "l3"),
            ("cpu", "cpu"),
            ("cpu64", "cpu64"),
            ("cpu+1", "cpu+1"),
            ("cpu007", "cpu007"),
            ("cpuid,frob", "frob"),
            ("no-frob", "no-frob"),
            ("CPUID", "CPUID"),
        ] {
            let error = Filter::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error, BadPiece(bad.as_bytes()));
            let line = error.to_string();
            assert!(line.contains(&std::format!("`{bad}`")), "{line}");
            assert!(!line.contains('\n') && line.len() < 190, "{line}");
        }
    }
}

//! The machine's own time: ticks of its TSC.
//!
//! On Bochs a tick is an instruction (with several CPUs, one on each), however
//! slow the computer is that emulates it. So a limit in ticks fails a run for
//! what the guest does, and for nothing else.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

const MILLION: u64 = 1_000_000;
/// What may follow a number, and what it stands for.
const SUFFIXES: [(char, u64); 3] = [('k', 1_000), ('M', MILLION), ('G', 1_000 * MILLION)];

/// A number of ticks, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Ticks(pub u64);

impl Ticks {
    /// In millions, rounded up: how Bochs takes them.
    pub fn millions(self) -> u64 {
        self.0.div_ceil(MILLION)
    }
}

impl FromStr for Ticks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|&(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))
            .unwrap_or((text, 1));
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .filter(|&ticks| ticks > 0)
            .map(Self)
            .ok_or_else(|| "it takes a number of ticks, such as 500M or 20G".to_owned())
    }
}

impl TryFrom<String> for Ticks {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} M ticks", self.millions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_written_in_thousands_millions_and_thousands_of_millions() {
        let ticks = |text: &str| text.parse::<Ticks>().map(|ticks| ticks.0);
        assert_eq!(ticks("7"), Ok(7));
        assert_eq!(ticks("7k"), Ok(7_000));
        assert_eq!(ticks("500M"), Ok(500_000_000));
        assert_eq!(ticks("20G"), Ok(20_000_000_000));
        for bad in ["", "G", "0", "0M", "-1", "1.5G", "7T", "99999999999G"] {
            assert!(ticks(bad).unwrap_err().contains("20G"), "{bad}");
        }
    }

    #[test]
    fn a_part_of_a_million_counts_as_one() {
        assert_eq!(Ticks(1).millions(), 1);
        assert_eq!(Ticks(2_000_001).to_string(), "3 M ticks");
    }
}

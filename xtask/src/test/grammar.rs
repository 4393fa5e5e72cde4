//! Whether a test VM's transcript is what its last line says that it is.
//!
//! `docs/testing.md` has the grammar under "How a transcript reads"; the other side of it is
//! `testvms/rt/src/report.rs`.

use std::sync::LazyLock;

use regex::Regex;

/// The last line, behind the program's name.
static LAST: LazyLock<Regex> = LazyLock::new(|| {
    let last = r"^: (\d+) cases, \d+ checks, (\d+) wrong, (\d+) errata$";
    Regex::new(last).expect("a regular expression that is one")
});

/// What lines of a transcript there are.
#[derive(Default, PartialEq, Eq, Debug)]
struct Counts {
    cases: usize,
    wrong: usize,
    errata: usize,
}

impl Counts {
    /// Counts the lines of the program `name`.
    fn of(name: &str, lines: &[String]) -> Self {
        let own = format!("{name}: ");
        let mut counts = Self::default();
        for line in lines {
            if line.starts_with("WRONG ") {
                counts.wrong += 1;
            } else if line.starts_with("erratum ") {
                counts.errata += 1;
            } else if !["== ", "  ", "lacks ", &own]
                .iter()
                .any(|other| line.starts_with(other))
            {
                counts.cases += 1;
            }
        }
        counts
    }

    /// The counts of the last line of the program `name`.
    fn told(name: &str, line: &str) -> Option<Self> {
        let found = LAST.captures(line.strip_prefix(name)?)?;
        let number = |at: usize| found[at].parse().ok();
        Some(Self {
            cases: number(1)?,
            wrong: number(2)?,
            errata: number(3)?,
        })
    }
}

/// What is wrong with the lines of the test VM `name`; nothing where the run was ended before its
/// last line.
pub fn miscounted(name: &str, lines: &[String]) -> Vec<String> {
    let Some(told) = lines.last().and_then(|line| Counts::told(name, line)) else {
        return Vec::new();
    };
    let found = Counts::of(name, lines);
    if found == told {
        return Vec::new();
    }
    vec![format!(
        "the last line tells of {told:?}, the transcript has {found:?}"
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 8] = [
        "== basic",
        "cpuid: exits",
        "  more of it",
        "WRONG cpuid: is nothing",
        "lacks EPT",
        "erratum vmcall",
        "a: says something",
        "a: 1 cases, 7 checks, 1 wrong, 1 errata",
    ];

    fn lines(of: &[&str]) -> Vec<String> {
        of.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn each_kind_of_line_is_counted() {
        assert_eq!(miscounted("a", &lines(&LINES)), [""; 0]);
        for missing in [1, 3, 5] {
            let mut fewer = lines(&LINES);
            fewer.remove(missing);
            assert_eq!(miscounted("a", &fewer).len(), 1, "{missing}");
        }
        let mut more = lines(&LINES);
        more.insert(0, "stray".to_owned());
        assert_eq!(miscounted("a", &more).len(), 1);
    }

    #[test]
    fn a_run_without_a_last_line_is_not_judged() {
        assert_eq!(miscounted("a", &lines(&LINES[..7])), [""; 0]);
        assert_eq!(miscounted("b", &lines(&LINES)), [""; 0]);
    }
}

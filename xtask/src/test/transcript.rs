//! Comparing what a guest printed in two places.

/// How many lines before the first difference are shown.
const BEFORE: usize = 2;
/// How many differing lines are shown of each side.
const SHOWN: usize = 4;

/// How the transcript under Umbra differs from the bare machine's, as lines
/// for a person; nothing where they are equal.
///
/// A bare machine that printed nothing shows nothing, and is a difference.
pub fn difference(bare: &[String], under: &[String]) -> Vec<String> {
    if bare.is_empty() {
        return vec!["the guest printed nothing on the bare machine".to_owned()];
    }
    if bare == under {
        return Vec::new();
    }
    let first = bare
        .iter()
        .zip(under)
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| bare.len().min(under.len()));
    let count =
        bare.iter().zip(under).filter(|(a, b)| a != b).count() + bare.len().abs_diff(under.len());
    let mut report = vec![format!(
        "{count} lines of the transcripts differ, the first is line {} \
         ({} lines on the bare machine, {} under Umbra):",
        first + 1,
        bare.len(),
        under.len()
    )];
    let context = bare.iter().take(first).skip(first.saturating_sub(BEFORE));
    report.extend(context.map(|line| format!("  {line}")));
    for (mark, lines) in [('-', bare), ('+', under)] {
        let rest = lines.iter().skip(first);
        report.extend(rest.take(SHOWN).map(|line| format!("{mark} {line}")));
        if lines.len() <= first {
            report.push(format!("{mark} (the end)"));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn equal_transcripts_have_no_difference() {
        assert!(difference(&lines("a b c"), &lines("a b c")).is_empty());
    }

    #[test]
    fn the_first_difference_is_shown_with_what_came_before() {
        assert_eq!(
            difference(&lines("a b c d e"), &lines("a b c x e")),
            [
                "1 lines of the transcripts differ, the first is line 4 \
                 (5 lines on the bare machine, 5 under Umbra):",
                "  b",
                "  c",
                "- d",
                "- e",
                "+ x",
                "+ e"
            ]
        );
    }

    #[test]
    fn a_transcript_that_ends_early_differs() {
        let report = difference(&lines("a b"), &lines("a"));
        assert_eq!(report[1..], ["  a", "- b", "+ (the end)"]);
        assert!(!difference(&lines("a"), &lines("a b")).is_empty());
    }

    #[test]
    fn silence_on_the_bare_machine_proves_nothing() {
        assert!(!difference(&[], &[]).is_empty());
    }
}

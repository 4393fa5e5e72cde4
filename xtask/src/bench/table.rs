//! The table of what was measured, its file, and what got worse.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::rows::{COLUMNS, ROWS};

/// By how much a figure may grow before it counts as worse, in percent.
const TOLERANCE_PERCENT: u64 = 3;

/// Ticks by row and column.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Table {
    cells: BTreeMap<(&'static str, &'static str), u64>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    row: String,
    native: Option<u64>,
    umbra: Option<u64>,
    umbra2: Option<u64>,
    kvm: Option<u64>,
}

impl Table {
    /// Reads the file's text. Rows that are measured no more are left out.
    ///
    /// # Errors
    /// It is no such table.
    pub fn parse(text: &str) -> Result<Self> {
        let mut table = Self::default();
        for line in csv::Reader::from_reader(text.as_bytes()).deserialize() {
            let line: Line = line.context("the table of docs/bench.csv makes no sense")?;
            let values = [line.native, line.umbra, line.umbra2, line.kvm];
            if let Some(row) = ROWS.iter().find(|row| row.name == line.row) {
                for (column, value) in COLUMNS.iter().zip(values) {
                    if let Some(value) = value {
                        table.cells.insert((row.name, column.name), value);
                    }
                }
            }
        }
        Ok(table)
    }

    /// The file's text.
    ///
    /// # Errors
    /// None that a table can cause.
    pub fn to_text(&self) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in ROWS {
            writer.serialize(Line {
                row: row.name.to_owned(),
                native: self.get(row.name, "native"),
                umbra: self.get(row.name, "umbra"),
                umbra2: self.get(row.name, "umbra2"),
                kvm: self.get(row.name, "kvm"),
            })?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }

    /// One figure, in ticks.
    pub fn get(&self, row: &str, column: &str) -> Option<u64> {
        self.cells
            .iter()
            .find(|((r, c), _)| *r == row && *c == column)
            .map(|(_, ticks)| *ticks)
    }

    /// Takes the rows that a run printed on the serial line.
    ///
    /// # Errors
    /// A row that the run should have is missing, or it printed one that nobody knows.
    pub fn take(&mut self, run: &str, column: &'static str, lines: &[String]) -> Result<()> {
        let printed = printed(lines);
        for name in printed.keys() {
            if !ROWS.iter().any(|row| row.run == run && row.name == name) {
                bail!(
                    "the run {run} printed the row {name}, which is not in xtask/src/bench/rows.rs"
                );
            }
        }
        for row in ROWS.iter().filter(|row| row.run == run) {
            let ticks = printed
                .get(row.name)
                .with_context(|| format!("the run {run} did not print the row {}", row.name))?;
            self.cells.insert((row.name, column), *ticks);
        }
        Ok(())
    }

    /// Takes the figures of another table.
    pub fn put(&mut self, other: &Self) {
        self.cells.extend(&other.cells);
    }

    /// What is worse in `new` than here, as lines.
    pub fn worse(&self, new: &Self) -> Vec<String> {
        self.changes(new)
            .filter(|&(_, before, now)| {
                u128::from(now) * 100 > u128::from(before) * u128::from(100 + TOLERANCE_PERCENT)
            })
            .map(|(what, before, now)| format!("{what}: {before} ticks became {now}"))
            .collect()
    }

    /// Every figure that both have: what it is, before, and now.
    pub fn changes<'a>(&'a self, new: &'a Self) -> impl Iterator<Item = (String, u64, u64)> + 'a {
        new.cells.iter().filter_map(|(&(row, column), &now)| {
            let before = self.get(row, column)?;
            Some((format!("{row} ({column})"), before, now))
        })
    }

    /// The table for a person; `is_page` for one of the documentation.
    pub fn show(&self, is_page: bool) -> String {
        let columns: Vec<_> = COLUMNS
            .iter()
            .filter(|column| self.cells.keys().any(|(_, name)| *name == column.name))
            .collect();
        let mut lines = vec![
            ["row".to_owned(), "what".to_owned()]
                .into_iter()
                .chain(columns.iter().map(|column| column.heading.to_owned()))
                .collect::<Vec<_>>(),
        ];
        for row in ROWS {
            let name = match is_page {
                true => format!("`{}`", row.name),
                false => row.name.to_owned(),
            };
            let mut line = vec![name, row.about.to_owned()];
            line.extend(columns.iter().map(|column| {
                self.get(row.name, column.name)
                    .map_or(String::new(), thousands)
            }));
            lines.push(line);
        }
        if is_page {
            let rule = format!("|---|---|{}", "---:|".repeat(columns.len()));
            let mut text: Vec<String> = lines
                .iter()
                .map(|line| format!("| {} |", line.join(" | ")))
                .collect();
            text.insert(1, rule);
            return text.join("\n") + "\n";
        }
        let width = |n: usize| lines.iter().map(|line| line[n].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..2 + columns.len()).map(width).collect();
        lines
            .iter()
            .map(|line| {
                let mut text = format!(
                    "{:<w$}  {:<v$}",
                    line[0],
                    line[1],
                    w = widths[0],
                    v = widths[1]
                );
                for (cell, width) in line.iter().zip(&widths).skip(2) {
                    text.push_str(&format!("  {cell:>width$}"));
                }
                text.trim_end().to_owned() + "\n"
            })
            .collect()
    }
}

/// The rows among a guest's lines.
fn printed(lines: &[String]) -> BTreeMap<String, u64> {
    // The expression is a constant of this program's.
    let Ok(row) = Regex::new(r"^bench: ([a-z0-9-]+) ticks=(\d+)$") else {
        return BTreeMap::new();
    };
    lines
        .iter()
        .filter_map(|line| {
            let found = row.captures(line)?;
            Some((found[1].to_owned(), found[2].parse().ok()?))
        })
        .collect()
}

/// A number with a comma before each three digits.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(run: &str, ticks: u64) -> Vec<String> {
        let mut lines = vec!["bench: done".to_owned(), "umbra: exits".to_owned()];
        lines.extend(
            ROWS.iter()
                .filter(|row| row.run == run)
                .map(|row| format!("bench: {} ticks={ticks}", row.name)),
        );
        lines
    }

    fn table(ticks: u64) -> Table {
        let mut table = Table::default();
        table.take("cpus", "umbra", &lines("cpus", ticks)).unwrap();
        table
    }

    #[test]
    fn a_table_survives_its_file() {
        let mut table = table(4711);
        table.take("kvm", "native", &lines("kvm", 9)).unwrap();
        let text = table.to_text().unwrap();
        assert_eq!(Table::parse(&text).unwrap(), table);
        assert!(Table::parse("row,umbra\nx,many\n").is_err());
    }

    #[test]
    fn three_percent_more_is_not_worse_and_four_are() {
        let before = table(100);
        assert!(before.worse(&table(103)).is_empty());
        assert!(before.worse(&table(1)).is_empty());
        let worse = before.worse(&table(104));
        assert_eq!(worse.len(), 4);
        assert!(worse[0].contains("cpus-1 (umbra): 100 ticks became 104"));
        assert!(
            Table::default().worse(&before).is_empty(),
            "nothing to compare with"
        );
    }

    #[test]
    fn a_row_that_is_missing_or_unknown_is_an_error() {
        let mut few = lines("kvm", 1);
        few.pop();
        assert!(Table::default().take("kvm", "umbra", &few).is_err());
        let mut many = lines("kvm", 1);
        many.push("bench: kvm-sideways ticks=3".to_owned());
        assert!(Table::default().take("kvm", "umbra", &many).is_err());
    }

    #[test]
    fn the_shown_table_has_what_was_measured() {
        let text = table(1_234_567).show(false);
        assert!(text.contains("1,234,567") && text.contains("Umbra"));
        assert!(!text.contains("KVM "), "nothing was measured there");
        assert!(
            table(5)
                .show(true)
                .contains("|---|---|---:|\n| `exit-bare` |")
        );
        assert_eq!(
            ["0", "999", "1,000"].map(str::to_owned),
            [0, 999, 1000].map(thousands)
        );
    }
}

//! `./x bench`: what things cost, on every machine, in one table.

mod chart;
mod rows;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use self::rows::{COLUMNS, Column, RUNS, Run};
use self::table::Table;
use crate::cli::BenchArgs;
use crate::test::run_once;
use crate::ui::Step;
use crate::{fail, images, serial};

/// Where the figures stay.
const TABLE: &str = "docs/bench.csv";
/// The chart of them.
const CHART: &str = "docs/bench.svg";
/// The page that has them as a table.
const PAGE: &str = "docs/bench.md";
/// What stands around the table in the page.
const MARKS: [&str; 2] = ["<!-- the table -->\n", "<!-- the end of the table -->\n"];

/// `./x bench`.
///
/// # Errors
/// A usage error; a run that fails, or prints other rows than it should.
pub fn bench(args: &BenchArgs) -> Result<()> {
    let runs = chosen(&args.run, RUNS, |run| run.name, |_| true)?;
    let columns = chosen(&args.on, COLUMNS, |c| c.name, |c| c.is_default)?;
    let before = committed()?;
    let mut new = Table::default();
    for run in &runs {
        for column in &columns {
            let step = Step::start(format!("{} on {}", run.name, column.heading));
            measure(run, column, &mut new)?;
            step.done();
        }
    }
    let mut all = before.clone();
    all.put(&new);
    print!("{}", all.show(false));
    for (what, was, now) in before.changes(&new).filter(|&(_, was, now)| was != now) {
        let percent = 100.0 * (now as f64 - was as f64) / was.max(1) as f64;
        println!("{what}: was {was}, is {now} ({percent:+.1} %)");
    }
    if args.print_only {
        return Ok(());
    }
    let page = fs::read_to_string(place(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    for (name, text) in [
        (TABLE, all.to_text()?),
        (CHART, chart::svg(&all)),
        (PAGE, with_table(&page, &all)?),
    ] {
        fs::write(place(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// The table that is committed.
///
/// # Errors
/// It cannot be read.
pub fn committed() -> Result<Table> {
    let text = fs::read_to_string(place(TABLE)).with_context(|| format!("cannot read {TABLE}"))?;
    Table::parse(&text)
}

/// What a run of a test printed that is worse than the committed table, as lines.
///
/// # Errors
/// The table cannot be read, or the run lacks rows.
pub fn worse(run: &str, column: &str, lines: &[String]) -> Result<Vec<String>> {
    let column = COLUMNS
        .iter()
        .find(|known| known.name == column)
        .with_context(|| format!("{column}: the table has no such column"))?;
    let mut new = Table::default();
    new.take(run, column.name, lines)?;
    Ok(committed()?.worse(&new))
}

/// Makes one run and takes its rows.
fn measure(run: &Run, column: &Column, table: &mut Table) -> Result<()> {
    let mut words: Vec<String> = run.words.iter().map(|&word| word.to_owned()).collect();
    words.extend(column.words.iter().map(|&word| word.to_owned()));
    words.push("--timeout=20000".to_owned());
    let ran = run_once(&format!("bench-{}-{}", run.name, column.name), &words)?;
    if ran.status != Some(i32::from(fail::OK)) {
        anyhow::bail!(
            "./x run {}: {}",
            words.join(" "),
            ran.stderr.last().map_or("failed", String::as_str)
        );
    }
    table.take(run.name, column.name, &serial::guest_lines(&ran.serial))
}

/// What was named, or where nothing was, what is measured then.
fn chosen<'a, T>(
    names: &[String],
    all: &'a [T],
    name_of: impl Fn(&T) -> &str,
    is_default: impl Fn(&T) -> bool,
) -> Result<Vec<&'a T>> {
    if names.is_empty() {
        return Ok(all.iter().filter(|&one| is_default(one)).collect());
    }
    names
        .iter()
        .map(|name| {
            all.iter().find(|one| name_of(one) == name).ok_or_else(|| {
                let known: Vec<&str> = all.iter().map(&name_of).collect();
                fail::usage(format!("{name}: it is one of {}", known.join(", ")))
            })
        })
        .collect()
}

/// The page with this table in it.
fn with_table(page: &str, table: &Table) -> Result<String> {
    let around = page
        .split_once(MARKS[0])
        .and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
    let (before, after) = around.with_context(|| format!("{PAGE} has no place for the table"))?;
    let [start, end] = MARKS;
    Ok(format!("{before}{start}{}{end}{after}", table.show(true)))
}

/// A file of the checkout.
fn place(name: &str) -> PathBuf {
    images::checkout().join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_and_the_page_show_the_table() {
        let table = committed().unwrap();
        let read = |name| fs::read_to_string(place(name)).unwrap();
        assert_eq!(read(TABLE), table.to_text().unwrap());
        assert_eq!(read(CHART), chart::svg(&table));
        assert_eq!(read(PAGE), with_table(&read(PAGE), &table).unwrap());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let names = |words: &[&str]| -> Result<Vec<&str>> {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let found = chosen(&words, COLUMNS, |c| c.name, |c| c.is_default)?;
            Ok(found.iter().map(|column| column.name).collect())
        };
        assert_eq!(names(&[]).unwrap(), ["native", "umbra", "umbra2"]);
        assert_eq!(names(&["kvm"]).unwrap(), ["kvm"]);
        assert!(names(&["xen"]).is_err());
    }
}

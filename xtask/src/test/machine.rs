//! Machine tests: `./x run` as a person would call it, and what came of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result};
use regex::Regex;

use super::Outcome;
use super::declared::{Expect, Test};
use super::{grammar, transcript};
use crate::ticks::Ticks;
use crate::{bench, bochs, fail, images, serial};

/// Where the logs of failed tests stay, from the top of the checkout.
const LOGS: &str = ".x/test";
/// This program itself, even where the unit tests have just built it anew and
/// put another file in its place.
const SELF: &str = "/proc/self/exe";
/// How many lines of a failed run are shown.
const SHOWN_LINES: usize = 5;

/// What one run left behind.
#[derive(Debug)]
pub struct Ran {
    /// The exit status.
    pub status: Option<i32>,
    /// Everything that `./x` said beside the guest.
    pub stderr: Vec<String>,
    /// The serial line, byte for byte.
    pub serial: Vec<u8>,
    folder: PathBuf,
}

/// The runs made so far: several tests compare with the same bare machine.
#[derive(Default)]
pub struct Runs {
    made: Mutex<HashMap<String, Arc<OnceLock<Result<Ran>>>>>,
}

impl Runs {
    /// The run of `words`, made now unless it was made before. `name` names
    /// its folder.
    fn get(&self, name: &str, words: &[String]) -> Arc<OnceLock<Result<Ran>>> {
        let cell = {
            let mut made = self
                .made
                .lock()
                .unwrap_or_else(|broken| broken.into_inner());
            Arc::clone(made.entry(words.join("\0")).or_default())
        };
        cell.get_or_init(|| run_once(name, words));
        cell
    }
}

/// Runs one test.
pub fn run(test: &Test, runs: &Runs) -> Outcome {
    match judge(test, runs) {
        Ok(judged) => Outcome {
            ticks: judged.ticks,
            ..if judged.report.is_empty() {
                Outcome::passed()
            } else {
                Outcome::failed(judged.report)
            }
        },
        Err(error) => Outcome::failed(vec![format!("{error:#}")]),
    }
}

/// What there is to say of a test's runs.
struct Judged {
    /// What is wrong, as lines; nothing where all is well.
    report: Vec<String>,
    /// How long the longest of the runs was.
    ticks: Option<Ticks>,
}

/// Makes the runs of `test`, where they are not made yet, and judges them.
fn judge(test: &Test, runs: &Runs) -> Result<Judged> {
    let mut words = vec![test.guest.clone()];
    words.extend(test.options.iter().cloned());
    let name = test.name.replace('/', "-");
    match &test.expect {
        Expect::Ends { status, last_line } => {
            words.extend(test.options_of_umbra.iter().cloned());
            let ran = runs.get(&name, &words);
            let ran = ran_of(&ran)?;
            let mut report = ended(ran, *status, last_line.as_ref());
            report.extend(missing_lines(ran, &test.lines));
            let lines = serial::guest_lines(&ran.serial);
            report.extend(grammar::miscounted(&test.guest, &lines));
            if let (Some(bench), true) = (&test.bench, report.is_empty()) {
                report.extend(bench::worse(&bench.run, &bench.column, &lines)?);
            }
            Ok(close(report, &[ran]))
        }
        Expect::SameAsBare { depth } => {
            let with = |more: &[&str]| {
                let mut words = words.clone();
                words.extend(more.iter().map(|&word| word.to_owned()));
                words
            };
            let base = name.rsplit_once("-depth").map_or(&*name, |(base, _)| base);
            let bare = runs.get(&format!("{base}-bare"), &with(&["--native"]));
            let bare = ran_of(&bare)?;
            let mut report = ended(bare, fail::OK, None);
            report.extend(missing_lines(bare, &test.lines));
            let lines = serial::guest_lines(&bare.serial);
            report.extend(grammar::miscounted(&test.guest, &lines));
            if !report.is_empty() {
                report.insert(0, "on the bare machine:".to_owned());
                return Ok(close(report, &[bare]));
            }
            let depth = depth.to_string();
            let mut of_umbra = vec!["--depth", &depth];
            of_umbra.extend(test.options_of_umbra.iter().map(String::as_str));
            let under = runs.get(&name, &with(&of_umbra));
            let under = ran_of(&under)?;
            let mut report = ended(under, fail::OK, None);
            report.extend(transcript::difference(
                &lines,
                &serial::guest_lines(&under.serial),
            ));
            Ok(close(report, &[bare, under]))
        }
    }
}

fn ran_of(cell: &OnceLock<Result<Ran>>) -> Result<&Ran> {
    match cell.get() {
        Some(Ok(ran)) => Ok(ran),
        Some(Err(error)) => anyhow::bail!("{error:#}"),
        None => anyhow::bail!("the run was not made"),
    }
}

/// Runs `./x run WORDS` and collects what it left.
///
/// # Errors
/// It cannot be started, or its folder cannot be made.
pub fn run_once(name: &str, words: &[String]) -> Result<Ran> {
    let folder = images::checkout().join(LOGS).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let log = folder.join("console.txt");
    let out = Command::new(SELF)
        .arg("run")
        .args(words)
        .arg("--keep")
        .arg(&folder)
        .arg("--log")
        .arg(&log)
        .current_dir(images::checkout())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .context("cannot start ./x run")?;
    std::fs::write(folder.join("stderr.txt"), &out.stderr)?;
    // The image is large and can be made again.
    let _ = std::fs::remove_file(folder.join("image.iso"));
    Ok(Ran {
        status: out.status.code(),
        stderr: String::from_utf8_lossy(&out.stderr)
            .lines()
            .map(str::to_owned)
            .collect(),
        // A run that is refused leaves no log.
        serial: std::fs::read(&log).unwrap_or_default(),
        folder,
    })
}

/// What is wrong with how the run ended.
fn ended(ran: &Ran, status: u8, last_line: Option<&Regex>) -> Vec<String> {
    let mut report = Vec::new();
    if ran.status != Some(i32::from(status)) {
        let got = ran.status.map_or("a signal".to_owned(), |s| s.to_string());
        report.push(format!("ended with {got}, expected {status}"));
    }
    let last = ran.stderr.last().map_or("", String::as_str);
    if let Some(last_line) = last_line
        && !last_line.is_match(last)
    {
        report.push(format!("the last line is not like `{last_line}`"));
    }
    if status == fail::USAGE && ran.stderr.len() != 1 {
        report.push(format!(
            "{} lines were said where one is expected",
            ran.stderr.len()
        ));
    }
    if !report.is_empty() {
        let from = ran.stderr.len().saturating_sub(SHOWN_LINES);
        report.extend(ran.stderr.iter().skip(from).map(|line| format!("| {line}")));
    }
    report
}

/// Which of the lines that the guest or Umbra must print are not there.
fn missing_lines(ran: &Ran, expected: &[Regex]) -> Vec<String> {
    let mut lines = serial::Lines::default();
    let mut all = lines.push(&ran.serial);
    all.extend(lines.finish());
    let mut report: Vec<String> = expected
        .iter()
        .filter(|regex| !all.iter().any(|line| regex.is_match(line)))
        .map(|regex| format!("no line is like `{regex}`"))
        .collect();
    if !report.is_empty() {
        let from = all.len().saturating_sub(SHOWN_LINES);
        report.extend(all.iter().skip(from).map(|line| format!("> {line}")));
    }
    report
}

/// Adds to a report where the logs are; without a report they are not kept.
fn close(mut report: Vec<String>, ran: &[&Ran]) -> Judged {
    if !report.is_empty() {
        for ran in ran {
            report.push(format!("logs: {}", shown(&ran.folder)));
        }
    }
    let ticks = ran.iter().filter_map(|ran| bochs::ticks(&ran.folder)).max();
    Judged { report, ticks }
}

/// A path as it is from the top of the checkout.
fn shown(path: &Path) -> String {
    path.strip_prefix(images::checkout())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(status: i32, stderr: &[&str], serial: &str) -> Ran {
        Ran {
            status: Some(status),
            stderr: stderr.iter().map(|&line| line.to_owned()).collect(),
            serial: serial.as_bytes().to_vec(),
            folder: PathBuf::new(),
        }
    }

    #[test]
    fn the_status_and_the_last_line_both_count() {
        let like = Regex::new("^x: no$").unwrap();
        assert!(ended(&ran(2, &["x: no"], ""), 2, Some(&like)).is_empty());
        assert!(!ended(&ran(0, &["x: no"], ""), 2, Some(&like)).is_empty());
        assert!(!ended(&ran(2, &["x: yes"], ""), 2, Some(&like)).is_empty());
        assert!(!ended(&ran(2, &[], ""), 2, Some(&like)).is_empty());
    }

    #[test]
    fn a_refusal_is_one_line() {
        assert!(!ended(&ran(2, &["x: a", "x: b"], ""), 2, None).is_empty());
        assert!(ended(&ran(4, &["x: a", "x: b"], ""), 4, None).is_empty());
    }

    #[test]
    fn every_expected_line_must_be_there() {
        let lines = [Regex::new("^one").unwrap(), Regex::new("two$").unwrap()];
        assert!(missing_lines(&ran(0, &[], "one 1\r\nand two"), &lines).is_empty());
        assert_eq!(missing_lines(&ran(0, &[], "one 1\n"), &lines).len(), 2);
    }
}

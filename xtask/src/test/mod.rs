//! `./x test`: everything that shows whether Umbra works, in one go.

mod declared;
mod grammar;
mod host;
mod machine;
mod transcript;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::TestArgs;
use crate::fail::{self, Fail};
use crate::images::Image;
use crate::ticks::Ticks;
use crate::{bochs, guests, packages, ui};

use self::machine::Runs;
pub use self::machine::run_once;
pub use self::transcript::difference;

/// How many machines run at the same time: each keeps one CPU of this
/// machine busy.
const MOST_MACHINES: usize = 2;

/// How one test ended.
#[derive(Debug)]
struct Outcome {
    /// How many tests this counts for: `cargo test` is many.
    passed: usize,
    failed: usize,
    /// How long the machine ran, where it is known.
    ticks: Option<Ticks>,
    /// What a person needs to see of a failure, as lines.
    report: Vec<String>,
}

impl Outcome {
    fn passed() -> Self {
        Self {
            passed: 1,
            failed: 0,
            ticks: None,
            report: Vec::new(),
        }
    }

    fn failed(report: Vec<String>) -> Self {
        Self {
            passed: 0,
            failed: 1,
            ticks: None,
            report,
        }
    }
}

/// The sums of the closing line.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Sums {
    passed: usize,
    failed: usize,
}

/// `./x test`.
///
/// # Errors
/// A usage error when nothing matches the filter; a failure when a test
/// failed.
pub fn test(args: &TestArgs) -> Result<()> {
    let filter = args.filter.as_deref();
    if filter == Some("") {
        return Err(fail::usage(
            "an empty filter is in every test's name: leave it out to run them all",
        ));
    }
    let mut host = host::steps()?;
    let mut machine = declared::read()?;
    let groups: BTreeSet<String> = std::iter::once(host::GROUP.to_owned())
        .chain(machine.iter().map(|test| test.group.clone()))
        .collect();
    let meant = |group: &str, name: &str| matches(filter, &groups, group, name);
    host.retain(|step| meant(host::GROUP, &step.name));
    machine.retain(|test| meant(&test.group, &test.name));
    let all = machine.len();
    if filter.is_none() && !args.list {
        machine.retain(|test| !test.only_by_name);
    }
    let left_out = all - machine.len();
    if host.is_empty() && machine.is_empty() {
        return Err(fail::usage(format!(
            "{}: no test and no group has this in its name (see ./x test --list)",
            filter.unwrap_or_default()
        )));
    }
    if args.list {
        for step in &host {
            println!("{:<12} {}", host::GROUP, step.name);
        }
        for test in &machine {
            println!("{:<12} {}", test.group, test.name);
        }
        return Ok(());
    }
    let mut sums = Sums::default();
    for step in &host {
        let started = Instant::now();
        let outcome = step.run();
        sums.add(&outcome);
        show(&step.name, started.elapsed(), &outcome);
    }
    if !machine.is_empty() {
        sums = sums.plus(run_machines(&machine));
    }
    if left_out > 0 {
        ui::note(format!(
            "{left_out} long tests run only when a filter names them (see docs/testing.md)"
        ));
    }
    println!("{} passed, {} failed", sums.passed, sums.failed);
    if sums.failed == 0 {
        Ok(())
    } else {
        Err(Fail {
            status: fail::FAILED,
            line: String::new(),
        }
        .into())
    }
}

/// Whether the test `name` of `group` is meant by `filter`: the name of one of
/// the `groups` means that group and no other test; anything else is a part of
/// the test's own name.
fn matches(filter: Option<&str>, groups: &BTreeSet<String>, group: &str, name: &str) -> bool {
    filter.is_none_or(|filter| {
        if groups.contains(filter) {
            group == filter
        } else {
            name.contains(filter)
        }
    })
}

/// Runs machine tests, a few at a time, in the order of their declaration.
fn run_machines(tests: &[declared::Test]) -> Sums {
    if let Err(error) = make_ready(tests) {
        let outcome = Outcome {
            passed: 0,
            failed: tests.len(),
            ticks: None,
            report: vec![format!("{error:#}")],
        };
        show("making ready", Duration::ZERO, &outcome);
        let mut sums = Sums::default();
        sums.add(&outcome);
        return sums;
    }
    let runs = Runs::default();
    let next = AtomicUsize::new(0);
    let sums = Mutex::new(Sums::default());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_MACHINES));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let outcome = machine::run(test, &runs);
                    // A worker that panicked has spoiled nothing here.
                    let mut sums = sums.lock().unwrap_or_else(|broken| broken.into_inner());
                    sums.add(&outcome);
                    show(&test.name, started.elapsed(), &outcome);
                }
            });
        }
    });
    sums.into_inner()
        .unwrap_or_else(|broken| broken.into_inner())
}

/// Installs, builds and downloads what the machine tests need, so that no
/// test's time goes into it and a build that fails is shown once.
///
/// # Errors
/// There is no machine to run on. A guest that cannot be built is not an
/// error here: the tests that boot it fail, and the others still tell
/// something.
fn make_ready(tests: &[declared::Test]) -> Result<()> {
    packages::need(packages::FOR_IMAGES)?;
    bochs::Bochs::get(crate::machine::Firmware::Bios)?;
    let mut builds = Vec::new();
    if tests.iter().any(declared::Test::needs_umbra) {
        builds.push(Image::Umbra.build());
    }
    let guests: BTreeSet<&str> = tests
        .iter()
        .filter(|test| !test.is_refused())
        .map(|test| test.guest.as_str())
        .collect();
    for guest in guests {
        builds.push(guests::find(guest, None).map(|guest| guest.kernel));
    }
    for error in builds.into_iter().filter_map(Result::err) {
        ui::note(format!("{error:#}"));
    }
    Ok(())
}

/// Prints the line of one test, and below it what its failure looks like.
fn show(name: &str, took: Duration, outcome: &Outcome) {
    let verdict = if outcome.failed == 0 { "ok  " } else { "FAIL" };
    let count = match outcome.passed + outcome.failed {
        0 | 1 => String::new(),
        many => format!(" ({many} tests)"),
    };
    let ticks = outcome.ticks.map_or(String::new(), |t| format!(", {t}"));
    println!(
        "{verdict} {name}{count}, {:.1} s{ticks}",
        took.as_secs_f64()
    );
    for line in &outcome.report {
        println!("     {line}");
    }
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        self.passed += outcome.passed;
        self.failed += outcome.failed;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_group_or_a_part_of_a_name() {
        let groups = BTreeSet::from(["ept".to_owned(), "host".to_owned()]);
        let matches = |filter, group, name| super::matches(filter, &groups, group, name);
        assert!(matches(None, "ept", "lhv"));
        assert!(matches(Some("ept"), "ept", "lhv"));
        assert!(!matches(Some("ep"), "ept", "lhv"), "groups match whole");
        assert!(matches(Some("lh"), "ept", "lhv@haswell"));
        assert!(!matches(Some("smp"), "ept", "lhv"));
        assert!(matches(Some("host"), "host", "host/fmt"));
        assert!(
            !matches(Some("host"), "hostile", "hostile"),
            "another group"
        );
    }

    #[test]
    fn sums_count_what_an_outcome_counts_for() {
        let mut sums = Sums::default();
        sums.add(&Outcome::passed());
        sums.add(&Outcome::failed(Vec::new()));
        sums.add(&Outcome {
            passed: 40,
            failed: 2,
            ticks: None,
            report: Vec::new(),
        });
        assert_eq!(
            sums,
            Sums {
                passed: 41,
                failed: 3
            }
        );
    }
}

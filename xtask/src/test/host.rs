//! The tests that need no machine: form, lints, unit tests, documentation.

use std::process::{Command, Stdio};

use anyhow::Result;
use clap::ValueEnum;

use super::Outcome;
use crate::images::{self, Hypapp, Image};

/// The group that all of these belong to.
pub const GROUP: &str = "host";
/// The libraries, as options of cargo. Built apart from the tool: together,
/// cargo would choose other features for what both use, and build it twice.
const LIBRARIES: &[&str] = &[
    "--package=umbra-vmcs",
    "--package=umbra-ept",
    "--package=umbra-nmi",
    "--package=umbra-nested",
    "--package=umbra-guests",
    "--package=umbra-iommu",
    "--package=umbra-hypapp",
];
/// This tool.
const TOOL: &[&str] = &["--package=xtask"];
/// How much of a failed command's output is shown: the end of it.
const SHOWN_LINES: usize = 40;

/// One command of cargo that must succeed.
pub struct HostStep {
    /// Its name.
    pub name: String,
    /// Makes the command.
    command: Box<dyn Fn() -> Command>,
    /// Whether its output tells how many tests it ran.
    counts_tests: bool,
}

/// All of them, the quick ones first.
///
/// # Errors
/// The folder of the test VMs cannot be read.
pub fn steps() -> Result<Vec<HostStep>> {
    let mut steps = vec![
        step("lock-file", || {
            cargo(&["metadata", "--locked", "--format-version=1"])
        }),
        step("fmt", || cargo(&["fmt", "--all", "--check"])),
    ];
    for (suffix, packages) in [("", LIBRARIES), ("-xtask", TOOL)] {
        steps.push(step(&format!("clippy{suffix}"), move || {
            let mut command = cargo(&["clippy", "--quiet", "--all-targets"]);
            command.args(packages).args(["--", "-Dwarnings"]);
            command
        }));
    }
    let mut images = vec![
        Image::Umbra,
        Image::UmbraWithAccesses,
        Image::UmbraPlain,
        Image::UmbraForTests,
    ];
    images.extend(
        Hypapp::value_variants()
            .iter()
            .map(|&app| Image::UmbraWith(app)),
    );
    images.extend(images::test_vms()?.into_iter().map(Image::TestVm));
    for image in images {
        steps.push(step(&format!("clippy-{}", image.name()), move || {
            let mut command = image.cargo("clippy");
            command.args(["--quiet", "--", "-Dwarnings"]);
            command
        }));
    }
    // What needs no hardware in the image's package is a library of its own.
    let core: &[&str] = &["--package=umbra", "--lib"];
    for (suffix, packages) in [("", LIBRARIES), ("-core", core), ("-xtask", TOOL)] {
        let mut unit_tests = step(&format!("unit{suffix}"), move || {
            let mut command = cargo(&["test", "--no-fail-fast"]);
            command.args(packages);
            command
        });
        unit_tests.counts_tests = true;
        steps.push(unit_tests);
    }
    steps.push(step("doc", || {
        let mut command = cargo(&["doc", "--quiet", "--no-deps"]);
        command.args(LIBRARIES);
        command.env("RUSTDOCFLAGS", "-Dwarnings");
        command
    }));
    Ok(steps)
}

fn step(name: &str, command: impl Fn() -> Command + 'static) -> HostStep {
    HostStep {
        name: format!("{GROUP}/{name}"),
        command: Box::new(command),
        counts_tests: false,
    }
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(images::checkout()).args(args);
    command
}

impl HostStep {
    /// Runs the step.
    pub fn run(&self) -> Outcome {
        let out = match (self.command)().stdin(Stdio::null()).output() {
            Ok(out) => out,
            Err(error) => return Outcome::failed(vec![format!("cannot start cargo: {error}")]),
        };
        let stdout = String::from_utf8_lossy(&out.stdout);
        let (passed, failed) = if self.counts_tests {
            count(&stdout)
        } else {
            (0, 0)
        };
        if out.status.success() {
            return match (self.counts_tests, passed) {
                (true, 0) => Outcome::failed(vec!["no test was run".to_owned()]),
                (true, passed) => Outcome {
                    passed,
                    failed,
                    ticks: None,
                    report: Vec::new(),
                },
                (false, _) => Outcome::passed(),
            };
        }
        let all = format!("{stdout}{}", String::from_utf8_lossy(&out.stderr));
        let lines: Vec<&str> = all.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        Outcome {
            passed,
            // It may have failed before any test was run.
            failed: failed.max(1),
            ticks: None,
            report: lines.iter().skip(from).map(|&l| l.to_owned()).collect(),
        }
    }
}

/// Adds up lines such as `test result: ok. 45 passed; 0 failed; ...`.
fn count(stdout: &str) -> (usize, usize) {
    let number = |line: &str, word: &str| {
        line.split(';')
            .find_map(|part| part.trim().strip_suffix(word))
            .and_then(|part| part.split_whitespace().last())
            .and_then(|number| number.parse::<usize>().ok())
            .unwrap_or(0)
    };
    stdout
        .lines()
        .filter(|line| line.starts_with("test result: "))
        .fold((0, 0), |(passed, failed), line| {
            (
                passed + number(line, " passed"),
                failed + number(line, " failed"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn the_results_of_all_packages_are_added_up() {
        let text = "running 2 tests\n\
            test result: ok. 45 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.7s\n\
            test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count(text), (48, 2));
        assert_eq!(count(""), (0, 0));
    }
}

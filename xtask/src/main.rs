//! The `./x` tool: set-up, build, run, test, bench, image.
#![forbid(unsafe_code)]

mod acpi;
mod bench;
mod bochs;
mod cache;
mod cd;
mod cli;
mod cmd;
mod console;
mod debs;
mod disk;
mod dmar;
mod fail;
mod fuzz;
mod guests;
mod images;
mod iso;
mod kernel;
mod kvm;
mod ledger;
mod machine;
mod new_testvm;
mod packages;
mod pe;
mod qemu;
mod run;
mod serial;
mod setup;
mod test;
mod ticks;
mod ui;

use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use crate::cli::{Cli, Verb};

fn main() -> ExitCode {
    // Help should work even where the checkout cannot be read.
    let test_vms = images::test_vms().unwrap_or_default();
    let parsed = cli::command(&test_vms)
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let done = match &cli.verb {
        Verb::Setup => setup::setup(),
        Verb::Run(args) => run::run(args),
        Verb::Build(args) => images::put(&images::Hypapp::image(args.hypapp), &args.output),
        Verb::Iso(args) => run::iso(args),
        Verb::Disk(args) => run::disk(args),
        Verb::Test(args) => test::test(args),
        Verb::Fuzz(args) => fuzz::fuzz(args),
        Verb::Bench(args) => bench::bench(args),
        Verb::NewTestvm { name } => new_testvm::make(images::checkout(), name),
    };
    match done {
        Ok(()) => ExitCode::from(fail::OK),
        Err(error) => fail::report(&error),
    }
}

/// Help goes out as it is; what is wrong with the command line, in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing can be done about a closed stdout.
            let _ = error.print();
            ExitCode::from(fail::OK)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(fail::USAGE)
        }
        _ => fail::report(&fail::usage(one_line(&error.to_string()))),
    }
}

/// The first paragraph of clap's message, as one line.
fn one_line(message: &str) -> String {
    let paragraph: Vec<&str> = message
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    let line = paragraph.join(" ");
    format!(
        "{} (see ./x --help)",
        line.strip_prefix("error: ").unwrap_or(&line)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_wrong_with_the_command_line_is_one_line() {
        for words in [
            &["./x", "run", "--depth", "0"][..],
            &["./x", "run", "--cpus", "many"],
            &["./x", "run", "--no-such-option"],
            &["./x", "run", "--native", "--depth", "2"],
            &["./x", "iso", "lhv"],
            &["./x", "fly"],
        ] {
            let error = Cli::try_parse_from(words).unwrap_err();
            let line = one_line(&error.to_string());
            assert_eq!(line.lines().count(), 1);
            assert!(line.len() > 30, "{line}");
        }
    }

    #[test]
    fn help_names_every_verb_and_status() {
        let mut command = cli::command(&["lhv".to_owned()]);
        let run = command.find_subcommand_mut("run").unwrap();
        let run_help = run.render_long_help().to_string();
        for word in ["Guests:", "testvms/lhv", "kvm ", "--depth", "Examples:"] {
            assert!(run_help.contains(word), "{word}\n{run_help}");
        }
        let help = command.render_help().to_string();
        for word in [
            "setup", "run", "test", "fuzz", "bench", "iso", "disk", "  0 ", "  2 ", "  3 ", "  4 ",
        ] {
            assert!(help.contains(word), "{word}\n{help}");
        }
    }
}

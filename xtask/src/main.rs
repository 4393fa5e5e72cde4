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

use std::error::Error as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

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
        _ => {
            let verb = std::env::args_os().nth(1).unwrap_or_default();
            fail::report(&fail::usage(one_line(error, &verb.to_string_lossy())))
        }
    }
}

/// What is wrong, what there is instead, and whose help tells more: `verb` is the
/// first word after `./x`.
fn one_line(error: &clap::Error, verb: &str) -> String {
    let is_verb = Cli::command().find_subcommand(verb).is_some();
    let verb = if is_verb {
        format!("{verb} ")
    } else {
        String::new()
    };
    format!("{} (see ./x {verb}--help)", what_is_wrong(error))
}

/// A value that does not do, as everything else that is refused: the option, the
/// value, the reason. Otherwise the first paragraph of clap's message.
fn what_is_wrong(error: &clap::Error) -> String {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let value = given(ContextKind::InvalidValue).filter(|value| !value.is_empty());
    if let (Some(option), Some(value)) = (given(ContextKind::InvalidArg), value) {
        let option = option.split_whitespace().next().unwrap_or_default();
        let values = given(ContextKind::ValidValue).map(|values| format!("it is one of {values}"));
        if let Some(why) = values.or_else(|| error.source().map(ToString::to_string)) {
            return format!("{option} {value}: {why}");
        }
    }
    let message = error.to_string();
    let paragraph: Vec<&str> = message
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    let line = paragraph.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    if error.kind() == ErrorKind::InvalidSubcommand {
        let command = Cli::command();
        let verbs: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        return format!("{line}; it is one of {}", verbs.join(", "));
    }
    match given(ContextKind::SuggestedArg) {
        Some(like) => format!("{line}; there is {like}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_wrong_with_the_command_line_is_one_line() {
        for (words, expected) in [
            (
                "run --depth 0",
                "--depth 0: it takes a number from 1 to 8 (see ./x run --help)",
            ),
            (
                "run --cpus many",
                "--cpus many: it takes a number from 1 to 16 (see ./x run --help)",
            ),
            (
                "run --mem 2G",
                "--mem 2G: it takes a number from 128 to 8192 (see ./x run --help)",
            ),
            (
                "run --mem 99999999999999999999",
                "--mem 99999999999999999999: it takes a number from 128 to 8192 (see ./x run --help)",
            ),
            (
                "run --ticks 5X",
                "--ticks 5X: it takes a number of ticks, such as 500M or 20G (see ./x run --help)",
            ),
            (
                "run --firmware efi",
                "--firmware efi: it is one of bios, uefi (see ./x run --help)",
            ),
            (
                "run --modul file",
                "unexpected argument '--modul' found; there is --module (see ./x run --help)",
            ),
            (
                "run --colour",
                "unexpected argument '--colour' found (see ./x run --help)",
            ),
            (
                "run --until",
                "a value is required for '--until <REGEX>' but none was supplied (see ./x run --help)",
            ),
            (
                "run --native --depth 2",
                "the argument '--native' cannot be used with '--depth <N>' (see ./x run --help)",
            ),
            (
                "iso lhv",
                "the following required arguments were not provided: --output <FILE> (see ./x iso --help)",
            ),
            (
                "fuzz --seconds 18446744073709551615",
                "--seconds 18446744073709551615: it takes a number from 0 to 31536000 (see ./x fuzz --help)",
            ),
            (
                "fly",
                "unrecognized subcommand 'fly'; it is one of setup, run, test, fuzz, bench, build, iso, disk, new-testvm (see ./x --help)",
            ),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let error = Cli::try_parse_from(["./x"].iter().chain(&words)).unwrap_err();
            assert_eq!(one_line(&error, words[0]), expected);
        }
    }

    #[test]
    fn help_has_the_bounds_that_are_held() {
        let mut command = cli::command(&[]);
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_long_help().to_string();
        for (option, least, most) in [("--cpus", 1, 16), ("--depth", 1, 8), ("--mem", 128, 8192)] {
            assert!(help.contains(&format!("{least} to {most}")), "{option}");
            let takes = |number: u32| {
                Cli::try_parse_from(["./x", "run", option, &number.to_string()]).is_ok()
            };
            assert!(takes(least) && takes(most), "{option}");
            assert!(!takes(least - 1) && !takes(most + 1), "{option}");
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

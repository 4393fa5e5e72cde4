//! `./x run` and `./x iso`: a guest, with or without Umbra, on a machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use regex::Regex;

use crate::bochs::Bochs;
use crate::cli::{BootFrom, ImageArgs, On, RunArgs, WhatArgs};
use crate::console::{self, Ending, Watch};
use crate::fail::{self, Fail};
use crate::guests;
use crate::iso::Starts;
use crate::kernel;
use crate::kvm::Kvm;
use crate::ledger::Document;
use crate::machine::{Firmware, MAX_DISKS, Machine, Target, Verdict, mhz};
use crate::qemu::Qemu;
use crate::ui;
use crate::{cd, serial};

/// `./x run`.
///
/// # Errors
/// Every ending but a good one; see [`Fail`] for the exit status.
pub fn run(args: &RunArgs) -> Result<()> {
    // What can be refused at once is refused before anything is built.
    if args.iommu.is_some() && args.on != On::Tcg {
        return Err(fail::usage(
            "--iommu: only the machine of --on tcg has an IOMMU to choose",
        ));
    }
    let mut machine = machine(args)?;
    let until = args.until.as_deref().map(parse_until).transpose()?;
    let log = args.log.as_deref().map(create_log).transpose()?;
    let folder = RunFolder::new(args.keep.as_deref())?;
    let mut what = args.what.with_trace(args.trace.as_deref())?;
    if args.ledger.is_some() {
        let options = what.umbra.unwrap_or_default();
        what.umbra = Some(format!("{options} ledger"));
        what.counts_accesses = true;
    }
    check_what(&what)?;
    let target: Box<dyn Target> = match args.on {
        On::Bochs => Box::new(Bochs::get(args.firmware)?),
        On::Qemu => Box::new(Qemu::get()?),
        On::Kvm => Box::new(Kvm::get()?),
        On::Tcg => Box::new(Qemu::emulator(args.iommu.as_deref())?),
    };
    target.check(&machine)?;
    let mut ledger = args.ledger.as_deref().map(Document::create).transpose()?;
    let image = folder.path.join("image.iso");
    let starts = match args.firmware {
        Firmware::Bios => Starts::Bios,
        Firmware::Uefi => Starts::Uefi {
            // OVMF on QEMU brings tables of its own.
            acpi_cpus: (args.on == On::Bochs).then_some(args.cpus),
        },
    };
    if args.boot == BootFrom::Disk && machine.disks.is_empty() {
        let installed = folder.path.join("disk.img");
        cd::install(&what, args.on, starts, &folder.path, &installed)?;
        machine.disks.push(installed);
    }
    let prepared = match args.boot {
        BootFrom::Cd => Some(cd::prepare(&what, Some(args.on))?),
        BootFrom::Disk => cd::prepare_disk(&what, !args.disk.is_empty(), &machine)?,
    };
    match &prepared {
        Some(prepared) => cd::write_image(prepared, starts, &folder.path, &image)?,
        None => machine.starts_from_disk = true,
    }

    // A folder that is kept may hold the serial line of an earlier run, which
    // would be read until the machine's program starts it anew.
    let serial = target.serial(&folder.path);
    match fs::remove_file(&serial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", serial.display()));
        }
        _ => {}
    }

    console::catch_interrupts()?;
    let mut child = target
        .command(&machine, &image, &folder.path)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the machine")?;
    let watch = Watch {
        until: until.as_ref(),
        timeout: Duration::from_secs(args.timeout),
        reset: target.reset_mark(&folder.path),
        log,
        firmware: match args.firmware {
            Firmware::Bios => serial::Firmware::silent(),
            Firmware::Uefi => serial::Firmware::default(),
        },
    };
    let ending = console::follow(&mut child, &serial, watch, |line| {
        if !ledger.as_mut().is_some_and(|ledger| ledger.takes(line)) {
            print_line(line);
        }
    })?;
    if let Some(ledger) = ledger {
        ledger.close()?;
    }
    if let (Ending::Exited(_), Some(ticks)) = (&ending, target.ticks(&folder.path)) {
        ui::note(format!("the machine ran for {ticks}"));
    }
    conclude(ending, args.timeout, |status| {
        target.verdict(&folder.path, status)
    })
}

impl WhatArgs {
    /// With Umbra's option for the exit trace.
    fn with_trace(&self, filter: Option<&str>) -> Result<Self> {
        let mut what = self.clone();
        let Some(filter) = filter else {
            return Ok(what);
        };
        if filter.is_empty() || filter.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(fail::usage(format!(
                "--trace {filter:?}: words between commas, without spaces"
            )));
        }
        let umbra = what.umbra.take().unwrap_or_default();
        what.umbra = Some(format!("{umbra} trace={filter}").trim_start().to_string());
        Ok(what)
    }
}

/// `./x iso`.
///
/// # Errors
/// A usage error, or what went wrong while building.
pub fn iso(args: &ImageArgs) -> Result<()> {
    let (prepared, folder) = prepare_image(args)?;
    cd::write_image(&prepared, Starts::Any, &folder.path, &args.output)
}

/// `./x disk`.
///
/// # Errors
/// A usage error, or what went wrong while building.
pub fn disk(args: &ImageArgs) -> Result<()> {
    let (prepared, folder) = prepare_image(args)?;
    cd::write_disk(&prepared, Starts::Any, None, &folder.path, &args.output)
}

/// What `./x iso` and `./x disk` put on their images.
fn prepare_image(args: &ImageArgs) -> Result<(cd::Prepared, RunFolder)> {
    check_what(&args.what)?;
    let parent = args.output.parent().unwrap_or(Path::new(""));
    if !parent.as_os_str().is_empty() && !parent.is_dir() {
        return Err(fail::usage(format!(
            "--output {}: there is no folder {}",
            args.output.display(),
            parent.display()
        )));
    }
    if args.output.is_dir() {
        return Err(fail::usage(format!(
            "--output {}: is a folder: name the image's file in it",
            args.output.display()
        )));
    }
    let prepared = cd::prepare(&args.what, None)?;
    Ok((prepared, RunFolder::new(None)?))
}

/// Prints one line of the serial console.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    // Where nobody reads any more (`./x run | head`), the run goes on to its
    // own end, and its status still tells how it went.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// How Umbra's last words begin where a word of its command line is bad.
const BAD_OPTION: [&str; 2] = [
    "umbra: cannot start: option",
    "umbra: cannot start: trace filter",
];

/// Turns the ending of a run into its exit status and last line.
fn conclude(
    ending: Ending,
    timeout_secs: u64,
    verdict: impl FnOnce(Option<i32>) -> Verdict,
) -> Result<()> {
    let (status, line) = match ending {
        Ending::Until => return Ok(()),
        Ending::Exited(status) => match verdict(status) {
            Verdict::SwitchedOff => return Ok(()),
            Verdict::OutOfTicks => (
                fail::TIMED_OUT,
                "timed out: its ticks are over (--ticks)".to_owned(),
            ),
            Verdict::Crashed(reason) => (fail::CRASHED, reason),
        },
        // Umbra's own command line: what was asked for cannot be done.
        Ending::LastWords(line) if BAD_OPTION.iter().any(|start| line.starts_with(start)) => {
            (fail::USAGE, line)
        }
        Ending::LastWords(line) => (fail::CRASHED, line),
        Ending::Reset => (fail::CRASHED, "the guest reset the machine".to_owned()),
        Ending::TimedOut => (
            fail::TIMED_OUT,
            format!("timed out after {timeout_secs} s (--timeout)"),
        ),
        Ending::Interrupted => (fail::FAILED, "interrupted".to_owned()),
    };
    Err(Fail { status, line }.into())
}

/// The machine asked for.
fn machine(args: &RunArgs) -> Result<Machine> {
    Ok(Machine {
        cpus: args.cpus,
        mem_mb: args.mem,
        cpu_model: args.cpu_model.clone(),
        mhz: mhz(
            guests::is_recipe(&args.what.guest),
            cd::hypervisors(args.what.depth, Some(args.on)),
        ),
        firmware: args.firmware,
        max_ticks: args.ticks,
        disks: disks(&args.disk)?,
        starts_from_disk: false,
    })
}

/// The disks asked for, by their whole paths.
fn disks(images: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if images.len() > MAX_DISKS {
        return Err(fail::usage(format!(
            "--disk: the machine can have {MAX_DISKS} disks"
        )));
    }
    images
        .iter()
        .map(|image| match image.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            _ => Err(fail::usage(format!(
                "--disk {}: {}",
                image.display(),
                fail::why_no_file(image)
            ))),
        })
        .collect()
}

fn parse_until(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| {
        // The error is drawn over several lines; the last says what is wrong.
        let text_of_error = error.to_string();
        let reason = text_of_error.lines().last().unwrap_or_default();
        fail::usage(format!(
            "--until {text}: is no regular expression: {}",
            reason.trim_start_matches("error: ")
        ))
    })
}

fn create_log(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| {
        fail::usage(format!(
            "--log {}: cannot be written: {error}",
            path.display()
        ))
    })
}

/// Refuses what can be known to be wrong without building anything.
fn check_what(what: &WhatArgs) -> Result<()> {
    for module in &what.module {
        guests::parse_module(module)?;
    }
    if Path::new(&what.guest).is_file() {
        kernel::read(Path::new(&what.guest))?;
    }
    Ok(())
}

/// The folder of one run: the one asked for, or one that goes away with it.
struct RunFolder {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl RunFolder {
    fn new(keep: Option<&Path>) -> Result<Self> {
        if let Some(path) = keep {
            fs::create_dir_all(path)
                .and_then(|()| path.canonicalize())
                .map(|path| Self {
                    path,
                    _temporary: None,
                })
                .map_err(|error| {
                    fail::usage(format!(
                        "--keep {}: cannot be made: {error}",
                        path.display()
                    ))
                })
        } else {
            let temporary = tempfile::Builder::new()
                .prefix("umbra-run-")
                .tempdir()
                .context("cannot make a temporary folder")?;
            Ok(Self {
                path: temporary.path().to_path_buf(),
                _temporary: Some(temporary),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ending: Ending, verdict: Verdict) -> u8 {
        match conclude(ending, 5, |_| verdict) {
            Ok(()) => fail::OK,
            Err(error) => error.downcast_ref::<Fail>().unwrap().status,
        }
    }

    #[test]
    fn each_ending_has_its_exit_status() {
        let off = || Verdict::SwitchedOff;
        let crash = || Verdict::Crashed("x".into());
        assert_eq!(status(Ending::Exited(Some(1)), off()), 0);
        assert_eq!(status(Ending::Until, crash()), 0);
        assert_eq!(status(Ending::TimedOut, off()), 3);
        assert_eq!(status(Ending::Exited(Some(0)), Verdict::OutOfTicks), 3);
        assert_eq!(status(Ending::Reset, off()), 4);
        assert_eq!(status(Ending::Exited(Some(0)), crash()), 4);
        assert_eq!(
            status(Ending::LastWords("umbra: fatal: x".into()), off()),
            4
        );
        let bad = "umbra: cannot start: option `x` is unknown";
        assert_eq!(status(Ending::LastWords(bad.into()), off()), 2);
    }

    #[test]
    fn a_bad_regular_expression_is_refused_in_one_line() {
        let line = parse_until("a(b").unwrap_err().to_string();
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.contains("a(b") && line.contains("unclosed group"),
            "{line}"
        );
    }
}

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
use crate::guests::{self, Guest, Module};
use crate::images::Image;
use crate::iso::Starts;
use crate::kernel::{self, Kind};
use crate::machine::{Firmware, MAX_DISKS, MAX_MEM_MB, MIN_MEM_MB, Machine, Target, Verdict, mhz};
use crate::qemu::Qemu;
use crate::ui::{self, Step};
use crate::{disk, iso, packages, serial};

/// A guest with its options, ready to be put on a CD image.
struct Prepared {
    guest: Guest,
    kind: Kind,
    kernel: Vec<u8>,
    umbra: Option<PathBuf>,
    depth: u32,
    umbra_cmdline: String,
}

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
    let what = args.what.with_trace(args.trace.as_deref())?;
    check_what(&what)?;
    let target: Box<dyn Target> = match args.on {
        On::Bochs => Box::new(Bochs::get(args.firmware)?),
        On::Qemu => Box::new(Qemu::get()?),
        On::Tcg => Box::new(Qemu::emulator(args.iommu.as_deref())?),
    };
    target.check(&machine)?;
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
        let what = WhatArgs {
            native: true,
            ..what.clone()
        };
        write_disk(
            &prepare(&what, Some(args.on))?,
            starts,
            &folder.path,
            &installed,
        )?;
        machine.disks.push(installed);
    }
    let prepared = match args.boot {
        BootFrom::Cd => Some(prepare(&what, Some(args.on))?),
        BootFrom::Disk => prepare_disk(&what, &machine)?,
    };
    match &prepared {
        Some(prepared) => write_image(prepared, starts, &folder.path, &image)?,
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
    let ending = console::follow(&mut child, &serial, watch, print_line)?;
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
    write_image(&prepared, Starts::Any, &folder.path, &args.output)
}

/// `./x disk`.
///
/// # Errors
/// A usage error, or what went wrong while building.
pub fn disk(args: &ImageArgs) -> Result<()> {
    let (prepared, folder) = prepare_image(args)?;
    write_disk(&prepared, Starts::Any, &folder.path, &args.output)
}

/// What `./x iso` and `./x disk` put on their images.
fn prepare_image(args: &ImageArgs) -> Result<(Prepared, RunFolder)> {
    check_what(&args.what)?;
    let parent = args.output.parent().unwrap_or(Path::new(""));
    if !parent.as_os_str().is_empty() && !parent.is_dir() {
        return Err(fail::usage(format!(
            "--output {}: there is no folder {}",
            args.output.display(),
            parent.display()
        )));
    }
    let prepared = prepare(&args.what, None)?;
    Ok((prepared, RunFolder::new(None)?))
}

/// Prints one line of the serial console.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    // Where nobody reads any more (`./x run | head`), the run goes on to its
    // own end, and its status still tells how it went.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

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

/// The machine asked for, where Umbra can run on one of its size.
fn machine(args: &RunArgs) -> Result<Machine> {
    if !(MIN_MEM_MB..=MAX_MEM_MB).contains(&args.mem) {
        return Err(fail::usage(format!(
            "--mem {}: the machine can have {MIN_MEM_MB} to {MAX_MEM_MB} MB of memory",
            args.mem
        )));
    }
    Ok(Machine {
        cpus: args.cpus,
        mem_mb: args.mem,
        cpu_model: args.cpu_model.clone(),
        mhz: mhz(guests::is_recipe(&args.what.guest), args.what.depth),
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
                "--disk {}: there is no such file",
                image.display()
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

/// Builds or assembles everything that goes on the CD image, for the target
/// `on` where that is known.
fn prepare(what: &WhatArgs, on: Option<On>) -> Result<Prepared> {
    let is_alone = what.native || guests::runs_without_umbra(&what.guest);
    let depth = if is_alone { 0 } else { what.depth };
    let mut guest = guests::find(&what.guest)?;
    let (kind, kernel) = kernel::read(&guest.kernel)?;
    // What the person says comes last, since a later word wins in Linux.
    let khz = mhz(guests::is_recipe(&what.guest), depth) * 1000;
    let on_bochs =
        (on == Some(On::Bochs)).then(|| guest.cmdline_on_bochs.replace("{khz}", &khz.to_string()));
    for words in on_bochs.iter().chain(&what.append) {
        guest.cmdline = format!("{} {words}", guest.cmdline).trim().to_owned();
    }
    for module in &what.module {
        guest.modules.push(guests::parse_module(module)?);
    }
    let umbra = (depth > 0).then(|| Image::Umbra.build()).transpose()?;
    Ok(Prepared {
        guest,
        kind,
        kernel,
        umbra,
        depth,
        umbra_cmdline: what.umbra.clone().unwrap_or_default(),
    })
}

/// Umbra below what the first disk's boot sector loads; nothing where the machine
/// starts from the disk by itself.
fn prepare_disk(what: &WhatArgs, machine: &Machine) -> Result<Option<Prepared>> {
    if what.native {
        return Ok(None);
    }
    if machine.firmware == Firmware::Uefi {
        return Err(fail::usage(
            "--boot disk: with --firmware uefi only the bare machine (--native) starts from it",
        ));
    }
    let Some(first) = machine.disks.first() else {
        return Ok(None);
    };
    let sector = disk::boot_sector(first)?;
    Ok(Some(Prepared {
        guest: Guest {
            name: "disk".to_owned(),
            kernel: first.clone(),
            cmdline: "drive=0x80".to_owned(),
            cmdline_on_bochs: String::new(),
            modules: Vec::new(),
        },
        kind: Kind::BootSector,
        kernel: sector,
        umbra: Some(Image::Umbra.build()?),
        depth: what.depth,
        umbra_cmdline: what.umbra.clone().unwrap_or_default(),
    }))
}

/// Writes the CD image, with its parts below `folder`.
fn write_image(prepared: &Prepared, starts: Starts, folder: &Path, image: &Path) -> Result<()> {
    packages::need(match starts {
        Starts::Bios => packages::FOR_IMAGES,
        Starts::Uefi { .. } | Starts::Any => packages::FOR_UEFI_IMAGES,
    })?;
    let step = Step::start_quietly("making the CD image");
    let work = folder.join("cd");
    fs::create_dir_all(&work)?;
    with_contents(prepared, starts, folder, |contents| {
        iso::write(contents, &work, image)
    })?;
    // The image holds it all; the parts can be large.
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

/// Writes a disk image, with its parts below `folder`.
fn write_disk(prepared: &Prepared, starts: Starts, folder: &Path, image: &Path) -> Result<()> {
    packages::need(packages::FOR_UEFI_IMAGES)?;
    let step = Step::start_quietly("making the disk image");
    let work = folder.join("disk");
    fs::create_dir_all(&work)?;
    with_contents(prepared, starts, folder, |contents| {
        iso::fill(contents, &work)
    })?;
    disk::write(&work, folder, image)?;
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

/// Calls `write` with all that the image of `prepared` holds.
fn with_contents(
    prepared: &Prepared,
    starts: Starts,
    folder: &Path,
    write: impl FnOnce(&iso::Contents<'_>) -> Result<()>,
) -> Result<()> {
    let modules = match prepared.kind {
        Kind::Linux => one_initramfs(&prepared.guest.modules, folder)?,
        Kind::Multiboot1 | Kind::Multiboot2 => prepared.guest.modules.clone(),
        Kind::BootSector if prepared.guest.modules.is_empty() => Vec::new(),
        Kind::BootSector => return Err(fail::usage("a boot sector takes no --module")),
    };
    write(&iso::Contents {
        starts,
        depth: prepared.depth,
        umbra: prepared.umbra.as_deref(),
        umbra_cmdline: &prepared.umbra_cmdline,
        kind: prepared.kind,
        kernel: &prepared.kernel,
        cmdline: &prepared.guest.cmdline,
        modules: &modules,
    })
}

/// Linux takes a single initramfs, which may be several archives one after
/// another, each on a 4-byte boundary.
fn one_initramfs(modules: &[Module], folder: &Path) -> Result<Vec<Module>> {
    if modules.len() < 2 {
        return Ok(modules.to_vec());
    }
    let path = folder.join("initramfs");
    let mut all = File::create(&path)?;
    for module in modules {
        let mut bytes = fs::read(&module.path)
            .with_context(|| format!("cannot read {}", module.path.display()))?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        all.write_all(&bytes)?;
    }
    Ok(vec![Module {
        path,
        args: String::new(),
    }])
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

    #[test]
    fn several_archives_become_one_initramfs_on_4_byte_boundaries() {
        let dir = tempfile::tempdir().unwrap();
        let modules: Vec<Module> = ["abcde", "fg"]
            .iter()
            .map(|text| {
                let path = dir.path().join(text);
                fs::write(&path, text).unwrap();
                Module {
                    path,
                    args: String::new(),
                }
            })
            .collect();
        let one = one_initramfs(&modules, dir.path()).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(fs::read(&one[0].path).unwrap(), b"abcde\0\0\0fg\0\0");
        assert_eq!(
            one_initramfs(&modules[..1], dir.path()).unwrap(),
            modules[..1]
        );
    }
}

//! The Debian packages that have to be installed in the system: tools to
//! build with and to make CD images with. Everything else lives in the cache.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd;
use crate::ui::Step;

/// What shows that a package is there.
enum Sign {
    Program(&'static str),
    File(&'static str),
}

/// Sign and package, for everything that `./x` may need.
const KNOWN: &[(Sign, &str)] = &[
    (Sign::Program("grub-mkrescue"), "grub-common"),
    (Sign::File(GRUB_SIGN), "grub-pc-bin"),
    (Sign::Program("xorriso"), "xorriso"),
    (Sign::Program("mformat"), "mtools"),
    (Sign::Program("objcopy"), "binutils"),
    (Sign::Program("c++"), "g++"),
    (Sign::Program("make"), "make"),
    (Sign::Program("patch"), "patch"),
    (Sign::Program("tar"), "tar"),
    (Sign::Program("xz"), "xz-utils"),
    (Sign::Program("cpio"), "cpio"),
];

/// Any file of GRUB for BIOS machines will do.
const GRUB_SIGN: &str = "/usr/lib/grub/i386-pc/multiboot2.mod";

/// What making a CD image takes.
pub const FOR_IMAGES: &[&str] = &["grub-mkrescue", GRUB_SIGN, "xorriso", "mformat"];

/// Everything, for `./x setup`.
pub const ALL: &[&str] = &[
    "grub-mkrescue",
    GRUB_SIGN,
    "xorriso",
    "mformat",
    "objcopy",
    "c++",
    "make",
    "patch",
    "tar",
    "xz",
    "cpio",
];

/// Sees to it that the programs and files `signs` are there, by installing
/// with apt the packages that hold those that are not.
///
/// # Errors
/// Something is missing and cannot be installed; the message names it.
pub fn need(signs: &[&str]) -> Result<()> {
    let missing = missing(signs);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if cmd::which("apt-get").is_none() {
        bail!("this machine lacks {list} and has no apt-get: install them by hand");
    }
    let step = Step::start(format!("installing Debian packages: {list}"));
    // Lists that were never fetched, or that name versions which are gone, are
    // the ordinary reasons why an installation fails: fetch them and try again.
    if install(&missing).is_err() {
        let update = as_root(&["apt-get", "update", "-q"])?;
        run_quietly(update)
            .and_then(|()| install(&missing))
            .map_err(|error| {
                anyhow::anyhow!("cannot install {list}: {error} (by hand: apt-get install {list})")
            })?;
    }
    let still: Vec<_> = self::missing(signs);
    if !still.is_empty() {
        bail!(
            "apt installed {list}, but {} is still not there",
            still.join(" ")
        );
    }
    step.done();
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    let mut words = vec![
        "apt-get",
        "install",
        "-q",
        "-y",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=300",
    ];
    words.extend(packages);
    run_quietly(as_root(&words)?)
}

/// Runs `command` and gives the last line of what it printed as the error.
fn run_quietly(mut command: Command) -> Result<()> {
    let out = command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .output()?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no reason given");
    bail!("{last}")
}

/// The command `words` with root's rights: as it is for root, through sudo
/// for anyone else.
fn as_root(words: &[&str]) -> Result<Command> {
    let is_root = cmd::output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut words = words.iter();
    let program = if is_root {
        words.next().copied().unwrap_or("true")
    } else if cmd::which("sudo").is_some() {
        "sudo"
    } else {
        bail!("that takes root's rights, and there is no sudo")
    };
    let mut command = Command::new(program);
    command.args(words);
    Ok(command)
}

/// The packages that hold those of `signs` that are not there.
fn missing(signs: &[&str]) -> Vec<&'static str> {
    KNOWN
        .iter()
        .filter(|(sign, _)| match sign {
            Sign::Program(name) => signs.contains(name) && cmd::which(name).is_none(),
            Sign::File(path) => signs.contains(path) && !Path::new(path).exists(),
        })
        .map(|(_, package)| *package)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_has_a_package() {
        for sign in ALL.iter().chain(FOR_IMAGES) {
            assert!(
                KNOWN.iter().any(|(known, _)| match known {
                    Sign::Program(name) | Sign::File(name) => name == sign,
                }),
                "{sign}"
            );
        }
        assert!(GRUB_SIGN.starts_with(crate::iso::GRUB_FILES));
    }
}

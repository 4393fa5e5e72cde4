//! The Debian packages that have to be installed in the system: tools to
//! build with and to make CD images with. Everything else lives in the cache.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::ui::Step;
use crate::{cmd, ui};

/// What shows that a package is there.
enum Sign {
    Program(&'static str),
    File(&'static str),
}

/// Sign and package, for everything that `./x` may need.
const KNOWN: &[(Sign, &str)] = &[
    (Sign::Program("grub-mkrescue"), "grub-common"),
    (Sign::File(GRUB_SIGN), "grub-pc-bin"),
    (Sign::File(GRUB_UEFI_SIGN), "grub-efi-amd64-bin"),
    (Sign::Program("xorriso"), "xorriso"),
    (Sign::Program("mformat"), "mtools"),
    (Sign::Program("objcopy"), "binutils"),
    (Sign::Program("c++"), "g++"),
    (Sign::Program("make"), "make"),
    (Sign::Program("patch"), "patch"),
    (Sign::Program("tar"), "tar"),
    (Sign::Program("xz"), "xz-utils"),
    (Sign::Program("cpio"), "cpio"),
    (Sign::Program(QEMU), "qemu-system-x86"),
];

/// QEMU for machines like a PC.
pub const QEMU: &str = "qemu-system-x86_64";

/// Any file of GRUB for BIOS machines will do.
const GRUB_SIGN: &str = "/usr/lib/grub/i386-pc/multiboot2.mod";

/// The same of GRUB for UEFI machines.
const GRUB_UEFI_SIGN: &str = "/usr/lib/grub/x86_64-efi/multiboot2.mod";

/// What making a CD image for BIOS machines takes.
pub const FOR_IMAGES: &[&str] = &["grub-mkrescue", GRUB_SIGN, "xorriso", "mformat"];

/// What making a CD image for UEFI machines, or for both, takes.
pub const FOR_UEFI_IMAGES: &[&str] = &[
    "grub-mkrescue",
    GRUB_SIGN,
    GRUB_UEFI_SIGN,
    "xorriso",
    "mformat",
];

/// Everything, for `./x setup`.
pub const ALL: &[&str] = &[
    "grub-mkrescue",
    GRUB_SIGN,
    GRUB_UEFI_SIGN,
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
    let by_hand = format!("by hand: apt-get install {list}");
    let Some(rights) = Rights::have()? else {
        bail!(
            "this machine lacks {list}; installing takes root's rights, and there is no sudo \
             ({by_hand})"
        );
    };
    let step = match rights {
        Rights::Root => Step::start(format!("installing Debian packages: {list}")),
        // A spinner would draw over the question for the password.
        Rights::Sudo => {
            ui::note(format!("installing Debian packages with sudo: {list}"));
            Step::start_silently()
        }
    };
    // Lists that were never fetched, or that name versions which are gone, are
    // the ordinary reasons why an installation fails: fetch them and try again.
    if install(rights, &missing).is_err() {
        apt_get(rights, &["update", "-q"])
            .and_then(|()| install(rights, &missing))
            .map_err(|error| anyhow::anyhow!("cannot install {list}: {error} ({by_hand})"))?;
    }
    let still = self::missing(signs);
    if !still.is_empty() {
        bail!(
            "apt installed {list}, but {} is still not there",
            still.join(" ")
        );
    }
    step.done();
    Ok(())
}

/// Where the rights to install packages come from.
#[derive(Clone, Copy)]
enum Rights {
    Root,
    Sudo,
}

impl Rights {
    /// The rights that this user has, if any.
    fn have() -> Result<Option<Self>> {
        let is_root = cmd::output(Command::new("id").arg("-u"))?.trim() == "0";
        Ok(if is_root {
            Some(Self::Root)
        } else {
            cmd::which("sudo").map(|_| Self::Sudo)
        })
    }
}

fn install(rights: Rights, packages: &[&str]) -> Result<()> {
    let mut words = vec![
        "install",
        "-q",
        "-y",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=300",
    ];
    words.extend(packages);
    apt_get(rights, &words)
}

/// Runs `apt-get` and gives the last line of what it printed as the error.
fn apt_get(rights: Rights, words: &[&str]) -> Result<()> {
    let mut command = match rights {
        Rights::Root => Command::new("env"),
        Rights::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.arg("env");
            sudo
        }
    };
    let out = command
        .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get"])
        .args(words)
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
        for sign in ALL.iter().chain(FOR_IMAGES).chain(FOR_UEFI_IMAGES) {
            assert!(
                KNOWN.iter().any(|(known, _)| match known {
                    Sign::Program(name) | Sign::File(name) => name == sign,
                }),
                "{sign}"
            );
        }
        assert!(GRUB_SIGN.starts_with(crate::iso::GRUB_BIOS));
        assert!(GRUB_UEFI_SIGN.starts_with(crate::iso::GRUB_UEFI));
    }
}

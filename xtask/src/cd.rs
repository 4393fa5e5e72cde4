//! What goes on the CD or disk image of a run: a guest with its options, and Umbra
//! below it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::{On, WhatArgs};
use crate::dmar::Dmar;
use crate::guests::{self, Guest, Module};
use crate::images::{self, Hypapp, Image};
use crate::iso::Starts;
use crate::kernel::{self, Kind};
use crate::machine::{Firmware, Machine, mhz};
use crate::ui::Step;
use crate::{disk, fail, iso, packages};

/// A guest with its options, ready to be put on a CD image.
pub struct Prepared {
    guest: Guest,
    kind: Kind,
    kernel: Vec<u8>,
    umbra: Option<PathBuf>,
    depth: u32,
    umbra_cmdline: String,
    dmar: Option<Dmar>,
}

impl Prepared {
    /// A guest alone, on the bare machine.
    ///
    /// # Errors
    /// Its kernel cannot be read.
    pub fn bare(guest: Guest) -> Result<Self> {
        let (kind, kernel) = kernel::read(&guest.kernel)?;
        Ok(Self {
            guest,
            kind,
            kernel,
            umbra: None,
            depth: 0,
            umbra_cmdline: String::new(),
            dmar: None,
        })
    }
}

/// How many hypervisors stand below the guest.
pub fn hypervisors(depth: u32, on: Option<On>) -> u32 {
    depth + u32::from(on == Some(On::Kvm))
}

/// The image of Umbra for a run.
fn umbra_for(what: &WhatArgs) -> Image {
    if what.lacking.is_some() || what.dmar.and_then(Dmar::fake_unit).is_some() {
        Image::UmbraForTests
    } else if what.counts_accesses {
        Image::UmbraWithAccesses
    } else {
        Hypapp::image(what.hypapp)
    }
}

/// Builds or assembles everything that goes on the CD image, for the target
/// `on` where that is known.
///
/// # Errors
/// What went wrong while building.
pub fn prepare(what: &WhatArgs, on: Option<On>) -> Result<Prepared> {
    let is_alone = what.native || guests::runs_without_umbra(&what.guest);
    let depth = if is_alone { 0 } else { what.depth };
    let mut guest = guests::find(&what.guest, what.kernel)?;
    let (kind, kernel) = kernel::read(&guest.kernel)?;
    // What the person says comes last, since a later word wins in Linux.
    let khz = mhz(guests::is_recipe(&what.guest), hypervisors(depth, on)) * 1000;
    // KVM's guests have Bochs's clock too.
    let on_bochs = matches!(on, Some(On::Bochs | On::Kvm))
        .then(|| guest.cmdline_on_bochs.replace("{khz}", &khz.to_string()));
    for words in on_bochs.iter().chain(&what.append) {
        guest.cmdline = format!("{} {words}", guest.cmdline).trim().to_owned();
    }
    for module in &what.module {
        guest.modules.push(guests::parse_module(module)?);
    }
    let umbra = (depth > 0).then(|| umbra_for(what).build()).transpose()?;
    let lacks = what.lacking.iter().map(|lack| format!(" lacks={lack}"));
    let fake = what.dmar.and_then(Dmar::fake_unit).map(str::to_owned);
    Ok(Prepared {
        guest,
        kind,
        kernel,
        umbra,
        depth,
        umbra_cmdline: what
            .umbra
            .iter()
            .cloned()
            .chain(lacks)
            .chain(fake)
            .collect(),
        dmar: what.dmar,
    })
}

/// Installs the guest on the disk `image`; for UEFI, Umbra below it as well.
///
/// # Errors
/// What went wrong while building.
pub fn install(what: &WhatArgs, on: On, starts: Starts, folder: &Path, image: &Path) -> Result<()> {
    let bare = WhatArgs {
        native: true,
        ..what.clone()
    };
    let guest = prepare(&bare, Some(on))?;
    match starts {
        Starts::Uefi { acpi_cpus } if !what.native => {
            let umbra = images::umbra_efi(&umbra_for(what).build()?)?;
            let below = disk::Below {
                umbra: &umbra,
                depth: what.depth,
                options: what.umbra.as_deref().unwrap_or_default(),
                acpi_cpus,
            };
            let starts = Starts::Uefi { acpi_cpus: None };
            write_disk(&guest, starts, Some(&below), folder, image)
        }
        _ => write_disk(&guest, starts, None, folder, image),
    }
}

/// Umbra on a CD, below what the first disk's boot sector loads; nothing where
/// the machine starts from the disk by itself. `is_given`: the disk is a
/// person's own.
///
/// # Errors
/// A usage error for a disk that Umbra cannot start from; else what went wrong while building.
pub fn prepare_disk(
    what: &WhatArgs,
    is_given: bool,
    machine: &Machine,
) -> Result<Option<Prepared>> {
    if machine.firmware == Firmware::Uefi && !what.native && is_given {
        return Err(fail::usage(
            "--boot disk --disk: with --firmware uefi Umbra has to be on the disk; say --native",
        ));
    }
    if what.native || machine.firmware == Firmware::Uefi {
        return Ok(None);
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
        umbra: Some(umbra_for(what).build()?),
        depth: what.depth,
        umbra_cmdline: what.umbra.clone().unwrap_or_default(),
        dmar: what.dmar,
    }))
}

/// Writes the CD image, with its parts below `folder`.
///
/// # Errors
/// A usage error for modules that the guest cannot take; else what went wrong.
pub fn write_image(prepared: &Prepared, starts: Starts, folder: &Path, image: &Path) -> Result<()> {
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
///
/// # Errors
/// Those of [`write_image`].
pub fn write_disk(
    prepared: &Prepared,
    starts: Starts,
    below: Option<&disk::Below<'_>>,
    folder: &Path,
    image: &Path,
) -> Result<()> {
    packages::need(packages::FOR_UEFI_IMAGES)?;
    let step = Step::start_quietly("making the disk image");
    let work = folder.join("disk");
    fs::create_dir_all(&work)?;
    with_contents(prepared, starts, folder, |contents| {
        iso::fill(contents, &work)
    })?;
    if let Some(umbra) = &prepared.umbra {
        disk::put_readme(&work, &images::umbra_efi(umbra)?)?;
    }
    if let Some(below) = below {
        disk::put_below(below, &work)?;
    }
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
        dmar: prepared.dmar,
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! A disk image that a machine starts from: one FAT partition with GRUB for both
//! firmwares, and what `boot` boots.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::iso::{GRUB_BIOS, GRUB_UEFI};
use crate::serial::FIRMWARE_IS_DONE;
use crate::{acpi, cmd};

const SECTOR_BYTES: u64 = 512;
/// Where the guest's GRUB has its configuration.
const GUEST_GRUB: &str = "/boot/grub";
/// Where the partition begins, in sectors; GRUB's image lies in front of it.
const PARTITION_START: u64 = 2048;
/// The type of an EFI system partition in a master boot record.
const TYPE_EFI_SYSTEM: u8 = 0xef;
/// The least that the partition has, and what it has more than its files.
const MIN_PARTITION_BYTES: u64 = 40 << 20;
const SPARE_BYTES: u64 = 8 << 20;
/// What the image says of itself.
const README: &str = "\
This stick starts a guest on the hypervisor Umbra, by BIOS and by UEFI.

To put the system that is installed on this machine on Umbra:

UEFI  Copy the folder EFI\\umbra to the machine's EFI system partition, name
      the system's boot loader in EFI\\umbra\\umbra.conf, such as
          next = \\EFI\\debian\\grubx64.efi
      and start EFI\\umbra\\umbra.efi: from the UEFI shell, by a boot entry,
      or from GRUB with `chainloader /EFI/umbra/umbra.efi`.
BIOS  At GRUB's prompt (c in its menu), with this stick as hd0:
          multiboot2 /boot/umbra.elf
          module2 --nounzip (hd1)+1 drive=0x81
          boot

Umbra prints on the first serial port, 115200 8n1. Secure Boot has to be off,
or umbra.efi signed with a key that the firmware knows.
";
/// What GRUB needs to get to its configuration, and what that uses.
const MODULES: &[&str] = &[
    "normal",
    "part_msdos",
    "fat",
    "configfile",
    "multiboot",
    "multiboot2",
    "linux",
    "chain",
    "echo",
];

/// Writes the disk image `target` with the folder `work` as the files of its
/// partition; GRUB reads `boot/grub/grub.cfg`. For UEFI, GRUB is what the
/// firmware starts, unless `work` has something else in its place.
///
/// # Errors
/// A file that cannot be read or written, or a tool that fails.
pub fn write(work: &Path, folder: &Path, target: &Path) -> Result<()> {
    let efi = work.join("EFI/BOOT/BOOTX64.EFI");
    if !efi.exists() {
        grub_for_uefi(&efi, GUEST_GRUB)?;
    }
    let core = folder.join("core.img");
    mkimage(
        "i386-pc",
        GRUB_BIOS,
        "(,msdos1)/boot/grub",
        &["biosdisk"],
        &core,
    )?;
    let core = fs::read(&core)?;
    if core.len() as u64 > (PARTITION_START - 1) * SECTOR_BYTES {
        bail!("GRUB's image does not fit in front of the partition");
    }

    let bytes = (size_of(work)? + SPARE_BYTES).max(MIN_PARTITION_BYTES);
    let sectors = bytes.div_ceil(SECTOR_BYTES);
    let partition = folder.join("partition.img");
    let _ = fs::remove_file(&partition);
    cmd::run(
        Command::new("mformat")
            .arg("-C")
            .arg("-i")
            .arg(&partition)
            .args(["-h", "16", "-s", "63", "-H"])
            .arg(PARTITION_START.to_string())
            .arg("-T")
            .arg(sectors.to_string())
            .arg("::"),
    )
    .context("cannot make the disk's file system")?;
    let mut copy = Command::new("mcopy");
    copy.arg("-s").arg("-i").arg(&partition);
    for entry in fs::read_dir(work)? {
        copy.arg(entry?.path());
    }
    cmd::run(copy.arg("::/")).context("cannot fill the disk's file system")?;

    let boot_img = fs::read(Path::new(GRUB_BIOS).join("boot.img"))
        .context("cannot read GRUB's boot sector")?;
    let mut out =
        File::create(target).with_context(|| format!("cannot write {}", target.display()))?;
    out.write_all(&boot_record(&boot_img, sectors)?)?;
    out.write_all(&core)?;
    out.seek(SeekFrom::Start(PARTITION_START * SECTOR_BYTES))?;
    std::io::copy(&mut File::open(&partition)?, &mut out)?;
    out.set_len((PARTITION_START + sectors) * SECTOR_BYTES)?;
    fs::remove_file(&partition)?;
    Ok(())
}

/// GRUB as an EFI application that reads `grub.cfg` in the folder `prefix` of the
/// file system it comes from.
fn grub_for_uefi(target: &Path, prefix: &str) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    mkimage("x86_64-efi", GRUB_UEFI, prefix, &["acpi"], target)
}

/// For a person who has the image on a stick: Umbra as an EFI application, and
/// what to do with it.
///
/// # Errors
/// A file that cannot be written.
pub fn put_readme(work: &Path, umbra_efi: &Path) -> Result<()> {
    let folder = work.join("EFI/umbra");
    fs::create_dir_all(&folder)?;
    fs::copy(umbra_efi, folder.join("umbra.efi"))?;
    fs::write(
        folder.join("umbra.conf"),
        "next = \\EFI\\BOOT\\BOOTX64.EFI\r\n",
    )?;
    fs::write(work.join("README.TXT"), README.replace('\n', "\r\n"))?;
    Ok(())
}

/// Umbra as an EFI application below what a disk starts by UEFI.
pub struct Below<'a> {
    /// `umbra.efi`.
    pub umbra: &'a Path,
    /// How many of it, one on another.
    pub depth: u32,
    /// The command line of each.
    pub options: &'a str,
    /// For firmware without ACPI tables: those of Bochs's machine with this many
    /// CPUs.
    pub acpi_cpus: Option<u32>,
}

/// Puts Umbra below the GRUB that would start from `work`: the firmware's own
/// choice is a first GRUB, which chain-loads it.
///
/// # Errors
/// A file that cannot be written, or a tool that fails.
pub fn put_below(below: &Below<'_>, work: &Path) -> Result<()> {
    grub_for_uefi(&work.join("EFI/guest/grubx64.efi"), GUEST_GRUB)?;
    for level in 1..=below.depth {
        let folder = work.join(format!("EFI/umbra{level}"));
        fs::create_dir_all(&folder)?;
        fs::copy(below.umbra, folder.join("umbra.efi"))?;
        let next = if level < below.depth {
            format!("\\EFI\\umbra{}\\umbra.efi", level + 1)
        } else {
            "\\EFI\\guest\\grubx64.efi".to_owned()
        };
        fs::write(
            folder.join("umbra.conf"),
            format!("next = {next}\noptions = {}\n", below.options),
        )?;
    }
    grub_for_uefi(&work.join("EFI/BOOT/BOOTX64.EFI"), "/EFI/umbra1")?;
    let mut lines = Vec::new();
    if let Some(cpus) = below.acpi_cpus {
        let mut line = "acpi".to_owned();
        for (name, table) in acpi::tables(cpus) {
            fs::write(work.join("EFI/umbra1").join(name), table)?;
            line.push_str(&format!(" /EFI/umbra1/{name}"));
        }
        lines.push(line);
    }
    lines.push(format!("echo \"{FIRMWARE_IS_DONE}\""));
    lines.push("chainloader /EFI/umbra1/umbra.efi".to_owned());
    lines.push("boot\n".to_owned());
    fs::write(work.join("EFI/umbra1/grub.cfg"), lines.join("\n"))?;
    Ok(())
}

fn mkimage(format: &str, files: &str, prefix: &str, more: &[&str], target: &Path) -> Result<()> {
    cmd::run(
        Command::new("grub-mkimage")
            .args(["-O", format, "-d", files, "-p", prefix, "-o"])
            .arg(target)
            .args(MODULES)
            .args(more),
    )
    .context("cannot make GRUB's image")
}

/// The first sector: GRUB's code, which loads what follows, and one partition.
fn boot_record(boot_img: &[u8], sectors: u64) -> Result<Vec<u8>> {
    let mut record = boot_img.to_vec();
    if record.len() as u64 != SECTOR_BYTES {
        bail!("GRUB's boot sector has {} bytes", record.len());
    }
    let entry = {
        let mut entry = [0u8; 16];
        entry[0] = 0x80; // active
        // Cylinders, heads and sectors: as far as they reach.
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = TYPE_EFI_SYSTEM;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&u32::try_from(PARTITION_START)?.to_le_bytes());
        entry[12..].copy_from_slice(&u32::try_from(sectors)?.to_le_bytes());
        entry
    };
    record[440..446].copy_from_slice(b"UMBR\0\0");
    record[446..510].fill(0);
    record[446..462].copy_from_slice(&entry);
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(record)
}

/// The first sector of a disk image.
///
/// # Errors
/// A usage error where the file is no image of a disk that a BIOS starts from.
pub fn boot_sector(image: &Path) -> Result<Vec<u8>> {
    let mut sector = vec![0; SECTOR_BYTES as usize];
    File::open(image)
        .and_then(|mut file| file.read_exact(&mut sector))
        .map_err(|error| {
            crate::fail::usage(format!(
                "--disk {}: cannot be read: {error}",
                image.display()
            ))
        })?;
    if sector.ends_with(&[0x55, 0xaa]) {
        Ok(sector)
    } else {
        Err(crate::fail::usage(format!(
            "--boot disk: {} has no boot sector",
            image.display()
        )))
    }
}

/// How many bytes the files below `folder` take in clusters of 4 KiB.
fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            4096 + size_of(&entry.path())?
        } else {
            entry.metadata()?.len().next_multiple_of(32 * 1024)
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_record_has_one_partition_and_grubs_code() {
        let record = boot_record(&[0xeb; 512], 81920).unwrap();
        assert_eq!(record.len(), 512);
        assert_eq!(record[..440], [0xeb; 440]);
        assert_eq!(record[446], 0x80);
        assert_eq!(record[450], 0xef);
        assert_eq!(record[454..458], 2048u32.to_le_bytes());
        assert_eq!(record[458..462], 81920u32.to_le_bytes());
        assert_eq!(record[462..510], [0; 48]);
        assert_eq!(record[510..], [0x55, 0xaa]);
        assert!(boot_record(&[0; 100], 1).is_err());
    }

    #[test]
    fn an_image_without_a_boot_sector_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(boot_sector(&path).is_err());
        fs::write(&path, [0; 512]).unwrap();
        assert!(
            boot_sector(&path)
                .unwrap_err()
                .to_string()
                .contains("no boot sector")
        );
        let mut sector = [0; 1024];
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&path, sector).unwrap();
        assert_eq!(boot_sector(&path).unwrap().len(), 512);
    }
}

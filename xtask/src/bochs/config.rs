//! The bochsrc of one run.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::debs;
use crate::machine::{Firmware, Machine};

/// The ROM images that Bochs needs (packages bochsbios and vgabios; ovmf where
/// the machine starts by UEFI).
pub struct Roms {
    firmware: PathBuf,
    vga: PathBuf,
}

impl Roms {
    /// The ROMs of the system, or else unpacked into the cache.
    ///
    /// # Errors
    /// They are not installed and cannot be downloaded.
    pub fn find(firmware: Firmware) -> Result<Self> {
        let bios = Self::find_bios()?;
        Ok(match firmware {
            Firmware::Bios => bios,
            Firmware::Uefi => Self {
                firmware: ovmf()?,
                ..bios
            },
        })
    }

    fn find_bios() -> Result<Self> {
        if let Some(roms) = Self::below(Path::new("/")) {
            return Ok(roms);
        }
        let root = debs::unpacked(&["bochsbios", "vgabios"], debs::Needs::Nothing)?;
        match Self::below(&root) {
            Some(roms) => Ok(roms),
            None => bail!(
                "the packages bochsbios and vgabios in {} lack the BIOS files",
                root.display()
            ),
        }
    }

    fn below(root: &Path) -> Option<Self> {
        // Which of the two packages holds which file has changed over time,
        // and so have links between them that would lead out of `root`.
        let find = |names: &[&str]| {
            ["usr/share/bochs", "usr/share/vgabios"]
                .iter()
                .flat_map(|dir| names.iter().map(move |name| root.join(dir).join(name)))
                .find(|file| file.is_file())
        };
        Some(Self {
            firmware: find(&["BIOS-bochs-latest"])?,
            vga: find(&["VGABIOS-lgpl-latest", "vgabios.bin"])?,
        })
    }
}

/// Debian's UEFI firmware for virtual machines, without Secure Boot.
///
/// # Errors
/// It is not installed and cannot be downloaded.
pub fn ovmf() -> Result<PathBuf> {
    let below = |root: &Path| {
        let file = root.join("usr/share/ovmf/OVMF.fd");
        file.is_file().then_some(file)
    };
    if let Some(file) = below(Path::new("/")) {
        return Ok(file);
    }
    let root = debs::unpacked(&["ovmf"], debs::Needs::Nothing)?;
    match below(&root) {
        Some(file) => Ok(file),
        None => bail!("the package ovmf in {} lacks OVMF.fd", root.display()),
    }
}

/// The most memory of a machine that Bochs holds at a time, in MiB. What a larger
/// machine uses beyond that is in a temporary file.
const MAX_HELD_MB: u32 = 2048;

/// The text of a bochsrc that boots the CD image `image` on `machine`, with
/// COM1, COM2 and so on going to the files `serials` and Bochs's messages to the
/// file `log`.
///
/// The clock is bound to the instruction count, so that a run repeats.
pub fn bochsrc(
    machine: &Machine,
    image: &Path,
    roms: &Roms,
    serials: &[PathBuf],
    log: &Path,
) -> String {
    let Machine {
        cpus,
        mem_mb,
        cpu_model,
        mhz,
        firmware,
        // Given on Bochs's command line.
        max_ticks: _,
        disks,
        starts_from_disk,
    } = machine;
    // How many instructions make a second of the machine's time, for which a
    // CPU advances its TSC by as many ticks.
    let ips = u64::from(*mhz) * 1_000_000;
    let mut lines = vec![
        format!(
            "cpu: model={cpu_model}, count={cpus}, ips={ips}, \
             reset_on_triple_fault=0, ignore_bad_msrs=1"
        ),
        format!(
            "memory: guest={mem_mb}, host={}",
            (*mem_mb).min(MAX_HELD_MB)
        ),
        format!("romimage: file={}", roms.firmware.display()),
        format!("vgaromimage: file={}", roms.vga.display()),
        "display_library: nogui".to_owned(),
        // 1 January 2000: 1 would be the computer's own time.
        "clock: sync=none, time0=946684800".to_owned(),
        "panic: action=fatal".to_owned(),
        "error: action=report".to_owned(),
        // Resets of the machine, and nothing else.
        "info: action=ignore, pc_system=report".to_owned(),
        "debug: action=ignore".to_owned(),
        format!("log: {}", log.display()),
    ];
    // The disks come first, so that the first is the BIOS's drive 80h.
    let places = ["ata0-master", "ata0-slave", "ata1-master", "ata1-slave"];
    for (index, disk) in disks.iter().enumerate() {
        lines.push(format!(
            "{}: type=disk, path={}, mode=volatile, journal={}, cylinders=0",
            places[index],
            disk.display(),
            log.with_file_name(format!("disk{index}.journal")).display()
        ));
    }
    if *starts_from_disk {
        lines.push("boot: disk".to_owned());
    } else {
        lines.push(format!(
            "{}: type=cdrom, path={}, status=inserted",
            places[disks.len()],
            image.display()
        ));
        lines.push("boot: cdrom".to_owned());
    }
    if disks.len() > 1 {
        lines.push("ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15".to_owned());
    }
    for (number, file) in (1..).zip(serials) {
        let file = file.display();
        lines.push(format!("com{number}: enabled=1, mode=file, dev={file}"));
    }
    if *firmware == Firmware::Uefi {
        // What OVMF knows.
        lines.push("pci: enabled=1, chipset=i440fx".to_owned());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_asked_for_is_the_one_configured() {
        let text = bochsrc(
            &Machine {
                cpus: 4,
                mem_mb: 512,
                cpu_model: "ryzen".into(),
                mhz: 100,
                firmware: Firmware::Uefi,
                max_ticks: None,
                disks: vec!["/d".into()],
                starts_from_disk: false,
            },
            Path::new("/i.iso"),
            &Roms {
                firmware: "/b".into(),
                vga: "/v".into(),
            },
            &["/s".into(), "/t".into()],
            Path::new("/l"),
        );
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has(
            "cpu: model=ryzen, count=4, ips=100000000, reset_on_triple_fault=0, \
             ignore_bad_msrs=1",
        );
        has("memory: guest=512, host=512");
        has("clock: sync=none, time0=946684800");
        has("romimage: file=/b");
        has("pci: enabled=1, chipset=i440fx");
        has("vgaromimage: file=/v");
        has("ata0-master: type=disk, path=/d, mode=volatile, journal=/disk0.journal, cylinders=0");
        has("ata0-slave: type=cdrom, path=/i.iso, status=inserted");
        has("com1: enabled=1, mode=file, dev=/s");
        has("com2: enabled=1, mode=file, dev=/t");
        has("info: action=ignore, pc_system=report");
        has("log: /l");
    }
}

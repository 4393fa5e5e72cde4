//! KVM without hardware for it: Debian with KVM and QEMU runs on Bochs, and the
//! machine that a guest gets is QEMU's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bochs::Bochs;
use crate::cd::{self, Prepared};
use crate::fail;
use crate::guests::l0;
use crate::iso::Starts;
use crate::machine::{Firmware, MAX_MEM_MB, Machine, ResetMark, Target, Verdict};
use crate::ticks::Ticks;

/// Where the system below tells how the machine ended.
const TOLD: &str = "l0.txt";
/// How the line begins in which it does.
const ENDED: &str = "L0: ended: ";
/// What QEMU calls the endings that a guest can bring about.
const SWITCHED_OFF: &str = "guest-shutdown";
const RESET: &str = "guest-reset";
/// What the system below takes for itself, beside the CD image, which is there
/// twice while it boots.
const OWN_MB: u32 = 640;

/// QEMU with KVM, on Debian, on Bochs.
pub struct Kvm {
    bochs: Bochs,
}

impl Kvm {
    /// The target. Bochs is made first if need be.
    ///
    /// # Errors
    /// Those of [`Bochs::get`].
    pub fn get() -> Result<Self> {
        Ok(Self {
            bochs: Bochs::get(Firmware::Bios)?,
        })
    }
}

/// The machine on which the system below runs, given the size of the CD image.
fn machine_below(machine: &Machine, image_bytes: u64) -> Machine {
    let image_mb = u32::try_from(image_bytes >> 20).unwrap_or(u32::MAX);
    Machine {
        mem_mb: image_mb
            .saturating_mul(2)
            .saturating_add(OWN_MB)
            .saturating_add(machine.mem_mb),
        firmware: Firmware::Bios,
        ..machine.clone()
    }
}

impl Target for Kvm {
    fn check(&self, machine: &Machine) -> Result<()> {
        if machine.firmware != Firmware::Bios {
            return Err(fail::usage(
                "--firmware uefi: with --on kvm the machine starts by a BIOS",
            ));
        }
        let most = MAX_MEM_MB - 2 * OWN_MB;
        if machine.mem_mb > most {
            return Err(fail::usage(format!(
                "--mem {}: with --on kvm the machine can have {most} MB at most",
                machine.mem_mb
            )));
        }
        self.bochs.check(machine)
    }

    fn command(&self, machine: &Machine, image: &Path, folder: &Path) -> Result<Command> {
        if !machine.disks.is_empty() {
            return Err(fail::usage(
                "--disk, --boot disk: with --on kvm the machine has a CD drive alone",
            ));
        }
        let size = fs::metadata(image)
            .with_context(|| format!("cannot read {}", image.display()))?
            .len();
        let below = machine_below(machine, size);
        let mut system = l0::assemble(image, folder)?;
        system.cmdline = format!(
            "{} {} vm_cpus={} vm_mem={}",
            system.cmdline,
            system
                .cmdline_on_bochs
                .replace("{khz}", &(machine.mhz * 1000).to_string()),
            machine.cpus,
            machine.mem_mb
        );
        let cd = folder.join("l0.iso");
        cd::write_image(&Prepared::bare(system)?, Starts::Bios, folder, &cd)?;
        self.bochs.command_with(
            &below,
            &cd,
            folder,
            &[folder.join(TOLD), self.serial(folder)],
        )
    }

    fn serial(&self, folder: &Path) -> PathBuf {
        self.bochs.serial(folder)
    }

    fn reset_mark(&self, folder: &Path) -> Option<ResetMark> {
        self.bochs.reset_mark(folder)
    }

    fn verdict(&self, folder: &Path, status: Option<i32>) -> Verdict {
        let told = fs::read(folder.join(TOLD)).unwrap_or_default();
        match ending(&String::from_utf8_lossy(&told)) {
            Some(verdict) => verdict,
            // The system below did not come to its end.
            None => match self.bochs.verdict(folder, status) {
                Verdict::SwitchedOff => Verdict::Crashed(
                    "the Debian with KVM switched itself off without a word".to_owned(),
                ),
                other => other,
            },
        }
    }

    fn ticks(&self, folder: &Path) -> Option<Ticks> {
        self.bochs.ticks(folder)
    }
}

/// The ending that the system below tells of.
fn ending(told: &str) -> Option<Verdict> {
    let ended = told.lines().rev().find_map(|line| {
        let (_, ended) = line.split_once(ENDED)?;
        Some(ended.trim())
    })?;
    Some(match ended {
        SWITCHED_OFF => Verdict::SwitchedOff,
        RESET => Verdict::Crashed("the guest reset the machine".to_owned()),
        other => Verdict::Crashed(format!("on KVM: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_below_tells_the_ending() {
        let told = |text: &str| ending(&format!("L0: x\r\nL0: ended: {text}\r\n"));
        assert_eq!(told("guest-shutdown"), Some(Verdict::SwitchedOff));
        for bad in ["guest-reset", "KVM stopped the machine", ""] {
            assert!(matches!(told(bad), Some(Verdict::Crashed(_))), "{bad}");
        }
        assert_eq!(ending("L0: QEMU: ended"), None);
    }

    #[test]
    fn the_machine_below_has_room_for_the_machine_and_the_image() {
        let machine = Machine {
            cpus: 2,
            mem_mb: 1024,
            cpu_model: "x".into(),
            mhz: 100,
            firmware: Firmware::Bios,
            max_ticks: None,
            disks: Vec::new(),
            starts_from_disk: false,
        };
        let below = machine_below(&machine, 100 << 20);
        assert_eq!(below.mem_mb, 1024 + 200 + OWN_MB);
        assert_eq!(below.cpus, 2);
    }
}

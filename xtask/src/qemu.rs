//! QEMU: with hardware KVM, on machines whose KVM offers nested VMX, or as an
//! emulator, whose CPU has no VMX and whose machine has an IOMMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bochs;
use crate::machine::{CPU_MODEL, Firmware, Machine, ResetMark, Target, Verdict};
use crate::packages::{self, QEMU as PROGRAM};
use crate::{cmd, fail};

const DEVICE: &str = "/dev/kvm";
const NESTED: &str = "/sys/module/kvm_intel/parameters/nested";

/// A device that ends QEMU at the first byte written to the port by which test
/// VMs switch Bochs off; that byte is the `S` of `Shutdown`.
const SWITCH: &str = "isa-debug-exit,iobase=0x8900,iosize=1";
/// The status with which the device ends QEMU for that byte.
const SWITCHED_OFF: i32 = (b'S' as i32) << 1 | 1;

/// QEMU as a machine to run on.
pub struct Qemu(Kind);

enum Kind {
    /// Hardware.
    Kvm,
    /// The emulator, with these options of its IOMMU.
    Tcg { iommu: String },
}

impl Qemu {
    /// QEMU, where this machine can run Umbra on it.
    ///
    /// # Errors
    /// A usage error that says what this machine lacks.
    pub fn get() -> Result<Self> {
        let nested = std::fs::read_to_string(NESTED).unwrap_or_default();
        if let Some(lack) = lack(Path::new(DEVICE).exists(), &nested) {
            return Err(fail::usage(format!(
                "--on qemu: this machine has no hardware KVM with nested VMX ({lack}); \
                 use --on bochs"
            )));
        }
        if cmd::which(PROGRAM).is_none() {
            return Err(fail::usage(format!(
                "--on qemu: {PROGRAM} is not installed (package qemu-system-x86)"
            )));
        }
        Ok(Self(Kind::Kvm))
    }

    /// QEMU's emulator, which a run installs where it is not. `iommu` are options
    /// of its IOMMU.
    ///
    /// # Errors
    /// A usage error: options that would say something of another device.
    pub fn emulator(iommu: Option<&str>) -> Result<Self> {
        let iommu = iommu.unwrap_or_default();
        let is_option = |c: char| c.is_ascii_alphanumeric() || "-=,_".contains(c);
        if !iommu.chars().all(is_option) {
            return Err(fail::usage(format!(
                "--iommu {iommu}: options look like aw-bits=48,caching-mode=on"
            )));
        }
        Ok(Self(Kind::Tcg {
            iommu: iommu.to_owned(),
        }))
    }

    fn on(&self) -> &'static str {
        match self.0 {
            Kind::Kvm => "--on qemu",
            Kind::Tcg { .. } => "--on tcg",
        }
    }
}

/// What the machine lacks, given whether it has the device and what the
/// parameter file says.
fn lack(has_device: bool, nested: &str) -> Option<String> {
    if !has_device {
        Some(format!("there is no {DEVICE}"))
    } else if !matches!(nested.trim(), "Y" | "1") {
        Some(format!("{NESTED} is not Y"))
    } else {
        None
    }
}

impl Target for Qemu {
    fn check(&self, machine: &Machine) -> Result<()> {
        if machine.cpu_model != CPU_MODEL {
            return Err(fail::usage(format!(
                "--cpu-model {}: with {} there is one CPU model",
                machine.cpu_model,
                self.on()
            )));
        }
        if machine.max_ticks.is_some() {
            return Err(fail::usage(
                "--ticks: only Bochs counts them; use --timeout",
            ));
        }
        Ok(())
    }

    fn command(&self, machine: &Machine, image: &Path, folder: &Path) -> Result<Command> {
        let mut command = Command::new(PROGRAM);
        match &self.0 {
            Kind::Kvm => command.args(["-machine", "pc,accel=kvm", "-cpu", "host"]),
            Kind::Tcg { iommu } => {
                packages::need(&[PROGRAM])?;
                command
                    .args([
                        "-machine",
                        "q35,accel=tcg,kernel-irqchip=split",
                        "-cpu",
                        "max",
                    ])
                    .arg("-device")
                    .arg(["intel-iommu", iommu].join(if iommu.is_empty() { "" } else { "," }))
                    .args(["-nic", "none", "-device", "edu", "-device", "e1000"])
            }
        };
        if machine.firmware == Firmware::Uefi {
            command.arg("-bios").arg(bochs::config::ovmf()?);
        }
        for disk in &machine.disks {
            command
                .args(["-snapshot", "-drive"])
                .arg(format!("format=raw,file={}", disk.display()));
        }
        command
            .args(["-smp", &machine.cpus.to_string()])
            .args(["-m", &machine.mem_mb.to_string()])
            .args(["-display", "none", "-no-reboot"])
            .args(["-boot", if machine.starts_from_disk { "c" } else { "d" }])
            .args(["-device", SWITCH])
            .arg("-serial")
            .arg(format!("file:{}", self.serial(folder).display()));
        if !machine.starts_from_disk {
            command.arg("-cdrom").arg(image);
        }
        Ok(command)
    }

    fn serial(&self, folder: &Path) -> PathBuf {
        folder.join("serial.txt")
    }

    fn reset_mark(&self, _folder: &Path) -> Option<ResetMark> {
        // `-no-reboot` ends the program instead.
        None
    }

    fn verdict(&self, _folder: &Path, status: Option<i32>) -> Verdict {
        match status {
            Some(0 | SWITCHED_OFF) => Verdict::SwitchedOff,
            Some(status) => Verdict::Crashed(format!("QEMU ended with status {status}")),
            None => Verdict::Crashed("QEMU was killed".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_can_end_the_run_in_two_ways() {
        let verdict = |status| Qemu(Kind::Kvm).verdict(Path::new(""), status);
        assert_eq!(verdict(Some(0)), Verdict::SwitchedOff, "ACPI");
        assert_eq!(verdict(Some(167)), Verdict::SwitchedOff, "port 0x8900");
        assert!(matches!(verdict(Some(1)), Verdict::Crashed(_)));
        assert!(matches!(verdict(None), Verdict::Crashed(_)));
    }

    #[test]
    fn a_machine_without_nested_vmx_is_told_what_it_lacks() {
        assert!(lack(false, "Y\n").unwrap().contains("/dev/kvm"));
        assert!(lack(true, "N\n").unwrap().contains("nested"));
        assert!(lack(true, "").is_some());
        assert_eq!(lack(true, "Y\n"), None);
        assert_eq!(lack(true, "1\n"), None);
    }
}

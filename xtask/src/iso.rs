//! The bootable CD image: GRUB, Umbra as often as asked for, the guest.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::dmar::Dmar;
use crate::guests::Module;
use crate::kernel::Kind;
use crate::serial::FIRMWARE_IS_DONE;
use crate::{acpi, cmd, fail};

/// Where GRUB's files for BIOS machines are (package grub-pc-bin).
pub const GRUB_BIOS: &str = "/usr/lib/grub/i386-pc";
/// The same for UEFI machines (package grub-efi-amd64-bin).
pub const GRUB_UEFI: &str = "/usr/lib/grub/x86_64-efi";
/// The GRUB modules that the generated configuration uses.
const GRUB_MODULES: &str = "normal iso9660 biosdisk multiboot multiboot2 linux chain acpi";
const GRUB_UEFI_MODULES: &str = "normal iso9660 multiboot multiboot2 linux chain acpi echo";

/// What the image can be started by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Starts {
    /// A BIOS.
    Bios,
    /// UEFI firmware.
    Uefi {
        /// For firmware without ACPI tables: those of Bochs's machine with this
        /// many CPUs.
        acpi_cpus: Option<u32>,
    },
    /// Either.
    Any,
}

/// What the image boots.
#[derive(Debug)]
pub struct Contents<'a> {
    /// What it can be started by.
    pub starts: Starts,
    /// How many Umbras, one on another, below the guest; 0 for the bare
    /// machine.
    pub depth: u32,
    /// The image of Umbra; needed where `depth` is not 0.
    pub umbra: Option<&'a Path>,
    /// Umbra's own command line.
    pub umbra_cmdline: &'a str,
    /// What the guest's kernel is.
    pub kind: Kind,
    /// The guest's kernel, uncompressed.
    pub kernel: &'a [u8],
    /// The guest's command line.
    pub cmdline: &'a str,
    /// The guest's modules, in order.
    pub modules: &'a [Module],
    /// A made-up DMAR table, if there is to be one.
    pub dmar: Option<Dmar>,
}

/// Puts GRUB's configuration and all that it names into the folder `work`.
///
/// # Errors
/// A file that cannot be read or written, or arguments that GRUB cannot hand on.
pub fn fill(contents: &Contents<'_>, work: &Path) -> Result<()> {
    let boot = work.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    fs::write(boot.join("grub/grub.cfg"), grub_cfg(contents)?)?;
    fs::write(boot.join("kernel"), contents.kernel)?;
    if let Some(umbra) = contents.umbra {
        fs::copy(umbra, boot.join("umbra.elf"))
            .with_context(|| format!("cannot copy {}", umbra.display()))?;
    }
    for (index, module) in contents.modules.iter().enumerate() {
        fs::copy(&module.path, boot.join(format!("module{index}")))
            .with_context(|| format!("cannot copy {}", module.path.display()))?;
    }
    if let Some(dmar) = contents.dmar {
        fs::write(boot.join("dmar"), dmar.table())?;
    }
    if let Starts::Uefi {
        acpi_cpus: Some(cpus),
    } = contents.starts
    {
        for (name, table) in acpi::tables(cpus) {
            fs::write(boot.join(name), table)?;
        }
    }
    Ok(())
}

/// Writes the CD image `target`, with `work` (an empty folder) as the place
/// for its parts.
///
/// # Errors
/// A file that cannot be read or written, or grub-mkrescue fails.
pub fn write(contents: &Contents<'_>, work: &Path, target: &Path) -> Result<()> {
    fill(contents, work)?;
    let mut command = Command::new("grub-mkrescue");
    match contents.starts {
        Starts::Bios => command
            .args(["-d", GRUB_BIOS])
            .arg(format!("--install-modules={GRUB_MODULES}")),
        Starts::Uefi { .. } => command
            .args(["-d", GRUB_UEFI])
            .arg(format!("--install-modules={GRUB_UEFI_MODULES}")),
        // Without `-d` all that is installed, with all its modules.
        Starts::Any => &mut command,
    };
    cmd::run(
        command
            .arg("-o")
            .arg(target)
            .args(["--locales=", "--fonts=", "--themes="])
            .arg(work),
    )
    .context("cannot make the CD image")
}

/// The GRUB configuration that boots `contents` at once and, on a BIOS machine,
/// without a word on the serial line.
///
/// Under Umbra the guest's kernel is the first module and the guest's own
/// modules follow it. Umbras on one another follow the same rule: each is the
/// L1 kernel of the one before. Nothing is unzipped by GRUB, so that the guest
/// gets the same bytes either way.
///
/// # Errors
/// A usage error for arguments that GRUB cannot hand on.
fn grub_cfg(contents: &Contents<'_>) -> Result<String> {
    let mut lines = vec!["set timeout=0".to_owned(), "set default=0".to_owned()];
    let mut load = |command: &str, file: &str, args: &str| -> Result<()> {
        let line = format!("{command} /boot/{file} {}", quoted(args)?);
        lines.push(format!("  {}", line.trim_end()));
        Ok(())
    };
    let mut title = "guest".to_owned();
    let module_command = if contents.depth == 0 {
        match contents.kind {
            Kind::Multiboot1 => {
                load("multiboot", "kernel", contents.cmdline)?;
                "module --nounzip"
            }
            Kind::Multiboot2 => {
                load("multiboot2", "kernel", contents.cmdline)?;
                "module2 --nounzip"
            }
            Kind::Linux => {
                load("linux", "kernel", contents.cmdline)?;
                "initrd"
            }
            Kind::BootSector => {
                load("chainloader", "kernel", "")?;
                ""
            }
        }
    } else {
        title = format!("{}guest", "Umbra, ".repeat(contents.depth as usize));
        let umbra = "umbra.elf";
        load("multiboot2", umbra, contents.umbra_cmdline)?;
        let module_command = "module2 --nounzip";
        for _ in 1..contents.depth {
            load(module_command, umbra, contents.umbra_cmdline)?;
        }
        load(module_command, "kernel", contents.cmdline)?;
        module_command
    };
    for (index, module) in contents.modules.iter().enumerate() {
        // `initrd` would take a word after the file for another file.
        let args = if module_command == "initrd" {
            ""
        } else {
            &module.args
        };
        load(module_command, &format!("module{index}"), args)?;
    }
    if contents.dmar.is_some() {
        lines.push("  acpi /boot/dmar".to_owned());
    }
    if let Starts::Uefi { acpi_cpus } = contents.starts {
        if acpi_cpus.is_some() {
            lines.push("  acpi /boot/facp /boot/apic /boot/dsdt".to_owned());
        }
        lines.push(format!("  echo \"{FIRMWARE_IS_DONE}\""));
    }
    let body = lines.split_off(2).join("\n");
    Ok(format!(
        "{}\nmenuentry \"{title}\" {{\n{body}\n  boot\n}}\n",
        lines.join("\n")
    ))
}

/// `args` written so that GRUB's shell reads the words that `args` has.
///
/// Quotes in `args` hold a word with spaces together, and GRUB hands such a
/// word on in double quotes.
fn quoted(args: &str) -> Result<String> {
    let words: Result<Vec<String>> = words(args)?
        .into_iter()
        .map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/+@%".contains(c);
            if word.contains(['\'', '"', '\\']) || word.chars().any(char::is_control) {
                Err(fail::usage(format!(
                    "`{word}`: GRUB cannot hand on quotes, backslashes and control characters"
                )))
            } else if !word.is_empty() && word.chars().all(plain) {
                Ok(word)
            } else {
                Ok(format!("'{word}'"))
            }
        })
        .collect();
    Ok(words?.join(" "))
}

/// Splits `args` at white space outside of quotes, and takes the quotes off.
fn words(args: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in args.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(fail::usage(format!("`{args}`: a quote is not closed")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(args: &str) -> Module {
        Module {
            path: "file".into(),
            args: args.into(),
        }
    }

    fn cfg(depth: u32, kind: Kind, modules: &[Module]) -> String {
        grub_cfg(&Contents {
            starts: Starts::Bios,
            depth,
            umbra: None,
            umbra_cmdline: "trace",
            kind,
            kernel: &[],
            cmdline: "console=ttyS0 a=1",
            modules,
            dmar: None,
        })
        .unwrap()
    }

    fn body(cfg: &str) -> Vec<&str> {
        cfg.lines()
            .filter(|line| line.starts_with("  "))
            .map(str::trim)
            .collect()
    }

    #[test]
    fn natively_each_kind_has_its_commands() {
        let modules = [module("one two"), module("")];
        assert_eq!(
            body(&cfg(0, Kind::Multiboot1, &modules)),
            [
                "multiboot /boot/kernel console=ttyS0 a=1",
                "module --nounzip /boot/module0 one two",
                "module --nounzip /boot/module1",
                "boot"
            ]
        );
        assert_eq!(
            body(&cfg(0, Kind::Multiboot2, &modules[..1])),
            [
                "multiboot2 /boot/kernel console=ttyS0 a=1",
                "module2 --nounzip /boot/module0 one two",
                "boot"
            ]
        );
        assert_eq!(
            body(&cfg(0, Kind::Linux, &modules[..1])),
            [
                "linux /boot/kernel console=ttyS0 a=1",
                "initrd /boot/module0",
                "boot"
            ]
        );
    }

    #[test]
    fn under_umbra_every_kind_is_a_module() {
        for kind in [Kind::Multiboot1, Kind::Multiboot2, Kind::Linux] {
            assert_eq!(
                body(&cfg(1, kind, &[module("m")])),
                [
                    "multiboot2 /boot/umbra.elf trace",
                    "module2 --nounzip /boot/kernel console=ttyS0 a=1",
                    "module2 --nounzip /boot/module0 m",
                    "boot"
                ]
            );
        }
    }

    #[test]
    fn each_umbra_is_the_first_module_of_the_one_below() {
        assert_eq!(
            body(&cfg(3, Kind::Linux, &[])),
            [
                "multiboot2 /boot/umbra.elf trace",
                "module2 --nounzip /boot/umbra.elf trace",
                "module2 --nounzip /boot/umbra.elf trace",
                "module2 --nounzip /boot/kernel console=ttyS0 a=1",
                "boot"
            ]
        );
    }

    #[test]
    fn what_is_special_to_grub_is_quoted() {
        assert_eq!(quoted(" a  b=1,2 ").unwrap(), "a b=1,2");
        assert_eq!(quoted("$x {y} z;").unwrap(), "'$x' '{y}' 'z;'");
        assert_eq!(quoted("d=\"two words\" e").unwrap(), "'d=two words' e");
        assert_eq!(quoted("''").unwrap(), "''");
        assert_eq!(quoted("").unwrap(), "");
    }

    #[test]
    fn what_grub_cannot_hand_on_is_refused() {
        for args in ["\"open", "it's", "a\\b", "'a\"b'", "a\u{1}"] {
            assert!(quoted(args).is_err(), "{args}");
        }
    }
}

//! Bochs: the machine that the tests run on, since it has VMX in full.

pub mod config;
mod install;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub use install::setup;

use crate::fail;
use crate::machine::{Firmware, Machine, ResetMark, Target, Verdict};
use crate::ticks::Ticks;

/// Bochs as a machine to run on.
pub struct Bochs {
    program: PathBuf,
    roms: config::Roms,
}

/// The name of Bochs's own log in the folder of a run.
const LOG: &str = "bochs.log";

impl Bochs {
    /// Bochs as `BOCHS=` names it, or from the cache, made first if need be, for
    /// machines with this firmware.
    ///
    /// # Errors
    /// Bochs cannot be built, or `BOCHS=` names no program.
    pub fn get(firmware: Firmware) -> Result<Self> {
        Ok(Self {
            program: setup()?,
            roms: config::Roms::find(firmware)?,
        })
    }

    /// The CPU models that this Bochs knows.
    fn cpu_models(&self) -> Result<Vec<String>> {
        let text = self.help("cpu")?;
        let models = parse_cpu_models(&text);
        if models.is_empty() {
            bail!("{}: is no Bochs with CPU models", self.program.display());
        }
        Ok(models)
    }

    /// As [`Target::command`], with COM1, COM2 and so on going to the files
    /// `serials`.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn command_with(
        &self,
        machine: &Machine,
        image: &Path,
        folder: &Path,
        serials: &[PathBuf],
    ) -> Result<Command> {
        let file = folder.join("bochsrc");
        std::fs::write(
            &file,
            config::bochsrc(machine, image, &self.roms, serials, &folder.join(LOG)),
        )?;
        let mut command = Command::new(&self.program);
        command.arg("-q").arg("-f").arg(&file);
        if let Some(ticks) = machine.max_ticks {
            command.args(["-benchmark", &ticks.millions().to_string()]);
        }
        if self.has_debugger()? {
            let script = folder.join("debugger-script");
            std::fs::write(&script, "c\n")?;
            command.arg("-rc").arg(script);
        }
        Ok(command)
    }

    /// Whether this Bochs has its debugger compiled in, which has to be told
    /// to go on.
    fn has_debugger(&self) -> Result<bool> {
        Ok(self.help("")?.contains("-rc filename"))
    }

    /// What Bochs prints as its help on `topic`; part of it goes to stderr.
    fn help(&self, topic: &str) -> Result<String> {
        let out = Command::new(&self.program)
            .arg("--help")
            .args(Some(topic).filter(|topic| !topic.is_empty()))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(format!(
            "{}{}",
            String::from_utf8_lossy(&out.stderr),
            String::from_utf8_lossy(&out.stdout)
        ))
    }
}

impl Target for Bochs {
    fn check(&self, machine: &Machine) -> Result<()> {
        let models = self.cpu_models()?;
        if !models.contains(&machine.cpu_model) {
            return Err(fail::usage(format!(
                "--cpu-model {}: Bochs knows no such CPU; it knows {}",
                machine.cpu_model,
                models.join(", ")
            )));
        }
        Ok(())
    }

    fn command(&self, machine: &Machine, image: &Path, folder: &Path) -> Result<Command> {
        self.command_with(machine, image, folder, &[self.serial(folder)])
    }

    fn serial(&self, folder: &Path) -> PathBuf {
        folder.join("serial.txt")
    }

    fn reset_mark(&self, folder: &Path) -> Option<ResetMark> {
        Some(ResetMark {
            file: folder.join(LOG),
            text: verdict::RESET,
            at_power_on: verdict::RESETS_AT_POWER_ON,
        })
    }

    fn verdict(&self, folder: &Path, _status: Option<i32>) -> Verdict {
        match std::fs::read(folder.join(LOG)) {
            Ok(log) => verdict::read(&String::from_utf8_lossy(&log)),
            Err(error) => Verdict::Crashed(format!("Bochs left no log: {error}")),
        }
    }

    fn ticks(&self, folder: &Path) -> Option<Ticks> {
        ticks(folder)
    }
}

/// How many ticks a machine ran for before it ended by itself or was reset, from
/// what Bochs left in the `folder` of the run.
pub fn ticks(folder: &Path) -> Option<Ticks> {
    let log = std::fs::read(folder.join(LOG)).ok()?;
    verdict::ticks(&String::from_utf8_lossy(&log))
}

/// Reads what `bochs -help cpu` prints: the names stand alone, one a line,
/// after the heading.
fn parse_cpu_models(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| !line.starts_with("Supported CPU models"))
        .skip(1)
        .map(str::trim)
        .filter(|line| {
            let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !line.is_empty() && line.chars().all(of_a_name)
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_models_are_read_between_the_chatter() {
        let text = "====\n Bochs x86 Emulator 3.0\n====\nSupported CPU models:\n\n\
            ryzen\ncorei7_skylake_x\n\n=====\n00000000000i[SIM   ] quit_sim called\n";
        assert_eq!(super::parse_cpu_models(text), ["ryzen", "corei7_skylake_x"]);
        assert!(super::parse_cpu_models("").is_empty());
    }
}

//! The machine that a guest runs on, and the targets that provide one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::ticks::Ticks;

/// The least memory that GRUB, Umbra and a small guest fit into.
pub const MIN_MEM_MB: u32 = 128;
/// The most memory that is offered.
pub const MAX_MEM_MB: u32 = 8192;
/// The memory where nothing is asked for.
pub const MEM_MB: u32 = 2048;
/// The most CPUs that are offered.
pub const MAX_CPUS: u32 = 16;
/// The CPU model where none is asked for.
pub const CPU_MODEL: &str = "corei7_skylake_x";

/// What starts the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Firmware {
    /// A legacy BIOS
    #[default]
    Bios,
    /// UEFI: Debian's OVMF
    Uefi,
}

/// What the machine has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The number of CPUs.
    pub cpus: u32,
    /// The memory in MiB.
    pub mem_mb: u32,
    /// The CPU model, by the target's name for it.
    pub cpu_model: String,
    /// How fast the CPU is, in MHz, where the target can choose.
    pub mhz: u32,
    /// What starts it.
    pub firmware: Firmware,
    /// It is switched off after this many ticks, where the target counts them.
    pub max_ticks: Option<Ticks>,
    /// Images of its disks, which the machine does not write to.
    pub disks: Vec<PathBuf>,
    /// Whether it starts from the first of them, and has no CD.
    pub starts_from_disk: bool,
}

/// The most disks that are offered.
pub const MAX_DISKS: usize = 3;

/// The speed of the CPU that suits a guest at this depth, in MHz.
///
/// The slower it is, the sooner a boot gets through its fixed delays. But the
/// timer of an operating system fires every so many milliseconds, and a guest of
/// its guest that exits for each tick gets nowhere on a slow CPU, once two
/// hypervisors stand below: with KVM as the lowest an exit of L2 takes 500,000
/// ticks, more than there are between two timer interrupts at 100 MHz.
pub fn mhz(boots_an_os: bool, depth: u32) -> u32 {
    if boots_an_os && depth > 1 { 1000 } else { 100 }
}

/// How a machine's program ended, as far as the target can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The guest switched the machine off.
    SwitchedOff,
    /// The ticks that it was given ran out.
    OutOfTicks,
    /// Anything else, in words.
    Crashed(String),
}

/// A text in a file that the machine's program writes at each reset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResetMark {
    /// The file.
    pub file: PathBuf,
    /// What a line of it holds for a reset.
    pub text: &'static str,
    /// How many resets belong to switching the machine on.
    pub at_power_on: usize,
}

/// Something that runs a machine: a program whose end is the machine's end.
pub trait Target {
    /// Refuses a machine that this target cannot provide.
    ///
    /// # Errors
    /// A usage error in words.
    fn check(&self, machine: &Machine) -> Result<()>;

    /// The command that boots the CD image `image` on `machine`; `folder` is
    /// the run's own and takes everything that the target writes.
    ///
    /// # Errors
    /// The folder cannot be written to, or what the target is made of cannot be
    /// installed.
    fn command(&self, machine: &Machine, image: &Path, folder: &Path) -> Result<Command>;

    /// The file to which the machine's COM1 goes.
    fn serial(&self, folder: &Path) -> PathBuf;

    /// What tells, while the machine runs, that the guest has reset it: it
    /// would boot the same guest again, for ever.
    fn reset_mark(&self, folder: &Path) -> Option<ResetMark>;

    /// How the machine ended, given the exit status of its program (`None`
    /// where a signal ended it).
    fn verdict(&self, folder: &Path, status: Option<i32>) -> Verdict;

    /// How many ticks the machine ran for before it ended by itself, where the
    /// target counts them.
    fn ticks(&self, _folder: &Path) -> Option<Ticks> {
        None
    }
}

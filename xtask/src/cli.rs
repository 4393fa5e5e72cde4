//! The command line: verbs, options, help.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::dmar::Dmar;
use crate::guests::Kernel;
use crate::images::Hypapp;
use crate::machine::Firmware;
use crate::ticks::Ticks;
use crate::{guests, machine};

/// Umbra, a thin hypervisor for nested virtualization: set it up, run it,
/// test it.
#[derive(Parser, Debug)]
#[command(
    name = "./x",
    bin_name = "./x",
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
Exit status:
  0  the guest ended the run by itself, or --until matched; all tests passed
  1  setting up or building failed, or a test failed
  2  what was asked for cannot be done here: options, names, files, machines
  3  the time was up: --ticks or --timeout
  4  Umbra or the guest crashed; the last line says why

Environment:
  BOCHS        an installed Bochs to use instead of building one
  UMBRA_CACHE  where downloads and builds are kept [default: ~/.cache/umbra]"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The whole command line, its help naming the guests that there are.
///
/// `test_vms` are the names of the test VMs.
pub fn command(test_vms: &[String]) -> Command {
    let mut guests = String::from("Guests:\n");
    let width = 12;
    for name in test_vms {
        guests.push_str(&format!(
            "  {name:<width$}  the test VM in testvms/{name}\n"
        ));
    }
    for recipe in guests::RECIPES {
        guests.push_str(&format!("  {:<width$}  {}\n", recipe.name, recipe.about));
    }
    guests.push_str(&format!(
        "  {:<width$}  any multiboot, multiboot2 or Linux kernel file, gzipped or not",
        "FILE"
    ));
    Cli::command().mut_subcommand("run", |run| {
        let examples = run.get_after_help().map(ToString::to_string);
        run.after_help(format!("{guests}\n\n{}", examples.unwrap_or_default()))
    })
}

/// The longest that `./x fuzz` can be told to go on: a year.
const MOST_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Takes a number within `range`, and says so of anything else.
fn number<N>(range: RangeInclusive<N>) -> impl Fn(&str) -> Result<N, String> + Clone
where
    N: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!(
                    "it takes a number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Install and build what is missing: Debian packages, Bochs, ROMs
    Setup,
    /// Boot a guest under Umbra and show its serial console
    Run(Box<RunArgs>),
    /// Run the tests: the host's and the machine's
    Test(TestArgs),
    /// Run random L2 programs under Umbra and on the bare machine, and compare
    Fuzz(FuzzArgs),
    /// Measure what things cost, and write the table below docs/
    Bench(BenchArgs),
    /// Build Umbra and put umbra.elf and umbra.efi into a folder
    Build(BuildArgs),
    /// Write a bootable CD image of Umbra and a guest
    Iso(ImageArgs),
    /// Write a bootable disk image of Umbra and a guest
    Disk(ImageArgs),
    /// Make a test VM to begin with: a package that runs, declared as a test
    NewTestvm {
        /// What it is called: small letters, digits and '-'
        name: String,
    },
}

/// What to boot.
#[derive(Args, Clone, Debug)]
pub struct WhatArgs {
    /// What to boot as L1: `lhv` or another folder of testvms/, `kvm` (Debian
    /// with KVM and QEMU), or the path of a multiboot, multiboot2 or Linux
    /// kernel file
    #[arg(default_value = guests::DEFAULT)]
    pub guest: String,
    /// For the guest `kvm`: the kernel of L1 and L2, of another of Debian's
    /// releases than bookworm, whose is 6.1
    #[arg(long, value_name = "VERSION", value_enum)]
    pub kernel: Option<Kernel>,
    /// Add to the guest's command line
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Hand this file to the guest, with ARGS as its string; may be repeated,
    /// and the order is kept. For Linux the files are its initramfs
    #[arg(long, value_name = "FILE[:ARGS]")]
    pub module: Vec<String>,
    /// The same guest on the same machine without Umbra
    #[arg(long)]
    pub native: bool,
    /// How many Umbras, one on another, below the guest, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "native",
          value_parser = number(1_u32..=8))]
    pub depth: u32,
    /// Umbra's own command line; docs/options.md has its words
    #[arg(
        long,
        value_name = "ARGS",
        conflicts_with = "native",
        allow_hyphen_values = true
    )]
    pub umbra: Option<String>,
    /// Build this extension into Umbra; docs/hypapp.md has what each does
    #[arg(long, value_name = "NAME", value_enum, conflicts_with_all = ["native", "lacking"])]
    pub hypapp: Option<Hypapp>,
    /// Whether Umbra counts its VMCS accesses: for `--ledger`.
    #[arg(skip)]
    pub counts_accesses: bool,
    /// For Umbra's own tests: the CPU lacks WHAT, a bit of a VMX capability MSR
    /// as in 48b.17, or a VMCS field as in field.6402
    #[arg(long, value_name = "WHAT", conflicts_with = "native")]
    pub lacking: Option<String>,
    /// For Umbra's own tests: the firmware's table of DMA-remapping units is one
    /// that is made up, of this kind
    #[arg(long, value_name = "KIND", value_enum)]
    pub dmar: Option<Dmar>,
}

/// `./x run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ./x run                                a small hypervisor and its guest, under Umbra
  ./x run --native                       the same on the bare machine
  ./x run kvm                            Linux with KVM boots a Linux, under Umbra
  ./x run kvm --append kvm_intel.ept=0   the same with KVM's shadow paging
  ./x run kvm --kernel 6.12              the same with a newer kernel
  ./x run lhv --depth 2                  Umbra under Umbra
  ./x run lhv --trace l2,no-cpuid        and print the last exits of L2
  ./x run lhv --on kvm                   Umbra on KVM, which runs on the emulator
  ./x run kvm --firmware uefi            the machine is started by UEFI
  ./x run kvm --boot disk                the guest's own GRUB starts it from a disk
  ./x run --disk pc.img --boot disk      Umbra below the system on that disk
  ./x run bzImage --module initrd.gz --append 'console=ttyS0' --until 'login:'

The serial console goes to stdout, everything else to stderr. Lines that Umbra
prints begin with `umbra`. The exit status is explained by ./x --help.")]
pub struct RunArgs {
    /// What to boot.
    #[command(flatten)]
    pub what: WhatArgs,
    /// The number of CPUs, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = number(1..=machine::MAX_CPUS))]
    pub cpus: u32,
    /// The memory in MB, 128 to 8192
    #[arg(long, value_name = "MB", default_value_t = machine::MEM_MB,
          value_parser = number(machine::MIN_MEM_MB..=machine::MAX_MEM_MB))]
    pub mem: u32,
    /// The CPU model, by Bochs's name for it
    #[arg(long, value_name = "NAME", default_value = machine::CPU_MODEL)]
    pub cpu_model: String,
    /// What starts the machine
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Firmware::Bios)]
    pub firmware: Firmware,
    /// Give the machine a disk with this content, to which nothing is written;
    /// may be repeated
    #[arg(long, value_name = "IMG")]
    pub disk: Vec<PathBuf>,
    /// What starts as L1: the guest from a CD, or the first disk's own boot
    /// loader. Without --disk, a disk is made on which the guest is installed
    #[arg(long, value_name = "FROM", value_enum, default_value_t = BootFrom::Cd)]
    pub boot: BootFrom,
    /// Keep and print VM exits: words between commas such as `l2,cpuid,cpu0`,
    /// `no-io`, `all` or `live`; docs/debugging.md explains them. The same as
    /// --umbra trace=FILTER
    #[arg(long, value_name = "FILTER", conflicts_with = "native")]
    pub trace: Option<String>,
    /// Stop when a line of the serial console matches
    #[arg(long, value_name = "REGEX")]
    pub until: Option<String>,
    /// Switch the machine off after so many ticks of its TSC, as in 500M or
    /// 20G: the same on a slow computer as on a fast one (Bochs only)
    #[arg(long, value_name = "N")]
    pub ticks: Option<Ticks>,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 900,
          value_parser = number(1_u64..=1_000_000))]
    pub timeout: u64,
    /// Write what comes over the serial line to this file, byte for byte
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write Umbra's ledger to this file, as YAML: each kind of exit with its
    /// count, its ticks and its VMCS accesses, which the image that is built for
    /// this counts as well. One document for each Umbra, the innermost first
    #[arg(long, value_name = "FILE", conflicts_with_all = ["native", "hypapp"])]
    pub ledger: Option<PathBuf>,
    /// Keep the machine's own files (its configuration, log and CD image) in
    /// this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// What to run on: Bochs; QEMU, where this machine has KVM with nested VMX;
    /// Debian's KVM and QEMU, themselves running on Bochs; or QEMU's emulated
    /// machine, which has an IOMMU and no VMX
    #[arg(long, value_name = "TARGET", value_enum, default_value_t = On::Bochs)]
    pub on: On,

    /// With --on tcg: options of QEMU's `intel-iommu` device, such as
    /// `aw-bits=48,caching-mode=on`
    #[arg(long, value_name = "OPTIONS")]
    pub iommu: Option<String>,
}

/// What starts as L1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BootFrom {
    /// The guest; with Umbra on a CD.
    Cd,
    /// What the first disk's boot sector loads.
    Disk,
}

/// What to run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum On {
    /// The emulator; works everywhere.
    Bochs,
    /// Hardware KVM.
    Qemu,
    /// QEMU's emulation of a q35 machine with Intel's IOMMU, and without VMX.
    Tcg,
    /// KVM and QEMU of a Debian that runs on the emulator; works everywhere.
    Kvm,
}

/// `./x build`.
#[derive(Args, Debug)]
pub struct BuildArgs {
    /// The folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Build this extension into Umbra; docs/hypapp.md has what each does
    #[arg(long, value_name = "NAME", value_enum)]
    pub hypapp: Option<Hypapp>,
}

/// `./x iso` and `./x disk`.
#[derive(Args, Debug)]
#[command(after_help = "\
The image starts by BIOS and by UEFI; on a USB stick either kind does.")]
pub struct ImageArgs {
    /// What to boot.
    #[command(flatten)]
    pub what: WhatArgs,
    /// The image to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `./x fuzz`.
#[derive(Args, Debug)]
#[command(after_help = "\
A seed gives the same cases each time. Where one differs, its first case is run alone,
and what it does on the two machines is printed; the exit status is 1 then.")]
pub struct FuzzArgs {
    /// Begin no further seed after this time; one is always run
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = number(0_u64..=MOST_SECONDS))]
    pub seconds: u64,
    /// The first seed; those behind it follow. Not given, one is drawn
    #[arg(long, value_name = "S", value_parser = number(0..=u64::MAX))]
    pub seed: Option<u64>,
    /// How many cases a seed has in each of twelve modes
    #[arg(long, value_name = "N", default_value_t = 150,
          value_parser = number(1_u64..=100_000))]
    pub cases: u64,
    /// How many Umbras, one on another, 1 to 3
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1_u32..=3))]
    pub depth: u32,
    /// The CPU model, by Bochs's name for it
    #[arg(long, value_name = "NAME", default_value = machine::CPU_MODEL)]
    pub cpu_model: String,
}

/// `./x bench`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ./x bench                              everything, some twenty minutes
  ./x bench machine --on umbra           the figures of one machine under Umbra
  ./x bench kvm --on native --on umbra   what L2's programs cost under Linux's KVM

What is not measured stays in the table as it was. A figure is in ticks of the
time-stamp counter; with one CPU a tick is an instruction, and it repeats.")]
pub struct BenchArgs {
    /// What to measure: `machine` (single operations), `cpus` (the same on several
    /// CPUs), `kvm` (programs in L2 under KVM); all of them if none is named
    pub run: Vec<String>,
    /// On what: `native`, `umbra`, `umbra2` (two of them), `kvm` (Linux's KVM as
    /// L0, which takes long); the first three if none is named. May be repeated
    #[arg(long, value_name = "COLUMN")]
    pub on: Vec<String>,
    /// Print the table and write no file
    #[arg(long)]
    pub print_only: bool,
}

/// `./x test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Run only what belongs to this group, or has this in its name: `host`,
    /// `boot`, `usage`, ...
    pub filter: Option<String>,
    /// Only list the tests
    #[arg(long)]
    pub list: bool,
}

//! The KVM guest: Debian with KVM and QEMU, booting a Debian kernel as L2.
//!
//! Everything that depends on its content is in `guests/recipes/kvm`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::initramfs::cached;
use super::recipe::Recipe;
use super::root::Root;
use super::{Guest, Kernel, Module};
use crate::{cache, cmd, debs};

const RECIPE: &str = include_str!("../../../guests/recipes/kvm/recipe.toml");
const L1_INIT: &str = include_str!("../../../guests/recipes/kvm/l1-init");
pub(super) const L2_INIT: &str = include_str!("../../../guests/recipes/kvm/l2-init");
const TICKS: &str = include_str!("../../../guests/recipes/kvm/ticks.rs");
const WORKLOADS: &str = include_str!("../../../guests/recipes/kvm/workloads.rs");

/// Assembles the guest, out of the cache where nothing has changed.
///
/// # Errors
/// The Debian packages cannot be had or lack something, or `rustc` fails.
pub fn assemble(choice: Option<Kernel>) -> Result<Guest> {
    let recipe = Recipe::parse(RECIPE)?;
    let root = recipe.root()?;
    let modules = kernel_root(&root, choice)?;
    let kernel = kernel(&modules)?;

    let mut l2 = recipe.l2.initramfs(&root, &modules, L2_INIT)?;
    l2.copy("bin/workloads", 0o755, &program("workloads", WORKLOADS)?);
    let l2 = l2.to_bytes()?;
    let mut l1 = recipe.l1.initramfs(&root, &modules, L1_INIT)?;
    l1.copy("bin/ticks", 0o755, &program("ticks", TICKS)?);
    l1.copy("l2/vmlinuz", 0o644, &kernel);
    l1.bytes("l2/initrd", 0o644, l2);

    let initrd = cached("kvm", &l1)?;
    Ok(Guest {
        name: "kvm".to_owned(),
        kernel,
        cmdline: recipe.cmdline,
        cmdline_on_bochs: linux_on_bochs(),
        modules: vec![Module {
            path: initrd,
            args: String::new(),
        }],
    })
}

/// What Linux has to be told about the clock of Bochs.
///
/// The TSC advances by one tick an instruction there, and the CPUID leaves say
/// that it is as fast as on the chip. Linux believes them, and its timers then
/// fire dozens of times more often than it wants them.
pub(super) fn linux_on_bochs() -> String {
    "tsc_early_khz={khz}".to_owned()
}

/// The kernel of L1 and L2.
///
/// # Errors
/// The Debian packages cannot be had.
pub(super) fn cloud_kernel() -> Result<PathBuf> {
    kernel(&Recipe::parse(RECIPE)?.root()?)
}

/// Where the kernel and its modules are: among the packages in `root`, or in a package of
/// another of Debian's releases.
fn kernel_root(root: &Root, choice: Option<Kernel>) -> Result<Root> {
    let Some(choice) = choice else {
        return Ok(root.clone());
    };
    let packages = debs::kernel_of(choice.suite(), "linux-image-cloud-amd64")
        .with_context(|| format!("cannot have the kernel of {}", choice.suite()))?;
    Ok(Root::new(&packages))
}

/// The one kernel in the packages: in `boot`, or, in newer releases, beside its modules.
///
/// # Errors
/// There is none, or more than one.
pub(super) fn kernel(root: &Root) -> Result<PathBuf> {
    let boot = entries(root, "boot")?;
    let is_kernel = |file: &Path| {
        let name = file.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with("vmlinuz-"))
    };
    let mut kernels: Vec<PathBuf> = boot.into_iter().filter(|file| is_kernel(file)).collect();
    if kernels.is_empty() {
        let modules = entries(root, "lib/modules")?;
        kernels = modules
            .iter()
            .map(|folder| folder.join("vmlinuz"))
            .collect();
        kernels.retain(|file| file.is_file());
    }
    match kernels.as_slice() {
        [kernel] => Ok(kernel.clone()),
        other => bail!(
            "the Debian packages should hold one kernel (vmlinuz), and hold {}",
            other.len()
        ),
    }
}

/// What is in the folder at `path`; nothing where there is no such folder.
fn entries(root: &Root, path: &str) -> Result<Vec<PathBuf>> {
    let Some(folder) = root.directory(path) else {
        return Ok(Vec::new());
    };
    std::fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}", folder.display()))
}

/// A program of one source text, compiled if it is not in the cache.
fn program(name: &str, source: &str) -> Result<PathBuf> {
    let key = cache::sha256(source.as_bytes());
    let entry = cache::entry(&format!("guests/{name}-{}", short(&key)), |folder| {
        compile(source, &folder.join(name), folder)
    })?;
    Ok(entry.join(name))
}

/// Compiles a program of one source text, which uses no library and no
/// start-up code.
fn compile(source: &str, program: &Path, folder: &Path) -> Result<()> {
    let file = folder.join("source.rs");
    std::fs::write(&file, source).with_context(|| format!("cannot write {}", file.display()))?;
    // Inside of cargo this is the compiler that cargo uses.
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args([
        "--edition=2024",
        "--crate-type=bin",
        "--crate-name=program",
        "--target=x86_64-unknown-linux-gnu",
        "-Copt-level=2",
        "-Cpanic=abort",
        "-Crelocation-model=static",
        "-Cstrip=symbols",
    ]);
    for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        command.arg(format!("-Clink-arg={arg}"));
    }
    cmd::run(command.arg("-o").arg(program).arg(&file))
        .context("cannot compile a program of the guest kvm")
}

/// As much of a hash as a name needs.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Every program that a script calls by a bare name has to be an applet
    /// of the recipe: a missing one shows only when the guest runs.
    #[test]
    fn the_applets_that_the_scripts_call_are_there() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        for (script, system) in [(L1_INIT, &recipe.l1), (L2_INIT, &recipe.l2)] {
            for applet in &system.applets {
                assert!(script.contains(applet.as_str()), "{applet} is not used");
            }
            for known in [
                "awk", "cat", "cp", "cut", "dd", "dmesg", "grep", "head", "insmod", "ls", "mkdir",
                "mount", "poweroff", "sed", "sleep", "tail", "tr",
            ] {
                let called = script
                    .lines()
                    .filter(|line| !line.trim_start().starts_with('#'))
                    .flat_map(|line| line.split(['|', '(', ';', '&']))
                    .any(|command| command.split_whitespace().next() == Some(known));
                assert!(
                    !called || system.applets.iter().any(|applet| applet == known),
                    "{known} is called and is no applet"
                );
            }
        }
    }

    #[test]
    fn ticks_counts_upwards() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("ticks");
        compile(TICKS, &program, dir.path()).unwrap();
        let read = || -> u64 {
            cmd::output(&mut Command::new(&program))
                .unwrap()
                .strip_suffix('\n')
                .unwrap()
                .parse()
                .unwrap()
        };
        let first = read();
        assert!(read() > first);
    }

    #[test]
    fn every_workload_compiles_without_a_library() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("workloads");
        compile(WORKLOADS, &program, dir.path()).unwrap();
        // With a word it ends at once.
        assert_eq!(cmd::output(Command::new(&program).arg("end")).unwrap(), "");
    }

    #[test]
    fn no_kernel_or_two_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(kernel(&root).is_err());
        let boot = dir.path().join("boot");
        fs::create_dir(&boot).unwrap();
        fs::write(boot.join("config-1"), "").unwrap();
        assert!(kernel(&root).unwrap_err().to_string().contains("hold 0"));
        let modules = dir.path().join("usr/lib/modules/7");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("vmlinuz"), "").unwrap();
        assert_eq!(kernel(&root).unwrap(), modules.join("vmlinuz"));
        fs::write(boot.join("vmlinuz-1"), "").unwrap();
        assert_eq!(kernel(&root).unwrap(), boot.join("vmlinuz-1"));
        fs::write(boot.join("vmlinuz-2"), "").unwrap();
        assert!(kernel(&root).unwrap_err().to_string().contains("hold 2"));
    }
}

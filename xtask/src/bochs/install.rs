//! Building Bochs 3.0 with VMX from source, once, into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ui::Step;
use crate::{cache, cmd, debs, fail, packages};

const VERSION: &str = "3.0";
/// The source as Debian keeps it, below a mirror's base address.
const SOURCE: &str = "pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz";
const SOURCE_HASH: &str = "SHA256:78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b";
/// What VMX in Bochs 3.0 does otherwise than the SDM says, mended.
const PATCH: &str = include_str!("../../bochs-3.0-vmx.diff");
const CONFIGURE: &[&str] = &[
    "--enable-vmx=2",
    "--enable-svm",
    "--enable-smp",
    "--enable-cpu-level=6",
    "--enable-x86-64",
    "--enable-all-optimizations",
    "--enable-avx",
    "--enable-evex",
    "--enable-pci",
    "--enable-cdrom",
    "--enable-e1000",
    "--with-nogui",
    "--disable-docbook",
    "--enable-fpu",
    "--enable-3dnow",
    "--enable-long-phy-address",
    "--enable-large-ramfile",
    "--enable-a20-pin",
    "--enable-monitor-mwait",
    "--disable-plugins",
    "CXXFLAGS=-O2",
];

/// The Bochs program: the one that `BOCHS=` names, or the one in the cache,
/// which is built first where it is not there yet.
///
/// # Errors
/// A usage error where `BOCHS=` names no program; else what went wrong while
/// building.
pub fn setup() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BOCHS").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(fail::usage(format!(
                "BOCHS={}: there is no such program",
                path.display()
            )))
        };
    }
    // The key changes with everything that the program is made from.
    let recipe = format!("{SOURCE_HASH} {} {PATCH}", CONFIGURE.join(" "));
    let key = &cache::sha256(recipe.as_bytes())[..12];
    let entry = cache::entry(&format!("bochs-{VERSION}-{key}"), build)?;
    Ok(entry.join("bochs"))
}

fn build(target: &Path) -> Result<()> {
    packages::need(&["c++", "make", "patch", "tar", "xz"])?;
    let step = Step::start(format!("building Bochs {VERSION} (once; about a minute)"));
    step.detail("downloading");
    let archive = download()?;
    let work = tempfile::Builder::new()
        .prefix(".bochs-")
        .tempdir_in(cache::dir()?)?;
    cmd::run(
        Command::new("tar")
            .args(["--strip-components=1", "--no-same-owner", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(work.path()),
    )?;
    let patch = work.path().join("vmx.diff");
    std::fs::write(&patch, PATCH)?;
    cmd::run(
        Command::new("patch")
            .args(["-p1", "--batch", "-i"])
            .arg(&patch)
            .current_dir(work.path()),
    )?;
    step.detail("configuring");
    cmd::run(
        Command::new("./configure")
            .args(CONFIGURE)
            .current_dir(work.path()),
    )?;
    step.detail("compiling");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    cmd::run(
        Command::new("make")
            .arg(format!("-j{jobs}"))
            .arg("bochs")
            .current_dir(work.path()),
    )?;
    std::fs::copy(work.path().join("bochs"), target.join("bochs"))
        .context("the build of Bochs left no program")?;
    step.done();
    Ok(())
}

/// The source archive, from the first of the machine's own mirrors that has
/// it.
fn download() -> Result<PathBuf> {
    let folder = cache::dir()?.join("sources");
    std::fs::create_dir_all(&folder)?;
    let mut tried = Vec::new();
    for mirror in debs::mirrors()? {
        let uri = format!("{mirror}{SOURCE}");
        match debs::download(&uri, &folder, "bochs-3.0.tar.xz", SOURCE_HASH) {
            Ok(file) => return Ok(file),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    bail!(
        "cannot download the source of Bochs (set BOCHS= to an installed one): {}",
        tried.join("; ")
    )
}

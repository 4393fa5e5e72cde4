//! Debian packages, downloaded and unpacked into the cache: nothing is
//! installed into the system.
//!
//! The work is done by apt with a state of its own in the cache, which knows
//! no installed package: what a set of packages needs is therefore the same
//! on every machine, and no rights are needed. Which mirrors are asked is what
//! the machine's own apt sources say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};

use crate::ui::Step;
use crate::{cache, cmd};

/// Package lists older than this are fetched again before they are used.
const LISTS_GO_STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether to take the packages that the named ones depend on as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// The named packages alone.
    Nothing,
    /// Also everything they depend on, down to libc; nothing recommended.
    Dependencies,
}

/// One package file as apt names it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Deb {
    uri: String,
    /// The file's name in apt's archive folder.
    file: String,
    /// `SHA256:...` or another hash that apt understands.
    hash: String,
}

/// The folder into which the packages `names` are unpacked, one over the
/// other, as they would be below `/`. Package scripts do not run.
///
/// Made at the first call and kept: later calls need neither apt nor a
/// network. To get newer versions, remove the folder `debs` of the cache.
///
/// # Errors
/// No apt here, no such package, no network, or a full disk.
pub fn unpacked(names: &[&str], needs: Needs) -> Result<PathBuf> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let key = cache::sha256(format!("{needs:?} {}", sorted.join(" ")).as_bytes());
    let label = names.first().copied().unwrap_or("nothing");
    cache::entry(&format!("debs/{label}-{}", &key[..12]), |root| {
        let step = Step::start(format!("fetching Debian packages: {}", names.join(", ")));
        let debs = resolve(&sorted, needs)?;
        unpack(&debs, root, &step)?;
        step.done();
        Ok(())
    })
}

/// The folder into which the kernel that the package `name` stands for in `suite`, another of
/// Debian's releases, is unpacked: the kernel and its modules alone, not what the package
/// depends on. Kept as [`unpacked`] keeps it.
///
/// # Errors
/// As for [`unpacked`]; or none of the machine's sources is Debian's archive.
pub fn kernel_of(suite: &str, name: &str) -> Result<PathBuf> {
    cache::entry(&format!("debs/{name}-{suite}"), |root| {
        let step = Step::start(format!("fetching the Debian kernel of {suite}"));
        let mut debs = resolve_in(&State::of_suite(suite)?, &[name], Needs::Dependencies)?;
        // Newer releases have the kernel and its modules in packages of their own.
        let parts = ["linux-image-", "linux-binary-", "linux-modules-"];
        debs.retain(|deb| parts.iter().any(|part| deb.file.starts_with(part)));
        unpack(&debs, root, &step)?;
        step.done();
        Ok(())
    })
}

/// Downloads the packages and unpacks them into `root`.
fn unpack(debs: &[Deb], root: &Path, step: &Step) -> Result<()> {
    let archive = cache::dir()?.join("debs/archive");
    fs::create_dir_all(&archive)?;
    for (index, deb) in debs.iter().enumerate() {
        step.detail(&format!("{}/{} {}", index + 1, debs.len(), deb.file));
        let file = download(&deb.uri, &archive, &deb.file, &deb.hash)?;
        cmd::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root))
            .with_context(|| format!("cannot unpack {}", deb.file))?;
    }
    Ok(())
}

/// Downloads `uri` into `folder` as `file` unless it is there already, and
/// checks it against `hash` (`SHA256:` and the hex digits).
///
/// apt's own downloader is used, so that the machine's proxy and certificate
/// settings hold.
///
/// # Errors
/// The file cannot be had, or is not the one that the hash names.
pub fn download(uri: &str, folder: &Path, file: &str, hash: &str) -> Result<PathBuf> {
    const HELPER: &str = "/usr/lib/apt/apt-helper";
    let target = folder.join(file);
    if target.exists() {
        return Ok(target);
    }
    if !Path::new(HELPER).exists() {
        bail!("this machine has no apt, which ./x downloads with (looked for {HELPER})");
    }
    // apt-helper keeps what fails its hash under another name, so the name
    // asked for appears only when all is well; the rename makes it atomic.
    let dir = tempfile::Builder::new()
        .prefix(".get-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    let partial = dir.path().join("file");
    cmd::run(
        Command::new(HELPER)
            .args(["-o", "APT::Sandbox::User=root", "download-file"])
            .arg(uri)
            .arg(&partial)
            .arg(hash),
    )
    .with_context(|| format!("cannot download {uri}"))?;
    fs::rename(&partial, &target).with_context(|| format!("cannot write {}", target.display()))?;
    Ok(target)
}

/// The base addresses of the package archives in the machine's apt sources,
/// each ending with `/`.
///
/// # Errors
/// There is no apt, or it has no source.
pub fn mirrors() -> Result<Vec<String>> {
    let text = cmd::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]))
    .context("cannot ask apt for its sources")?;
    let mut mirrors: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let base = format!("{}/", line.trim_end_matches('/'));
        if !mirrors.contains(&base) {
            mirrors.push(base);
        }
    }
    if mirrors.is_empty() {
        bail!("apt has no package source: add one to /etc/apt/sources.list");
    }
    Ok(mirrors)
}

/// Asks apt which package files the set consists of.
fn resolve(names: &[&str], needs: Needs) -> Result<Vec<Deb>> {
    resolve_in(&State::fresh()?, names, needs)
}

fn resolve_in(state: &State, names: &[&str], needs: Needs) -> Result<Vec<Deb>> {
    let mut command = state.apt_get();
    match needs {
        Needs::Nothing => command.arg("download"),
        Needs::Dependencies => command.args(["install", "-y", "--no-install-recommends"]),
    };
    // The command itself is long and says nothing to the person: what apt
    // printed has been shown, and the cause of it is the same every time.
    let text = cmd::output(command.arg("--print-uris").args(names)).map_err(|_| {
        anyhow!(
            "apt does not offer all of {} (are Debian's archives among its sources?)",
            names.join(", ")
        )
    })?;
    let debs = parse_uris(&text);
    if debs.is_empty() {
        bail!("apt named no file for {}", names.join(", "));
    }
    Ok(debs)
}

/// Reads what `apt-get --print-uris` prints: lines of `'URI' FILE SIZE HASH`
/// among others, which are passed over.
fn parse_uris(text: &str) -> Vec<Deb> {
    text.lines()
        .filter_map(|line| {
            let (uri, rest) = line.strip_prefix('\'')?.split_once('\'')?;
            let mut words = rest.split_whitespace();
            let file = words.next()?;
            let _size_bytes: u64 = words.next()?.parse().ok()?;
            // apt leaves the hash out for sources that it trusts as they are.
            let hash = words.next().unwrap_or("");
            file.ends_with(".deb").then(|| Deb {
                uri: uri.to_owned(),
                file: file.to_owned(),
                hash: hash.to_owned(),
            })
        })
        .collect()
}

/// apt's state in the cache: lists of its own, and no package installed.
struct State {
    dir: PathBuf,
    /// A file with the sources, instead of the machine's own.
    sources: Option<PathBuf>,
}

impl State {
    /// The state, with package lists that are not stale.
    fn fresh() -> Result<Self> {
        if cmd::which("apt-get").is_none() {
            bail!("this machine has no apt-get, which ./x takes Debian packages with");
        }
        Self {
            dir: cache::dir()?.join("apt"),
            sources: None,
        }
        .with_fresh_lists()
    }

    /// The same for another of Debian's releases, from the archive that the machine uses.
    fn of_suite(suite: &str) -> Result<Self> {
        const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let mirrors = mirrors()?;
        let Some(archive) = mirrors.iter().find(|base| base.ends_with("/debian/")) else {
            bail!("none of apt's sources is Debian's archive (an address that ends in /debian)");
        };
        let dir = cache::dir()?.join(format!("apt-{suite}"));
        fs::create_dir_all(&dir)?;
        let sources = dir.join("sources.list");
        // What a kernel of the backports depends on is in the release itself.
        let suites = [suite, suite.trim_end_matches("-backports")];
        let lines: String = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYS}] {archive} {suite} main\n"))
            .collect();
        fs::write(&sources, lines)?;
        fs::write(
            dir.join("preferences"),
            format!("Package: *\nPin: release n={suite}\nPin-Priority: 900\n"),
        )?;
        Self {
            dir,
            sources: Some(sources),
        }
        .with_fresh_lists()
    }

    fn with_fresh_lists(self) -> Result<Self> {
        let state = self;
        for folder in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(state.dir.join(folder))?;
        }
        let status = state.dir.join("status");
        if !status.exists() {
            fs::write(&status, "")?;
        }
        let stamp = state.dir.join("updated");
        let age = stamp
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_none_or(|age| age > LISTS_GO_STALE_AFTER) {
            let step = Step::start("fetching the Debian package lists");
            cmd::run(state.apt_get().arg("update"))
                .context("cannot fetch the Debian package lists (is there a network?)")?;
            // apt calls it a success when no mirror answered.
            if !state.has_lists()? {
                bail!("cannot fetch the Debian package lists (is there a network?)");
            }
            fs::write(&stamp, "")?;
            step.done();
        }
        Ok(state)
    }

    /// Whether any package list has been fetched.
    fn has_lists(&self) -> Result<bool> {
        let lists = self.dir.join("lists");
        for entry in
            fs::read_dir(&lists).with_context(|| format!("cannot read {}", lists.display()))?
        {
            // `..._Packages`, or with the ending of a compression.
            if entry?.file_name().to_string_lossy().contains("_Packages") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `apt-get` working on this state.
    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let set = |name: &str, path: &str| format!("{name}={}", self.dir.join(path).display());
        command.args([
            "-o",
            &set("Dir::State::Lists", "lists/"),
            "-o",
            &set("Dir::State::status", "status"),
            "-o",
            &set("Dir::Cache::Archives", "archives/"),
            "-o",
            &set("Dir::Cache::pkgcache", "pkgcache.bin"),
            "-o",
            &set("Dir::Cache::srcpkgcache", "srcpkgcache.bin"),
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Debug::NoLocking=1",
            "-o",
            "Acquire::Languages=none",
            "-q",
        ]);
        if let Some(sources) = &self.sources {
            command.args(["-o", &format!("Dir::Etc::sourcelist={}", sources.display())]);
            command.args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
            command.args(["-o", &set("Dir::Etc::preferences", "preferences")]);
            command.args(["-o", "Dir::Etc::preferencesparts=/dev/null"]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_chatter_is_passed_over() {
        let text = "Reading package lists...\n\
            The following NEW packages will be installed:\n\
            \x20 busybox-static\n\
            'http://mirror/pool/b/busybox-static_1.35%2bb1_amd64.deb' \
            busybox-static_1%3a1.35+b1_amd64.deb 928188 SHA256:f6f1\n\
            'http://mirror/pool/x.dsc' x.dsc 10 SHA256:00\n\
            'broken\n";
        assert_eq!(
            parse_uris(text),
            [Deb {
                uri: "http://mirror/pool/b/busybox-static_1.35%2bb1_amd64.deb".into(),
                file: "busybox-static_1%3a1.35+b1_amd64.deb".into(),
                hash: "SHA256:f6f1".into(),
            }]
        );
    }

    #[test]
    fn lists_that_no_mirror_answered_for_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let state = State {
            dir: dir.path().to_path_buf(),
            sources: None,
        };
        assert!(state.has_lists().is_err());
        fs::create_dir_all(dir.path().join("lists/partial")).unwrap();
        fs::write(dir.path().join("lists/lock"), "").unwrap();
        assert!(!state.has_lists().unwrap());
        let list = "lists/mirror_dists_bookworm_main_binary-amd64_Packages.lz4";
        fs::write(dir.path().join(list), "").unwrap();
        assert!(state.has_lists().unwrap());
    }

    #[test]
    fn a_line_without_a_size_is_no_package() {
        assert!(parse_uris("'http://mirror/a.deb' a.deb\n").is_empty());
        assert!(parse_uris("'http://mirror/a.deb' a.deb big SHA256:0\n").is_empty());
    }

    #[test]
    #[ignore = "takes packages from the network; run with --ignored"]
    fn packages_are_unpacked_with_what_they_depend_on() {
        let has = |root: &Path, file: &str| root.join(file).symlink_metadata().is_ok();
        let alone = unpacked(&["bochsbios", "vgabios"], Needs::Nothing).unwrap();
        assert!(has(&alone, "usr/share/bochs/BIOS-bochs-latest"));
        assert!(has(&alone, "usr/share/vgabios/vgabios.bin"));
        let whole = unpacked(&["kmod"], Needs::Dependencies).unwrap();
        assert!(has(&whole, "bin/kmod") || has(&whole, "usr/bin/kmod"));
        assert!(has(&whole, "lib/x86_64-linux-gnu/libc.so.6"));
        assert!(unpacked(&["no-such-package"], Needs::Nothing).is_err());
    }
}

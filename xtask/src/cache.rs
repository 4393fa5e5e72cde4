//! The cache: what was downloaded or built once, outside of the checkout.
//!
//! Every entry appears whole or not at all: it is made under a temporary
//! name and renamed into place, under a lock, so that two runs at the same
//! time, or one that was interrupted, leave nothing half done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The cache's folder: `$UMBRA_CACHE`, else `$XDG_CACHE_HOME/umbra`, else
/// `~/.cache/umbra`. It is made if it is not there.
///
/// # Errors
/// None of the three is set, or the folder cannot be made.
pub fn dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = if let Some(dir) = set("UMBRA_CACHE") {
        PathBuf::from(dir)
    } else if let Some(dir) = set("XDG_CACHE_HOME") {
        PathBuf::from(dir).join("umbra")
    } else if let Some(home) = set("HOME") {
        PathBuf::from(home).join(".cache/umbra")
    } else {
        anyhow::bail!("no place for the cache: set UMBRA_CACHE to a folder");
    };
    fs::create_dir_all(&dir).with_context(|| {
        format!(
            "cannot make the cache folder {} (set UMBRA_CACHE to another one)",
            dir.display()
        )
    })?;
    dir.canonicalize()
        .with_context(|| format!("cannot read the cache folder {}", dir.display()))
}

/// The folder `name` (which may hold `/`) in the cache, made by `fill` if it
/// is not there yet.
///
/// `fill` gets an empty folder, which becomes the entry when `fill` returns
/// without an error. Choose a `name` that changes with everything the content
/// depends on (a version, a hash): an entry that is there is never made again.
///
/// # Errors
/// Those of `fill`, and those of the file system.
pub fn entry(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = dir()?;
    let entry = cache.join(name);
    if entry.exists() {
        return Ok(entry);
    }
    let parent = entry.parent().unwrap_or(&cache).to_path_buf();
    fs::create_dir_all(&parent)
        .with_context(|| format!("cannot make the folder {}", parent.display()))?;
    let _lock = lock(&cache, name)?;
    // Another run may have made it while this one waited for the lock.
    if entry.exists() {
        return Ok(entry);
    }
    let fresh = tempfile::Builder::new()
        .prefix(".new-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot write to {}", parent.display()))?;
    fill(fresh.path())?;
    // A temporary folder is private; an entry is as readable as any other file.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))?;
    let fresh = fresh.keep();
    fs::rename(&fresh, &entry)
        .with_context(|| format!("cannot put {} in its place", entry.display()))?;
    Ok(entry)
}

/// Holds off other runs that work on the cache entry `name`, until the
/// returned file is dropped.
fn lock(cache: &Path, name: &str) -> Result<File> {
    let locks = cache.join("locks");
    fs::create_dir_all(&locks)?;
    let path = locks.join(name.replace('/', "-"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The SHA-256 of some bytes, as 64 lower-case hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_the_published_one() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

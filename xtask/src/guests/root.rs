//! A folder that holds unpacked packages, read as if it were `/`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

/// How many symbolic links are followed for one path, as in Linux.
const MAX_LINKS: u32 = 40;

/// A folder with unpacked packages.
#[derive(Clone, Debug)]
pub struct Root {
    folder: PathBuf,
}

impl Root {
    /// The packages unpacked into `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
        }
    }

    /// The file at `path` below this root, with symbolic links followed inside
    /// of the root: an absolute one starts again at the root.
    ///
    /// Some packages hold `/lib` and others `/usr/lib` for the same folder of
    /// an installed system, `/bin` and `/sbin` alike: what is not at one place
    /// is looked for at the other.
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        self.resolve(path).filter(|file| file.is_file())
    }

    /// As [`Root::file`], for a folder.
    pub fn directory(&self, path: &str) -> Option<PathBuf> {
        self.resolve(path).filter(|folder| folder.is_dir())
    }

    /// The first of the paths in `choices`, which `|` keeps apart, that is a
    /// file, and that file.
    ///
    /// # Errors
    /// None is.
    pub fn first_of<'a>(&self, choices: &'a str) -> Result<(&'a str, PathBuf)> {
        for path in choices.split('|').map(str::trim) {
            if let Some(file) = self.file(path) {
                return Ok((path, file));
            }
        }
        bail!(
            "the Debian packages in {} lack {choices}",
            self.folder.display()
        );
    }

    fn resolve(&self, path: &str) -> Option<PathBuf> {
        let path = path.trim_start_matches('/');
        self.follow(path)
            .or_else(|| self.follow(&format!("usr/{path}")))
            .or_else(|| self.follow(path.strip_prefix("usr/")?))
    }

    /// Follows `path` component by component.
    fn follow(&self, path: &str) -> Option<PathBuf> {
        let mut at = PathBuf::new();
        let mut ahead: Vec<PathBuf> = reversed(Path::new(path));
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == Path::new("..") {
                // At the root, `..` stays there.
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let full = self.folder.join(&next);
            let Ok(target) = fs::read_link(&full) else {
                // Not a link; whether it is there shows at the end.
                at = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if target.is_absolute() {
                at = PathBuf::new();
            }
            ahead.extend(reversed(&target));
        }
        let found = self.folder.join(at);
        found.exists().then_some(found)
    }
}

/// The components of `path` that lead somewhere, the last one first.
fn reversed(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with a file `usr/lib/real`, and its folder.
    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib/deep")).unwrap();
        fs::write(dir.path().join("usr/lib/real"), "x").unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn links_stay_inside_of_the_root() {
        let (dir, root) = root();
        let real = Some(dir.path().join("usr/lib/real"));
        let below = |path: &str| dir.path().join(path);
        symlink("real", below("usr/lib/relative")).unwrap();
        symlink("/usr/lib/real", below("usr/lib/absolute")).unwrap();
        symlink("../../../../../../usr/lib/real", below("usr/lib/deep/up")).unwrap();
        symlink("/usr/lib", below("folder")).unwrap();
        symlink("/etc/passwd", below("usr/lib/outside")).unwrap();
        for path in [
            "usr/lib/real",
            "/usr/lib/real",
            "usr/lib/relative",
            "usr/lib/absolute",
            "usr/lib/deep/up",
            "folder/absolute",
        ] {
            assert_eq!(root.file(path), real, "{path}");
        }
        assert_eq!(root.file("usr/lib/outside"), None);
    }

    #[test]
    fn a_ring_of_links_leads_nowhere() {
        let (dir, root) = root();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert_eq!(root.file("a"), None);
    }

    #[test]
    fn usr_is_the_same_place() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/sh"), "").unwrap();
        assert_eq!(root.file("lib/real"), Some(dir.path().join("usr/lib/real")));
        assert_eq!(root.file("usr/bin/sh"), Some(dir.path().join("bin/sh")));
        assert_eq!(root.file("usr/lib/deep"), None, "a folder is no file");
        assert!(root.directory("lib/deep").is_some());
    }

    #[test]
    fn the_first_that_is_there_is_taken() {
        let (dir, root) = root();
        assert_eq!(
            root.first_of("usr/bin/none | usr/lib/real").unwrap(),
            ("usr/lib/real", dir.path().join("usr/lib/real"))
        );
        let error = root.first_of("a | b").unwrap_err().to_string();
        assert!(error.contains("a | b"), "{error}");
    }
}

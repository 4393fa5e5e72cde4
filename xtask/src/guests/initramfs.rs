//! Writing an initramfs: a cpio archive in the "newc" format, as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.
//!
//! No rights are needed, device nodes included, and the same content always
//! gives the same bytes: entries are sorted, belong to root and have no time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cpio::newc;

use crate::cache;
use crate::ui::Step;

/// The file-type bits of a mode, as in `stat`.
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR_FILE: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// The file with this initramfs of the guest `name`, out of the cache where it is there.
///
/// Uncompressed: under an emulator, unpacking costs more instructions than the longer file
/// takes to read.
///
/// # Errors
/// What it holds cannot be read, or the cache cannot be written to.
pub fn cached(name: &str, initramfs: &Initramfs) -> Result<PathBuf> {
    let key = cache::sha256(initramfs.fingerprint()?.as_bytes());
    let short = key.get(..12).unwrap_or(&key);
    let entry = cache::entry(&format!("guests/{name}-{short}"), |folder| {
        let step = Step::start(format!("assembling the guest {name}"));
        write_file(initramfs, &folder.join("initrd"))?;
        step.done();
        Ok(())
    })?;
    Ok(entry.join("initrd"))
}

/// What a file is filled from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// A file of the machine that `./x` runs on.
    File(PathBuf),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    Directory,
    File { mode: u32, content: Content },
    Link { target: String },
    CharacterDevice { mode: u32, major: u32, minor: u32 },
}

/// An initramfs in the making.
///
/// Paths are relative to its root, without a leading `/`. The folders above an
/// entry come by themselves; an entry of the same path takes the place of the
/// one before.
#[derive(Clone, Default, Debug)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// An initramfs that holds `/dev/console`, which the kernel opens for its
    /// first program before anything is mounted.
    pub fn new() -> Self {
        let mut new = Self::default();
        new.character_device("dev/console", 0o600, 5, 1);
        new
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: &str) {
        self.add(path, Entry::Directory);
    }

    /// Adds a file with these bytes and permissions (`mode`, as for `chmod`).
    pub fn bytes(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        let content = Content::Bytes(bytes.into());
        self.add(path, Entry::File { mode, content });
    }

    /// Adds a file that is a copy of the file `from`.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) {
        let content = Content::File(from.to_path_buf());
        self.add(path, Entry::File { mode, content });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(
            path,
            Entry::Link {
                target: target.to_owned(),
            },
        );
    }

    /// Adds the node of a character device.
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.add(path, Entry::CharacterDevice { mode, major, minor });
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            if let Some(parent) = path.get(..at) {
                self.entries
                    .entry(parent.to_owned())
                    .or_insert(Entry::Directory);
            }
        }
        // A folder that is there already keeps what is in it either way.
        self.entries.insert(path.to_owned(), entry);
    }

    /// A text that changes whenever the archive would: the entries, with the
    /// size and time of files to copy instead of their content, so that it
    /// takes no time.
    ///
    /// # Errors
    /// A file to copy is not there.
    pub fn fingerprint(&self) -> Result<String> {
        let mut text = String::new();
        for (path, entry) in &self.entries {
            text.push_str(path);
            text.push(' ');
            text.push_str(&match entry {
                Entry::File {
                    mode,
                    content: Content::File(from),
                } => {
                    let meta = metadata(from)?;
                    format!("{mode:o} {} {:?}", meta.len(), meta.modified().ok())
                }
                Entry::File {
                    mode,
                    content: Content::Bytes(bytes),
                } => format!("{mode:o} {}", cache::sha256(bytes)),
                other => format!("{other:?}"),
            });
            text.push('\n');
        }
        Ok(text)
    }

    /// Writes the archive, uncompressed.
    ///
    /// # Errors
    /// A file to copy cannot be read or is 4 GiB or larger; or those of `out`.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let mut inode = 0;
        for (path, entry) in &self.entries {
            inode += 1;
            write_entry(out, inode, path, entry)
                .with_context(|| format!("cannot put {path} into an initramfs"))?;
        }
        newc::trailer(out)?;
        Ok(())
    }

    /// The archive as bytes; see [`Initramfs::write`].
    ///
    /// # Errors
    /// Those of [`Initramfs::write`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write_entry(out: &mut impl Write, inode: u32, path: &str, entry: &Entry) -> Result<()> {
    let head = |mode| newc::Builder::new(path).ino(inode).mode(mode).nlink(1);
    let none: &[u8] = &[];
    match entry {
        Entry::Directory => put(out, head(DIRECTORY | 0o755).nlink(2), none),
        Entry::File { mode, content } => {
            let read;
            let bytes = match content {
                Content::Bytes(bytes) => bytes,
                Content::File(from) => {
                    read = fs::read(from)
                        .with_context(|| format!("cannot read {}", from.display()))?;
                    &read
                }
            };
            put(out, head(REGULAR_FILE | mode), bytes)
        }
        Entry::Link { target } => put(out, head(SYMBOLIC_LINK | 0o777), target.as_bytes()),
        Entry::CharacterDevice { mode, major, minor } => {
            let head = head(CHARACTER_DEVICE | mode);
            put(out, head.rdev_major(*major).rdev_minor(*minor), none)
        }
    }
}

/// Writes one member: its header, its name and its content.
fn put(out: &mut impl Write, head: newc::Builder, bytes: &[u8]) -> Result<()> {
    let Ok(size_bytes) = u32::try_from(bytes.len()) else {
        bail!("it has {} bytes, and 4 GiB is too much", bytes.len());
    };
    let mut member = head.write(out, size_bytes);
    member.write_all(bytes)?;
    member.finish()?;
    Ok(())
}

/// Writes `initramfs` to the file `path`.
///
/// # Errors
/// Those of [`Initramfs::write`], and those of the file system.
pub fn write_file(initramfs: &Initramfs, path: &Path) -> Result<()> {
    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    initramfs.write(&mut out)?;
    out.flush()
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One member as a reader sees it.
    #[derive(PartialEq, Eq, Debug)]
    struct Member {
        name: String,
        mode: u32,
        device: (u32, u32),
        content: Vec<u8>,
    }

    /// A reader written from the format's description, not from the writer.
    fn members(mut rest: &[u8]) -> Vec<Member> {
        let total = rest.len();
        let mut members = Vec::new();
        loop {
            assert_eq!((total - rest.len()) % 4, 0, "a header is 4-byte aligned");
            assert_eq!(&rest[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&rest[6 + n * 8..14 + n * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(rest[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(rest[110 + name_size - 1], 0);
            let start = (110 + name_size).next_multiple_of(4);
            let content = rest[start..start + size].to_vec();
            let device = (field(9), field(10));
            rest = &rest[start + size.next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(rest.is_empty());
                return members;
            }
            members.push(Member {
                name,
                mode,
                device,
                content,
            });
        }
    }

    fn find<'a>(members: &'a [Member], name: &str) -> &'a Member {
        members.iter().find(|member| member.name == name).unwrap()
    }

    #[test]
    fn every_kind_of_entry_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("five");
        fs::write(&file, "12345").unwrap();
        let mut initramfs = Initramfs::new();
        initramfs.directory("proc");
        initramfs.bytes("init", 0o755, "#!/bin/sh\n");
        initramfs.copy("usr/bin/five", 0o644, &file);
        initramfs.link("bin", "usr/bin");
        let members = members(&initramfs.to_bytes().unwrap());
        assert_eq!(find(&members, "proc").mode, 0o040_755);
        assert_eq!(find(&members, "init").mode, 0o100_755);
        assert_eq!(find(&members, "init").content, b"#!/bin/sh\n");
        assert_eq!(find(&members, "usr/bin/five").mode, 0o100_644);
        assert_eq!(find(&members, "usr/bin/five").content, b"12345");
        assert_eq!(find(&members, "bin").mode, 0o120_777);
        assert_eq!(find(&members, "bin").content, b"usr/bin");
        assert_eq!(find(&members, "dev/console").mode, 0o020_600);
        assert_eq!(find(&members, "dev/console").device, (5, 1));
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut initramfs = Initramfs::default();
        initramfs.bytes("a/b/c", 0o644, "");
        initramfs.bytes("a-b", 0o644, "");
        initramfs.bytes("/a/b/a", 0o644, "");
        let names: Vec<String> = members(&initramfs.to_bytes().unwrap())
            .into_iter()
            .map(|member| member.name)
            .collect();
        assert_eq!(names, ["a", "a-b", "a/b", "a/b/a", "a/b/c"]);
    }

    #[test]
    fn every_length_is_padded() {
        for len in 0..9 {
            let mut initramfs = Initramfs::default();
            initramfs.bytes(&"n".repeat(len + 1), 0o600, vec![7; len]);
            initramfs.bytes("z", 0o600, "end");
            let bytes = initramfs.to_bytes().unwrap();
            let members = members(&bytes);
            assert_eq!(members[0].content, vec![7; len]);
            assert_eq!(members[1].content, b"end");
        }
    }

    #[test]
    fn the_order_of_adding_changes_nothing() {
        let mut one = Initramfs::new();
        one.bytes("x", 0o600, "x");
        one.directory("y");
        let mut other = Initramfs::new();
        other.directory("y");
        other.bytes("x", 0o600, "x");
        assert_eq!(one.to_bytes().unwrap(), other.to_bytes().unwrap());
        assert_eq!(one.fingerprint().unwrap(), other.fingerprint().unwrap());
    }

    #[test]
    fn the_fingerprint_follows_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "1").unwrap();
        let mut seen = Vec::new();
        let mut see = |initramfs: &Initramfs| {
            let print = initramfs.fingerprint().unwrap();
            assert!(!seen.contains(&print), "{print}");
            seen.push(print);
        };
        let mut initramfs = Initramfs::new();
        see(&initramfs);
        initramfs.copy("f", 0o644, &file);
        see(&initramfs);
        fs::write(&file, "22").unwrap();
        see(&initramfs);
        initramfs.copy("f", 0o755, &file);
        see(&initramfs);
        initramfs.bytes("g", 0o644, "a");
        see(&initramfs);
        initramfs.bytes("g", 0o644, "b");
        see(&initramfs);
        initramfs.link("g", "b");
        see(&initramfs);
        initramfs.character_device("g", 0o600, 1, 3);
        see(&initramfs);
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut initramfs = Initramfs::new();
        initramfs.copy("f", 0o644, Path::new("/nowhere/at/all"));
        let error = format!("{:#}", initramfs.to_bytes().unwrap_err());
        assert!(error.contains("/nowhere/at/all"), "{error}");
        assert!(initramfs.fingerprint().is_err());
    }
}

//! Kernel modules: where they are, and which others they need.
//!
//! The list of dependencies that `modprobe` reads is made when a kernel is
//! installed; here nothing is, so the modules themselves are asked.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lzma_rust2::XzReader;
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use ruzstd::decoding::StreamingDecoder;

use super::root::Root;

/// One kernel module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its name as its file has it, for example `kvm-intel`.
    pub name: String,
    /// The file, uncompressed, as `insmod` takes it.
    pub bytes: Vec<u8>,
}

/// The modules `names` of the one kernel in `root`, and those that they need,
/// in an order in which they can be loaded.
///
/// # Errors
/// There is no such module, or it cannot be read.
pub fn with_needs(root: &Root, names: &[String]) -> Result<Vec<Module>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let Some(folder) = root.directory("lib/modules") else {
        bail!("the Debian packages hold no kernel modules");
    };
    let mut files = Vec::new();
    collect(&folder, &mut files)?;
    let mut loaded = Vec::new();
    for name in names {
        load(name, &files, &mut Vec::new(), &mut loaded)?;
    }
    Ok(loaded)
}

/// Appends `name` to `loaded` after what it needs; `above` are the modules
/// that wait for it.
fn load(
    name: &str,
    files: &[PathBuf],
    above: &mut Vec<String>,
    loaded: &mut Vec<Module>,
) -> Result<()> {
    if loaded.iter().any(|module| same(&module.name, name)) {
        return Ok(());
    }
    if above.iter().any(|waiting| same(waiting, name)) {
        bail!("the kernel module {name} needs itself");
    }
    let Some((file, stem)) = files.iter().find_map(|file| {
        stem(file)
            .filter(|stem| same(stem, name))
            .map(|s| (file, s))
    }) else {
        bail!("there is no kernel module {name} in the Debian packages");
    };
    let bytes = read(file)?;
    let needs =
        needs(&bytes).with_context(|| format!("cannot make out what {} needs", file.display()))?;
    above.push(name.to_owned());
    for need in needs {
        load(&need, files, above, loaded)?;
    }
    above.pop();
    loaded.push(Module {
        name: stem.to_owned(),
        bytes,
    });
    Ok(())
}

/// Whether two names mean the same module: `-` and `_` are alike.
fn same(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.replace('-', "_");
    plain(one) == plain(other)
}

/// The module's name, if `file` is one.
fn stem(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    ["", ".xz", ".zst"]
        .iter()
        .find_map(|packed| name.strip_suffix(packed)?.strip_suffix(".ko"))
}

/// All files below `folder`, sorted.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let read = || format!("cannot read {}", folder.display());
    let mut entries = fs::read_dir(folder)
        .with_context(read)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(read)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // A link (`build`, `source`) is neither and is passed over.
        let kind = entry.file_type().with_context(read)?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The module's bytes, uncompressed.
fn read(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut plain = Vec::new();
    match file.extension().and_then(OsStr::to_str) {
        Some("xz") => XzReader::new(&*bytes, true).read_to_end(&mut plain),
        Some("zst") => StreamingDecoder::new(&*bytes)
            .map_err(io::Error::other)
            .and_then(|mut decoder| decoder.read_to_end(&mut plain)),
        _ => return Ok(bytes),
    }
    .with_context(|| format!("cannot decompress {}", file.display()))?;
    Ok(plain)
}

/// What the module `bytes` says that it needs, in its `.modinfo` section.
fn needs(bytes: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((_, section)) = sections.section_by_name(endian, b".modinfo") else {
        bail!("it has no section .modinfo");
    };
    Ok(parse_needs(section.data(endian, bytes)?))
}

/// Reads a `.modinfo` section: `NAME=VALUE` texts, each ended by a NUL.
fn parse_needs(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|&byte| byte == 0)
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("depends="))
        .flat_map(|needs| needs.split(','))
        .filter(|need| !need.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use object::write::Object;
    use object::{Architecture, BinaryFormat, SectionKind};

    use super::*;

    /// An ELF file with this `.modinfo` section.
    fn module(modinfo: &str) -> Vec<u8> {
        let mut object = Object::new(
            BinaryFormat::Elf,
            Architecture::X86_64,
            object::Endianness::Little,
        );
        let section = object.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::Data);
        object.append_section_data(section, modinfo.as_bytes(), 1);
        object.write().unwrap()
    }

    /// A root with modules, each with what it needs.
    fn root(modules: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("lib/modules/6.1/kernel/arch");
        fs::create_dir_all(&folder).unwrap();
        for (name, needs) in modules {
            let modinfo = format!("license=GPL\0depends={needs}\0name={name}\0");
            fs::write(folder.join(name), module(&modinfo)).unwrap();
        }
        let root = Root::new(dir.path());
        (dir, root)
    }

    fn names(root: &Root, wanted: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let modules = with_needs(root, &wanted)?;
        Ok(modules.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let (_dir, root) = root(&[
            ("kvm-intel.ko", "kvm"),
            ("kvm.ko", "irq_bypass,lib"),
            ("irq-bypass.ko", ""),
            ("lib.ko", "irq-bypass"),
            ("other.ko", ""),
        ]);
        assert_eq!(
            names(&root, &["kvm_intel", "lib"]).unwrap(),
            ["irq-bypass", "lib", "kvm", "kvm-intel"]
        );
        assert!(names(&root, &[]).unwrap().is_empty());
    }

    #[test]
    fn missing_modules_and_rings_are_refused() {
        let (_dir, root) = root(&[("a.ko", "b"), ("b.ko", "a"), ("c.ko", "gone")]);
        let error = |name| names(&root, &[name]).unwrap_err().to_string();
        assert!(error("a").contains("needs itself"));
        assert!(error("c").contains("no kernel module gone"));
        assert!(error("d").contains("no kernel module d"));
    }

    #[test]
    fn a_compressed_module_is_unpacked() {
        let plain = module("depends=\0name=a\0");
        let mut xz =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
        io::Write::write_all(&mut xz, &plain).unwrap();
        let zst =
            ruzstd::encoding::compress_to_vec(&*plain, ruzstd::encoding::CompressionLevel::Fastest);
        for (name, packed) in [("a.ko.xz", xz.finish().unwrap()), ("a.ko.zst", zst)] {
            let (dir, root) = root(&[]);
            let file = dir.path().join("lib/modules/6.1/kernel/arch").join(name);
            fs::write(&file, &packed).unwrap();
            let modules = with_needs(&root, &["a".to_owned()]).unwrap();
            assert_eq!(modules[0].bytes, plain, "{name}");
            fs::write(&file, &packed[..packed.len() / 2]).unwrap();
            let error = with_needs(&root, &["a".to_owned()]).unwrap_err();
            assert!(error.to_string().contains(name), "{error:#}");
        }
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(needs(b"hello").is_err());
        assert_eq!(parse_needs(b"depends=\0"), Vec::<String>::new());
        assert_eq!(parse_needs(b"x=depends=y\0depends=a,b"), ["a", "b"]);
    }
}

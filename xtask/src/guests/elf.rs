//! Which shared libraries a program needs, read from the ELF files themselves.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, StringTable};

use super::root::Root;

/// Where the dynamic linker of Debian on amd64 looks by itself.
const LIBRARY_FOLDERS: [&str; 4] = [
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "lib",
    "usr/lib",
];

/// What an ELF file asks for at run time.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Needs {
    /// The dynamic linker, for a program that has one.
    pub interpreter: Option<String>,
    /// The libraries by name (`DT_NEEDED`), in order.
    pub libraries: Vec<String>,
    /// Folders to look in before the usual ones (`DT_RUNPATH`, `DT_RPATH`),
    /// as they stand in the file: `$ORIGIN` is the folder of the file.
    pub folders: Vec<String>,
}

/// Reads what the ELF file `bytes` asks for. A static program asks for nothing.
///
/// # Errors
/// It is no 64-bit ELF file, or a damaged one.
pub fn needs(bytes: &[u8]) -> Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(interpreter) = segment.interpreter(endian, bytes)? {
            needs.interpreter = Some(String::from_utf8(interpreter.to_vec())?);
        }
    }
    let sections = header.sections(endian, bytes)?;
    let Some((entries, strings)) = sections.dynamic(endian, bytes)? else {
        return Ok(needs);
    };
    let strings = sections.strings(endian, bytes, strings)?;
    for entry in entries {
        match u32::try_from(entry.d_tag(endian)) {
            Ok(DT_NEEDED) => needs.libraries.push(text(entry, endian, strings)?),
            Ok(DT_RUNPATH | DT_RPATH) => needs.folders.extend(
                text(entry, endian, strings)?
                    .split(':')
                    .filter(|folder| !folder.is_empty())
                    .map(str::to_owned),
            ),
            _ => {}
        }
    }
    Ok(needs)
}

/// The string that a dynamic entry names.
fn text(
    entry: &object::elf::Dyn64<Endianness>,
    endian: Endianness,
    strings: StringTable<'_>,
) -> Result<String> {
    let offset = u32::try_from(entry.d_val(endian))?;
    let bytes = strings
        .get(offset)
        .map_err(|()| anyhow!("a dynamic entry names a string that is not there"))?;
    Ok(String::from_utf8(bytes.to_vec())?)
}

/// Everything that the programs need to run: the dynamic linker and all
/// libraries, each with its path below `/` and the file that it is.
///
/// `programs` are paths below `/` and their files.
///
/// # Errors
/// A file is no ELF file, or a library is in none of the packages.
pub fn libraries(root: &Root, programs: &[(String, PathBuf)]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut queue: VecDeque<(String, PathBuf)> = programs.iter().cloned().collect();
    while let Some((path, file)) = queue.pop_front() {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let needs = needs(&bytes).with_context(|| format!("cannot make out what {path} needs"))?;
        let folders = search_path(&path, &needs.folders);
        let mut add = |path: String, file: PathBuf| {
            if found.insert(path.clone(), file.clone()).is_none() {
                queue.push_back((path, file));
            }
        };
        if let Some(interpreter) = &needs.interpreter {
            match root.file(interpreter) {
                Some(file) => add(interpreter.trim_start_matches('/').to_owned(), file),
                None => bail!("{path} needs {interpreter}, which is in none of its packages"),
            }
        }
        for library in &needs.libraries {
            let place = folders.iter().find_map(|folder| {
                let place = format!("{folder}/{library}");
                root.file(&place).map(|file| (place, file))
            });
            match place {
                Some((place, file)) => add(place, file),
                None => bail!("{path} needs {library}, which is in none of its packages"),
            }
        }
    }
    Ok(found)
}

/// Where the libraries of the file at `path` are looked for, in order; paths
/// below `/`.
fn search_path(path: &str, own: &[String]) -> Vec<String> {
    let origin = Path::new(path)
        .parent()
        .map(|folder| folder.display().to_string())
        .unwrap_or_default();
    own.iter()
        .map(|folder| {
            folder
                .replace("${ORIGIN}", &origin)
                .replace("$ORIGIN", &origin)
                .trim_start_matches('/')
                .to_owned()
        })
        .chain(LIBRARY_FOLDERS.map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own program: a dynamic ELF file on every host that the
    /// tests run on.
    fn own() -> Vec<u8> {
        fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_real_program_names_libc_and_its_linker() {
        let needs = needs(&own()).unwrap();
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"));
        assert!(needs.interpreter.unwrap().contains("ld-linux"));
    }

    #[test]
    fn damaged_files_are_refused() {
        assert!(needs(b"").is_err());
        assert!(needs(b"#!/bin/sh\n").is_err());
        let whole = own();
        assert!(needs(&whole[..whole.len() / 2]).is_err());
    }

    #[test]
    fn origin_is_the_folder_of_the_file() {
        let own = ["$ORIGIN/../lib".to_owned(), "/opt/lib".to_owned()];
        let path = search_path("usr/bin/tool", &own);
        assert_eq!(path[..2], ["usr/bin/../lib", "opt/lib"]);
        assert_eq!(path[2..], LIBRARY_FOLDERS);
    }

    #[test]
    fn a_library_in_no_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let program = ("bin/test".to_owned(), std::env::current_exe().unwrap());
        let error = libraries(&Root::new(dir.path()), std::slice::from_ref(&program))
            .unwrap_err()
            .to_string();
        assert!(error.contains("bin/test needs"), "{error}");
    }

    #[test]
    fn libraries_of_libraries_come_along_once() {
        // A root in which every library is this very program: its needs are
        // the same again, so the search has to end by itself.
        let dir = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let needs = needs(&own()).unwrap();
        let mut expected: Vec<String> = needs
            .libraries
            .iter()
            .map(|name| format!("lib/x86_64-linux-gnu/{name}"))
            .collect();
        if let Some(interpreter) = &needs.interpreter {
            expected.push(interpreter.trim_start_matches('/').to_owned());
        }
        for path in &expected {
            let place = dir.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&program, &place).unwrap();
        }
        // Links out of a root lead nowhere, so the root holds the program.
        let inside = dir.path().join(program.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&program, &inside).unwrap();
        let found = libraries(&Root::new(dir.path()), &[("bin/test".to_owned(), program)]).unwrap();
        expected.sort();
        expected.dedup();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), expected);
    }
}

//! No file imports one that imports it, by whatever way round: a reader who goes
//! down the imports of a package comes to an end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;

/// A module's path within its package; the root is empty.
type Module = Vec<String>;

/// The source files of a package with the modules that they are.
fn modules(src: &Path) -> BTreeMap<Module, PathBuf> {
    fn walk(folder: &Path, at: &Module, found: &mut BTreeMap<Module, PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            let mut module = at.clone();
            if path.is_dir() {
                module.push(name.into_owned());
                walk(&path, &module, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                // `mod.rs` is its folder; a library beside a program has a
                // root of its own, which imports what it declares.
                if !matches!(&*name, "mod" | "lib" | "main") {
                    module.push(name.into_owned());
                }
                found.entry(module).or_insert(path);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(src, &Vec::new(), &mut found);
    found
}

/// The paths that a use tree names: `a::{b, c::d}` names `a::b` and `a::c::d`.
fn paths(tree: &str, before: &[String], out: &mut Vec<Module>) {
    let tree = tree.trim();
    let (head, list) = match tree.split_once('{') {
        Some((head, rest)) => (head, rest.trim_end().strip_suffix('}')),
        None => (tree, None),
    };
    let mut path = before.to_vec();
    let head = head.split(" as ").next().unwrap_or_default();
    path.extend(
        head.split("::")
            .map(str::trim)
            .filter(|part| !part.is_empty() && *part != "self")
            .map(str::to_owned),
    );
    let Some(list) = list else {
        out.push(path);
        return;
    };
    let mut depth = 0;
    for item in list.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    }) {
        if !item.trim().is_empty() {
            paths(item, &path, out);
        }
    }
}

/// The modules of its own package that a file names outside of its tests.
fn named(text: &str, module: &Module) -> Vec<Module> {
    let comment = Regex::new(r"//[^\n]*").expect("a regex");
    let text = comment.replace_all(text, "");
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let import = Regex::new(r"\buse\s+(crate|super)::([^;]+);").expect("a regex");
    let elsewhere = Regex::new(r"\b(crate|super)::([\w:]+)").expect("a regex");
    let parent = &module[..module.len().saturating_sub(1)];
    let start = |word: &str| if word == "super" { parent } else { &[] };
    let mut out = Vec::new();
    for found in import.captures_iter(text) {
        paths(&found[2], start(&found[1]), &mut out);
    }
    for found in elsewhere.captures_iter(&import.replace_all(text, "")) {
        paths(&found[2], start(&found[1]), &mut out);
    }
    out
}

/// What each file of a package imports.
fn imports(src: &Path) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let modules = modules(src);
    let mut all = BTreeMap::new();
    for (module, file) in &modules {
        let text = std::fs::read_to_string(file).expect("a source file");
        let targets = named(&text, module)
            .iter()
            // The longest part of a path that is a module; the root hands on
            // what is elsewhere, and is no file to import.
            .filter_map(|path| (1..=path.len()).rev().find_map(|n| modules.get(&path[..n])))
            .filter(|target| *target != file)
            .cloned()
            .collect();
        all.insert(file.clone(), targets);
    }
    all
}

/// The files from which one comes back to themselves.
fn circle(imports: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Vec<&PathBuf> {
    let mut left: BTreeSet<&PathBuf> = imports.keys().collect();
    loop {
        // A file that imports nothing that is left, or that nothing left
        // imports, is in no circle.
        let ends: Vec<_> = left
            .iter()
            .copied()
            .filter(|file| {
                !imports[*file].iter().any(|to| left.contains(to))
                    || !left.iter().any(|from| imports[*from].contains(*file))
            })
            .collect();
        if ends.is_empty() {
            return left.into_iter().collect();
        }
        for end in ends {
            left.remove(end);
        }
    }
}

fn package_folders() -> Vec<PathBuf> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON");
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|p| PathBuf::from(p["manifest_path"].as_str().expect("a path")))
        .map(|manifest| manifest.parent().expect("a folder").join("src"))
        .collect()
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let folders = package_folders();
    assert!(folders.len() > 15, "only {} packages", folders.len());
    let mut files = 0;
    for src in folders {
        let imports = imports(&src);
        files += imports.values().map(BTreeSet::len).sum::<usize>();
        let circle = circle(&imports);
        assert!(circle.is_empty(), "a circle among {circle:#?}");
    }
    assert!(files > 300, "only {files} imports were found");
}

#[test]
fn use_trees_and_paths_are_understood() {
    let text = "use crate::a::{b, c::{self, d as e}, f};\nuse super::g;\n// use crate::no;\n\
                fn h() { crate::i::j(); }\n#[cfg(test)]\nmod tests { use crate::k; }";
    let module = vec!["m".to_owned(), "n".to_owned()];
    let mut found: Vec<String> = named(text, &module).iter().map(|p| p.join("::")).collect();
    found.sort();
    assert_eq!(found, ["a::b", "a::c", "a::c::d", "a::f", "i::j", "m::g"]);
}

#[test]
fn a_circle_is_found_and_what_hangs_on_it_is_not() {
    let graph: BTreeMap<PathBuf, BTreeSet<PathBuf>> = [
        ("a", &["b", "e"][..]),
        ("b", &["c"]),
        ("c", &["b", "d"]),
        ("d", &[]),
        ("e", &["d"]),
    ]
    .into_iter()
    .map(|(from, to)| (from.into(), to.iter().map(Into::into).collect()))
    .collect();
    assert_eq!(circle(&graph), [Path::new("b"), Path::new("c")]);
}

//! The house keeps its order: which package may use which, and where unsafe
//! code and assembly may live.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each package with the packages of this workspace that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("umbra-arch", &[]),
    ("umbra-vmcs", &["umbra-arch"]),
    ("umbra-ept", &["umbra-arch"]),
    ("umbra-nmi", &["umbra-arch", "umbra-vmcs"]),
    (
        "umbra-nested",
        &["umbra-arch", "umbra-vmcs", "umbra-ept", "umbra-nmi"],
    ),
    ("umbra-guests", &["umbra-arch"]),
    ("umbra-iommu", &["umbra-arch"]),
    ("umbra-hypapp", &["umbra-arch"]),
    (
        "umbra",
        &[
            "umbra-arch",
            "umbra-vmcs",
            "umbra-ept",
            "umbra-nmi",
            "umbra-nested",
            "umbra-guests",
            "umbra-iommu",
            "umbra-hypapp",
        ],
    ),
    ("xtask", &[]),
    // Not a hypervisor: it drives the library on a machine that has a unit.
    ("iommu", &["testvm-rt", "umbra-iommu"]),
];
/// Test VMs may use this, the definitions of the architecture and of the VMCS.
const TEST_VMS_MAY_USE: &[&str] = &["testvm-rt", "umbra-arch", "umbra-vmcs"];
/// The folders in which unsafe code and assembly may live: the image, and
/// what runs as a guest.
const UNSAFE_FOLDERS: &[&str] = &["core", "testvms", "guests/recipes"];
/// The file that declares unsafe functions for the image to call, and does nothing unsafe
/// itself; its package denies unsafe code everywhere else.
const DECLARES_UNSAFE: (&str, &str) = ("umbra-arch", "arch/src/hpa.rs");
/// The packages that build without the standard library.
const WITHOUT_STD: &[&str] = &[
    "umbra-arch",
    "umbra-vmcs",
    "umbra-ept",
    "umbra-nmi",
    "umbra-nested",
    "umbra-guests",
    "umbra-iommu",
    "umbra-hypapp",
];

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the checkout")
}

fn packages() -> Vec<Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(checkout())
        .output()
        .expect("cargo runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn folder(package: &Value) -> PathBuf {
    let manifest = package["manifest_path"].as_str().expect("manifest_path");
    let folder = Path::new(manifest).parent().expect("a folder");
    folder
        .strip_prefix(checkout())
        .expect("in the checkout")
        .to_path_buf()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn packages_use_only_what_is_below_them() {
    let packages = packages();
    let may_use: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let names: Vec<&str> = packages.iter().map(|p| text(p, "name")).collect();
    for known in may_use.keys() {
        assert!(names.contains(known), "{known} is no package any more");
    }
    for package in &packages {
        let name = text(package, "name");
        let allowed = match may_use.get(name) {
            Some(allowed) => allowed,
            None if folder(package).starts_with("testvms") => &TEST_VMS_MAY_USE,
            None => panic!("{name}: say in this test which packages it may use"),
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = text(dependency, "name");
            assert!(
                !names.contains(&used) || allowed.contains(&used),
                "{name} may not use {used}"
            );
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_outside_of_the_image_and_the_guests() {
    for package in packages() {
        let folder = folder(&package);
        if UNSAFE_FOLDERS.iter().any(|name| folder.starts_with(name)) {
            continue;
        }
        for target in package["targets"].as_array().expect("targets") {
            let kind = target["kind"][0].as_str().expect("kind");
            if kind != "lib" && kind != "bin" {
                continue;
            }
            let root = std::fs::read_to_string(text(target, "src_path")).expect("a source file");
            let has = |line: &str| root.lines().any(|l| l.trim() == line);
            let name = text(&package, "name");
            let lint = if name == DECLARES_UNSAFE.0 {
                "#![deny(unsafe_code)]"
            } else {
                "#![forbid(unsafe_code)]"
            };
            assert!(has(lint), "{name} lacks {lint}");
            if WITHOUT_STD.contains(&name) {
                let no_std = root.lines().any(|line| {
                    line.trim() == "#![no_std]" || line.trim() == "#![cfg_attr(not(test), no_std)]"
                });
                assert!(no_std, "{name} uses the standard library");
            }
        }
    }
}

#[test]
fn unsafe_functions_of_the_libraries_are_declared_in_one_file() {
    let (_, declares) = DECLARES_UNSAFE;
    let mut files = Vec::new();
    collect(&checkout().join("arch/src"), &mut files);
    for file in files {
        let inside = file.strip_prefix(checkout()).expect("in the checkout");
        let source = std::fs::read_to_string(&file).expect("a source file");
        let code = source
            .lines()
            .map(str::trim)
            .filter(|l| !l.starts_with("//"));
        let (mut lifted, mut declared) = (0, 0);
        for line in code.filter(|line| line.contains("unsafe")) {
            if line == "#[expect(unsafe_code)]" {
                lifted += 1;
            } else if line.contains("unsafe fn ") && !line.contains("unsafe {") {
                declared += 1;
            } else {
                assert_eq!(line, "#![deny(unsafe_code)]", "in {}", inside.display());
            }
        }
        assert_eq!(lifted, declared, "in {}", inside.display());
        assert_eq!(declared > 0, inside == Path::new(declares));
    }
}

#[test]
fn there_is_no_assembly_outside_of_the_image_and_the_guests() {
    for package in packages() {
        let folder = folder(&package);
        if UNSAFE_FOLDERS.iter().any(|name| folder.starts_with(name)) {
            continue;
        }
        let mut files = Vec::new();
        collect(&checkout().join(&folder), &mut files);
        assert!(!files.is_empty(), "{} has no files", folder.display());
        for file in files {
            let inside = file.strip_prefix(checkout()).expect("in the checkout");
            if UNSAFE_FOLDERS.iter().any(|name| inside.starts_with(name)) {
                continue;
            }
            let extension = file.extension().and_then(|e| e.to_str()).unwrap_or("");
            assert!(
                !matches!(extension, "S" | "s" | "asm"),
                "{} is assembly",
                file.display()
            );
            // This file has to name what it looks for.
            if extension != "rs" || file.ends_with(file!().trim_start_matches("xtask/")) {
                continue;
            }
            let source = std::fs::read_to_string(&file).expect("a source file");
            assert!(
                !source.contains("asm!("),
                "{} holds assembly",
                file.display()
            );
        }
    }
}

/// Every file below `folder`, without what is built.
/// Names of parameters and fields that are an address of a kind that has a type.
const ADDRESSES: &[&str] = &["linear", "gpa", "gpa1", "gpa2", "hpa", "region"];
/// The packages between L1's instruction and the machine's memory.
const TYPED: &[&str] = &["arch", "core", "ept", "nested"];

#[test]
fn an_address_is_no_number() {
    let mut found = Vec::new();
    for package in TYPED {
        let mut files = Vec::new();
        collect(&checkout().join(package).join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file is readable");
            for (number, line) in text.lines().enumerate() {
                let is_number = ADDRESSES.iter().any(|name| {
                    line.split([' ', '(', ','])
                        .collect::<Vec<_>>()
                        .windows(2)
                        .any(|pair| {
                            pair[0].strip_suffix(':') == Some(name) && pair[1].starts_with("u64")
                        })
                });
                if is_number {
                    found.push(format!("{}:{}: {line}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "these have a type in arch:\n{}",
        found.join("\n")
    );
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

//! `./x new-testvm`: a test VM to begin with, which runs at once.

use std::path::Path;

use anyhow::{Context, Result};

use crate::fail;

const MANIFEST: &str = r#"[package]
name = "NAME"
description = "WHAT IT IS ABOUT, in a sentence."
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
build = "../rt/link.rs"

[[bin]]
name = "NAME"
path = "src/main.rs"
test = false
bench = false

[dependencies]
rt = { package = "testvm-rt", path = "../rt" }
umbra-vmcs.workspace = true

[lints]
workspace = true
"#;

const MAIN: &str = r#"//! NAME: WHAT IT IS ABOUT.
//!
//! See `README.md` beside this crate for what it asks.
#![no_std]
#![no_main]

use rt::lab::{Choice, Group, Kinds, Stop, names};
use rt::vmx::Vmx;
use rt::vmx::vm::{Mode, Vm, layout};
use rt::{Boot, case, report};
use umbra_vmcs::exit::Reason;

rt::entry!(main);

/// What the groups work on.
struct Bench {
    vmx: Vmx,
    vm: Vm,
}

const GROUPS: [Group<Bench>; 1] = [("cpuid", cpuid)];

/// The words of the command line.
const WORDS: Kinds = &[&names(&GROUPS)];

/// CPUID, with VMCALL behind it.
const CODE: &[u8] = &[0x0f, 0xa2, 0x0f, 0x01, 0xc1];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    let vmx = Vmx::prepare()?;
    vmx.enter()?;
    let vm = Vm::new(&vmx);
    let mut bench = Bench { vmx, vm };
    for (name, run) in GROUPS {
        if choice.has(name) {
            report::group(format_args!("{name}"));
            run(&mut bench);
        }
    }
    Ok(())
}

/// CPUID exits, and L2 goes on behind it.
fn cpuid(bench: &mut Bench) {
    let vm = &mut bench.vm;
    vm.reset(Mode::Long, bench.vmx.has_ept());
    vm.bound();
    vm.memory.write_bytes(layout::CODE, CODE);
    for expected in [Reason::Cpuid, Reason::Vmcall] {
        let outcome = vm.run();
        case!("{}: {outcome}", expected.name());
        let Some(exit) = outcome.exit() else {
            return report::check(format_args!("an exit"), false);
        };
        report::check(format_args!("its reason"), exit.known() == Some(expected));
        vm.skip(&exit);
    }
}
"#;

const README: &str = r#"# NAME

WHAT IT IS ABOUT: what it asks of VMX, and under which titles the SDM answers.

| group | what it covers | sections of the SDM |
|---|---|---|
| `cpuid` | CPUID exits, whatever the controls say | "Instructions That Cause VM Exits Unconditionally" |

## How a line reads
As `docs/testing.md` has it under "How a transcript reads". Nothing is printed that may differ
between the bare machine and Umbra: no addresses, no ticks.
"#;

const DECLARATION: &str = r#"
[[test]]
name = "NAME"
group = "NAME"
guest = "NAME"
same_at_depths = [1, 2]
ticks = "2G" # to be measured: twice what its longest run takes
lines = ['^NAME: 2 cases, 2 checks, 0 wrong']
"#;

/// A row of the table of test VMs.
const ROW: &str = "| `testvms/NAME` | WHAT IT IS ABOUT |\n";
/// What is in front of that table's rows.
const TABLE: &str = "| folder | what it is about |\n|---|---|\n";

/// Makes the test VM `name` in the checkout at `root`, and declares it.
///
/// # Errors
/// A usage error for a name that cannot be one, or is taken; else what could not be
/// written.
pub fn make(root: &Path, name: &str) -> Result<()> {
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 32
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_name {
        return Err(fail::usage(format!(
            "'{name}' cannot name a test VM: take small letters, digits and '-', beginning with a letter, 32 at most"
        )));
    }
    let folder = root.join("testvms").join(name);
    let workspace = root.join("Cargo.toml");
    let declarations = root.join("xtask/tests.toml");
    let members = std::fs::read_to_string(&workspace)
        .with_context(|| format!("cannot read {}", workspace.display()))?;
    let declared = std::fs::read_to_string(&declarations)
        .with_context(|| format!("cannot read {}", declarations.display()))?;
    // A package's name, too, whatever its folder.
    let is_taken = folder.exists()
        || crate::guests::is_recipe(name)
        || members.contains(&format!("\"{name}\""))
        || declared.contains(&format!("name = \"{name}\""));
    if is_taken {
        return Err(fail::usage(format!(
            "'{name}' is taken: choose another name"
        )));
    }
    let members = with_member(&members, name)
        .with_context(|| format!("{} has no list of members", workspace.display()))?;
    let page = root.join("docs/testing.md");
    let told = std::fs::read_to_string(&page)
        .with_context(|| format!("cannot read {}", page.display()))?;
    let told = with_row(&told, name)
        .with_context(|| format!("{} has no table of test VMs", page.display()))?;

    std::fs::create_dir_all(folder.join("src"))
        .with_context(|| format!("cannot make {}", folder.display()))?;
    for (file, text) in [
        ("Cargo.toml", MANIFEST),
        ("src/main.rs", MAIN),
        ("README.md", README),
    ] {
        let file = folder.join(file);
        std::fs::write(&file, text.replace("NAME", name))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    std::fs::write(&workspace, members)
        .with_context(|| format!("cannot write {}", workspace.display()))?;
    let declared = declared + &DECLARATION.replace("NAME", name);
    std::fs::write(&declarations, declared)
        .with_context(|| format!("cannot write {}", declarations.display()))?;
    std::fs::write(&page, told).with_context(|| format!("cannot write {}", page.display()))?;
    eprintln!("x: made testvms/{name}: try `./x run {name}`, then `./x test {name}`");
    Ok(())
}

/// The workspace's manifest with another member, behind the test VMs that it has.
fn with_member(manifest: &str, name: &str) -> Option<String> {
    let start = manifest.find("members = [")?;
    let end = start + manifest[start..].find(']')?;
    Some(format!(
        "{}, \"testvms/{name}\"{}",
        &manifest[..end],
        &manifest[end..]
    ))
}

/// The page about testing with a row for another test VM, below those that it has.
fn with_row(page: &str, name: &str) -> Option<String> {
    let rows = page.find(TABLE)? + TABLE.len();
    let end = rows + page[rows..].find("\n\n")? + 1;
    let row = ROW.replace("NAME", name);
    Some(format!("{}{row}{}", &page[..end], &page[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("xtask")).unwrap();
        std::fs::create_dir(root.path().join("testvms")).unwrap();
        let members =
            "[workspace]\nmembers = [\"xtask\", \"testvms/rt\"]\ndefault-members = [\"xtask\"]\n";
        std::fs::write(root.path().join("Cargo.toml"), members).unwrap();
        let declared = "[[test]]\nname = \"old\"\n";
        std::fs::write(root.path().join("xtask/tests.toml"), declared).unwrap();
        std::fs::create_dir(root.path().join("docs")).unwrap();
        let page = format!("# Testing\n\n{TABLE}| `testvms/old` | old |\n\n## More\n");
        std::fs::write(root.path().join("docs/testing.md"), page).unwrap();
        root
    }

    #[test]
    fn a_test_vm_is_a_member_and_declared() {
        let root = checkout();
        make(root.path(), "timer-2").unwrap();
        let read = |file: &str| std::fs::read_to_string(root.path().join(file)).unwrap();
        assert!(
            read("Cargo.toml")
                .contains("members = [\"xtask\", \"testvms/rt\", \"testvms/timer-2\"]\ndefault")
        );
        assert!(read("testvms/timer-2/Cargo.toml").contains("name = \"timer-2\""));
        assert!(read("testvms/timer-2/src/main.rs").contains("//! timer-2: "));
        assert!(root.path().join("testvms/timer-2/README.md").is_file());
        assert!(read("docs/testing.md").contains(
            "| `testvms/old` | old |\n| `testvms/timer-2` | WHAT IT IS ABOUT |\n\n## More"
        ));
        let declared: toml::Value = toml::from_str(&read("xtask/tests.toml")).unwrap();
        assert_eq!(declared["test"][1]["guest"].as_str(), Some("timer-2"));
        // Once is enough.
        assert!(make(root.path(), "timer-2").is_err());
    }

    #[test]
    fn a_bad_name_is_refused_in_one_line_and_changes_nothing() {
        let root = checkout();
        let before = std::fs::read_to_string(root.path().join("Cargo.toml")).unwrap();
        for name in [
            "", "Timer", "2nd", "a/b", "..", "a b", "old", "rt", "kvm", "xtask",
        ] {
            if name == "rt" {
                std::fs::create_dir(root.path().join("testvms/rt")).unwrap();
            }
            let line = make(root.path(), name).unwrap_err().to_string();
            assert_eq!(line.lines().count(), 1, "{name}");
            assert!(line.contains(name), "{line}");
        }
        let after = std::fs::read_to_string(root.path().join("Cargo.toml")).unwrap();
        assert_eq!(before, after);
    }
}

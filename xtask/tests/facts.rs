//! A fact of the architecture is written once, in `arch`: no other product package
//! gives a number of its own to a name that is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PRODUCT: &[&str] = &["core", "ept", "guests", "iommu", "nested", "nmi", "vmcs"];

/// Names that say another thing in another file.
const AMBIGUOUS: &[&str] = &["LOW_LAST", "NMI", "VERSION"];

/// Reads CPUID bit by bit for the rules, each once, with the section that says so.
const READS_CPUID: &str = "vmcs/src/rules/cpu.rs";

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the checkout")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
    all
}

/// The name and value of a constant defined on this line.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.trim().split_once("const ")?;
    let (head, value) = rest.split_once(" = ")?;
    let name = head.split(':').next()?.trim();
    Some((name, value.trim_end_matches(';').trim()))
}

/// A value that a number alone stands for: `0x1d9`, `1 << 13`.
fn is_number(value: &str) -> bool {
    !value.is_empty()
        && value
            .chars()
            .all(|c| c.is_ascii_hexdigit() || matches!(c, 'x' | '_' | ' ' | '<'))
        && value.starts_with(|c: char| c.is_ascii_digit())
}

/// What `arch` names: its MSRs, and the bits of its registers with the register's name
/// before them (`CR4_VMXE`).
fn known() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in sources(&checkout().join("arch/src")) {
        let text = fs::read_to_string(&path).expect("a source file");
        let mut of = String::new();
        for line in text.lines() {
            let word = line.trim().trim_start_matches("pub ");
            if let Some(rest) = word.strip_prefix("struct ") {
                of = rest
                    .split([':', ' ', '{'])
                    .next()
                    .unwrap_or("")
                    .to_uppercase();
            } else if let Some((name, value)) = constant(line)
                && is_number(value)
            {
                names.insert(match of.as_str() {
                    "" if AMBIGUOUS.contains(&name) => continue,
                    "" => name.to_owned(),
                    of if of.starts_with("LEAF") => format!("CPUID_{name}"),
                    of => format!("{of}_{name}"),
                });
            } else if let Some((name, value)) = line.trim().split_once(" = ")
                && name.starts_with("IA32_")
                && is_number(value.trim_end_matches(';'))
            {
                let short = name.trim_start_matches("IA32_");
                names.extend([name.into(), short.into(), format!("MSR_{name}")]);
            }
        }
    }
    names
}

#[test]
fn a_fact_is_written_once() {
    let known = known();
    for name in [
        "CR4_VMXE",
        "EFER_LMA",
        "RFLAGS_TF",
        "IA32_DEBUGCTL",
        "XSS",
        "CPUID_VMX",
        "SHADOW_VMCS_INDICATOR",
    ] {
        assert!(known.contains(name), "{name} is not found in arch");
    }
    let mut again = Vec::new();
    for path in PRODUCT
        .iter()
        .flat_map(|p| sources(&checkout().join(p).join("src")))
    {
        let text = fs::read_to_string(&path).expect("a source file");
        for (n, line) in text.lines().enumerate() {
            if let Some((name, value)) = constant(line)
                && known.contains(name)
                && is_number(value)
            {
                let path = path.strip_prefix(checkout()).expect("of this checkout");
                again.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    assert!(again.is_empty(), "arch has these:\n{}", again.join("\n"));
}

/// A bit of CPUID, IA32_VMX_BASIC or IA32_VMX_MISC that a line names by its number.
fn bit_by_number(line: &str) -> bool {
    let line = line.trim();
    !line.starts_with("//")
        && ["eax", "ebx", "ecx", "edx", ".basic", ".misc"]
            .iter()
            .flat_map(|of| line.split(of).skip(1))
            .any(|after| {
                [" & 1 <<", " & !(1 <<", " |= 1 <<", " &= !(1 <<"]
                    .iter()
                    .any(|way| after.starts_with(way))
            })
}

#[test]
fn a_bit_that_has_a_name_is_not_a_number() {
    assert!(bit_by_number("    if cpuid(1, 0).edx & 1 << 7 != 0 {"));
    assert!(!bit_by_number("    let bits = cpuid(1, 0).eax & 0xff;"));
    let mut found = Vec::new();
    for path in PRODUCT
        .iter()
        .flat_map(|p| sources(&checkout().join(p).join("src")))
    {
        let text = fs::read_to_string(&path).expect("a source file");
        if path.ends_with(READS_CPUID) {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        for (n, line) in product.lines().enumerate() {
            if bit_by_number(line) {
                let path = path.strip_prefix(checkout()).expect("of this checkout");
                found.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "give these a name in arch:\n{}",
        found.join("\n")
    );
}

//! The documentation hangs together: every folder says what it is, and no link leads
//! nowhere.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders that a newcomer opens. Each test VM has its own README as well.
const ROOMS: &[&str] = &[
    "arch",
    "vmcs",
    "ept",
    "nmi",
    "nested",
    "guests",
    "guests/recipes",
    "iommu",
    "core",
    "xtask",
    "testvms",
];

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the checkout")
}

/// The Markdown files of the checkout.
fn pages() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.md",
        ])
        .current_dir(checkout())
        .output()
        .expect("git runs");
    let pages: Vec<PathBuf> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| checkout().join(line))
        .filter(|page| page.is_file())
        .collect();
    assert!(pages.len() > 20, "git lists no pages");
    pages
}

#[test]
fn every_room_has_a_readme() {
    let vms = std::fs::read_dir(checkout().join("testvms")).expect("there are test VMs");
    let vms = vms
        .flatten()
        .map(|vm| vm.path())
        .filter(|vm| vm.join("src/main.rs").is_file());
    let rooms = ROOMS.iter().map(|room| checkout().join(room));
    for room in rooms.chain(vms) {
        assert!(
            room.join("README.md").is_file(),
            "{} has no README.md",
            room.display()
        );
    }
}

/// The targets of a page's links that lead into the checkout.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split_once('#').map_or(target, |(file, _)| file))
}

#[test]
fn no_link_leads_nowhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page can be read");
        let folder = page.parent().expect("a page is in a folder");
        for target in targets(&text) {
            if !folder.join(target).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A page that names a file of the code names one that there is.
#[test]
fn how_tos_name_files_that_exist() {
    let roots = [
        "arch/", "vmcs/", "ept/", "nmi/", "nested/", "guests/", "core/", "xtask/", "testvms/",
    ];
    let mut wrong = Vec::new();
    for page in pages() {
        if !page
            .parent()
            .is_some_and(|folder| folder.ends_with("howto"))
        {
            continue;
        }
        let text = std::fs::read_to_string(&page).expect("a page can be read");
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = roots.iter().any(|root| name.starts_with(root)) && !name.contains("NAME");
            if is_path && !name.contains(' ') && !checkout().join(name).exists() {
                wrong.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

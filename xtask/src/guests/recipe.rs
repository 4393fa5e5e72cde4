//! What a recipe file says, and the initramfs that it makes.
//!
//! The recipes are in `guests/recipes`: one folder each, with a `recipe.toml`
//! and the programs that run in the guest.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::initramfs::Initramfs;
use super::root::Root;
use super::{elf, kmod};
use crate::debs;

/// A `recipe.toml`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The Debian packages; what they depend on comes along.
    pub packages: Vec<String>,
    /// The command line of L1's kernel, on every machine.
    pub cmdline: String,
    /// L1's initramfs.
    pub l1: System,
    /// L2's initramfs.
    pub l2: System,
}

/// What an initramfs holds.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Programs by their path in the packages, with all their libraries; of
    /// `A | B` the first that is there.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Other files by their path in the packages; choices as for programs.
    #[serde(default)]
    pub files: Vec<String>,
    /// Kernel modules by name, with those that they need. They are put into
    /// `/modules`, and `/modules/order` has their names in loading order.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The names in `/bin` under which busybox is called.
    #[serde(default)]
    pub applets: Vec<String>,
    /// Folders that have to be there.
    #[serde(default)]
    pub folders: Vec<String>,
}

impl Recipe {
    /// Reads the text of a `recipe.toml`.
    ///
    /// # Errors
    /// It does not say what a recipe has to say.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("cannot read the recipe")
    }

    /// Its packages, unpacked.
    ///
    /// # Errors
    /// They cannot be had.
    pub fn root(&self) -> Result<Root> {
        let names: Vec<&str> = self.packages.iter().map(String::as_str).collect();
        let packages = debs::unpacked(&names, debs::Needs::Dependencies)
            .context("the guest is made of Debian packages")?;
        Ok(Root::new(&packages))
    }
}

impl System {
    /// The initramfs with everything that this asks for, out of the packages
    /// in `root`, with the modules of the one kernel in `kernel`; `init` is the text of the
    /// script.
    ///
    /// # Errors
    /// The packages lack something; the message names it.
    pub fn initramfs(&self, root: &Root, kernel: &Root, init: &str) -> Result<Initramfs> {
        let mut initramfs = Initramfs::new();
        initramfs.bytes("init", 0o755, init);
        for folder in &self.folders {
            initramfs.directory(folder);
        }
        let mut programs: Vec<(String, PathBuf)> = Vec::new();
        for choices in &self.programs {
            let (path, file) = root.first_of(choices)?;
            initramfs.copy(path, 0o755, &file);
            programs.push((path.to_owned(), file));
        }
        for (path, file) in elf::libraries(root, &programs)? {
            initramfs.copy(&path, 0o755, &file);
        }
        for choices in &self.files {
            let (path, file) = root.first_of(choices)?;
            initramfs.copy(path, 0o644, &file);
        }
        for applet in &self.applets {
            initramfs.link(&format!("bin/{applet}"), "busybox");
        }
        let modules = kmod::with_needs(kernel, &self.modules)?;
        if !modules.is_empty() {
            let order: String = modules
                .iter()
                .map(|module| format!("{}\n", module.name))
                .collect();
            initramfs.bytes("modules/order", 0o644, order);
        }
        for module in modules {
            initramfs.bytes(&format!("modules/{}.ko", module.name), 0o644, module.bytes);
        }
        Ok(initramfs)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SMALL: &str = "packages = ['p']\ncmdline = ''\n[l1]\n[l2]\n";

    #[test]
    fn a_word_that_no_recipe_has_is_refused() {
        assert_eq!(Recipe::parse(SMALL).unwrap().packages, ["p"]);
        let error = format!(
            "{:#}",
            Recipe::parse(&format!("{SMALL}modlues = ['x']\n")).unwrap_err()
        );
        assert!(error.contains("modlues"), "{error}");
        assert!(Recipe::parse("packages = []").is_err());
    }

    #[test]
    fn files_folders_and_applets_take_their_places() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/share")).unwrap();
        fs::write(dir.path().join("usr/share/bios"), "rom").unwrap();
        let system = System {
            files: vec!["share/none | usr/share/bios".into()],
            applets: vec!["cat".into()],
            folders: vec!["proc".into()],
            ..System::default()
        };
        let root = Root::new(dir.path());
        let made = system
            .initramfs(&root, &root, "#!/bin/busybox sh\n")
            .unwrap();
        let mut expected = Initramfs::new();
        expected.bytes("init", 0o755, "#!/bin/busybox sh\n");
        expected.directory("proc");
        expected.bytes("usr/share/bios", 0o644, "rom");
        expected.link("bin/cat", "busybox");
        assert_eq!(made.to_bytes().unwrap(), expected.to_bytes().unwrap());
    }

    #[test]
    fn what_the_packages_lack_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let system = System {
            programs: vec!["usr/bin/qemu".into()],
            ..System::default()
        };
        let root = Root::new(dir.path());
        let error = system.initramfs(&root, &root, "").unwrap_err().to_string();
        assert!(error.contains("usr/bin/qemu"), "{error}");
    }
}

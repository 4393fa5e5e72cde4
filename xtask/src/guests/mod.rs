//! What can be booted as L1: the test VMs, the recipes, and any kernel file.
//!
//! A guest is a kernel, its command line and its modules. Where those come
//! from is the business of a recipe: a function in a file of its own here
//! that returns a [`Guest`], listed in [`RECIPES`].

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::{fail, images};

mod elf;
mod initramfs;
mod kmod;
pub mod kvm;
pub mod l0;
mod recipe;
mod root;
mod xen;

/// The guest where none is named.
pub const DEFAULT: &str = "lhv";

/// A file handed to the kernel beside it; for Linux the first is the
/// initramfs, and further ones are laid over it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// What the kernel gets as the module's string.
    pub args: String,
}

/// What boots as L1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    /// What the person called it.
    pub name: String,
    /// The kernel: multiboot, multiboot2 or Linux; may be gzipped.
    pub kernel: PathBuf,
    /// The kernel's command line, before what `--append` adds.
    pub cmdline: String,
    /// What the command line has besides where the machine is Bochs; `{khz}`
    /// stands for the CPU's speed.
    pub cmdline_on_bochs: String,
    /// The modules, in order, before those of `--module`.
    pub modules: Vec<Module>,
}

/// A kernel of another of Debian's releases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kernel {
    /// Of bullseye.
    #[value(name = "5.10")]
    V5_10,
    /// Of bookworm-backports.
    #[value(name = "6.12")]
    V6_12,
    /// Of trixie-backports: the newest.
    #[value(name = "newest")]
    Newest,
}

impl Kernel {
    /// The release that has it.
    pub const fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_12 => "bookworm-backports",
            Self::Newest => "trixie-backports",
        }
    }
}

/// A guest that `./x` assembles itself.
pub struct Recipe {
    /// What the person types.
    pub name: &'static str,
    /// One line for `./x run --help`.
    pub about: &'static str,
    /// Whether there are other kernels for it.
    pub has_kernels: bool,
    /// Assembles the guest, from the cache where it can.
    pub assemble: fn(Option<Kernel>) -> Result<Guest>,
}

/// Every recipe.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "kvm",
        about: "Debian with KVM and QEMU, which boots a Debian kernel of its own",
        has_kernels: true,
        assemble: kvm::assemble,
    },
    Recipe {
        name: "xen",
        about: "Debian's Xen with a Debian as dom0, which boots a PVH guest",
        has_kernels: false,
        assemble: xen::assemble,
    },
];

/// Whether `name` is that of a recipe: all of them boot an operating system.
pub fn is_recipe(name: &str) -> bool {
    RECIPES.iter().any(|recipe| recipe.name == name)
}

/// Whether `name` is a program for a machine that Umbra cannot run on: with an
/// IOMMU, and so without VMX.
pub fn runs_without_umbra(name: &str) -> bool {
    name == "iommu"
}

/// The guest that `name` means: a test VM, a recipe, or a kernel file.
///
/// A name without a `/` is looked up among the guests first, so a file of the
/// same name is named by `./NAME`.
///
/// # Errors
/// A usage error when it is none of them; else what went wrong while building
/// or assembling.
pub fn find(name: &str, kernel: Option<Kernel>) -> Result<Guest> {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name);
    if kernel.is_some() && !recipe.is_some_and(|recipe| recipe.has_kernels) {
        return Err(fail::usage(format!(
            "--kernel: {name} has no choice of kernels; `kvm` does"
        )));
    }
    if let Some(recipe) = recipe {
        return (recipe.assemble)(kernel);
    }
    let test_vms = images::test_vms()?;
    if test_vms.iter().any(|known| known == name) {
        return Ok(Guest {
            name: name.to_owned(),
            kernel: images::Image::TestVm(name.to_owned()).build()?,
            cmdline: String::new(),
            cmdline_on_bochs: String::new(),
            modules: Vec::new(),
        });
    }
    let path = PathBuf::from(name);
    if path.exists() || name.contains('/') {
        return Ok(Guest {
            name: name.to_owned(),
            kernel: path,
            cmdline: String::new(),
            cmdline_on_bochs: String::new(),
            modules: Vec::new(),
        });
    }
    let mut known = test_vms;
    known.extend(RECIPES.iter().map(|recipe| recipe.name.to_owned()));
    Err(fail::usage(format!(
        "{name}: there is no such guest and no such file; the guests are {}",
        known.join(", ")
    )))
}

/// Takes a `--module` value apart: the file, and after the first `:` its
/// arguments.
///
/// # Errors
/// A usage error when the file is not there.
pub fn parse_module(value: &str) -> Result<Module> {
    // A file whose own name has a `:` in it is taken as it is.
    let (path, args) = if PathBuf::from(value).is_file() {
        (value, "")
    } else {
        value.split_once(':').unwrap_or((value, ""))
    };
    let path = PathBuf::from(path);
    if !path.is_file() {
        return Err(fail::usage(format!(
            "--module {}: {}",
            path.display(),
            fail::why_no_file(&path)
        )));
    }
    Ok(Module {
        path,
        args: args.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = find("windows", None).unwrap_err();
        let fail = error.downcast_ref::<fail::Fail>().unwrap();
        assert_eq!(fail.status, fail::USAGE);
        for known in ["windows", "lhv", "kvm"] {
            assert!(fail.line.contains(known), "{}", fail.line);
        }
    }

    #[test]
    fn a_modules_arguments_follow_the_first_colon() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("m");
        let odd = dir.path().join("m:n");
        std::fs::write(&plain, "").unwrap();
        let value = |args: &str| format!("{}{args}", plain.display());
        let module = parse_module(&value(":a b:c")).unwrap();
        assert_eq!(
            (module.path, module.args.as_str()),
            (plain.clone(), "a b:c")
        );
        assert_eq!(parse_module(&value("")).unwrap().args, "");
        std::fs::write(&odd, "").unwrap();
        let module = parse_module(&odd.display().to_string()).unwrap();
        assert_eq!((module.path, module.args.as_str()), (odd, ""));
        assert!(parse_module("/nowhere/at/all:x").is_err());
    }
}

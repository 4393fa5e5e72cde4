//! What can be booted as L1: the test VMs, the recipes, and any kernel file.
//!
//! A guest is a kernel, its command line and its modules. Where those come
//! from is the business of a recipe: a function in a file of its own here
//! that returns a [`Guest`], listed in [`RECIPES`].

use std::path::PathBuf;

use anyhow::Result;

pub mod kvm;

/// A file handed to the kernel beside it; for Linux the first is the
/// initramfs.
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
    /// The modules, in order, before those of `--module`.
    pub modules: Vec<Module>,
}

/// A guest that `./x` assembles itself.
pub struct Recipe {
    /// What the person types.
    pub name: &'static str,
    /// One line for `./x run --help`.
    pub about: &'static str,
    /// Assembles the guest, from the cache where it can.
    pub assemble: fn() -> Result<Guest>,
}

/// Every recipe.
pub const RECIPES: &[Recipe] = &[Recipe {
    name: "kvm",
    about: "Debian with KVM and QEMU, which boots a Debian kernel of its own",
    assemble: kvm::assemble,
}];

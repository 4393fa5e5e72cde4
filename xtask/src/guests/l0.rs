//! The system below the guest with `--on kvm`: Debian with KVM and QEMU.
//!
//! Everything that depends on its content is in `guests/recipes/l0`.

use std::path::Path;

use anyhow::Result;

use super::initramfs::{Initramfs, cached, write_file};
use super::kvm::{kernel, linux_on_bochs};
use super::recipe::Recipe;
use super::{Guest, Module};

const RECIPE: &str = include_str!("../../../guests/recipes/l0/recipe.toml");
const INIT: &str = include_str!("../../../guests/recipes/l0/l0-init");

/// Where the system looks for the CD image of its guest.
const IMAGE: &str = "umbra.iso";

/// Assembles the system, with `image` as the CD image of its guest; `folder`
/// takes the part that is of this run alone.
///
/// # Errors
/// The Debian packages cannot be had or lack something; the folder cannot be
/// written to.
pub fn assemble(image: &Path, folder: &Path) -> Result<Guest> {
    let recipe = Recipe::parse(RECIPE)?;
    let root = recipe.root()?;
    let system = recipe.l1.initramfs(&root, &root, INIT)?;
    let initrd = cached("l0", &system)?;
    let mut cd = Initramfs::default();
    cd.copy(IMAGE, 0o644, image);
    let cd_file = folder.join("l0-cd");
    write_file(&cd, &cd_file)?;
    let module = |path| Module {
        path,
        args: String::new(),
    };
    Ok(Guest {
        name: "l0".to_owned(),
        kernel: kernel(&root)?,
        cmdline: recipe.cmdline,
        cmdline_on_bochs: linux_on_bochs(),
        modules: vec![module(initrd), module(cd_file)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_runs_the_image_with_applets_that_are_there() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        assert!(INIT.contains(&format!("/{IMAGE}")));
        for applet in &recipe.l1.applets {
            assert!(INIT.contains(applet.as_str()), "{applet} is not used");
        }
        for called in [
            "dmesg", "insmod", "kill", "mkfifo", "mount", "poweroff", "sed", "stty", "tail", "tr",
        ] {
            assert!(recipe.l1.applets.iter().any(|a| a == called), "{called}");
        }
    }
}

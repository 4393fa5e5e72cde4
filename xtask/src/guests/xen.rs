//! The Xen guest: Debian's Xen with a Debian as dom0, and a PVH guest as L2.
//!
//! Everything that depends on its content is in `guests/recipes/xen`.

use anyhow::Result;

use super::initramfs::cached;
use super::recipe::Recipe;
use super::{Guest, Kernel, Module, kvm};

const RECIPE: &str = include_str!("../../../guests/recipes/xen/recipe.toml");
const DOM0_INIT: &str = include_str!("../../../guests/recipes/xen/dom0-init");

/// The command line of dom0's kernel: what is said of that of the guest kvm holds here too.
const DOM0: &str = "console=hvc0 loglevel=3 cryptomgr.notests panic=-1 reboot=t";

/// Assembles the guest, out of the cache where nothing has changed.
///
/// # Errors
/// The Debian packages cannot be had or lack something.
pub fn assemble(_: Option<Kernel>) -> Result<Guest> {
    let recipe = Recipe::parse(RECIPE)?;
    let root = recipe.root()?;
    let (_, xen) = root.first_of("boot/xen-4.17-amd64.gz")?;

    let domu = recipe
        .l2
        .initramfs(&root, &root, kvm::L2_INIT)?
        .to_bytes()?;
    let mut dom0 = recipe.l1.initramfs(&root, &root, DOM0_INIT)?;
    // The smaller kernel: L2's of the guest kvm.
    dom0.copy("domu/vmlinuz", 0o644, &kvm::cloud_kernel()?);
    dom0.bytes("domu/initrd", 0o644, domu);

    let initrd = cached("xen", &dom0)?;
    let module = |path, args: &str| Module {
        path,
        args: args.to_owned(),
    };
    Ok(Guest {
        name: "xen".to_owned(),
        kernel: xen,
        cmdline: recipe.cmdline,
        cmdline_on_bochs: String::new(),
        modules: vec![module(kvm::kernel(&root)?, DOM0), module(initrd, "")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applets_that_the_script_calls_are_there() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        for applet in &recipe.l1.applets {
            assert!(DOM0_INIT.contains(applet.as_str()), "{applet} is not used");
        }
        for called in [
            "cat", "dmesg", "insmod", "mkdir", "mount", "poweroff", "sed", "sleep", "tail", "tr",
        ] {
            assert!(recipe.l1.applets.iter().any(|a| a == called), "{called}");
        }
    }
}

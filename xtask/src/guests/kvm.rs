//! The KVM guest: Debian with KVM and QEMU, booting a Debian kernel as L2.

use anyhow::{Result, bail};

use super::Guest;

/// Assembles the guest.
///
/// # Errors
/// Always, until the recipe is here.
pub fn assemble() -> Result<Guest> {
    bail!("the KVM guest cannot be assembled yet");
}

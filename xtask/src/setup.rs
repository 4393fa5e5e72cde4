//! `./x setup`: everything that the other verbs would fetch when they need it.

use anyhow::Result;

use crate::bochs::Bochs;
use crate::images::Image;
use crate::machine::Firmware;
use crate::{packages, ui};

/// Installs and builds what is missing.
///
/// # Errors
/// One line that says what is missing and could not be had.
pub fn setup() -> Result<()> {
    packages::need(packages::ALL)?;
    Bochs::get(Firmware::Bios)?;
    Bochs::get(Firmware::Uefi)?;
    Image::Umbra.build()?;
    ui::note("all set: try `./x run`");
    Ok(())
}

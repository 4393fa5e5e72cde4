//! Which memory devices may reach: L1's, and what the firmware reserved for
//! them; nothing of Umbra's and no unit's registers.

use crate::dmar::Dmar;
use crate::ranges::{Range, Ranges, TooMany};

/// How many ranges devices can be given.
pub const MAX_RANGES: usize = 256;

/// What devices may reach.
pub type Reach = Ranges<MAX_RANGES>;

/// Why devices cannot be confined as the table wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The firmware keeps a device's memory where Umbra is.
    ReservedIsHidden(Range),
    /// Memory is in more pieces than [`MAX_RANGES`].
    TooManyRanges,
}

impl From<TooMany> for Error {
    fn from(_: TooMany) -> Self {
        Self::TooManyRanges
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ReservedIsHidden(range) => write!(
                f,
                "the firmware reserves {:#x} to {:#x} for a device, where Umbra is",
                range.start_hpa, range.end_hpa
            ),
            Self::TooManyRanges => write!(f, "memory is in more than {MAX_RANGES} pieces"),
        }
    }
}

/// Joins L1's memory and the reserved regions, and takes out `hidden`, which is
/// Umbra's memory, and the registers of the units.
///
/// # Errors
/// [`Error`].
pub fn reach(
    dmar: &Dmar,
    memory: impl IntoIterator<Item = Range>,
    hidden: &[Range],
) -> Result<Reach, Error> {
    let mut reach = Reach::new();
    for range in memory {
        reach.add(range)?;
    }
    for region in &dmar.reserved {
        if hidden.iter().any(|range| range.overlaps(region)) {
            return Err(Error::ReservedIsHidden(*region));
        }
        reach.add(*region)?;
    }
    for range in hidden {
        reach.remove(*range)?;
    }
    for unit in &dmar.units {
        reach.remove(unit.registers)?;
    }
    Ok(reach)
}

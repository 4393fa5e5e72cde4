//! Root and context tables: which tables a device's addresses go through.
//! VT-d "Root Entry", "Context Entry". Legacy mode.

use crate::mem::{Tables, WORDS};
use crate::second_level::{NoRoom, SecondLevel};

const PRESENT: u64 = 1;
/// Domain identifier in the upper word of a context entry.
const DOMAIN_SHIFT: u32 = 8;

/// The domain that all devices are in. Not 0, which units with caching mode
/// keep for entries that are not present.
pub const DOMAIN: u16 = 1;

/// A root table whose every device is in [`DOMAIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts {
    root_hpa: u64,
}

impl Contexts {
    /// Every bus, device and function goes through `domain`. One context table
    /// serves all buses.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn all_through(tables: &mut impl Tables, domain: &SecondLevel) -> Result<Self, NoRoom> {
        let root_hpa = tables.take().ok_or(NoRoom)?;
        let context_hpa = tables.take().ok_or(NoRoom)?;
        // Two words an entry: present, translation type 0 (untranslated
        // requests alone, so that no device's own translations are believed),
        // the second-level tables; width and domain.
        let low = domain.root_hpa() | PRESENT;
        let width = domain.format().levels.address_width_code();
        let high = width | u64::from(DOMAIN) << DOMAIN_SHIFT;
        for entry in 0..WORDS / 2 {
            tables.write(context_hpa, 2 * entry + 1, high);
            tables.write(context_hpa, 2 * entry, low);
        }
        for bus in 0..WORDS / 2 {
            tables.write(root_hpa, 2 * bus, context_hpa | PRESENT);
        }
        if !domain.format().is_coherent {
            tables.write_back(context_hpa);
            tables.write_back(root_hpa);
        }
        Ok(Self { root_hpa })
    }

    /// For `RTADDR_REG`. Bits 11:10 are 0: legacy mode.
    #[must_use]
    pub const fn root_hpa(&self) -> u64 {
        self.root_hpa
    }
}

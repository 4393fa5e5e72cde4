//! How a transcript shows what an access came to.

use core::fmt;

use rt::vmx::vm::Outcome;

/// An outcome in a few letters, relative to the page under test.
pub struct Short {
    /// What happened.
    pub outcome: Outcome,
    /// The page's guest-physical address.
    pub gpa: u64,
    /// The page's linear address.
    pub linear: u64,
    /// Bits of a violation's qualification that are left out.
    pub hidden: u64,
}

struct Place(u64, u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, page) = *self;
        if address.wrapping_sub(page) < 4096 {
            write!(f, "+{:x}", address - page)
        } else {
            write!(f, "={address:x}")
        }
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome::Exit(exit) = self.outcome else {
            return self.outcome.fmt(f);
        };
        if exit.is_entry_failure() {
            return exit.fmt(f);
        }
        let physical = Place(exit.guest_physical, self.gpa);
        match exit.basic() {
            18 => f.write_str("ok")?,
            48 => {
                let qualification = exit.qualification & !self.hidden;
                write!(f, "v{qualification:x}{physical}")?;
                if exit.has_linear() {
                    write!(f, " l{}", Place(exit.guest_linear, self.linear))?;
                }
            }
            49 => write!(f, "m{physical}")?,
            _ => return exit.fmt(f),
        }
        if exit.vectoring >> 31 != 0 {
            write!(f, " idt={:x}", exit.vectoring)?;
        }
        Ok(())
    }
}

/// Rights as letters. Bit 10 is the right to fetch from user-mode addresses.
pub struct Rights(pub u64);

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(0, "r"), (1, "w"), (2, "x")] {
            f.write_str(if self.0 >> bit & 1 != 0 { letter } else { "-" })?;
        }
        if self.0 >> 10 & 1 != 0 {
            f.write_str("u")?;
        }
        Ok(())
    }
}

//! One outcome in as few characters as carry it.
//!
//! `f7` VMfailValid 7, `fi` VMfailInvalid, `e33.4` failed entry with reason 33 and qualification 4,
//! `x18` an exit. After an exit: `q` qualification, `l` guest-linear and `p` guest-physical address,
//! `n` instruction length, `m` instruction information, `i` interruption and `v` IDT-vectoring
//! information with the error code behind a slash, `@` RIP where it has moved; then every field of
//! the guest-state area that the exit changed. `h` is an exception in L1 at its host RIP.

use core::fmt;

use rt::vmx::vm::Outcome;
use rt::vmx::{Exit, VmxError};

/// An outcome and the RIP that L2 started at.
pub struct Short<'a>(pub &'a Outcome, pub u64);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Failed(error) => show_error(error, f),
            Outcome::HostFault(fault) => write!(f, "h{fault}"),
            Outcome::Exit(exit) if exit.is_entry_failure() => {
                write!(f, "e{}.{:x}", exit.basic(), exit.qualification)
            }
            Outcome::Exit(exit) => show_exit(exit, self.1, f),
        }
    }
}

/// A VMX instruction's failure.
pub fn show_error(error: &VmxError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        VmxError::Invalid => f.write_str("fi"),
        VmxError::Valid(number) => write!(f, "f{number}"),
        VmxError::Fault(fault) => write!(f, "{fault}"),
    }
}

/// A VMX instruction's result.
pub struct Result(pub core::result::Result<(), VmxError>);

impl fmt::Display for Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(()) => f.write_str("ok"),
            Err(error) => show_error(error, f),
        }
    }
}

fn show_exit(exit: &Exit, start: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "x{}", exit.basic())?;
    if exit.qualification != 0 {
        write!(f, " q{:x}", exit.qualification)?;
    }
    if exit.has_linear() {
        write!(f, " l{:x}", exit.guest_linear)?;
    }
    if exit.has_physical() {
        write!(f, " p{:x}", exit.guest_physical)?;
    }
    if exit.has_length() && exit.basic() != 18 {
        write!(f, " n{}", exit.length)?;
    }
    if exit.has_information() {
        write!(f, " m{:x}", exit.information)?;
    }
    for (letter, information, error) in [
        ('i', exit.interruption, exit.interruption_error),
        ('v', exit.vectoring, exit.vectoring_error),
    ] {
        if information >> 31 != 0 {
            write!(f, " {letter}{:x}", information & 0x7fff_ffff)?;
            if information & 1 << 11 != 0 {
                write!(f, "/{error:x}")?;
            }
        }
    }
    if exit.rip != start {
        write!(f, " @{:x}", exit.rip)?;
    }
    Ok(())
}

//! What keeps an instruction of L1 from being carried out.

use umbra_arch::Exception;

/// Why L0 does not carry out an instruction of L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It raises an exception.
    Fault(Exception),
    /// Nothing has been done: L1 is to execute it once more. Another CPU kept
    /// changing the paging entries of its operand while L0 set their flags.
    Again,
}

impl From<Exception> for Refusal {
    fn from(fault: Exception) -> Self {
        Self::Fault(fault)
    }
}

//! What a field hangs on.

use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};

/// What a CPU must support for a VMCS field to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Needs {
    Nothing,
    /// Nothing that a capability tells: VMREAD alone says whether the CPU has it.
    AskCpu,
    /// No CPU that Umbra knows how to present has it.
    Never,
    Pin(Pin),
    Proc(Proc),
    Proc2(Proc2),
    Proc3(Proc3),
    Exit(Exit),
    Entry(Entry),
    /// VM function 0.
    EptpSwitching,
}

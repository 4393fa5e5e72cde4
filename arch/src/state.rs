//! Guest non-register state. SDM "Guest Non-Register State".

use crate::flags::on_raw_values;
use bitflags::bitflags;

/// Activity states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Activity {
    /// Instructions are executed.
    Active = 0,
    /// HLT was executed.
    Hlt = 1,
    /// A triple fault, for one.
    Shutdown = 2,
    /// A start-up IPI is waited for.
    WaitForSipi = 3,
}

bitflags! {
    /// Interruptibility state.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Blocking: u32 {
        /// Blocking by STI.
        const STI = 1 << 0;
        /// Blocking by MOV SS, or POP SS.
        const MOV_SS = 1 << 1;
        /// Blocking by SMI.
        const SMI = 1 << 2;
        /// Blocking by NMI, or of virtual NMIs.
        const NMI = 1 << 3;
        /// An enclave was interrupted.
        const ENCLAVE = 1 << 4;
    }
}

on_raw_values!(Blocking: u32);

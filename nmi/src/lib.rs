//! What Umbra does with non-maskable interrupts, as pure code.
//!
//! vmcs01 leaves NMI exiting off and vmcs02 takes the three NMI controls from
//! vmcs12, so the CPU itself delivers every NMI that arrives in VMX non-root
//! operation. Software matters for one case only: an NMI that arrives while
//! the CPU is in L0. L0's handler puts it into the [`Inbox`] and returns
//! **without IRET**, so the CPU keeps NMIs blocked and latches the next one;
//! at the end of the exit path [`NmiMachine::before_entry`] says where it goes.
//!
//! | When | Call | Then |
//! |---|---|---|
//! | L0's NMI handler | set the [`Inbox`] byte to 1 | return without IRET, to [`EntryWindow::resume_at`] |
//! | VM exit, armed or by NMI | [`NmiMachine::after_exit`] | clear the bits of `disarm`; `l0_owns`: do not show it to L1 |
//! | VM exit of L2 shown to L1 | [`blocking::l1_after_exit`] | vmcs01's interruptibility |
//! | L0 handled an exit and resumes the same instruction | [`blocking::before_retry`] | the current VMCS's interruptibility |
//! | L0 emulated the instruction | [`Interruptibility::after_instruction`] | likewise |
//! | L0 injects again what IDT-vectoring information names | [`blocking::before_reinjection`] | likewise |
//! | L0 emulated a task switch | [`blocking::after_task_switch`] | likewise |
//! | INIT resets the CPU's L1 | [`NmiMachine::reset`] | |
//! | last, before the entry stub | [`NmiMachine::has_pending`] | if so: `before_entry`, and do the [`Action`] |
//! | a fatal error | [`Stop`] | every other CPU stops for good |
//!
//! The rules are the SDM's; the section titles stand beside each. `docs/nmi.md`
//! has the picture and what the search over every interleaving showed.
#![no_std]
#![forbid(unsafe_code)]
// On the way of every VM exit: nothing that L1 or L2 does may stop L0.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
    )
)]

pub mod blocking;
mod machine;
mod policy;
pub mod stop;
mod window;

pub use machine::{Action, AfterExit, Arm, Entry, ExitKind, Inbox, Injects, NmiMachine};
pub use policy::{Interruptibility, Policy};
pub use stop::Stop;
pub use window::EntryWindow;

/// VM-entry interruption information that injects an NMI: valid, type 2,
/// vector 2 (SDM "VM-Entry Controls for Event Injection").
pub const NMI_ENTRY_INFO: u32 = umbra_arch::EventInfo::NMI.into_bits();

/// VM-exit interruption information of an NMI exit. Bit 12 (NMI unblocking
/// due to IRET) is 0: an NMI exit is no fault on IRET (SDM "Information for
/// VM Exits Due to Vectored Events").
pub const NMI_EXIT_INFO: u32 = umbra_arch::EventInfo::NMI.into_bits();

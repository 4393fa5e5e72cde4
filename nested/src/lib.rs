//! VMX for L1: its instructions, nested VM entry and exit.
//!
//! L0 is Umbra, L1 the hypervisor it gives the machine to, L2 a guest of L1.
//! vmcs01 runs L1, vmcs12 is what L1 wrote, vmcs02 runs L2 for L1. Everything
//! that touches the CPU goes through [`hw::Hardware`].
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

pub mod beyond_width;
mod blame;
mod compose;
mod derived;
mod entry;
mod event;
mod exit;
pub mod fault;
mod host_image;
mod host_state;
pub mod hw;
pub mod insn;
mod l2_ept;
pub mod lend;
pub mod linear;
mod msr_list;
pub mod offer;
pub mod operand;
pub mod paging;
mod pdptes;
mod region;
pub mod segmentation;
mod shadow;
mod slot_id;
pub mod slots;
pub mod state;
pub mod step;
mod vmfunc;
mod vtpr;
mod wants;

pub use exit::L2Done;
pub use fault::Refusal;
pub use host_image::HostImage;
pub use host_state::abort;
pub use hw::{
    Current, Hardware, Lent, Memory, MsrFault, Msrs, Registers, Translations, VmcsAccess,
};
pub use insn::Done;
pub use slots::SlotId;
pub use state::Nested;

//! The VMCS as data: fields, controls, capabilities, exits, and the rules of
//! VM entry.
//!
//! Nothing here touches hardware. The table in [`field`] is the one source of
//! every field's encoding, width, area, access and name; the rest of Umbra
//! derives from it.
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
    )
)]

pub mod caps;
pub mod controls;
pub mod error;
pub mod exit;
pub mod field;
pub mod needs;
pub mod rules;
pub mod vmcs12;

pub use caps::VmxCaps;
pub use error::InsnError;
pub use field::Field;
pub use vmcs12::Vmcs12;

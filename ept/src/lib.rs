//! Extended page tables for nested virtualization, as pure code.
//!
//! Three tables have names of their own everywhere in Umbra:
//!
//! * **ept01** is built by Umbra (L0) and translates what L1 calls physical
//!   into machine addresses: the identity, except for Umbra's own memory;
//! * **ept12** is built by L1 for its guest L2 and is not to be trusted: it is
//!   read by copy, one entry at a time, and any bit pattern may be in it;
//! * **ept02** is what the CPU uses while L2 runs: the two composed, filled
//!   one leaf at a time when L2 touches a page.
//!
//! Nothing here touches hardware. Tables that Umbra owns are reached through
//! [`mem::TableMemory`], ept12 through [`mem::L1Memory`]; whatever must be
//! followed by an INVEPT comes back as an [`invalidate::Invalidate`].
//!
//! Sections of the Intel SDM are cited by title, since their numbers change
//! from one revision to the next.
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

pub mod addr;
pub mod caps;
pub mod entry;
pub mod ept01;
pub mod ept02;
pub mod ept12;
pub mod eptp;
pub mod invalidate;
pub mod mem;
pub mod memtype;
pub mod mtrr;
pub mod rights;
pub mod vpid;

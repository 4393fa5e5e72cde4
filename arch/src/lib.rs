//! The architecture's facts, each told once.
//!
//! Here is what the SDM defines and more than one package uses: registers and
//! their bits, MSR numbers, segments and access rights, event information, exit
//! qualifications, instruction information, capability bits, and the kinds of
//! addresses. Nothing here decides anything, and nothing touches hardware.
//!
//! A set of flags is a `bitflags` type; values come out of registers and VMCS
//! fields as plain integers, so each such type has [`is_in`](Cr0::is_in). A word
//! with numbers inside is a `bitfield-struct` type, made with `from_bits`.
//!
//! Sections of the SDM are cited by title.
#![no_std]
// Only the constructors in `hpa` are an exception: functions that may be called by
// those alone who vouch for what they say.
#![deny(unsafe_code)]
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

mod flags;

pub mod address;
pub mod apic;
pub mod cpuid;
pub mod cr;
pub mod debug;
pub mod ept_vpid;
pub mod event;
pub mod hpa;
pub mod instruction;
pub mod memtype;
pub mod msr;
pub mod paging;
pub mod qualification;
pub mod rflags;
pub mod segment;
pub mod state;
pub mod vmx_cap;

pub use address::{Gpa1, Gpa2, Linear};
pub use cr::{Cr0, Cr3, Cr4};
pub use debug::{Debugctl, Dr6, Dr7, PendingDebug};
pub use ept_vpid::EptVpidCap;
pub use event::{EventInfo, EventType, Exception};
pub use hpa::Hpa;
pub use memtype::MemType;
pub use msr::Efer;
pub use paging::PageFaultCode;
pub use rflags::Rflags;
pub use segment::{AccessRights, SegmentName};

//! Intel VT-d as pure code: what keeps devices out of Umbra's memory.
//!
//! L1 owns every device, and a device can be told to read and write any page of
//! the machine. Where the machine has DMA-remapping units, Umbra gives each of
//! them one domain that maps L1's memory onto itself and leaves Umbra's out.
//!
//! The way through this crate, in the order in which `core` takes it:
//!
//! 1. [`dmar`] reads the firmware's table: which units there are, and which
//!    memory devices use behind the operating system's back;
//! 2. [`caps`] decodes what a unit can do, and whether that suffices;
//! 3. [`plan`] says which memory a device may reach;
//! 4. [`second_level`] and [`context`] make the tables for it;
//! 5. [`mod@unit`] switches a unit on, with no moment in which Umbra's memory is
//!    open where the unit can help it; [`invalidate`] and [`fault`] serve it
//!    from then on.
//!
//! Registers are reached through [`regs::Registers`], tables through
//! [`mem::Tables`]. Sections are those of the Intel Virtualization Technology
//! for Directed I/O Architecture Specification, by title.
#![no_std]
#![forbid(unsafe_code)]

pub mod caps;
pub mod command;
pub mod context;
pub mod dmar;
pub mod fault;
pub mod invalidate;
pub mod mem;
pub mod plan;
pub mod ranges;
pub mod regs;
pub mod second_level;
pub mod unit;

//! Hypapps: extensions that are built into Umbra.
//!
//! Umbra asks the one it was built with, a [`Hypapp`], where the trait says, on the way of
//! an exit: nothing may be allocated there, nothing formatted, and no work be without a
//! bound. An object of it belongs to one CPU; what CPUs share is the hypapp's own, in
//! atomics. `docs/hypapp.md` has how one is built and called.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// On the way of VM exits: nothing that L1 or L2 does may stop L0.
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

use umbra_arch::Exception;

pub mod hello;

/// EAX, EBX, ECX and EDX.
pub type Words = [u32; 4];

/// Who is the guest that exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// L1.
    L1,
    /// L2.
    L2,
}

/// A VMCALL, or a CPUID of L1, with EAX in the numbers that are a hypapp's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// EAX, less that of the hypapp's first number.
    pub number: u32,
    /// RCX and RDX, or ECX and EDX of a caller that is not in 64-bit mode.
    pub arguments: [u64; 2],
    /// Who calls.
    pub level: Level,
    /// It is at privilege level 0.
    pub is_kernel: bool,
}

/// What a hypapp says to what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// As if there were no hypapp.
    Pass,
    /// Done, with this for the guest; it goes on behind its instruction.
    Handled(T),
    /// The guest's instruction raises this.
    Fault(Exception),
}

/// An extension of Umbra: an object for each CPU. What it has nothing to do with it leaves
/// to the empty defaults.
pub trait Hypapp: Default {
    /// The CPU of this number, 0 for the one that booted, is about to run L1 for the first
    /// time.
    fn start(&mut self, _cpu: u32) {}

    /// L1 executed CPUID with a leaf that is a hypapp's. There are no faults of CPUID.
    fn cpuid(&mut self, _call: &Call) -> Option<Words> {
        None
    }

    /// L1 or L2 executed VMCALL with a number that is a hypapp's.
    fn vmcall(&mut self, _call: &Call) -> Answer<Words> {
        Answer::Pass
    }
}

/// No hypapp.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHypapp;

impl Hypapp for NoHypapp {}

//! The image: boot, VM entry and exit, the platform.
//!
//! Of what Umbra is made of, only this package has unsafe code and assembly; guests
//! have them as well. What needs neither is in the library `umbra_core` beside it.
#![no_std]
#![no_main]
#![deny(clippy::multiple_unsafe_ops_per_block)]

mod action;
mod arch;
mod boot;
mod console;
mod cpu;
mod exception;
mod exit;
mod fake_caps;
mod hypapp;
mod hypercall;
mod l1;
mod machine;
mod mem;
mod merged_bitmap;
mod nested;
mod nested_hw;
mod nmi;
mod panic;
mod platform;
mod refusal;
mod report;
mod run;
mod stop;
mod sync;
mod trace;
mod vmcs;
mod vmentry;
mod vmx_on;

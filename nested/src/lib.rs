//! VMX for L1: its instructions, nested VM entry and exit.
#![no_std]
#![forbid(unsafe_code)]

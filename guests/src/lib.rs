//! Puts an L1 into its start state: Linux, multiboot, multiboot2.
#![no_std]
#![deny(unsafe_code)]

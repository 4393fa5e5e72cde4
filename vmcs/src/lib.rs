//! The VMCS as data: fields, controls, capabilities, exits, and the rules of VM entry.
#![no_std]
#![forbid(unsafe_code)]

//! The accept/pending state machine for NMIs and the delivery policy.
#![no_std]
#![forbid(unsafe_code)]

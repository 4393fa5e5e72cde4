//! EPT entries and walks, memory types, ept01 and the pools of ept02 caches.
#![no_std]
#![forbid(unsafe_code)]

//! smp.
#![no_std]
#![no_main]
rt::entry!(main);
fn main(_: &rt::Boot) {}

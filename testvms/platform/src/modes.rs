//! Modes.
/// Later.
pub fn run() {}

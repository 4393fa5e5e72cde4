//! The `./x` tool.
fn main() {}

//! The `./x` tool: set-up, build, run, test, image.
#![forbid(unsafe_code)]

mod cache;
mod cmd;
mod debs;
mod fail;
mod guests;
mod ui;

fn main() {}

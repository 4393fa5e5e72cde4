//! Pages of the window, by purpose. Those that a case may straddle are neighbours.

use crate::tables::WINDOW;

/// The case's code.
pub const CODE: u32 = 0;
/// Two pages for operands.
pub const DATA: u32 = 2;
/// The case's stack.
pub const STACK: u32 = 4;
/// Not present.
pub const ABSENT: u32 = 5;
/// Read-only, for privilege level 3.
pub const READ_ONLY: u32 = 8;
/// For privilege level 0; the next one is read-only besides.
pub const KERNEL: u32 = 9;
/// With a reserved bit, where the kind of paging has one.
pub const RESERVED: u32 = 12;
/// The linear address of a page of the window.
pub const fn at(page: u32) -> u32 {
    WINDOW + page * 4096
}

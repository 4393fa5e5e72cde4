//! Umbra cannot start: one line that says why.

use crate::arch::halt_forever;
use crate::console;
use core::fmt;

/// Says in one line why Umbra cannot start, and stops.
pub fn cannot_start(why: fmt::Arguments<'_>) -> ! {
    console::print_line_now(format_args!("cannot start: {why}"));
    halt_forever()
}

/// Says why Umbra cannot start, and stops.
#[macro_export]
macro_rules! cannot_start {
    ($($argument:tt)*) => {
        $crate::refusal::cannot_start(format_args!($($argument)*))
    };
}

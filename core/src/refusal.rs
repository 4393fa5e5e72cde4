//! Umbra cannot start: one line that says why.

use crate::arch::halt_forever;
use crate::console;
use crate::sync::BootCell;
use core::fmt;

/// How a refusal reaches a person who has no serial line. It may not return.
type Elsewhere = fn(fmt::Arguments<'_>);

static ELSEWHERE: BootCell<Elsewhere> = BootCell::new();

/// From now on a refusal is also said by `how`; once.
pub fn also_say(how: Elsewhere) {
    ELSEWHERE.set(how);
}

/// Says in one line why Umbra cannot start, and stops.
pub fn cannot_start(why: fmt::Arguments<'_>) -> ! {
    console::print_line_now(format_args!("cannot start: {why}"));
    if let Some(say) = ELSEWHERE.try_get() {
        say(why);
    }
    halt_forever()
}

/// Says why Umbra cannot start, and stops.
#[macro_export]
macro_rules! cannot_start {
    ($($argument:tt)*) => {
        $crate::refusal::cannot_start(format_args!($($argument)*))
    };
}

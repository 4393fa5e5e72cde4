//! Lines of the transcript, all printed by the CPU that booted.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

static LINES: AtomicU32 = AtomicU32::new(0);

/// How many lines were printed so far.
pub fn lines() -> u32 {
    LINES.load(Relaxed)
}

/// Counts a line; [`line!`](crate::line) calls it.
pub fn count() {
    LINES.fetch_add(1, Relaxed);
}

/// Prints a line of the transcript and counts it.
#[macro_export]
macro_rules! line {
    ($($arg:tt)*) => {{
        $crate::transcript::count();
        rt::println!($($arg)*);
    }};
}

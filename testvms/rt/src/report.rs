//! The transcript: what its lines look like, and how many of each kind there are.
//!
//! `docs/testing.md` has the grammar under "How a transcript reads", and `./x test` holds every
//! test VM's transcript to it. One CPU prints: the one that booted.

use core::fmt::{Arguments, Display};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::println;

/// How many lines of a kind there are.
pub struct Count(AtomicU32);

impl Count {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// Lines of [`case!`](crate::case) and [`begin_case!`](crate::begin_case).
pub static CASES: Count = Count::new();
/// What the program compared with an expectation of its own.
static CHECKS: Count = Count::new();
/// Checks that failed.
static WRONG: Count = Count::new();
/// Cases left out, as Bochs departs from the SDM there.
static ERRATA: Count = Count::new();

/// Counts a case and prints its line, `WHAT: ANSWER`.
#[macro_export]
macro_rules! case {
    ($($arg:tt)*) => {{
        $crate::report::CASES.add();
        $crate::println!($($arg)*);
    }};
}

/// Counts a case and begins its line, `WHAT: ANSWER`; the program prints the rest of it.
#[macro_export]
macro_rules! begin_case {
    ($($arg:tt)*) => {{
        $crate::report::CASES.add();
        $crate::print!($($arg)*);
    }};
}

/// Prints another line, `  MORE`, of the case before.
#[macro_export]
macro_rules! more {
    ($($arg:tt)*) => {{
        $crate::print!("  ");
        $crate::println!($($arg)*);
    }};
}

/// Begins a group: `== GROUP DETAIL`.
pub fn group(what: Arguments<'_>) {
    println!("== {what}");
}

/// Counts a check; one that fails is printed: `WRONG WHAT`.
pub fn check(what: Arguments<'_>, is_right: bool) {
    CHECKS.add();
    if !is_right {
        WRONG.add();
        println!("WRONG {what}");
    }
}

/// Counts a comparison; one that fails is printed with both sides.
pub fn equal<T: PartialEq + Display>(what: Arguments<'_>, found: T, expected: T) {
    let is_right = found == expected;
    check(
        format_args!("{what}: {found}, expected {expected}"),
        is_right,
    );
}

/// Counts a case that is left out as Bochs departs from the SDM there: `erratum WHAT`.
pub fn erratum(what: Arguments<'_>) {
    ERRATA.add();
    println!("erratum {what}");
}

/// Says that this CPU lacks what a case needs: `lacks WHAT`.
pub fn lacks(what: Arguments<'_>) {
    println!("lacks {what}");
}

/// Prints the last line.
pub(crate) fn end(program: &str) {
    println!(
        "{program}: {} cases, {} checks, {} wrong, {} errata",
        CASES.get(),
        CHECKS.get(),
        WRONG.get(),
        ERRATA.get()
    );
}

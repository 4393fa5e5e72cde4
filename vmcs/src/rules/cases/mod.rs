//! Cases just inside and just outside of each rule.
//!
//! A case is a change to a state that VM entry accepts. The host tests apply
//! it to a made-up CPU that offers everything; a test VM can apply it to a
//! state of its own and compare what the CPU says with what the rules say.
//!
//! Some cases change the [`caps`](Bench::caps) or [`cpu`](Bench::cpu): they
//! exist on the host alone.

mod bench;
mod controls;
mod event;
mod guest;
mod host;
mod segments;

pub use bench::{Bench, Memory, Pages};

/// One change, and what it does to a rule.
#[derive(Clone, Copy)]
pub struct Case {
    /// The id of the rule.
    pub rule: &'static str,
    /// What is changed.
    pub name: &'static str,
    /// Whether the rule is broken then, and all before it hold. If not, all
    /// rules hold.
    pub breaks: bool,
    /// The change.
    pub apply: fn(&mut Bench),
}

/// Every case, in the order of the rules' families.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        controls::CASES,
        controls::POINTERS,
        event::CASES,
        host::CASES,
        guest::REGISTERS,
        guest::STATE,
        segments::ES,
        segments::CS,
        segments::SS,
        segments::DS,
        segments::FS,
        segments::GS,
        segments::TABLES,
    ]
    .into_iter()
    .flatten()
}

/// Makes a table of cases, rule by rule.
macro_rules! cases {
    (
        $(#[$doc:meta])*
        $table:ident:
        $($rule:expr => {
            $($verdict:ident $name:expr, |$b:ident| $body:expr;)+
        })+
    ) => {
        $(#[$doc])*
        pub(super) static $table: &[$crate::rules::cases::Case] = &[$($(
            $crate::rules::cases::Case {
                rule: $rule,
                name: $name,
                breaks: cases!(@ $verdict),
                apply: |$b| { $body; },
            },
        )+)+];
    };
    (@ breaks) => { true };
    (@ keeps) => { false };
}
use cases;

//! States that cannot be.

/// L0 is in a state that no input of L1 or L2 leads to: a bug of its own. Ends
/// Umbra with this word about it.
#[cold]
#[track_caller]
#[expect(clippy::panic, reason = "no input leads here")]
pub(crate) fn blame(what: &str) -> ! {
    panic!("L0 is to blame: {what}")
}

//! The exit trace: which VM exits are kept, in what, and how they read.

mod filter;
mod record;
mod ring;

pub use filter::{BadPiece, Filter};
pub use record::{After, Became, Before, Record};
pub use ring::{RECORD_WORDS, Ring};

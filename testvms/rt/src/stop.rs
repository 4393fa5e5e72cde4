//! Why a program ends before its work is done.

use core::fmt;

use crate::vmx::insn::VmxError;

/// The words that a program knows, in kinds. One that ends in `=` takes a value.
pub type Kinds = &'static [&'static [&'static str]];

/// Why a program ends before its work is done.
#[derive(Debug)]
pub enum Stop {
    /// The machine lacks something.
    Machine(&'static str),
    /// A VMX instruction that has to work does not.
    Vmx(&'static str, VmxError),
    /// A word of the command line that is none; the words that there are, kind by kind.
    Word(&'static str, Kinds),
    /// A word whose value makes no sense; what it has to be.
    Value(&'static str, &'static str),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(why) => f.write_str(why),
            Self::Vmx(instruction, error) => write!(f, "{instruction}: {error}"),
            Self::Word(word, []) => write!(f, "unknown word '{word}'; there are none"),
            Self::Word(word, kinds) => {
                write!(f, "unknown word '{word}'; the words are")?;
                for known in kinds.iter().copied().flatten() {
                    write!(f, " {known}")?;
                }
                Ok(())
            }
            Self::Value(word, expected) => write!(f, "{word}: give {expected}"),
        }
    }
}

impl From<&'static str> for Stop {
    fn from(why: &'static str) -> Self {
        Self::Machine(why)
    }
}

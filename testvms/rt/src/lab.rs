//! What every test VM does before and after its own: the words of its command line, why it stops,
//! its last line.

use core::str::FromStr;

pub use crate::stop::{Kinds, Stop};
use crate::{Boot, println, report};

/// A group of cases: its word on the command line, and what runs it on the program's bench.
pub type Group<T> = (&'static str, fn(&mut T));

/// The words of groups, or of anything else in pairs.
pub const fn names<T, const N: usize>(groups: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = groups[at].0;
        at += 1;
    }
    names
}

/// What the command line chooses.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    boot: &'a Boot,
    kinds: Kinds,
}

impl<'a> Choice<'a> {
    /// Reads the command line.
    ///
    /// # Errors
    /// A word that is none of `kinds`.
    pub fn read(boot: &'a Boot, kinds: Kinds) -> Result<Self, Stop> {
        let is_known = |word: &str| {
            kinds
                .iter()
                .copied()
                .flatten()
                .any(|known| *known == word || known.ends_with('=') && word.starts_with(known))
        };
        match boot.words().find(|word| !is_known(word)) {
            Some(word) => Err(Stop::Word(word, kinds)),
            None => Ok(Self { boot, kinds }),
        }
    }

    /// Whether the command line has this word.
    pub fn names(&self, name: &str) -> bool {
        self.boot.words().any(|word| word == name)
    }

    /// Whether this word's group runs: all do, unless the command line names one of its kind.
    pub fn has(&self, name: &str) -> bool {
        let kind = self.kinds.iter().find(|kind| kind.contains(&name));
        let is_kind_named = kind.is_some_and(|kind| kind.iter().any(|other| self.names(other)));
        !is_kind_named || self.names(name)
    }

    /// The last word that begins with `name`, which ends in `=`, as a number.
    ///
    /// # Errors
    /// It is none.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Stop> {
        let Some(word) = self.word(name) else {
            return Ok(None);
        };
        let number = word[name.len()..].parse();
        number.map(Some).map_err(|_| Stop::Value(word, "a number"))
    }

    /// The last word that begins with `name`, which ends in `=`.
    pub fn word(&self, name: &str) -> Option<&'static str> {
        self.boot
            .words()
            .filter(|word| word.starts_with(name))
            .last()
    }
}

/// Prints the last line of the program of this name, or why it stopped.
pub fn conclude(program: &str, ending: Result<(), Stop>) {
    match ending {
        Ok(()) => report::end(program),
        Err(stop) => println!("{program}: {stop}"),
    }
}

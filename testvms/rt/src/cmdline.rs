//! The command line: words between spaces.

/// The words of a command line, in order.
#[derive(Clone)]
pub struct Words {
    rest: &'static str,
    is_first: bool,
}

impl Words {
    /// Splits a command line. Bytes that are no UTF-8 end it.
    pub(crate) fn new(line: &'static [u8]) -> Self {
        let rest = match core::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or(""),
        };
        Self {
            rest,
            is_first: true,
        }
    }

    /// The value of the last word `name=value`, if there is one.
    pub fn value_of(&self, name: &str) -> Option<&'static str> {
        self.clone()
            .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .last()
    }
}

impl Iterator for Words {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        loop {
            let text = self.rest.trim_start();
            if text.is_empty() {
                return None;
            }
            let end = text.find(char::is_whitespace).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            self.rest = rest;
            // Some loaders put the path of the kernel first.
            let is_path = core::mem::take(&mut self.is_first) && word.contains('/');
            if !is_path {
                return Some(word);
            }
        }
    }
}

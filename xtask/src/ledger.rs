//! The ledger that Umbra prints at the end of a run, taken out of the serial line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fail;

/// How each line of it begins.
const MARK: &str = "umbra: ledger ";

/// The file that takes it.
pub struct Document {
    path: PathBuf,
    file: File,
    text: String,
}

impl Document {
    /// An empty file.
    ///
    /// # Errors
    /// A usage error where it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| {
            fail::usage(format!(
                "--ledger {}: cannot be written: {error}",
                path.display()
            ))
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            text: String::new(),
        })
    }

    /// Takes a line of the serial console, where it is the ledger's.
    pub fn takes(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix(MARK) else {
            return false;
        };
        self.text.push_str(rest);
        self.text.push('\n');
        true
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written, or there was no ledger on the serial line.
    pub fn close(mut self) -> Result<()> {
        self.file
            .write_all(self.text.as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        if self.text.is_empty() {
            crate::ui::note("Umbra printed no ledger: the run did not come to its end");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledgers_lines_are_taken_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.yaml");
        let mut document = Document::create(&path).unwrap();
        assert!(!document.takes("umbra: exits L1 cpuid l0-needs 1"));
        assert!(!document.takes("a guest says umbra: ledger x"));
        for line in [
            "umbra: ledger ---",
            "umbra: ledger exits:",
            "umbra: ledger - {count: 1}",
        ] {
            assert!(document.takes(line));
        }
        document.close().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "---\nexits:\n- {count: 1}\n");
        assert!(Document::create(Path::new("/nowhere/at/all")).is_err());
    }
}

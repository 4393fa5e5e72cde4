//! The ways in which `./x` ends, and their exit statuses.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// The guest ended the run by itself, `--until` matched, or all tests passed.
pub const OK: u8 = 0;
/// Setting up or building failed, or a test failed.
pub const FAILED: u8 = 1;
/// What was asked for makes no sense here: options, names, files, machines.
pub const USAGE: u8 = 2;
/// The time given by `--timeout` ran out.
pub const TIMED_OUT: u8 = 3;
/// Umbra or the guest crashed.
pub const CRASHED: u8 = 4;

/// A failure that has an exit status of its own.
///
/// Everything else that goes wrong is an [`anyhow::Error`] and ends with
/// [`FAILED`].
#[derive(Debug)]
pub struct Fail {
    /// The exit status.
    pub status: u8,
    /// One line: what was wrong and what to do. Empty where everything has
    /// been said.
    pub line: String,
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Fail {}

/// A request that cannot be served; exit status [`USAGE`].
pub fn usage(line: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Fail {
        status: USAGE,
        line: line.into(),
    })
}

/// Why `path`, which is no file, is none.
pub fn why_no_file(path: &Path) -> &'static str {
    if path.is_dir() {
        "is a folder, and no file"
    } else {
        "there is no such file"
    }
}

/// Prints the one closing line of a failure and gives its exit status.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let status = error
        .downcast_ref::<Fail>()
        .map_or(FAILED, |fail| fail.status);
    // The chain in one line: what was tried, then why it did not work.
    let line: Vec<String> = error.chain().map(ToString::to_string).collect();
    let line = line.join(": ").replace('\n', " ");
    if !line.is_empty() {
        eprintln!("x: {line}");
    }
    ExitCode::from(status)
}

//! Running other programs: their output is kept back and shown on failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How many of the last lines of a failed program's output are shown.
const SHOWN_LINES: usize = 15;

/// A program and its arguments as a person would type them.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Runs `command` with no input and gives its standard output.
///
/// # Errors
/// The program is missing, or ended with another status than 0; then the
/// end of what it printed goes to stderr before the error is returned.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{name}`"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        let all = format!("{text}{}", String::from_utf8_lossy(&stderr));
        let lines: Vec<&str> = all.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        let mut err = std::io::stderr().lock();
        for line in lines.iter().skip(from) {
            // Nothing can be done about a closed stderr.
            let _ = writeln!(err, "  | {line}");
        }
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(text)
}

/// Runs `command` for its effect; see [`output`].
///
/// # Errors
/// Those of [`output`].
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Where `program` is on the `PATH` (or in the folders that an ordinary
/// user's `PATH` leaves out), if anywhere.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

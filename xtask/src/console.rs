//! Following a running machine: its serial line, the clock, its end.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regex::Regex;

use crate::machine::ResetMark;
use crate::serial::{self, Firmware, Lines};

/// How often the serial file is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a line without an end must be quiet before `--until` looks at it:
/// a prompt, for example.
const QUIET: Duration = Duration::from_millis(300);
/// How long a machine may go on after Umbra's last words, so that what comes
/// with them is not lost.
const AFTER_LAST_WORDS: Duration = Duration::from_millis(500);

/// Set by Ctrl-C and by a request to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C ends the machine and tidies up instead of ending this
/// program on the spot.
///
/// # Errors
/// The handler cannot be set.
pub fn catch_interrupts() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")
}

/// Why following a machine came to an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The machine's program ended, with this status.
    Exited(Option<i32>),
    /// A line matched `--until`.
    Until,
    /// An Umbra said why it stopped, in this line.
    LastWords(String),
    /// The guest reset the machine.
    Reset,
    /// The time ran out.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

/// What to watch for.
pub struct Watch<'a> {
    /// Ends the run when a line of the serial console matches.
    pub until: Option<&'a Regex>,
    /// Ends the run after this time.
    pub timeout: Duration,
    /// Ends the run when the guest resets the machine.
    pub reset: Option<ResetMark>,
    /// Takes every byte of the serial line as it comes.
    pub log: Option<File>,
    /// Keeps the firmware's lines back.
    pub firmware: Firmware,
}

/// Follows the machine `child`, whose serial line goes to the file `serial`,
/// and gives every line of it to `print`. The machine has ended on return.
///
/// # Errors
/// The serial file cannot be read or the log cannot be written.
pub fn follow(
    child: &mut Child,
    serial: &Path,
    mut watch: Watch<'_>,
    mut print: impl FnMut(&str),
) -> Result<Ending> {
    let result = follow_until_ending(child, serial, &mut watch, &mut print);
    // All that there is to tell why the guest was never reached.
    for line in watch.firmware.kept() {
        print(line);
    }
    // Whatever happened, no machine is left behind. A program that has ended
    // already cannot be killed, which is as good.
    let _ = child.kill();
    child.wait()?;
    result
}

fn follow_until_ending(
    child: &mut Child,
    serial: &Path,
    watch: &mut Watch<'_>,
    print: &mut impl FnMut(&str),
) -> Result<Ending> {
    let started = Instant::now();
    let mut input = Tail::new(serial);
    let mut resets = watch.reset.as_ref().map(Resets::new);
    let mut lines = Lines::default();
    let mut last_byte = started;
    let mut last_words: Option<(String, Instant)> = None;
    loop {
        // Looked at before reading: what a program wrote before it ended is
        // there when its end is known.
        let exited = child.try_wait()?;
        let bytes = input.read()?;
        if let Some(log) = &mut watch.log {
            log.write_all(&bytes).context("cannot write the log")?;
        }
        if !bytes.is_empty() {
            last_byte = Instant::now();
        }
        let mut new_lines = lines.push(&bytes);
        if exited.is_some() {
            new_lines.extend(lines.finish());
        }
        for line in new_lines {
            if !watch.firmware.lets_through(&line) {
                continue;
            }
            print(&line);
            if watch.until.is_some_and(|until| until.is_match(&line)) {
                return Ok(Ending::Until);
            }
            if last_words.is_none() && serial::is_last_words(&line) {
                last_words = Some((line, Instant::now()));
            }
        }
        let unfinished = |lines: &mut Lines, print: &mut dyn FnMut(&str)| {
            if let Some(line) = lines.finish() {
                print(&line);
            }
        };
        if let (Some(until), Some(line)) = (watch.until, lines.unfinished())
            && last_byte.elapsed() >= QUIET
            && until.is_match(&line)
        {
            unfinished(&mut lines, print);
            return Ok(Ending::Until);
        }
        if let Some((line, since)) = &last_words
            && (exited.is_some() || since.elapsed() >= AFTER_LAST_WORDS)
        {
            let line = line.clone();
            unfinished(&mut lines, print);
            return Ok(Ending::LastWords(line));
        }
        if let Some(status) = exited {
            return Ok(Ending::Exited(status.code()));
        }
        if resets.as_mut().is_some_and(Resets::has_come) {
            unfinished(&mut lines, print);
            return Ok(Ending::Reset);
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            unfinished(&mut lines, print);
            return Ok(Ending::Interrupted);
        }
        if started.elapsed() >= watch.timeout {
            unfinished(&mut lines, print);
            return Ok(Ending::TimedOut);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads a file that another program is still writing, and may not have made
/// yet.
struct Tail<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl<'a> Tail<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, file: None }
    }

    /// Everything that was written since the last call.
    fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.file.is_none() {
            match File::open(self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(bytes),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot read {}", self.path.display()));
                }
            }
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Counts the resets of the machine.
struct Resets<'a> {
    log: Tail<'a>,
    lines: Lines,
    text: &'static str,
    left: usize,
}

impl<'a> Resets<'a> {
    fn new(mark: &'a ResetMark) -> Self {
        Self {
            log: Tail::new(&mark.file),
            lines: Lines::default(),
            text: mark.text,
            left: mark.at_power_on,
        }
    }

    /// Whether there were more than those of switching on. A log that cannot
    /// be read tells nothing; the run's end will say what is wrong with it.
    fn has_come(&mut self) -> bool {
        for line in self.lines.push(&self.log.read().unwrap_or_default()) {
            if line.contains(self.text) {
                match self.left.checked_sub(1) {
                    Some(left) => self.left = left,
                    None => return true,
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Follows a shell script in which `$S` is the serial file.
    fn shell(script: &str, until: Option<&str>, timeout_ms: u64) -> (Ending, Vec<String>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let serial = dir.path().join("serial");
        let log = dir.path().join("log");
        let mut child = Command::new("sh")
            .args(["-c", script])
            .env("S", &serial)
            .env("L", dir.path().join("machine-log"))
            .spawn()
            .unwrap();
        let until = until.map(|text| Regex::new(text).unwrap());
        let mut lines = Vec::new();
        let ending = follow(
            &mut child,
            &serial,
            Watch {
                until: until.as_ref(),
                timeout: Duration::from_millis(timeout_ms),
                reset: Some(ResetMark {
                    file: dir.path().join("machine-log"),
                    text: "Reset(",
                    at_power_on: 1,
                }),
                log: Some(File::create(&log).unwrap()),
                firmware: Firmware::silent(),
            },
            |line| lines.push(line.to_owned()),
        )
        .unwrap();
        (ending, lines, std::fs::read(&log).unwrap())
    }

    #[test]
    fn the_last_line_counts_even_without_an_end() {
        let (ending, lines, log) = shell("sleep 0.1; printf 'a\\r\\nb' > $S; exit 3", None, 20_000);
        assert_eq!(ending, Ending::Exited(Some(3)));
        assert_eq!(lines, ["a", "b"]);
        assert_eq!(log, b"a\r\nb");
    }

    #[test]
    fn until_ends_a_machine_that_goes_on() {
        let (ending, lines, _) = shell(
            "printf 'a\\nstop 1\\n' > $S; exec sleep 60",
            Some("^stop"),
            20_000,
        );
        assert_eq!(ending, Ending::Until);
        assert_eq!(lines, ["a", "stop 1"]);
    }

    #[test]
    fn until_sees_a_prompt() {
        let (ending, lines, _) = shell(
            "printf 'login: ' > $S; exec sleep 60",
            Some("login: $"),
            20_000,
        );
        assert_eq!(ending, Ending::Until);
        assert_eq!(lines, ["login: "]);
    }

    #[test]
    fn time_runs_out() {
        let (ending, lines, _) = shell("printf 'half' > $S; exec sleep 60", Some("never"), 200);
        assert_eq!(ending, Ending::TimedOut);
        assert_eq!(lines, ["half"]);
    }

    #[test]
    fn last_words_end_a_machine_that_goes_on_but_not_its_last_lines() {
        let (ending, lines, _) = shell(
            "echo 'umbra: fatal: x' > $S; sleep 0.1; echo 'umbra: dump' >> $S; exec sleep 60",
            None,
            20_000,
        );
        assert_eq!(ending, Ending::LastWords("umbra: fatal: x".into()));
        assert_eq!(lines, ["umbra: fatal: x", "umbra: dump"]);
    }

    #[test]
    fn a_reset_ends_the_run_but_switching_on_does_not() {
        let script = "echo 'i Reset(HARD)' > $L; sleep 0.1; echo one > $S";
        assert_eq!(shell(script, None, 20_000).0, Ending::Exited(Some(0)));
        let (ending, lines, _) = shell(
            &format!("{script}; sleep 0.1; echo 'i Reset(SOFT)' >> $L; exec sleep 60"),
            None,
            20_000,
        );
        assert_eq!(ending, Ending::Reset);
        assert_eq!(lines, ["one"]);
    }

    #[test]
    fn a_machine_without_a_serial_file_still_ends() {
        assert_eq!(shell("exit 0", None, 20_000).0, Ending::Exited(Some(0)));
    }
}

//! What the person sees while `./x` works: one line a step on stderr.
//!
//! stdout belongs to the guest's serial console and to the results of
//! `./x test`, so progress never goes there.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps shorter than this are not worth a closing line.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// One step under way: a spinner on a terminal, a plain line elsewhere.
///
/// The spinner goes away when the step is dropped, whatever its outcome.
pub struct Step {
    bar: Option<ProgressBar>,
    what: String,
    started: Instant,
}

impl Step {
    /// Says that `what` has begun, for example `building Umbra`.
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            Some(bar)
        } else {
            eprintln!("x: {what}");
            None
        };
        Self {
            bar,
            what,
            started: Instant::now(),
        }
    }

    /// Like [`Step::start`], for work that is usually over at once: where
    /// there is no terminal it stays silent.
    pub fn start_quietly(what: impl Into<String>) -> Self {
        if std::io::stderr().is_terminal() {
            return Self::start(what);
        }
        Self {
            bar: None,
            what: what.into(),
            started: Instant::now(),
        }
    }

    /// A step that shows nothing while it is under way.
    pub fn start_silently() -> Self {
        Self {
            bar: None,
            what: String::new(),
            started: Instant::now(),
        }
    }

    /// Shows how far the step has come, on a terminal only.
    pub fn detail(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.what));
        }
    }

    /// The step came to its end. Long ones leave a line behind.
    pub fn done(self) {
        let took = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if took >= WORTH_TELLING && !self.what.is_empty() {
            eprintln!("x: {}: done in {} s", self.what, took.as_secs());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One line to the person, on stderr.
pub fn note(line: impl AsRef<str>) {
    eprintln!("x: {}", line.as_ref());
}

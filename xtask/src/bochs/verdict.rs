//! How a run ended, read from Bochs's log.
//!
//! Bochs ends with the same status whether the guest switched the machine off
//! or crashed; the last panic in its log tells them apart.

use crate::machine::Verdict;
use crate::ticks::Ticks;

/// What Bochs says when the guest switches the machine off through ACPI, and
/// when it writes `Shutdown` to port 0x8900.
const SWITCHED_OFF: [&str; 2] = [
    "ACPI control: soft power off",
    "Shutdown port: shutdown requested",
];

/// What Bochs says, as `bochs-3.0-vmx.diff` mends it, when its ticks are over.
const OUT_OF_TICKS: &str = "benchmark: out of ticks";

/// Reads the verdict from the text of the log.
pub fn read(log: &str) -> Verdict {
    let Some(panic) = log.lines().rev().find_map(panic_of) else {
        return Verdict::Crashed("Bochs ended without a reason in its log".to_owned());
    };
    if panic.message.contains(OUT_OF_TICKS) {
        return Verdict::OutOfTicks;
    }
    if SWITCHED_OFF.iter().any(|text| panic.message.contains(text)) {
        return Verdict::SwitchedOff;
    }
    let mut reason = format!("{}: {}", panic.device, in_words(panic.message));
    // A failed VM entry is often what led to it.
    if let Some(entry) = log.lines().rev().find_map(failed_entry) {
        reason.push_str(&format!(" (the last VM entry that failed: {entry})"));
    }
    Verdict::Crashed(reason)
}

/// What Bochs says at each reset.
pub const RESET: &str = "bx_pc_system_c::Reset(";
/// How many resets belong to switching the machine on.
pub const RESETS_AT_POWER_ON: usize = 1;

/// The ticks at which the machine ended: those of the last panic, or of the
/// guest's first reset, at which `./x` ends the run.
pub fn ticks(log: &str) -> Option<Ticks> {
    let ended = match log.lines().rev().find_map(panic_of) {
        Some(panic) => panic.ticks,
        None => log
            .lines()
            .filter(|line| line.contains(RESET))
            .nth(RESETS_AT_POWER_ON)
            .and_then(ticks_of),
    };
    ended.map(Ticks)
}

/// The ticks with which a line of the log begins.
fn ticks_of(line: &str) -> Option<u64> {
    let end = line
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(line.len());
    line.get(..end)?.parse().ok()
}

struct Panic<'a> {
    /// When, since the machine was switched on.
    ticks: Option<u64>,
    /// `CPU0`, `ACPI` and the like.
    device: &'a str,
    message: &'a str,
}

/// Takes a line such as `00123p[CPU0  ] >>PANIC<< message` apart.
fn panic_of(line: &str) -> Option<Panic<'_>> {
    let (head, message) = line.split_once(">>PANIC<< ")?;
    let (time, device) = head.rsplit_once('[')?;
    let device = device.split_once(']')?.0;
    Some(Panic {
        ticks: ticks_of(time),
        device: device.trim(),
        message: message.trim(),
    })
}

/// The message of a line that tells why a VM entry failed.
fn failed_entry(line: &str) -> Option<&str> {
    ["VMFAIL: ", "VMENTER FAIL: "]
        .iter()
        .find_map(|mark| line.find(mark))
        .and_then(|at| line.get(at..))
        .map(str::trim)
}

/// What the panics that a guest can cause mean.
fn in_words(message: &str) -> String {
    if message.contains("3rd (") && message.contains("exception with no resolution") {
        let vector = message
            .split_once("3rd (")
            .and_then(|(_, rest)| rest.split_once(')'))
            .map_or("?", |(vector, _)| vector);
        format!("triple fault, after exception {vector}")
    } else if message.contains("running in bogus memory") {
        format!("jumped to where there is no memory ({message})")
    } else {
        message.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(log: &str) -> String {
        match read(log) {
            Verdict::Crashed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn switching_off_is_no_crash() {
        for text in [
            "00012p[ACPI  ] >>PANIC<< ACPI control: soft power off\n00012i[CPU0  ] CPU is in long mode\n",
            "00099e[CPU0  ] VMFAIL: VMCS EXEC CTRL: x\n\
             00100p[UNMAP ] >>PANIC<< Shutdown port: shutdown requested\n",
        ] {
            assert_eq!(read(text), Verdict::SwitchedOff);
        }
    }

    #[test]
    fn the_end_is_dated_in_ticks() {
        let log = "00000000000i[SYS   ] Reset\n\
            07192571202p[UNMAP ] >>PANIC<< Shutdown port: shutdown requested\n\
            07192571202i[CPU0  ] CPU is in long mode\n";
        assert_eq!(ticks(log), Some(Ticks(7_192_571_202)));
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn a_reset_by_the_guest_is_dated_and_switching_on_is_not() {
        let on = "00000000000i[SYS   ] bx_pc_system_c::Reset(HARDWARE) called\n";
        assert_eq!(ticks(on), None);
        let reset = "00501335811i[SYS   ] bx_pc_system_c::Reset(SOFTWARE) called\n\
            00501335820i[SYS   ] bx_pc_system_c::Reset(SOFTWARE) called\n";
        assert_eq!(ticks(&format!("{on}{reset}")), Some(Ticks(501_335_811)));
    }

    #[test]
    fn running_out_of_ticks_is_no_crash() {
        let log = "01000000000p[SYS   ] >>PANIC<< benchmark: out of ticks\n";
        assert_eq!(read(log), Verdict::OutOfTicks);
    }

    #[test]
    fn a_triple_fault_is_named_with_its_cpu_and_vector() {
        assert_eq!(
            crashed(
                "00001e[CPU1  ] VMENTER FAIL: VMCS guest CR0 is broken\n\
                 00002p[CPU1  ] >>PANIC<< exception(): 3rd (14) exception with no resolution\n\
                 00002i[CPU1  ] RIP=0\n"
            ),
            "CPU1: triple fault, after exception 14 (the last VM entry that failed: \
             VMENTER FAIL: VMCS guest CR0 is broken)"
        );
    }

    #[test]
    fn the_last_panic_counts() {
        assert_eq!(
            crashed(
                "00001p[ACPI  ] >>PANIC<< ACPI control: soft power off\n\
                 00002p[CPU0  ] >>PANIC<< VMCALL: not implemented yet\n"
            ),
            "CPU0: VMCALL: not implemented yet"
        );
    }

    #[test]
    fn a_log_without_a_panic_is_a_crash_of_bochs() {
        assert_eq!(crashed(""), "Bochs ended without a reason in its log");
    }
}

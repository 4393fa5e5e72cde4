//! Waiting, at boot. L0 does not wait once L1 runs.

use crate::arch::io;
use crate::machine::machine;
use umbra_core::pm_timer::{elapsed_ticks, ticks_for};

/// A port that nothing answers; a read takes about a microsecond on the bus.
const DELAY_PORT: u16 = 0x80;
/// So many reads without a change mean that the timer stands still.
const MAX_READS: u64 = 10_000;

/// Waits at least `microseconds`, by the power-management timer where the
/// machine has one.
pub fn wait(microseconds: u64) {
    let facts = &machine().acpi;
    if facts.pm_timer == 0 {
        return wait_by_port(microseconds);
    }
    let wanted = ticks_for(microseconds);
    let mut before = io::in32(facts.pm_timer);
    let mut done = 0;
    let mut reads_without_change = 0;
    while done < wanted {
        let now = io::in32(facts.pm_timer);
        let passed = elapsed_ticks(before, now, facts.pm_timer_is_32_bit);
        if passed == 0 {
            reads_without_change += 1;
            if reads_without_change > MAX_READS {
                return wait_by_port(microseconds);
            }
            continue;
        }
        reads_without_change = 0;
        done += u64::from(passed);
        before = now;
    }
}

fn wait_by_port(microseconds: u64) {
    for _ in 0..microseconds {
        io::in8(DELAY_PORT);
    }
}

//! Stopping every CPU after an error that L0 cannot survive, or one CPU by
//! itself. See `umbra_nmi::stop`.

use crate::arch::halt_forever;
use crate::cpu::percpu;
use crate::platform::apic;
use umbra_core::acpi::MAX_CPUS;
use umbra_nmi::Stop;
use umbra_nmi::stop::Request;

/// How often the CPU that leads looks whether the others have stopped.
const MAX_LOOKS: u32 = 10_000_000;

static STOP: Stop<MAX_CPUS> = Stop::new();

/// This CPU is about to run L1: at the start, and woken by a start-up IPI.
pub fn will_run(index: u32) {
    STOP.set_running(index as usize);
}

/// This CPU is about to wait for a start-up IPI.
pub fn will_wait(index: u32) {
    STOP.set_waits_for_sipi(index as usize);
}

/// Before every VM entry: one load. Does not return once a stop is asked for.
#[inline]
pub fn check(index: u32) {
    if !STOP.may_enter() {
        STOP.stopped(index as usize);
        halt_forever();
    }
}

/// This CPU runs nothing of L1's any more, while the others go on. Whether it
/// was the last that did; of several that leave at once, at least one learns it.
pub fn leave(index: u32) -> bool {
    STOP.stopped(index as usize);
    STOP.still_running().is_none()
}

/// Stops all other CPUs, as far as they can be stopped within a bound. Does
/// not return if another CPU was first.
pub fn all_others() {
    let Some(index) = percpu::own_index() else {
        // Before this CPU had an area: no L1 runs anywhere.
        return;
    };
    match STOP.request(index as usize) {
        Request::Follows(first) if first != index as usize => halt_forever(),
        Request::Follows(_) => {}
        Request::Leads => {
            // Nothing more can be done if the IPI does not go out.
            let _ = apic::send_to_others(apic::Ipi::Init);
            let _ = (0..MAX_LOOKS).any(|_| {
                core::hint::spin_loop();
                STOP.still_running().is_none()
            });
        }
    }
}

//! Rules in which Bochs 3.0 departs from the SDM, as `docs/errata.md` tells in full.
//!
//! A case that breaks one of these first is not run in a transcript, as the bare machine would give
//! Bochs's answer and Umbra the SDM's. The word `errata` runs those cases alone and compares them with
//! the rule table; it is for a run under Umbra.

/// The rules' ids.
const RULES: [&str; 14] = [
    "ctl.entry.smm",
    "ctl.posted.needs-delivery",
    "guest.activity.hlt-event",
    "guest.cr0.ia32e-needs-pg",
    "guest.debugctl.reserved",
    "guest.interruptibility.nmi-sti",
    "guest.interruptibility.virtual-nmi",
    "guest.pending-debug.bs-extra",
    "guest.pending-debug.bs-missing",
    "guest.pending-debug.reserved",
    "guest.perf-global-ctrl",
    "guest.rip.width",
    "guest.rflags.vm-real",
    "host.perf-global-ctrl",
];

/// Cases of the rules' own in which Bochs departs, where it does not in the rule's other cases.
const CASES: [(&str, &str); 1] = [("guest.activity.shutdown-event", "external interrupt 18")];

/// Whether Bochs answers to this case otherwise than the SDM.
pub fn has_case(rule: &str, name: &str) -> bool {
    CASES.contains(&(rule, name))
}

/// Whether Bochs answers to a broken rule otherwise than the SDM.
pub fn has(rule: &str) -> bool {
    RULES.contains(&rule)
}

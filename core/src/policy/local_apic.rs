//! What INIT leaves in the registers of a local APIC. SDM "Local APIC State
//! After an INIT Reset (Wait-for-SIPI State)", "x2APIC State Transitions".

use umbra_arch::apic::{
    LVT_MASKED, SPURIOUS_SUPPRESS_EOI, VERSION_CAN_SUPPRESS_EOI, register as at,
};

/// Offsets of the registers that say which vectors are in service.
pub const IN_SERVICE: [u32; 8] = {
    let mut offsets = [at::IN_SERVICE; 8];
    let mut n = 1;
    while n < 8 {
        offsets[n] = offsets[n - 1] + 0x10;
        n += 1;
    }
    offsets
};

/// The APIC is off by software, its spurious vector 0xff.
pub const SPURIOUS_AFTER_INIT: u32 = 0xff;
/// Local vectors in the order in which APICs came to have them.
const LOCAL_VECTORS: [u32; 7] = [
    at::LVT_TIMER,
    at::LVT_LINT0,
    at::LVT_LINT1,
    at::LVT_ERROR,
    at::LVT_PERFORMANCE,
    at::LVT_THERMAL,
    at::LVT_CMCI,
];

/// Whether this APIC can keep the end of an interrupt to itself.
pub fn can_suppress_broadcast(version: u32) -> bool {
    version & VERSION_CAN_SUPPRESS_EOI != 0
}

/// The value that SPURIOUS has while interrupts in service are ended.
pub fn spurious_while_ending(version: u32) -> u32 {
    match can_suppress_broadcast(version) {
        true => SPURIOUS_AFTER_INIT | SPURIOUS_SUPPRESS_EOI,
        false => SPURIOUS_AFTER_INIT,
    }
}

/// The registers to write, as offsets in the page of an xAPIC, and their
/// values, for an APIC with this version register. INIT keeps the APIC's mode
/// and its id; in x2APIC mode the logical destination comes from the id and
/// there is no destination format.
pub fn after_init(version: u32, is_x2apic: bool) -> impl Iterator<Item = (u32, u32)> {
    let vectors = (version >> 16 & 0xff) as usize + 1;
    let logical = [
        (at::LOGICAL_DESTINATION, 0),
        (at::DESTINATION_FORMAT, u32::MAX),
    ];
    LOCAL_VECTORS
        .into_iter()
        .take(vectors)
        .map(|offset| (offset, LVT_MASKED))
        .chain([
            (at::TIMER_INITIAL_COUNT, 0),
            (at::TIMER_DIVIDE, 0),
            (at::TASK_PRIORITY, 0),
        ])
        .chain(logical.into_iter().filter(move |_| !is_x2apic))
        .chain([(at::ERROR_STATUS, 0), (at::SPURIOUS, SPURIOUS_AFTER_INIT)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn only_local_vectors_that_exist_are_masked() {
        for (version, masked) in [
            (0x3_0014, 4),
            (0x5_0014, 6),
            (0x106_0015, 7),
            (0xff_0015, 7),
        ] {
            let writes = after_init(version, false).filter(|(_, value)| *value == LVT_MASKED);
            assert_eq!(writes.count(), masked, "{version:#x}");
        }
        let first: Vec<_> = after_init(0x3_0014, false).take(4).map(|w| w.0).collect();
        assert_eq!(first, [0x320, 0x350, 0x360, 0x370]);
    }

    #[test]
    fn x2apic_has_no_logical_destination_to_write() {
        let has = |is_x2apic, offset| after_init(0x5_0014, is_x2apic).any(|w| w.0 == offset);
        assert!(has(false, 0xd0) && has(false, 0xe0));
        assert!(!has(true, 0xd0) && !has(true, 0xe0));
        assert!(has(true, at::TASK_PRIORITY) && has(true, at::TIMER_INITIAL_COUNT));
    }

    #[test]
    fn it_is_switched_off_last() {
        let last = after_init(0x5_0014, true).last();
        assert_eq!(last, Some((at::SPURIOUS, 0xff)));
        assert_eq!(spurious_while_ending(0x105_0014), 0x10ff);
        assert_eq!(spurious_while_ending(0x5_0014), 0xff);
    }
}

//! What INIT leaves in the registers of a local APIC. SDM "Local APIC State
//! After an INIT Reset (Wait-for-SIPI State)", "x2APIC State Transitions".

/// Offset of the version register in the page of an xAPIC.
pub const VERSION: u32 = 0x30;
/// Offset of the end-of-interrupt register.
pub const END_OF_INTERRUPT: u32 = 0xb0;
/// Offset of the spurious-interrupt vector register.
pub const SPURIOUS: u32 = 0xf0;
/// Offsets of the registers that say which vectors are in service.
pub const IN_SERVICE: [u32; 8] = [0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x160, 0x170];
/// SPURIOUS: an end of interrupt is not told to the I/O APICs.
pub const SUPPRESS_BROADCAST: u32 = 1 << 12;

/// The APIC is off by software, its spurious vector 0xff.
pub const SPURIOUS_AFTER_INIT: u32 = 0xff;
/// A local vector that is masked.
const MASKED: u32 = 1 << 16;

/// Local vectors in the order in which APICs came to have them.
const LOCAL_VECTORS: [u32; 7] = [0x320, 0x350, 0x360, 0x370, 0x340, 0x330, 0x2f0];
const TASK_PRIORITY: u32 = 0x80;
const LOGICAL_DESTINATION: u32 = 0xd0;
const DESTINATION_FORMAT: u32 = 0xe0;
const ERROR_STATUS: u32 = 0x280;
const TIMER_COUNT: u32 = 0x380;
const TIMER_DIVIDE: u32 = 0x3e0;

/// Whether this APIC can keep the end of an interrupt to itself.
pub fn can_suppress_broadcast(version: u32) -> bool {
    version & 1 << 24 != 0
}

/// The value that SPURIOUS has while interrupts in service are ended.
pub fn spurious_while_ending(version: u32) -> u32 {
    match can_suppress_broadcast(version) {
        true => SPURIOUS_AFTER_INIT | SUPPRESS_BROADCAST,
        false => SPURIOUS_AFTER_INIT,
    }
}

/// The registers to write, as offsets in the page of an xAPIC, and their
/// values, for an APIC with this version register. INIT keeps the APIC's mode
/// and its id; in x2APIC mode the logical destination comes from the id and
/// there is no destination format.
pub fn after_init(version: u32, is_x2apic: bool) -> impl Iterator<Item = (u32, u32)> {
    let vectors = (version >> 16 & 0xff) as usize + 1;
    let logical = [(LOGICAL_DESTINATION, 0), (DESTINATION_FORMAT, u32::MAX)];
    LOCAL_VECTORS
        .into_iter()
        .take(vectors)
        .map(|offset| (offset, MASKED))
        .chain([(TIMER_COUNT, 0), (TIMER_DIVIDE, 0), (TASK_PRIORITY, 0)])
        .chain(logical.into_iter().filter(move |_| !is_x2apic))
        .chain([(ERROR_STATUS, 0), (SPURIOUS, SPURIOUS_AFTER_INIT)])
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
            let writes = after_init(version, false).filter(|(_, value)| *value == MASKED);
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
        assert!(has(true, TASK_PRIORITY) && has(true, TIMER_COUNT));
    }

    #[test]
    fn it_is_switched_off_last() {
        let last = after_init(0x5_0014, true).last();
        assert_eq!(last, Some((SPURIOUS, 0xff)));
        assert_eq!(spurious_while_ending(0x105_0014), 0x10ff);
        assert_eq!(spurious_while_ending(0x5_0014), 0xff);
    }
}

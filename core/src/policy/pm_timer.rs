//! The arithmetic of the ACPI power-management timer, a counter of 24 or 32
//! bits. ACPI Specification, "Power Management Timer".

/// Its frequency.
const TICKS_A_SECOND: u64 = 3_579_545;

/// How many ticks `microseconds` take, rounded up; as many as fit for a time
/// that no counter can measure.
pub fn ticks_for(microseconds: u64) -> u64 {
    microseconds
        .saturating_mul(TICKS_A_SECOND)
        .div_ceil(1_000_000)
}

/// Ticks from one reading to the next, which wraps.
pub fn elapsed_ticks(before: u32, now: u32, is_32_bit: bool) -> u32 {
    let mask = if is_32_bit { u32::MAX } else { 0x00ff_ffff };
    now.wrapping_sub(before) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_does_not_overflow() {
        assert_eq!(ticks_for(1_000_000), TICKS_A_SECOND);
        assert_eq!(ticks_for(1), 4);
        assert_eq!(ticks_for(0), 0);
        // 2^32 ticks and more: 20 minutes and more.
        assert!(ticks_for(1_200_000_000) > u64::from(u32::MAX));
        assert!(ticks_for(u64::MAX) > 1 << 40);
    }

    #[test]
    fn the_counter_wraps() {
        assert_eq!(elapsed_ticks(0xff_fffe, 1, false), 3);
        // The upper byte of a 24-bit counter is not to be relied on.
        assert_eq!(elapsed_ticks(0x12ff_fffe, 0x3400_0001, false), 3);
        assert_eq!(elapsed_ticks(u32::MAX, 1, true), 2);
        assert_eq!(elapsed_ticks(5, 5, true), 0);
    }
}

//! Breakpoints of DR0 to DR3 on accesses that L0 carries out for a guest. SDM
//! "Debug Registers", "Debug Control Register (DR7)".

/// What is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory is read.
    Read,
    /// Memory is written.
    Write,
    /// A port; breakpoints on it need CR4.DE.
    Port,
}

/// Whether any breakpoint is enabled.
pub const fn any_enabled(dr7: u64) -> bool {
    dr7 & 0xff != 0
}

/// The bits B0 to B3 of the breakpoints that an access of `bytes` bytes from
/// `address` on meets. `addresses` are DR0 to DR3.
pub fn hit(dr7: u64, addresses: [u64; 4], kind: Kind, address: u64, bytes: u64) -> u64 {
    let mut met = 0;
    for (n, at) in (0u32..).zip(addresses) {
        let is_enabled = dr7 >> (2 * n) & 3 != 0;
        let condition = dr7 >> (16 + 4 * n) & 3;
        let length: u64 = match dr7 >> (18 + 4 * n) & 3 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        };
        let fits = match kind {
            Kind::Read => condition == 3,
            Kind::Write => condition & 1 == 1,
            Kind::Port => condition == 2,
        };
        let start = at & !(length - 1);
        // Around the end of the address space too.
        let overlaps = address.wrapping_sub(start) < length || start.wrapping_sub(address) < bytes;
        if is_enabled && fits && overlaps {
            met |= 1 << n;
        }
    }
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_meets_what_it_overlaps() {
        // DR0: write, 4 bytes; DR1: read or write, 1 byte; DR2: port, 2 bytes; DR3: code.
        let dr7 = 0x400 | 0xff | 0xd << 16 | 0x3 << 20 | 0x6 << 24;
        let dr = [0x1000, 0x1003, 0x3f8, 0x1000];
        for (kind, address, bytes, met) in [
            (Kind::Write, 0x1000, 1, 1),
            (Kind::Write, 0xfff, 1, 0),
            (Kind::Write, 0xffe, 4, 1),
            (Kind::Write, 0x1003, 1, 3),
            (Kind::Write, 0x1004, 1, 0),
            (Kind::Read, 0x1000, 1, 0),
            (Kind::Read, 0x1002, 2, 2),
            (Kind::Port, 0x3f8, 1, 4),
            (Kind::Port, 0x3f9, 1, 4),
            (Kind::Port, 0x3fa, 1, 0),
            (Kind::Port, 0x3f6, 4, 4),
            (Kind::Write, u64::MAX, 4, 0),
        ] {
            assert_eq!(
                hit(dr7, dr, kind, address, bytes),
                met,
                "{kind:?} {address:#x}"
            );
        }
        assert_eq!(hit(dr7 & !0xff, dr, Kind::Write, 0x1000, 4), 0);
        let at_0 = [0, 0, 0, 0];
        assert_eq!(hit(dr7, at_0, Kind::Write, u64::MAX, 4), 3);
        assert!(any_enabled(dr7) && !any_enabled(0x400));
    }
}

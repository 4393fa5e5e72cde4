//! Whether a segment permits an access, and the linear address that comes of it.
//! SDM "Segment Limit Checking", "Type Checking".

use umbra_arch::{AccessRights, Linear};

/// A segment outside 64-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its base.
    pub base: u64,
    /// Its limit, in bytes.
    pub limit: u64,
    /// Its access rights.
    pub rights: AccessRights,
}

impl Segment {
    /// The linear address of `length_bytes` bytes (1 or more) at `offset`; `None` where
    /// the access raises #GP(0), or #SS(0) by way of SS.
    pub const fn linear(&self, offset: u64, length_bytes: u64, write: bool) -> Option<Linear> {
        let rights = self.rights;
        let is_permitted = match write {
            true => rights.writable(),
            false => rights.readable(),
        };
        let last = offset + (length_bytes - 1);
        let is_inside = if rights.is_expand_down() {
            let top = if rights.big() { 0xffff_ffff } else { 0xffff };
            offset > self.limit && last <= top
        } else {
            last <= self.limit
        };
        if rights.unusable() || !is_permitted || !is_inside {
            return None;
        }
        Some(Linear::new(self.base.wrapping_add(offset)).in_32_bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: Segment = Segment {
        base: 0,
        limit: 0xffff_ffff,
        rights: AccessRights::DATA_32,
    };

    fn with_rights(rights: u32) -> Segment {
        Segment {
            rights: AccessRights::from_bits(rights),
            ..FLAT
        }
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let limit = |limit| Segment { limit, ..FLAT };
        assert_eq!(
            limit(0x1003).linear(0x1000, 4, true),
            Some(Linear::new(0x1000))
        );
        assert_eq!(limit(0x1002).linear(0x1000, 4, true), None);
        let down = |limit| Segment {
            limit,
            ..with_rights(0xc097)
        };
        assert_eq!(
            down(0xfff).linear(0x1000, 4, true),
            Some(Linear::new(0x1000))
        );
        assert_eq!(down(0x1000).linear(0x1000, 4, true), None);
        let down_16 = Segment {
            limit: 0,
            ..with_rights(0x97)
        };
        assert_eq!(down_16.linear(0xfffc, 4, true), Some(Linear::new(0xfffc)));
        assert_eq!(down_16.linear(0xfffd, 4, true), None);
    }

    #[test]
    fn types_hold() {
        for (rights, write, is_allowed) in [
            (0xc091, false, true),
            (0xc091, true, false),
            (0xc093, true, true),
            (0xc09b, false, true),
            (0xc09b, true, false),
            (0xc099, false, false),
            (0x1c093, false, false),
        ] {
            let linear = with_rights(rights).linear(0x1000, 4, write);
            assert_eq!(linear.is_some(), is_allowed, "{rights:#x}");
        }
    }

    #[test]
    fn a_32_bit_address_wraps() {
        let high = Segment {
            base: 0xffff_f000,
            ..FLAT
        };
        assert_eq!(high.linear(0x2000, 4, false), Some(Linear::new(0x1000)));
    }
}

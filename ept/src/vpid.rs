//! Which VPID the hardware is given while L1 or one of its L2s runs.
//!
//! L1's own numbers are kept, so that its INVVPIDs can be carried out with the
//! numbers they name. Three are taken away: the last three numbers that L1 may
//! use share one hardware VPID, and changing between them costs a flush.

/// Hardware VPID of L1 itself.
pub const VPID_L1: u16 = 0xffff;
/// Hardware VPID of an L2 whose VMCS leaves "enable VPID" 0. Flushed at each
/// of its entries and exits, as the CPU does with VPID 0000H.
pub const VPID_L2_WITHOUT: u16 = 0xfffe;
/// Hardware VPID of L1's VPIDs 0xfffd, 0xfffe and 0xffff.
pub const VPID_SHARED: u16 = 0xfffd;

/// What to run an L2 with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The value for vmcs02's VPID field.
    pub hardware: u16,
    /// Do a single-context INVVPID of `hardware` before the entry.
    pub flush_needed: bool,
}

/// The VPIDs of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vpids {
    /// Which of L1's numbers last ran under [`VPID_SHARED`]; 0 for none.
    shared_by: u16,
}

/// What L1's INVVPID becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invvpid {
    /// Carry it out with this hardware VPID.
    One(u16),
    /// Nothing of that VPID is in the CPU.
    Nothing,
}

impl Vpids {
    /// No L2 has run yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { shared_by: 0 }
    }

    /// For an entry into an L2. `vpid12` is `None` if vmcs12 leaves "enable
    /// VPID" 0; `Some(0)` does not pass VM entry and is treated like it.
    pub fn enter(&mut self, vpid12: Option<u16>) -> Assigned {
        match vpid12 {
            None | Some(0) => Assigned {
                hardware: VPID_L2_WITHOUT,
                flush_needed: true,
            },
            Some(vpid) if vpid < VPID_SHARED => Assigned {
                hardware: vpid,
                flush_needed: false,
            },
            Some(vpid) => {
                // The very first use counts as a change: whatever ran before
                // this CPU's Umbra started may have left translations.
                let flush_needed = self.shared_by != vpid;
                self.shared_by = vpid;
                Assigned {
                    hardware: VPID_SHARED,
                    flush_needed,
                }
            }
        }
    }

    /// For L1's INVVPID of one VPID (types 0, 1 and 3): which hardware VPID to
    /// name instead of `vpid12`.
    #[must_use]
    pub const fn invalidate_one(&self, vpid12: u16) -> Invvpid {
        if vpid12 == 0 {
            Invvpid::Nothing
        } else if vpid12 < VPID_SHARED {
            Invvpid::One(vpid12)
        } else if self.shared_by == vpid12 {
            Invvpid::One(VPID_SHARED)
        } else {
            Invvpid::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_l1_has_a_place_that_is_not_l1s() {
        for vpid in 1..=0xffffu16 {
            let mut v = Vpids::new();
            let a = v.enter(Some(vpid));
            assert_eq!(a.hardware, vpid.min(VPID_SHARED));
            assert_eq!(a.flush_needed, vpid >= VPID_SHARED);
            assert_eq!(v.invalidate_one(vpid), Invvpid::One(a.hardware));
        }
    }

    #[test]
    fn sharers_are_flushed_apart() {
        let mut v = Vpids::new();
        let sharers = [0xfffd, 0xfffe, 0xffff];
        for a in sharers {
            for b in sharers {
                let _ = v.enter(Some(a));
                let _ = v.enter(Some(5));
                let _ = v.enter(None);
                assert_eq!(v.enter(Some(b)).flush_needed, a != b);
                for c in sharers {
                    let expect = if c == b {
                        Invvpid::One(VPID_SHARED)
                    } else {
                        Invvpid::Nothing
                    };
                    assert_eq!(v.invalidate_one(c), expect);
                }
            }
        }
    }

    #[test]
    fn without_vpid_flushes_at_each_entry() {
        let mut v = Vpids::new();
        for _ in 0..3 {
            let a = v.enter(None);
            assert_eq!((a.hardware, a.flush_needed), (VPID_L2_WITHOUT, true));
        }
        assert_eq!(v.enter(Some(0)).hardware, VPID_L2_WITHOUT);
        assert_eq!(v.invalidate_one(0), Invvpid::Nothing);
    }
}

//! MTRRs: the types against a page-by-page oracle, and the MSRs' #GP rules.

use proptest::prelude::*;
use umbra_arch::msr::{IA32_MTRR_DEF_TYPE, IA32_MTRR_PHYSBASE0, IA32_MTRRCAP, MTRR_FIXED};
use umbra_ept::addr::Level;
use umbra_ept::memtype::MemType;
use umbra_ept::mtrr::{MAX_VARIABLE, Mtrrs};

const WIDTH: u8 = 36;
/// 10 pairs, fixed ranges, write combining.
const CAP: u64 = 0x50a;

/// The registers as raw numbers, and the SDM's rules applied to one address.
#[derive(Clone, Debug)]
struct Oracle {
    def_type: u64,
    fixed: [u64; 11],
    pairs: Vec<(u64, u64)>,
}

impl Oracle {
    fn type_at(&self, address: u64) -> u64 {
        if self.def_type & 0x800 == 0 {
            return 0;
        }
        if address < 0x10_0000 && self.def_type & 0x400 != 0 {
            // (MSR's place, first address, bytes each byte stands for)
            let mut rows = vec![(0, 0, 0x10000), (1, 0x80000, 0x4000), (2, 0xa0000, 0x4000)];
            rows.extend((0..8).map(|n| (3 + n as usize, 0xc0000 + 0x8000 * n, 0x1000)));
            for (place, first, unit) in rows {
                if (first..first + 8 * unit).contains(&address) {
                    return self.fixed[place] >> (8 * ((address - first) / unit)) & 0xff;
                }
            }
        }
        let mut found: Vec<u64> = self
            .pairs
            .iter()
            .filter(|(_, mask)| mask & 0x800 != 0)
            .filter(|(base, mask)| {
                let mask = mask & ((1 << WIDTH) - 1) & !0xfff;
                address & mask == base & mask
            })
            .map(|(base, _)| base & 0xff)
            .collect();
        found.sort_unstable();
        found.dedup();
        // WB gives way to one other; two others contradict each other.
        match found[..] {
            [] => self.def_type & 0xff,
            [t] | [t, 6] => t,
            _ => 0,
        }
    }

    fn registers(&self) -> Mtrrs {
        let mut m = Mtrrs::new(CAP, WIDTH);
        for (n, (base, mask)) in self.pairs.iter().enumerate() {
            m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n as u32, *base)
                .unwrap();
            m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n as u32 + 1, *mask)
                .unwrap();
        }
        for (msr, value) in MTRR_FIXED.into_iter().zip(self.fixed) {
            m.write_msr(msr, value).unwrap();
        }
        m.write_msr(IA32_MTRR_DEF_TYPE, self.def_type).unwrap();
        m
    }
}

fn a_type() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), Just(1), Just(4), Just(5), Just(6)]
}

fn pair() -> impl Strategy<Value = (u64, u64)> {
    // Sizes from 4 KiB to 4 GiB, mostly valid; sometimes a mask with holes.
    (a_type(), 12..33u32, 0..(1u64 << 24), 0..8u32, any::<u64>()).prop_map(
        |(t, log2, page, kind, noise)| {
            let width = (1u64 << WIDTH) - 1;
            let mask = !((1u64 << log2) - 1) & width;
            let mask = if kind == 0 {
                mask & noise & !0xfff | 1 << 35
            } else {
                mask
            };
            let valid = if kind == 1 { 0 } else { 0x800 };
            ((page << 12) & mask | t, mask | valid)
        },
    )
}

fn oracle() -> impl Strategy<Value = Oracle> {
    // One type for each register, or one for each of its ranges.
    let fixed = (any::<u64>(), prop::collection::vec(0..5usize, 88)).prop_map(|(mixed, picks)| {
        let mut fixed = [0u64; 11];
        for (n, register) in fixed.iter_mut().enumerate() {
            for byte in 0..8 {
                let pick = if mixed >> (2 * n) & 3 == 0 { byte } else { 0 };
                *register |= [0u64, 1, 4, 5, 6][picks[8 * n + pick]] << (8 * byte);
            }
        }
        fixed
    });
    (
        a_type(),
        0..8u64,
        fixed,
        prop::collection::vec(pair(), 0..10),
    )
        .prop_map(|(t, switches, fixed, pairs)| Oracle {
            // Off in one of eight; fixed ranges on in half.
            def_type: t | if switches == 0 { 0 } else { 0x800 } | (switches & 1) << 10,
            fixed,
            pairs,
        })
}

/// Addresses where a type may change, and some more.
fn samples(o: &Oracle, base: u64, span: u64) -> Vec<u64> {
    let mut all = vec![base, base + span - 0x1000];
    for step in [span / 512, span / 8] {
        all.extend((0..8).map(|n| base + n * step.max(0x1000)));
    }
    all.extend((0..256).map(|n| n << 12));
    for (b, mask) in &o.pairs {
        let low = mask & !0xfff & ((1 << WIDTH) - 1);
        let size = 1u64 << low.trailing_zeros().min(35);
        let start = b & !0xfff;
        for edge in [start, start.wrapping_add(size)] {
            all.extend([edge, edge.wrapping_sub(0x1000)]);
        }
        // The same range as it repeats under a mask with holes.
        all.push(base | start & (span - 1));
        all.push(base | start.wrapping_add(size) & (span - 1));
    }
    all.retain(|a| (base..base + span).contains(a));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn types_are_the_oracles(o in oracle(), pages in prop::collection::vec(0..(1u64 << 24), 20)) {
        let m = o.registers();
        let mut addresses: Vec<u64> = pages.iter().map(|p| p << 12).collect();
        addresses.extend([0, 0x9_f000, 0xa_0000, 0xb_f000, 0xf_f000, 0x10_0000, 0x1f_f000]);
        addresses.extend(o.pairs.iter().map(|(b, _)| b & !0xfff));
        for address in addresses {
            prop_assert_eq!(m.type_at(address) as u64, o.type_at(address), "{:#x}", address);
            for level in [Level::Pt, Level::Pd, Level::Pdpt] {
                let base = level.base(address);
                let types: Vec<u64> =
                    samples(&o, base, level.span_bytes()).into_iter().map(|a| o.type_at(a)).collect();
                match m.uniform(address, level) {
                    Some(t) => prop_assert!(types.iter().all(|x| *x == t as u64), "{:#x} {:?}", base, level),
                    None => prop_assert!(level != Level::Pt),
                }
            }
            let (level, t) = m.largest_uniform(address);
            prop_assert_eq!(m.uniform(address, level), Some(t));
        }
    }

    /// With whole 2 MiB pieces and masks without holes, "mixed" is exact.
    #[test]
    fn mixed_means_mixed(
        t in a_type(),
        ranges in prop::collection::vec((a_type(), 21..33u32, 0..(1u64 << 15)), 0..10),
        page in 1..(1u64 << 15),
    ) {
        let pairs = ranges.iter().map(|(t, log2, n)| {
            let mask = !((1u64 << log2) - 1) & ((1 << WIDTH) - 1);
            (((n << 21) & mask) | t, mask | 0x800)
        }).collect();
        let o = Oracle { def_type: t | 0x800, fixed: [0; 11], pairs };
        let m = o.registers();
        prop_assert!(m.uniform(page << 21, Level::Pd).is_some());
        let base = (page << 21) & !((1 << 30) - 1);
        let first = o.type_at(base);
        let same = (0..512).all(|n| o.type_at(base + (n << 21)) == first);
        prop_assert_eq!(m.uniform(base, Level::Pdpt).is_some(), same);
    }
}

/// The SDM's example of a machine with 96 MiB and a 1 MiB hole at 16 MiB is
/// the one everybody has read: here, RAM to 3 GiB, a hole, and 1 GiB above.
#[test]
fn a_common_pc() {
    let mut m = Mtrrs::new(CAP, WIDTH);
    for (n, (base, size, t)) in [
        (0u64, 1u64 << 31, 6),
        (1 << 31, 1 << 30, 6),
        (1 << 32, 1 << 30, 6),
        (0xbf80_0000, 0x80_0000, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let mask = !(size - 1) & ((1 << WIDTH) - 1);
        m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n as u32, base | t)
            .unwrap();
        m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n as u32 + 1, mask | 0x800)
            .unwrap();
    }
    m.write_msr(MTRR_FIXED[0], 0x0606_0606_0606_0606).unwrap();
    m.write_msr(IA32_MTRR_DEF_TYPE, 0xc00).unwrap();
    let wb = Some(MemType::WriteBack);
    let uc = Some(MemType::Uncacheable);
    assert_eq!(m.uniform(0, Level::Pdpt), None);
    assert_eq!(m.uniform(0, Level::Pd), None);
    assert_eq!(m.type_at(0x7_f000), MemType::WriteBack);
    assert_eq!(m.type_at(0xa_0000), MemType::Uncacheable);
    assert_eq!(m.uniform(0x20_0000, Level::Pd), wb);
    assert_eq!(m.uniform(1 << 30, Level::Pdpt), wb);
    assert_eq!(m.uniform(2 << 30, Level::Pdpt), None);
    assert_eq!(m.uniform(0xbf60_0000, Level::Pd), wb);
    assert_eq!(m.uniform(0xbf80_0000, Level::Pd), uc);
    assert_eq!(m.uniform(3 << 30, Level::Pdpt), uc);
    assert_eq!(m.uniform(4 << 30, Level::Pdpt), wb);
    assert_eq!(m.uniform(5 << 30, Level::Pdpt), uc);
    assert_eq!(
        m.largest_uniform(0xbf80_0000),
        (Level::Pd, MemType::Uncacheable)
    );
}

/// Two halves with one type make a uniform gibibyte.
#[test]
fn halves_join() {
    let mut m = Mtrrs::new(CAP, WIDTH);
    for n in 0..2u32 {
        let mask = !((1u64 << 29) - 1) & ((1 << WIDTH) - 1);
        m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n, u64::from(n) << 29 | 6)
            .unwrap();
        m.write_msr(IA32_MTRR_PHYSBASE0 + 2 * n + 1, mask | 0x800)
            .unwrap();
    }
    m.write_msr(IA32_MTRR_DEF_TYPE, 0x800).unwrap();
    assert_eq!(m.uniform(0, Level::Pdpt), Some(MemType::WriteBack));
}

#[test]
fn writes_are_refused_as_the_cpu_refuses_them() {
    let good_type = |t: u64, wc: bool| matches!(t, 0 | 4 | 5 | 6) || t == 1 && wc;
    for cap in [0x50au64, 0x10a, 0x40a, 0x008, 0x5ff, 0x500] {
        let (wc, fixed) = (cap & 0x400 != 0, cap & 0x100 != 0);
        let pairs = (cap & 0xff).min(MAX_VARIABLE as u64) as u32;
        let fresh = Mtrrs::new(cap, WIDTH);
        let try_it = |msr, value| {
            let mut m = fresh.clone();
            let result = m.write_msr(msr, value);
            let expect = if result.is_ok() {
                Some(value)
            } else {
                fresh.read_msr(msr)
            };
            assert_eq!(m.read_msr(msr), expect);
            result.is_ok()
        };
        assert!(!try_it(IA32_MTRRCAP, cap));
        assert_eq!(fresh.read_msr(IA32_MTRRCAP), Some(cap));
        for t in 0..=255 {
            assert_eq!(try_it(IA32_MTRR_DEF_TYPE, t), good_type(t, wc));
            for msr in MTRR_FIXED {
                for byte in 0..8 {
                    assert_eq!(try_it(msr, t << (8 * byte)), fixed && good_type(t, wc));
                }
            }
            for n in 0..MAX_VARIABLE as u32 {
                let ok = n < pairs && good_type(t, wc);
                assert_eq!(try_it(IA32_MTRR_PHYSBASE0 + 2 * n, t), ok);
            }
        }
        for bit in 8..64 {
            let value = 1u64 << bit;
            assert_eq!(try_it(IA32_MTRR_DEF_TYPE, value), bit == 10 || bit == 11);
            let address = (12..u32::from(WIDTH)).contains(&bit);
            assert_eq!(try_it(IA32_MTRR_PHYSBASE0, value), pairs > 0 && address);
            assert_eq!(
                try_it(IA32_MTRR_PHYSBASE0 + 1, value),
                pairs > 0 && (address || bit == 11)
            );
        }
        for msr in [0x1ff, 0x240, 0x251, 0x25a, 0x267, 0x270, 0x2fe, 0x300] {
            let there = msr >= IA32_MTRR_PHYSBASE0 && msr < IA32_MTRR_PHYSBASE0 + 2 * pairs;
            assert_eq!(fresh.read_msr(msr).is_some(), there, "{msr:#x}");
        }
        let listed: Vec<u32> = fresh.msrs().collect();
        assert_eq!(
            listed.len() as u32,
            2 * pairs + if fixed { 11 } else { 0 } + 1
        );
        assert!(listed.iter().all(|msr| fresh.read_msr(*msr).is_some()));
    }
}

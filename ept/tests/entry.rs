//! Entries against the SDM's tables, by bit pattern.

mod common;

use common::oracle::{Class, expected};
use common::table_pages;
use umbra_arch::hpa::OwnEntry;
use umbra_arch::{Gpa1, Hpa};
use umbra_ept::addr::Level;
use umbra_ept::caps::Caps;
use umbra_ept::entry::{Decoded, Entry, Leaf, Why, own_leaf, own_table};
use umbra_ept::eptp::{BadEptp, Eptp, OwnEptp};
use umbra_ept::memtype::MemType;
use umbra_ept::rights::Rights;

const LEVELS: [Level; 5] = [Level::Pt, Level::Pd, Level::Pdpt, Level::Pml4, Level::Pml5];

fn caps(bits: u32, maxphyaddr: u8) -> Caps {
    let mut caps = Caps::from_msr(0, maxphyaddr);
    caps.page_1g = bits & 1 != 0;
    caps.page_2m = bits & 2 != 0;
    caps.execute_only = bits & 4 != 0;
    caps.mode_based_execute = bits & 8 != 0;
    caps
}

/// Every pattern of bits 0 to 11, with each one of the higher bits and with
/// none, at each level, for each set of capabilities: 34.7 million entries.
#[test]
fn every_pattern_is_what_the_sdm_says() {
    let mut cases = 0u64;
    for width in [36, 52] {
        for set in 0..16 {
            let caps = caps(set, width);
            for level in LEVELS {
                for high in (12..64).map(|n| 1u64 << n).chain([0]) {
                    for low in 0..4096 {
                        let raw = high | low;
                        let decoded = Entry(raw).decode(level, &caps);
                        let class = match decoded {
                            Decoded::NotPresent { suppress_ve } => {
                                assert_eq!(suppress_ve, raw >> 63 == 1);
                                Class::NotPresent
                            }
                            Decoded::Misconfigured(_) => Class::Misconfigured,
                            Decoded::Table { address, rights } => {
                                assert_eq!(address.raw(), raw & 0x000f_ffff_ffff_f000);
                                assert_eq!(rights.bits() & 7, raw & 7);
                                Class::Table
                            }
                            Decoded::Leaf(leaf) => {
                                assert_eq!(leaf.address.raw(), raw & 0x000f_ffff_ffff_f000);
                                assert_eq!(leaf.rights.bits() & 7, raw & 7);
                                assert_eq!(leaf.mem_type as u64, raw >> 3 & 7);
                                assert_eq!(leaf.ignore_pat, raw & 0x40 != 0);
                                assert_eq!(leaf.suppress_ve, raw >> 63 == 1);
                                Class::Leaf
                            }
                        };
                        assert_eq!(
                            class,
                            expected(raw, level, &caps),
                            "{raw:#x} {level:?} {caps:?}"
                        );
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 2 * 16 * 5 * 53 * 4096);
}

#[test]
fn the_reason_is_named() {
    let all = caps(7, 40);
    let none = caps(0, 40);
    for (raw, level, caps, why) in [
        (0x2, Level::Pt, &all, Why::WriteWithoutRead),
        // KVM's MMIO leaf: W and X without R, and an address beyond the width.
        (
            0x000f_ff00_0000_0006,
            Level::Pt,
            &all,
            Why::WriteWithoutRead,
        ),
        (0x4, Level::Pml4, &none, Why::ExecuteOnly),
        (0x87, Level::Pdpt, &none, Why::PageSize),
        (0x87, Level::Pd, &none, Why::PageSize),
        (0x87, Level::Pml4, &all, Why::Reserved),
        (0x100_0000_0007, Level::Pt, &all, Why::AddressWidth),
        (0x1000 | 0xb7, Level::Pd, &all, Why::Reserved),
        (0x0020_0000 | 0xb7, Level::Pdpt, &all, Why::Reserved),
        (0x17, Level::Pt, &all, Why::MemoryType),
        (0x1f, Level::Pt, &all, Why::MemoryType),
        (0x3f, Level::Pt, &all, Why::MemoryType),
    ] {
        assert_eq!(
            Entry(raw).decode(level, caps),
            Decoded::Misconfigured(why),
            "{raw:#x}"
        );
    }
}

#[test]
fn bit_10_counts_with_mode_based_execute_only() {
    let off = caps(7, 40);
    let on = caps(15, 40);
    let rights = |raw, caps: &Caps| match Entry(raw).decode(Level::Pt, caps) {
        Decoded::Leaf(leaf) => Some(leaf.rights),
        _ => None,
    };
    assert_eq!(rights(0x400, &off), None);
    assert_eq!(rights(0x400, &on), Some(Rights::EXECUTE_USER));
    assert_eq!(rights(0x401, &off), Some(Rights::READ));
    assert_eq!(rights(0x005, &on), Some(Rights::READ | Rights::EXECUTE));
    assert_eq!(
        rights(0x005, &off),
        Some(Rights::READ | Rights::EXECUTE | Rights::EXECUTE_USER)
    );
}

#[test]
fn own_entries_decode_as_they_were_meant() {
    let caps = caps(7, 46);
    // SAFETY: no CPU walks the entries of this test.
    let page = unsafe { Hpa::new(0x2a_4000_0000) };
    for level in [Level::Pt, Level::Pd, Level::Pdpt] {
        for mem_type in umbra_ept::memtype::ALL {
            for flags in 0..4 {
                let leaf = Leaf {
                    address: page,
                    rights: Rights::all(),
                    mem_type,
                    ignore_pat: flags & 1 != 0,
                    suppress_ve: flags & 2 != 0,
                };
                let entry = own_leaf(level, &leaf);
                let decoded = Leaf {
                    address: Gpa1::new(page.raw()),
                    rights: leaf.rights,
                    mem_type,
                    ignore_pat: leaf.ignore_pat,
                    suppress_ve: true,
                };
                let raw = entry.raw();
                assert_eq!(Entry(raw).decode(level, &caps), Decoded::Leaf(decoded));
                assert!(entry.is_present() && entry.is_leaf());
                assert_eq!((entry.page(), entry.below()), (Some(page), None));
                // Accessed and dirty: the CPU has nothing to write.
                assert_eq!(raw & 0x300, 0x300);
                let second = entry.beside(Gpa1::new(0x9000 + 0x1234), level.span_bytes());
                let offset = 0xa000 % level.span_bytes();
                assert_eq!(second.raw(), raw + offset, "{level:?}");
            }
        }
    }
    let page = table_pages(0x2a_4000_0000, 2).get(1).expect("a page");
    let table = own_table(page);
    assert!(table.is_present() && !table.is_leaf());
    assert_eq!((table.page(), table.below()), (None, Some(page)));
    assert_eq!(page.raw(), 0x2a_4000_1000);
    for level in [Level::Pd, Level::Pdpt, Level::Pml4] {
        let decoded = Decoded::Table {
            address: Gpa1::new(page.raw()),
            rights: Rights::all(),
        };
        assert_eq!(Entry(table.raw()).decode(level, &caps), decoded);
    }
    // What names nothing.
    for entry in [OwnEntry::EMPTY, OwnEntry::CHAIN_END, OwnEntry::chain(page)] {
        assert!(!entry.is_present() && !entry.is_leaf());
        assert_eq!((entry.page(), entry.below()), (None, None));
    }
    assert_eq!(OwnEntry::chain(page).next(), Some(page));
    for entry in [OwnEntry::EMPTY, OwnEntry::CHAIN_END, table] {
        assert_eq!(entry.next(), None);
    }
}

/// Every pattern of the low 12 bits, with each higher bit and with none, for
/// each set of capabilities that matters.
#[test]
fn every_ept_pointer_is_judged_as_the_sdm_says() {
    for set in 0..64u32 {
        let mut caps = caps(0, 40);
        caps.tables_uc = set & 1 != 0;
        caps.tables_wb = set & 2 != 0;
        caps.walk_4 = set & 4 != 0;
        caps.walk_5 = set & 8 != 0;
        caps.accessed_dirty = set & 16 != 0;
        caps.supervisor_shadow_stack = set & 32 != 0;
        for high in (12..64).map(|n| 1u64 << n).chain([0]) {
            for low in 0..4096u64 {
                let raw = high | low;
                let type_ok = low & 7 == 0 && caps.tables_uc || low & 7 == 6 && caps.tables_wb;
                let walk = low >> 3 & 7;
                let walk_ok = walk == 3 && caps.walk_4 || walk == 4 && caps.walk_5;
                let ok = type_ok
                    && walk_ok
                    && (low & 0x40 == 0 || caps.accessed_dirty)
                    && (low & 0x80 == 0 || caps.supervisor_shadow_stack)
                    && low & 0xf00 == 0
                    && high >> 40 == 0;
                let got = Eptp::new(raw, &caps);
                assert_eq!(got.is_ok(), ok, "{raw:#x}");
                if let Ok(eptp) = got {
                    assert_eq!((eptp.raw(), eptp.root().raw()), (raw, high));
                    assert_eq!(eptp.accessed_dirty(), low & 0x40 != 0);
                    let root = if walk == 4 { Level::Pml5 } else { Level::Pml4 };
                    assert_eq!(eptp.root_level(), root);
                }
            }
        }
    }
    let caps = caps(0, 40);
    assert_eq!(Eptp::new(0x1e, &caps), Err(BadEptp::MemoryType));
    let page = table_pages(0x7654_3000, 1).get(0).expect("a page");
    let own = OwnEptp::new(page, true);
    assert_eq!(own.raw(), 0x7654_3000 | 0x5e);
    assert_eq!(own.raw() & 7, MemType::WriteBack as u64);
}

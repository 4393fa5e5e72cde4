//! Finding the ACPI root pointer.

mod common;

use common::{MIB, Ram};
use umbra_guests::rsdp::find;

fn rsdp() -> [u8; 20] {
    let mut r = *b"RSD PTR \0UMBRA\0\0\0\0\x10\x20";
    r[8] = 0u8.wrapping_sub(r.iter().fold(0, |s: u8, &b| s.wrapping_add(b)));
    r
}

fn machine() -> Ram {
    let mut ram = Ram::new(MIB);
    ram.put(0x40e, &0x9fc0u16.to_le_bytes());
    ram
}

#[test]
fn it_is_found_where_it_may_lie() {
    assert_eq!(find(&machine()), None);
    for at in [0xe_0000, 0xf_1230, 0xf_ffe0, 0x9_fc00, 0x9_fff0] {
        let mut ram = machine();
        ram.put(at, &rsdp());
        assert_eq!(find(&ram), Some(at));
    }
}

#[test]
fn it_is_not_found_elsewhere_or_damaged() {
    for at in [0xf_1238, 0xd_fff0, 0xa_0000, 0x9_fbf0] {
        let mut ram = machine();
        ram.put(at, &rsdp());
        assert_eq!(find(&ram), None, "{at:#x}");
    }
    let mut ram = machine();
    let mut bad = rsdp();
    bad[19] ^= 1;
    ram.put(0xe_0000, &bad);
    ram.put(0xf_0000, &rsdp());
    assert_eq!(find(&ram), Some(0xf_0000), "past one with a wrong sum");
}

#[test]
fn an_extended_bios_data_area_that_cannot_be_is_passed_over() {
    for segment in [0, 0x003f, 0xa000, 0xffff] {
        let mut ram = machine();
        ram.put(0x40e, &u16::to_le_bytes(segment));
        ram.put(0xf_0000, &rsdp());
        assert_eq!(find(&ram), Some(0xf_0000));
    }
    // Memory that ends below the BIOS.
    assert_eq!(find(&Ram::new(0x1000)), None);
}

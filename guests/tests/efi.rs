//! A machine that UEFI started: what is read, and what L1 gets.

mod common;

use common::{BzImage, Elf, MIB, Ram, pc_map, words};
use umbra_guests::bootinfo::{BootInfo, Framebuffer, FramebufferKind, LOADER_MAGIC};
use umbra_guests::efi::{self, Efi, EfiMemoryMap};
use umbra_guests::{Error, Handover, PhysMemory, Region, start};

/// Descriptors of 48 bytes, as firmware makes them: kind, first page, pages.
/// The last eight bytes, which no specification defines, tell them apart.
fn descriptors(list: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (kind, page, pages)) in list.iter().enumerate() {
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((page * 4096).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(pages.to_le_bytes());
        bytes.extend(0xfu64.to_le_bytes());
        bytes.extend((0x100 + index as u64).to_le_bytes());
    }
    bytes
}

/// (kind, first page, pages, attribute, what follows).
fn read_back(bytes: &[u8]) -> Vec<(u32, u64, u64, u64, u64)> {
    let u64_at = |d: &[u8], at: usize| u64::from_le_bytes(d[at..at + 8].try_into().unwrap());
    bytes
        .chunks_exact(48)
        .map(|d| {
            (
                u32::from_le_bytes(d[..4].try_into().unwrap()),
                u64_at(d, 8) / 4096,
                u64_at(d, 24),
                u64_at(d, 32),
                u64_at(d, 40),
            )
        })
        .collect()
}

/// The firmware of a machine of 128 MiB.
fn firmware() -> Vec<u8> {
    descriptors(&[
        (7, 0, 0xa0),
        (4, 0x100, 0x700),
        (7, 0x800, 0x6000),
        (3, 0x6800, 0x1000),
        (6, 0x7800, 0x10),
        (10, 0x7810, 0x7f0),
    ])
}

fn handover<'a>(base: Handover<'a>, map: &'a [u8], umbra: Region) -> Handover<'a> {
    Handover {
        efi: Some(Efi {
            system_table: 0x1_2345_6780,
            image_handle: Some(0x77),
            memory_map: EfiMemoryMap::new(48, 1, map).unwrap(),
        }),
        umbra,
        ..base
    }
}

#[test]
fn linux_gets_the_firmwares_map_with_umbras_memory_reserved() {
    let map = pc_map(128, 16);
    let firmware = firmware();
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(4 * MIB, &BzImage::default().build());
    // It cuts one descriptor at its end, and the next at its beginning.
    let umbra = Region::new(0x6000 * 4096, 0x1000 * 4096);
    let mut handover = handover(Handover::new(&map, kernel), &firmware, umbra);
    handover.command_line = b"efi=debug";
    let (_, state) = start(&mut ram, &handover).unwrap();
    let params = state.gpr.rsi;
    assert_eq!(ram.bytes(params + 0x1c0, 4), b"EL64");
    assert_eq!(ram.u32(params + 0x1c4), 0x2345_6780, "the system table");
    assert_eq!(ram.u32(params + 0x1d8), 1, "its upper half");
    assert_eq!(ram.u32(params + 0x1c8), 48);
    assert_eq!(ram.u32(params + 0x1cc), 1);
    let at = u64::from(ram.u32(params + 0x1d0));
    let bytes = u64::from(ram.u32(params + 0x1d4));
    assert_eq!(at % 8, 0);
    assert_eq!(
        read_back(ram.bytes(at, bytes)),
        [
            (7, 0, 0xa0, 0xf, 0x100),
            (4, 0x100, 0x700, 0xf, 0x101),
            (7, 0x800, 0x5800, 0xf, 0x102),
            (0, 0x6000, 0x800, 0xf, 0x102),
            (0, 0x6800, 0x800, 0xf, 0x103),
            (3, 0x7000, 0x800, 0xf, 0x103),
            (6, 0x7800, 0x10, 0xf, 0x104),
            (10, 0x7810, 0x7f0, 0xf, 0x105),
        ]
    );
    assert_eq!(
        ram.string(u64::from(ram.u32(params + 0x228))),
        "efi=debug",
        "the command line lies beyond the map"
    );
    // No text screen: there is none on such a machine.
    assert_eq!(ram.u8(params + 0xf), 0);
}

#[test]
fn a_block_inside_a_descriptor_splits_it_in_three() {
    let firmware = descriptors(&[(7, 0x100, 0x7000)]);
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(4 * MIB, &BzImage::default().build());
    // Not at page borders: every page that it touches is reserved.
    let umbra = Region::new(0x2000 * 4096 + 1, 0x1000 * 4096);
    let handover = handover(Handover::new(&map, kernel), &firmware, umbra);
    let (_, state) = start(&mut ram, &handover).unwrap();
    let params = state.gpr.rsi;
    let at = u64::from(ram.u32(params + 0x1d0));
    let bytes = u64::from(ram.u32(params + 0x1d4));
    assert_eq!(
        read_back(ram.bytes(at, bytes)),
        [
            (7, 0x100, 0x1f00, 0xf, 0x100),
            (0, 0x2000, 0x1001, 0xf, 0x100),
            (7, 0x3001, 0x40ff, 0xf, 0x100),
        ]
    );
}

#[test]
fn linux_gets_the_framebuffer() {
    let map = pc_map(128, 16);
    let firmware = firmware();
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(4 * MIB, &BzImage::default().build());
    let mut handover = handover(Handover::new(&map, kernel), &firmware, Region::new(0, 0));
    handover.framebuffer = Some(Framebuffer {
        address: 0x40_8000_0000,
        pitch: 4096,
        width: 1024,
        height: 768,
        bits_per_pixel: 32,
        kind: FramebufferKind::Rgb {
            fields: [16, 8, 8, 7, 0, 6],
        },
    });
    let (_, state) = start(&mut ram, &handover).unwrap();
    let params = state.gpr.rsi;
    assert_eq!(ram.u8(params + 0xf), 0x70, "UEFI's kind");
    assert_eq!(ram.u16(params + 0x12), 1024);
    assert_eq!(ram.u16(params + 0x14), 768);
    assert_eq!(ram.u16(params + 0x16), 32);
    assert_eq!(ram.u32(params + 0x18), 0x8000_0000);
    assert_eq!(ram.u32(params + 0x1c), 4096 * 768);
    assert_eq!(ram.u16(params + 0x24), 4096);
    assert_eq!(ram.bytes(params + 0x26, 6), [8, 16, 7, 8, 6, 0]);
    assert_eq!(ram.u32(params + 0x36), 2, "an address of 64 bits");
    assert_eq!(ram.u32(params + 0x3a), 0x40);
}

#[test]
fn multiboot2_passes_on_what_can_be_read_again() {
    let map = pc_map(128, 16);
    let firmware = firmware();
    let mut ram = Ram::new(128 * MIB);
    let header = words(&[
        0xe852_50d6,
        0,
        24,
        0u32.wrapping_sub(0xe852_50d6 + 24),
        0,
        8,
    ]);
    let kernel = ram.put(4 * MIB, &Elf::umbra_like(&header).build());
    let umbra = Region::new(0x6000 * 4096, 0x800 * 4096);
    let handover = handover(Handover::new(&map, kernel), &firmware, umbra);
    let (_, state) = start(&mut ram, &handover).unwrap();
    let at = state.gpr.rbx;
    let total = BootInfo::total_bytes(ram.bytes(at, 8)).unwrap();
    let info = BootInfo::parse(LOADER_MAGIC, ram.bytes(at, total as u64)).unwrap();
    let efi = info.efi().unwrap();
    assert_eq!(efi.system_table, 0x1_2345_6780);
    assert_eq!(efi.image_handle, Some(0x77));
    let kinds: Vec<_> = efi
        .memory_map
        .descriptors()
        .map(|d| (d.kind, d.region.start / 4096))
        .collect();
    assert_eq!(
        kinds,
        [
            (7, 0),
            (4, 0x100),
            (7, 0x800),
            (0, 0x6000),
            (3, 0x6800),
            (6, 0x7800),
            (10, 0x7810)
        ]
    );
    let boot_services: Vec<_> = efi.memory_map.boot_services().map(|r| r.start).collect();
    assert_eq!(boot_services, [0x100 * 4096, 0x6800 * 4096]);
}

#[test]
fn a_boot_sector_needs_a_bios() {
    let map = pc_map(128, 16);
    let firmware = firmware();
    let mut ram = Ram::new(128 * MIB);
    let mut sector = [0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let kernel = ram.put(4 * MIB, &sector);
    let handover = handover(Handover::new(&map, kernel), &firmware, Region::new(0, 0));
    assert_eq!(start(&mut ram, &handover), Err(Error::NoBios));
}

#[test]
fn the_rsdp_is_in_the_configuration_table() {
    const ACPI_20: [u8; 16] = [
        0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88,
        0x81,
    ];
    const ACPI_10: [u8; 16] = [
        0x30, 0x2d, 0x9d, 0xeb, 0x88, 0x2d, 0xd3, 0x11, 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1,
        0x4d,
    ];
    let mut ram = Ram::new(MIB);
    let mut table = vec![0; 120];
    table[..8].copy_from_slice(b"IBI SYST");
    table[104..112].copy_from_slice(&3u64.to_le_bytes());
    table[112..].copy_from_slice(&0x2000u64.to_le_bytes());
    ram.put(0x1000, &table);
    let put = |ram: &mut Ram, index: u64, guid: [u8; 16], at: u64| {
        ram.put(0x2000 + 24 * index, &guid);
        ram.put(0x2010 + 24 * index, &at.to_le_bytes());
    };
    put(&mut ram, 0, [1; 16], 0x5000);
    put(&mut ram, 1, ACPI_10, 0x6000);
    put(&mut ram, 2, [2; 16], 0x7000);
    assert_eq!(efi::rsdp(&ram, 0x1000), Some(0x6000));
    put(&mut ram, 2, ACPI_20, 0x7000);
    assert_eq!(efi::rsdp(&ram, 0x1000), Some(0x7000), "the newer one wins");
    // Neither a count nor an address that makes no sense can hurt.
    ram.write(0x1000 + 104, &u64::MAX.to_le_bytes()).unwrap();
    assert_eq!(efi::rsdp(&ram, 0x1000), Some(0x7000));
    ram.write(0x1000 + 112, &u64::MAX.to_le_bytes()).unwrap();
    assert_eq!(efi::rsdp(&ram, 0x1000), None);
    assert_eq!(efi::rsdp(&ram, 0x3000), None, "no system table");
    assert_eq!(efi::rsdp(&ram, u64::MAX), None);
}

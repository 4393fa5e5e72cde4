//! Kernel files that are damaged or made to do harm: an error, never a panic,
//! and never a byte written where L1 has no RAM.

mod common;

use common::{
    BzImage, Elf, MIB, Ram, Seg, multiboot1_header, multiboot2_header, noise, pc_map, words,
};
use proptest::prelude::*;
use umbra_guests::{
    Error, Handover, KernelKind, MemoryMap, ModuleRef, PhysMemory, Region, Unreachable, identify,
    start,
};

/// Memory that fails the test when something is written outside of usable RAM.
struct Guarded<'a> {
    ram: Ram,
    map: &'a MemoryMap,
}

impl Guarded<'_> {
    fn check(&self, address: u64, len: u64) {
        assert!(
            len == 0 || self.map.usable_around(Region::new(address, len)).is_some(),
            "write of {len:#x} bytes at {address:#x}"
        );
    }
}

impl PhysMemory for Guarded<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable> {
        self.ram.read(address, bytes)
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        self.check(address, bytes.len() as u64);
        self.ram.write(address, bytes)
    }
    fn zero(&mut self, address: u64, len: u64) -> Result<(), Unreachable> {
        self.check(address, len);
        self.ram.zero(address, len)
    }
    fn copy_within(&mut self, to: u64, from: u64, len: u64) -> Result<(), Unreachable> {
        self.check(to, len);
        self.ram.copy_within(to, from, len)
    }
}

fn try_start(file: &[u8]) -> Result<KernelKind, Error> {
    let map = pc_map(8, 2);
    let mut mem = Guarded {
        ram: Ram::new(8 * MIB),
        map: &map,
    };
    let kernel = mem.ram.put(3 * MIB, file);
    let modules = [ModuleRef {
        region: mem.ram.put(2 * MIB, &noise(3000, 1)),
        string: b"a module",
    }];
    let mut handover = Handover::new(&map, kernel);
    handover.modules = &modules;
    handover.command_line = b"command line";
    let result = start(&mut mem, &handover);
    if let Err(e) = result {
        let line = e.to_string();
        assert!(!line.is_empty() && !line.contains('\n'));
    }
    result.map(|(kind, state)| {
        assert!(
            map.usable_around(Region::new(state.gdtr.base, 32))
                .is_some()
        );
        kind
    })
}

fn small_linux() -> Vec<u8> {
    BzImage {
        pref_address: MIB,
        init_bytes: 1 << 20,
        code: noise(0x3000, 2),
        ..BzImage::default()
    }
    .build()
}

fn small_multiboot1() -> Vec<u8> {
    Elf {
        bits: 32,
        entry: MIB + 0x40,
        segments: vec![Seg {
            vaddr: MIB,
            paddr: MIB,
            data: [multiboot1_header(3, &[0; 9]), noise(0x200, 3)].concat(),
            memory_bytes: 0x1000,
        }],
        sections: true,
    }
    .build()
}

fn small_multiboot2() -> Vec<u8> {
    Elf::umbra_like(&multiboot2_header(&[
        (1, 0, words(&[1, 6])),
        (6, 0, vec![]),
        (10, 0, words(&[0x10_0000, 0x5f_ffff, 0x1000, 0])),
    ]))
    .build()
}

fn kludge() -> Vec<u8> {
    let mut file = multiboot1_header(1 << 16, &[MIB as u32, MIB as u32, 0, 0, MIB as u32]);
    file.extend(noise(0x800, 4));
    file
}

#[test]
fn the_undamaged_ones_start() {
    assert_eq!(try_start(&small_linux()), Ok(KernelKind::Linux));
    assert_eq!(try_start(&small_multiboot1()), Ok(KernelKind::Multiboot1));
    assert_eq!(try_start(&small_multiboot2()), Ok(KernelKind::Multiboot2));
    assert_eq!(try_start(&kludge()), Ok(KernelKind::Multiboot1));
}

#[test]
fn what_is_no_kernel_is_said_to_be_none() {
    assert_eq!(identify(&[]), Err(Error::NotAKernel { len: 0 }));
    assert_eq!(
        identify(b"#!/bin/sh\necho hello\n"),
        Err(Error::NotAKernel { len: 21 })
    );
    assert_eq!(
        identify(&noise(1000, 1)),
        Err(Error::NotAKernel { len: 1000 })
    );
    // An ordinary program is no kernel either.
    assert!(identify(&Elf::umbra_like(&[]).build()).is_err());
    for (magic, name) in [
        (&[0x1f, 0x8b, 8, 0][..], "gzip"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    ] {
        let file = [magic, &noise(1000, 1)].concat();
        assert_eq!(identify(&file), Err(Error::Compressed(name)));
    }
}

#[test]
fn boot_sectors_have_512_bytes_and_a_mark() {
    let mut sector = noise(512, 7);
    assert!(identify(&sector).is_err());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(identify(&sector), Ok(KernelKind::BootSector));
    let mut longer = sector.clone();
    longer.push(0);
    assert!(identify(&longer).is_err());

    let map = pc_map(8, 2);
    let mut ram = Ram::new(8 * MIB);
    let kernel = ram.put(3 * MIB, &sector);
    let with = |ram: &mut Ram, command_line: &'static [u8]| {
        let mut handover = Handover::new(&map, kernel);
        handover.command_line = command_line;
        start(ram, &handover).map(|(_, state)| state.gpr.rdx)
    };
    assert_eq!(with(&mut ram, b""), Ok(0x80));
    assert_eq!(with(&mut ram, b"drive=0x81"), Ok(0x81));
    assert_eq!(with(&mut ram, b"x=1 drive=0"), Ok(0));
    for wrong in [&b"drive="[..], b"drive=256", b"drive=0x", b"drive=\xff"] {
        assert_eq!(with(&mut ram, wrong), Err(Error::BadDrive));
    }
    let (_, state) = start(&mut ram, &Handover::new(&map, kernel)).unwrap();
    assert_eq!(ram.bytes(0x7c00, 512), &sector[..]);
    assert_eq!(
        (state.cs.selector, state.cs.base, state.rip),
        (0, 0, 0x7c00)
    );
    assert_eq!(state.gpr.rdx, 0x80, "the first hard disk");
    assert_eq!(state.cr0 & 1, 0, "real mode");
    for s in [state.cs, state.ds, state.es, state.ss, state.fs, state.gs] {
        assert_eq!((s.base, s.limit), (0, 0xffff));
        assert_eq!(s.access_rights & !0xf, 0x90);
    }
    assert_eq!((state.idtr.base, state.idtr.limit), (0, 0x3ff));
}

#[test]
fn headers_count_only_where_they_may_stand() {
    let at = |offset: usize, header: &[u8], len: usize| {
        let mut file = vec![0; len];
        file[offset..offset + header.len()].copy_from_slice(header);
        identify(&file).ok()
    };
    let m1 = multiboot1_header(0, &[]);
    assert_eq!(at(8192 - 12, &m1, 9000), Some(KernelKind::Multiboot1));
    assert_eq!(at(8192 - 8, &m1, 9000), None);
    assert_eq!(at(6, &m1, 9000), None, "not aligned");
    assert_eq!(at(512 * 3 - 4, &m1, 9000), Some(KernelKind::Multiboot1));
    let m2 = multiboot2_header(&[]);
    assert_eq!(at(32768 - 24, &m2, 40000), Some(KernelKind::Multiboot2));
    assert_eq!(at(32768 - 8, &m2, 40000), None);
    assert_eq!(at(4, &m2, 40000), None, "not aligned");
    // A wrong checksum, or another architecture, is no header.
    let mut bad = m2.clone();
    bad[12] ^= 1;
    assert_eq!(at(64, &bad, 40000), None);
    let mips = words(&[0xe852_50d6, 4, 24, 0u32.wrapping_sub(0xe852_50d6 + 4 + 24)]);
    assert_eq!(at(64, &mips, 40000), None);
}

#[test]
fn elf_numbers_that_overflow_are_refused() {
    // Program header fields of the second segment, 64-bit.
    let phdr = 64 + 56;
    for (field, what) in [(8, "offset"), (24, "paddr"), (32, "filesz"), (40, "memsz")] {
        for value in [u64::MAX, u64::MAX - 0xfff, 1 << 63, 0xffff_f000] {
            let mut file = small_multiboot2();
            file[phdr + field..phdr + field + 8].copy_from_slice(&value.to_le_bytes());
            assert!(try_start(&file).is_err(), "{what} {value:#x}");
        }
    }
    // Table positions and counts in the ELF header.
    for (at, value) in [
        (32usize, &u64::MAX.to_le_bytes()[..]),
        (40, &u64::MAX.to_le_bytes()),
        (54, &[0, 0]),
        (54, &[0xff, 0xff]),
        (56, &[0xff, 0xff]),
        (56, &[0xfe, 0xff]),
        (60, &[0xff, 0xff]),
        (18, &[40, 0]),
        (5, &[2]),
    ] {
        let mut file = small_multiboot2();
        file[at..at + value.len()].copy_from_slice(value);
        assert!(try_start(&file).is_err(), "{at} {value:x?}");
    }
}

#[test]
fn more_segments_than_are_kept_are_refused() {
    let mut elf = Elf::umbra_like(&multiboot2_header(&[]));
    for i in 0..40 {
        elf.segments.push(Seg {
            vaddr: 0,
            paddr: 4 * MIB + i * 0x1000,
            data: vec![1; 16],
            memory_bytes: 16,
        });
    }
    assert_eq!(
        try_start(&elf.build()),
        Err(Error::Elf("it has more than 32 segments to load"))
    );
}

#[test]
fn overlapping_segments_are_refused() {
    let mut elf = Elf::umbra_like(&multiboot2_header(&[]));
    elf.segments[1].paddr = elf.segments[0].paddr + 0x1000;
    assert!(matches!(
        try_start(&elf.build()),
        Err(Error::NotFree { .. })
    ));
}

#[test]
fn too_many_modules_are_refused() {
    let map = pc_map(8, 2);
    let mut ram = Ram::new(8 * MIB);
    let kernel = ram.put(3 * MIB, &small_multiboot2());
    let modules = [ModuleRef {
        region: Region::new(0, 0),
        string: b"",
    }; 65];
    let mut handover = Handover::new(&map, kernel);
    handover.modules = &modules;
    assert_eq!(
        start(&mut ram, &handover).err(),
        Some(Error::TooManyModules {
            count: 65,
            limit: 64
        })
    );
    handover.modules = &modules[1..];
    assert!(start(&mut ram, &handover).is_ok());
}

#[test]
fn modules_at_impossible_places_are_refused() {
    let map = pc_map(8, 2);
    for file in [small_linux(), small_multiboot1(), small_multiboot2()] {
        for region in [
            Region::new(u64::MAX, 2),
            Region::new(MIB, u64::MAX),
            Region::new(0, u64::MAX),
            Region::new(u64::MAX - 4095, 4096),
        ] {
            let mut ram = Ram::new(8 * MIB);
            let kernel = ram.put(3 * MIB, &file);
            let modules = [ModuleRef {
                region,
                string: b"",
            }];
            let mut handover = Handover::new(&map, kernel);
            handover.modules = &modules;
            assert!(start(&mut ram, &handover).is_err(), "{region:x?}");
            handover.modules = &[];
            handover.kernel = region;
            assert!(start(&mut ram, &handover).is_err(), "{region:x?}");
        }
    }
}

fn files() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(small_linux()),
        Just(small_multiboot1()),
        Just(small_multiboot2()),
        Just(kludge()),
    ]
}

/// Numbers at which arithmetic goes wrong, and any others.
fn nasty() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(7),
        Just(0x7fff_ffff),
        Just(0x8000_0000),
        Just(u32::MAX),
        Just(u32::MAX - 7),
        Just(MIB as u32),
        Just(0x20_0000),
        0u32..0x1_0000,
        any::<u32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = try_start(&bytes);
    }

    /// Words of the first page, where all the headers are.
    #[test]
    fn damaged_headers_are_survived(
        file in files(),
        changes in prop::collection::vec((0usize..0x300, nasty()), 1..4),
    ) {
        let mut file = file;
        for (at, value) in changes {
            let at = at.min(file.len() - 4);
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let _ = try_start(&file);
    }

    #[test]
    fn cut_files_are_survived(file in files(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(file.len());
        let _ = try_start(&file[..cut]);
    }

    /// A checksum that holds, with tags of any content.
    #[test]
    fn any_multiboot2_header_is_survived(
        tags in prop::collection::vec(
            (0u16..12, 0u16..2, prop::collection::vec(nasty(), 0..6)), 0..6),
    ) {
        let tags: Vec<_> = tags.into_iter().map(|(k, f, w)| (k, f, words(&w))).collect();
        let _ = try_start(&Elf::umbra_like(&multiboot2_header(&tags)).build());
    }

    #[test]
    fn any_address_fields_are_survived(fields in prop::collection::vec(nasty(), 5..9)) {
        let mut file = multiboot1_header(1 << 16, &fields);
        file.extend(noise(0x800, 4));
        let _ = try_start(&file);
    }

    /// Wherever kernel file and module lie, both arrive whole or are refused.
    #[test]
    fn things_in_the_way_arrive_whole(
        file_at in 0u64..48,
        module_at in 0u64..48,
        module_pages in 1u64..200,
        kind in 0..3,
    ) {
        let (file, loaded_at, loaded): (_, _, &[u8]) = match kind {
            0 => (small_linux(), MIB * 2, &noise(0x3000, 2)),
            1 => {
                let elf = Elf::umbra_like(&multiboot2_header(&[]));
                (elf.build(), 2 * MIB + 0x2000, &noise(0x2345, 7))
            }
            _ => {
                let data = [multiboot1_header(3, &[0; 9]), noise(0x200, 3)].concat();
                (small_multiboot1(), MIB, &{ data })
            }
        };
        let map = pc_map(8, 2);
        let mut mem = Guarded { ram: Ram::new(8 * MIB), map: &map };
        let file_region = Region::new(MIB + file_at * 0x1_1000, file.len() as u64);
        let module = noise((module_pages * 0x1000 - 5) as usize, 9);
        let module_region = Region::new(MIB + module_at * 0xf00, module.len() as u64);
        prop_assume!(!file_region.overlaps(module_region));
        mem.ram.put(file_region.start, &file);
        mem.ram.put(module_region.start, &module);
        let modules = [ModuleRef { region: module_region, string: b"m" }];
        let mut handover = Handover::new(&map, file_region);
        handover.modules = &modules;
        // 8 MiB less 2 are enough for every case here.
        let (kind, state) = start(&mut mem, &handover).unwrap();
        prop_assert!(mem.ram.bytes(loaded_at, loaded.len() as u64) == loaded);
        let ram = &mem.ram;
        let (at, len) = match kind {
            KernelKind::Linux => {
                let p = state.gpr.rsi;
                (ram.u32(p + 0x218), ram.u32(p + 0x21c))
            }
            KernelKind::Multiboot1 => {
                let m = u64::from(ram.u32(state.gpr.rbx + 24));
                (ram.u32(m), ram.u32(m + 4) - ram.u32(m))
            }
            _ => {
                let bytes = ram.bytes(state.gpr.rbx, u64::from(ram.u32(state.gpr.rbx)));
                let info = umbra_guests::BootInfo::parse(
                    umbra_guests::bootinfo::LOADER_MAGIC, bytes).unwrap();
                let m = info.modules().next().unwrap();
                (m.region.start as u32, m.region.len as u32)
            }
        };
        prop_assert!(ram.bytes(at.into(), len.into()) == &module[..]);
    }
}

/// Behind the file lies memory that is not the kernel's: a segment may not
/// take it in.
#[test]
fn a_segment_beyond_the_end_of_the_file_is_refused() {
    let file = small_multiboot2();
    let phdr = 64 + 56;
    let offset = u64::from_le_bytes(file[phdr + 8..phdr + 16].try_into().unwrap());
    let rest = file.len() as u64 - offset;
    for (bytes, is_whole) in [(rest, true), (rest + 1, false), (rest + 0x1000, false)] {
        let mut file = file.clone();
        file[phdr + 32..phdr + 40].copy_from_slice(&bytes.to_le_bytes());
        file[phdr + 40..phdr + 48].copy_from_slice(&0x8000u64.to_le_bytes());
        match try_start(&file) {
            Ok(_) => assert!(is_whole),
            Err(Error::Truncated { end, len, .. }) => {
                assert!(!is_whole);
                assert_eq!((end, len), (offset + bytes, file.len() as u64));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

//! Multiboot and multiboot2 kernels: start states and information.

mod common;

use common::{
    Elf, MIB, Ram, SYMBOLS, Seg, multiboot1_header, multiboot2_header, noise, pc_map, words,
};
use umbra_guests::bootinfo::{BootDevice, BootInfo, Framebuffer, LOADER_MAGIC};
use umbra_guests::{Error, Handover, KernelKind, MemoryMap, ModuleRef, Region, StartState, start};

const STACK_BYTES: usize = 64 << 10;
const NAME: &[u8] = b"GRUB 2.06-13+deb12u1";

fn check_protected(state: &StartState, ram: &Ram) {
    assert_eq!(state.rflags, 2);
    assert_eq!(
        (state.cr0, state.cr3, state.cr4, state.efer),
        (0x11, 0, 0, 0)
    );
    assert_eq!(
        (state.cs.base, state.cs.limit, state.cs.access_rights),
        (0, 0xffff_ffff, 0xc09b)
    );
    for s in [state.ds, state.es, state.fs, state.gs, state.ss] {
        assert_eq!((s.base, s.limit, s.access_rights), (0, 0xffff_ffff, 0xc093));
    }
    assert_eq!(
        ram.u64(state.gdtr.base + u64::from(state.cs.selector)),
        0x00cf_9b00_0000_ffff
    );
}

fn handover<'a>(map: &'a MemoryMap, kernel: Region, modules: &'a [ModuleRef<'a>]) -> Handover<'a> {
    let mut h = Handover::new(map, kernel);
    h.command_line = b"some args";
    h.modules = modules;
    h.boot_loader_name = NAME;
    h
}

#[test]
fn umbra_loads_umbra() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let elf = Elf::umbra_like(&multiboot2_header(&[(1, 0, words(&[1, 3, 6]))]));
    // As GRUB would: the file right where it is to be loaded.
    let kernel = ram.put(2 * MIB, &elf.build());
    let inner = noise(5000, 3);
    let modules = [
        ModuleRef {
            region: ram.put(2 * MIB + 0x6000, &inner),
            string: b"l1-kernel its args",
        },
        ModuleRef {
            region: Region::new(0, 0),
            string: b"empty",
        },
    ];
    let mut h = handover(&map, kernel, &modules);
    let v1 = *b"RSD PTR 0123456789ab";
    h.rsdp_v1 = Some(&v1);
    h.framebuffer = Some(Framebuffer::VGA_TEXT);
    h.boot_device = Some(BootDevice {
        bios_drive: 0xe0,
        partition: u32::MAX,
        sub_partition: u32::MAX,
    });
    let (kind, state) = start(&mut ram, &h).unwrap();
    assert_eq!(kind, KernelKind::Multiboot2);
    check_protected(&state, &ram);
    assert_eq!(state.rip, 2 * MIB + 0x100, "the physical entry point");
    assert_eq!(state.gpr.rax, 0x36d7_6289);
    assert_eq!(state.gpr.rbx % 8, 0);
    for s in &elf.segments {
        assert_eq!(ram.bytes(s.paddr, s.data.len() as u64), &s.data[..]);
        let rest = s.memory_bytes - s.data.len() as u64;
        assert!(
            ram.bytes(s.paddr + s.data.len() as u64, rest)
                .iter()
                .all(|&b| b == 0)
        );
    }

    // What the inner one reads is what the outer one was given.
    let info_bytes = u64::from(ram.u32(state.gpr.rbx));
    let bytes = ram.bytes(state.gpr.rbx, info_bytes);
    let info = BootInfo::parse(LOADER_MAGIC, bytes).unwrap();
    assert_eq!(info.command_line(), b"some args");
    assert_eq!(info.boot_loader_name(), NAME);
    assert_eq!(info.memory_map().unwrap(), map);
    assert_eq!(info.rsdp_v1(), Some(&v1[..]));
    assert_eq!(info.framebuffer(), Some(Framebuffer::VGA_TEXT));
    assert_eq!(info.boot_device(), h.boot_device);
    assert_eq!(info.basic_memory_kib(), Some((639, 111 * 1024)));
    let got: Vec<_> = info.modules().collect();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].string, b"l1-kernel its args");
    assert_eq!(got[0].region.start % 4096, 0);
    assert_eq!(
        ram.bytes(got[0].region.start, got[0].region.len),
        &inner[..]
    );
    assert_eq!((got[1].region.len, got[1].string), (0, &b"empty"[..]));
}

/// The body of the first tag of this type in the boot information.
fn find_tag(ram: &Ram, info: u64, kind: u32) -> Option<u64> {
    let end = info + u64::from(ram.u32(info));
    let mut at = info + 8;
    while at < end {
        if ram.u32(at) == kind {
            return Some(at + 8);
        }
        at += u64::from(ram.u32(at + 4)).next_multiple_of(8);
    }
    None
}

#[test]
fn section_headers_lead_to_what_is_not_loaded() {
    let map = pc_map(128, 16);
    for bits in [32, 64] {
        let mut ram = Ram::new(128 * MIB);
        let elf = Elf {
            bits,
            entry: MIB + 0x40,
            segments: vec![Seg {
                vaddr: MIB,
                paddr: MIB,
                data: [multiboot2_header(&[]), noise(0x200, 3)].concat(),
                memory_bytes: 0x1000,
            }],
            sections: true,
        };
        let kernel = ram.put(MIB + 0x800, &elf.build());
        let (_, state) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
        let tag = find_tag(&ram, state.gpr.rbx, 9).unwrap();
        let size = if bits == 64 { 64 } else { 40 };
        assert_eq!(
            (ram.u32(tag), ram.u32(tag + 4), ram.u32(tag + 8)),
            (4, size, 3)
        );
        let header = |i: u64| tag + 12 + i * u64::from(size);
        let address = |i| match bits {
            64 => ram.u64(header(i) + 16),
            _ => u64::from(ram.u32(header(i) + 12)),
        };
        assert_eq!(address(0), 0);
        assert_eq!(address(1), MIB, "a loaded section keeps its address");
        assert_eq!(ram.bytes(address(2), 48), &SYMBOLS);
        assert_eq!(ram.bytes(address(3), 6), b"\0.text");
        assert!(
            find_tag(&ram, state.gpr.rbx, 21).is_none(),
            "not relocatable"
        );
    }
}

fn relocatable(min: u32, max: u32, align: u32, preference: u32) -> Elf {
    let header = multiboot2_header(&[(10, 0, words(&[min, max, align, preference]))]);
    Elf {
        sections: false,
        ..Elf::umbra_like(&header)
    }
}

#[test]
fn relocatable_kernels_go_where_they_like() {
    let map = pc_map(128, 16);
    let at = |elf: &Elf, map: &MemoryMap| {
        let mut ram = Ram::new(128 * MIB);
        let kernel = ram.put(40 * MIB, &elf.build());
        let (_, state) = start(&mut ram, &handover(map, kernel, &[])).unwrap();
        let base = state.rip - 0x100;
        for s in &elf.segments {
            let to = s.paddr - 2 * MIB + base;
            assert_eq!(ram.bytes(to, s.data.len() as u64), &s.data[..]);
        }
        let tag = find_tag(&ram, state.gpr.rbx, 21).unwrap();
        assert_eq!(u64::from(ram.u32(tag)), base, "load base address");
        base
    };
    let all = u32::MAX;
    // No preference: where it is linked, if that is free.
    assert_eq!(
        at(&relocatable(0x10_0000, all, 0x20_0000, 0), &map),
        2 * MIB
    );
    let mut taken = map.clone();
    taken.reserve(Region::new(2 * MIB, 0x1000)).unwrap();
    assert_eq!(
        at(&relocatable(0x10_0000, all, 0x20_0000, 0), &taken),
        4 * MIB
    );
    assert_eq!(at(&relocatable(0x10_0000, all, 0x1000, 1), &map), MIB);
    assert_eq!(
        at(&relocatable(0x10_0000, all, 0x20_0000, 2), &map),
        110 * MIB
    );
    assert_eq!(
        at(&relocatable(0x10_0000, 0x017f_ffff, 0x20_0000, 2), &map),
        22 * MIB
    );
}

#[test]
fn multiboot2_address_tags_replace_elf() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let fields = |header: u32, load: u32| {
        let tags = [
            (2, 0, words(&[header, load, 0x10_2000, 0x10_4000])),
            (3, 0, words(&[0x10_0800])),
        ];
        let mut file = noise(64, 1);
        file.extend(multiboot2_header(&tags));
        file.extend(noise(0x3000, 2));
        file
    };
    // The header stands at byte 64 of the file, which is loaded from there.
    let file = fields(0x10_0000, 0x10_0000);
    let kernel = ram.put(3 * MIB, &file);
    let (_, state) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
    assert_eq!(state.rip, 0x10_0800);
    assert_eq!(ram.bytes(MIB, 0x2000), &file[64..64 + 0x2000]);
    assert!(ram.bytes(MIB + 0x2000, 0x2000).iter().all(|&b| b == 0));
    // All ones: loaded from the beginning of the file.
    let file = fields(0x10_0040, u32::MAX);
    let kernel = ram.put(3 * MIB, &file);
    let (_, state) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
    assert_eq!(state.rip, 0x10_0800);
    assert_eq!(ram.bytes(MIB, 0x2000), &file[..0x2000]);
}

fn multiboot2_error(tags: &[(u16, u16, Vec<u8>)]) -> Option<String> {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(40 * MIB, &Elf::umbra_like(&multiboot2_header(tags)).build());
    start(&mut ram, &handover(&map, kernel, &[]))
        .err()
        .map(|e| e.to_string())
}

#[test]
fn multiboot2_tags_are_heeded_or_refused() {
    // Demanded information: known types pass, unknown ones only if optional.
    assert_eq!(multiboot2_error(&[(1, 0, words(&[1, 8, 14, 21]))]), None);
    let e = multiboot2_error(&[(1, 0, words(&[1, 22]))]).unwrap();
    assert!(e.contains("information of type 0x16"), "{e}");
    assert_eq!(multiboot2_error(&[(1, 1, words(&[1, 22]))]), None);
    // UEFI entry points and unknown optional tags are passed over.
    assert_eq!(
        multiboot2_error(&[(7, 0, vec![]), (9, 0, words(&[1])), (77, 1, vec![1, 2])]),
        None
    );
    let e = multiboot2_error(&[(77, 0, vec![])]).unwrap();
    assert!(e.contains("0x4d"), "{e}");
    // A console of a kind that is not there.
    assert_eq!(multiboot2_error(&[(4, 0, words(&[3]))]), None);
    assert_eq!(multiboot2_error(&[(4, 0, words(&[0]))]), None);
    let e = multiboot2_error(&[(4, 0, words(&[1]))]).unwrap();
    assert!(e.contains("console"), "{e}");
    let e = multiboot2_error(&[(2, 0, words(&[1, 2, 3, 4]))]).unwrap();
    assert!(e.contains("entry address"), "{e}");
    let e = multiboot2_error(&[(3, 0, vec![])]).unwrap();
    assert!(e.contains("too short"), "{e}");
}

fn multiboot1_elf(flags: u32) -> Elf {
    Elf {
        bits: 32,
        entry: MIB + 0x40,
        segments: vec![Seg {
            vaddr: MIB,
            paddr: MIB,
            data: [multiboot1_header(flags, &[]), noise(0x200, 3)].concat(),
            memory_bytes: 0x1000,
        }],
        sections: true,
    }
}

#[test]
fn multiboot1_start_state_and_information() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(MIB, &multiboot1_elf(3).build());
    let (a, b) = (noise(100, 8), noise(5000, 9));
    let modules = [
        ModuleRef {
            region: ram.put(2 * MIB + 5, &a),
            string: b"first",
        },
        ModuleRef {
            region: ram.put(3 * MIB, &b),
            string: b"second one",
        },
    ];
    let mut h = handover(&map, kernel, &modules);
    h.framebuffer = Some(Framebuffer::VGA_TEXT);
    h.boot_device = Some(BootDevice {
        bios_drive: 0x80,
        partition: 1,
        sub_partition: u32::MAX,
    });
    let (kind, state) = start(&mut ram, &h).unwrap();
    assert_eq!(kind, KernelKind::Multiboot1);
    check_protected(&state, &ram);
    assert_eq!(state.rip, MIB + 0x40);
    assert_eq!(state.gpr.rax, 0x2bad_b002);
    let info = state.gpr.rbx;
    assert!(info < 0x9_0000, "{info:#x}");
    let field = |offset| ram.u32(info + offset);
    assert_eq!(field(0), 0b1_0010_0110_1111);
    assert_eq!((field(4), field(8)), (639, 111 * 1024));
    assert_eq!(field(12), 0x8001_ffff);
    assert_eq!(ram.string(u64::from(field(16))), "some args");
    assert_eq!(ram.string(u64::from(field(64))).as_bytes(), NAME);
    // Modules, page-aligned.
    assert_eq!(field(20), 2);
    for (i, (data, name)) in [(&a, "first"), (&b, "second one")].iter().enumerate() {
        let m = u64::from(field(24)) + 16 * i as u64;
        let (from, to) = (u64::from(ram.u32(m)), u64::from(ram.u32(m + 4)));
        assert_eq!(from % 4096, 0);
        assert_eq!(ram.bytes(from, to - from), &data[..]);
        assert_eq!(&ram.string(u64::from(ram.u32(m + 8))), name);
        assert_eq!(ram.u32(m + 12), 0);
    }
    // The memory map.
    assert_eq!(field(44) as usize, 24 * map.entries().len());
    for (i, e) in map.entries().iter().enumerate() {
        let at = u64::from(field(48)) + 24 * i as u64;
        assert_eq!(ram.u32(at), 20);
        assert_eq!(
            (ram.u64(at + 4), ram.u64(at + 12), ram.u32(at + 20)),
            (e.start, e.len(), e.kind.number())
        );
    }
    // Section headers.
    assert_eq!((field(28), field(32), field(40)), (4, 40, 3));
    let symbols = u64::from(ram.u32(u64::from(field(36)) + 2 * 40 + 12));
    assert_eq!(ram.bytes(symbols, 48), &SYMBOLS);
    // The screen.
    assert_eq!(ram.u64(info + 88), 0xb8000);
    assert_eq!((field(96), field(100), field(104)), (160, 80, 25));
    assert_eq!(ram.bytes(info + 108, 2), &[16, 2]);
}

#[test]
fn multiboot1_takes_elf64_and_address_fields() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let elf = Elf::umbra_like(&multiboot1_header(0, &[]));
    let kernel = ram.put(40 * MIB, &elf.build());
    let (kind, state) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
    assert_eq!((kind, state.rip), (KernelKind::Multiboot1, 2 * MIB + 0x100));

    // Header at byte 32, loaded from the beginning to the end of the file.
    let mut file = noise(32, 1);
    let fields = [0x20_0020, 0x20_0000, 0, 0x20_8000, 0x20_0400];
    file.extend(multiboot1_header(1 << 16, &fields));
    file.extend(noise(0x2000, 2));
    let kernel = ram.put(50 * MIB, &file);
    let (_, state) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
    assert_eq!(state.rip, 0x20_0400);
    assert_eq!(ram.bytes(0x20_0000, file.len() as u64), &file[..]);
    let bss = 0x8000 - file.len() as u64;
    assert!(
        ram.bytes(0x20_8000 - bss, bss).iter().all(|&b| b == 0),
        "the rest is zero"
    );
    assert_eq!(ram.u32(state.gpr.rbx) & (1 << 5), 0, "no section headers");
}

#[test]
fn multiboot1_refuses_flags_it_must_know() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(40 * MIB, &multiboot1_elf(1 << 3).build());
    assert_eq!(
        start(&mut ram, &handover(&map, kernel, &[])).err(),
        Some(Error::Unsupported {
            header: "multiboot",
            what: "demands flags",
            value: 8
        })
    );
    let kernel = ram.put(40 * MIB, &multiboot1_elf(1 << 20 | 7).build());
    assert!(start(&mut ram, &handover(&map, kernel, &[])).is_ok());
}

#[test]
fn multiboot2_wins_over_multiboot1() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let both = [multiboot1_header(0, &[0]), multiboot2_header(&[])].concat();
    let kernel = ram.put(40 * MIB, &Elf::umbra_like(&both).build());
    let (kind, _) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
    assert_eq!(kind, KernelKind::Multiboot2);
}

#[test]
fn a_segment_in_umbras_memory_is_refused_in_words() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let mut elf = Elf::umbra_like(&multiboot2_header(&[]));
    elf.segments[1].paddr = 112 * MIB - 0x1000;
    let kernel = ram.put(40 * MIB, &elf.build());
    let before = ram.clone();
    let error = start(&mut ram, &handover(&map, kernel, &[])).unwrap_err();
    assert_eq!(
        error,
        Error::NotFree {
            what: "a segment of the kernel",
            start: 112 * MIB - 0x1000,
            last: 112 * MIB + 0x3fff,
        }
    );
    assert!(ram.0 == before.0);
}

#[test]
fn many_modules_in_the_way_all_arrive() {
    // 60 modules, one after the other over everything the kernel needs, in
    // memory that is nearly full.
    let mut map = pc_map(32, 8);
    map.reserve(Region::new(18 * MIB, 4 * MIB)).unwrap();
    let mut ram = Ram::new(32 * MIB);
    let data: Vec<Vec<u8>> = (0..60).map(|i| noise(0x3_0100 + i * 3, i as u8)).collect();
    let mut at = MIB;
    let modules: Vec<ModuleRef> = data
        .iter()
        .map(|d| {
            let region = ram.put(at, d);
            at += (d.len() as u64).next_multiple_of(64);
            ModuleRef {
                region,
                string: b"m",
            }
        })
        .collect();
    let elf = Elf::umbra_like(&multiboot2_header(&[]));
    let kernel = ram.put(at, &elf.build());
    let (_, state) = start(&mut ram, &handover(&map, kernel, &modules)).unwrap();
    let bytes = ram.bytes(state.gpr.rbx, u64::from(ram.u32(state.gpr.rbx)));
    let info = BootInfo::parse(LOADER_MAGIC, bytes).unwrap();
    let got: Vec<_> = info.modules().collect();
    assert_eq!(got.len(), 60);
    for (m, d) in got.iter().zip(&data) {
        assert_eq!(m.region.start % 4096, 0);
        assert!(map.usable_around(m.region).is_some());
        assert!(ram.bytes(m.region.start, m.region.len) == &d[..]);
    }
}

/// Umbra runs this on its boot stack: it must not need much of it.
#[test]
fn little_stack_is_needed() {
    let small = std::thread::Builder::new().stack_size(STACK_BYTES);
    let thread = small
        .spawn(|| {
            let map = pc_map(16, 4);
            let mut ram = Ram::new(16 * MIB);
            ram.put(0x413, &639u16.to_le_bytes());
            let elf = Elf::umbra_like(&multiboot2_header(&[]));
            let kernel = ram.put(2 * MIB, &elf.build());
            let modules = [ModuleRef {
                region: Region::new(2 * MIB + 0x5000, 0x5000),
                string: b"m",
            }; 1];
            let mut map = map;
            umbra_guests::int15::install(&mut ram, &mut map, &[]).unwrap();
            start(&mut ram, &handover(&map, kernel, &modules)).is_ok()
        })
        .unwrap();
    assert!(thread.join().unwrap());
}

#[test]
fn sections_of_a_relocated_kernel_move_along() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let elf = Elf {
        sections: true,
        ..relocatable(0x10_0000, u32::MAX, 0x20_0000, 2)
    };
    let kernel = ram.put(40 * MIB, &elf.build());
    let (_, state) = start(&mut ram, &handover(&map, kernel, &[])).unwrap();
    let tag = find_tag(&ram, state.gpr.rbx, 9).unwrap();
    let address = |i: u64| ram.u64(tag + 12 + 64 * i + 16);
    assert_eq!(address(1), state.rip - 0x100, "the loaded one moves");
    assert_eq!(ram.bytes(address(2), 48), &SYMBOLS, "the others stay");
}

#[test]
fn information_spares_the_stack_that_grub_leaves() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(40 * MIB, &multiboot1_elf(0).build());
    let mut h = handover(&map, kernel, &[]);
    // Too long for what is left between the stack and 0x90000.
    let long = vec![b'x'; 0x1_1000];
    h.command_line = &long;
    let (_, state) = start(&mut ram, &h).unwrap();
    assert_eq!(state.gpr.rsp, 0x7_ff00);
    assert!(state.gpr.rbx + 0x1_1000 < 0x7_e000, "{:#x}", state.gpr.rbx);
    assert!(ram.bytes(0x7_e000, 0x2000).iter().all(|&b| b == 0xcc));
}

//! Linux kernels: the start state and what the kernel finds in memory.

mod common;

use common::{BzImage, MIB, Ram, SETUP_SECTORS, noise, pc_map};
use umbra_guests::{Error, Handover, KernelKind, Kind, ModuleRef, Region, StartState, start};

const SETUP_BYTES: u64 = (SETUP_SECTORS as u64 + 1) * 512;

struct Booted {
    ram: Ram,
    state: StartState,
    params: u64,
}

fn boot(
    image: &BzImage,
    kernel_at: u64,
    modules: &[(u64, Vec<u8>)],
    command_line: &str,
) -> Result<Booted, Error> {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(kernel_at, &image.build());
    let refs: Vec<ModuleRef> = modules
        .iter()
        .map(|(at, data)| ModuleRef {
            region: ram.put(*at, data),
            string: b"",
        })
        .collect();
    let mut handover = Handover::new(&map, kernel);
    handover.command_line = command_line.as_bytes();
    handover.modules = &refs;
    let (kind, state) = start(&mut ram, &handover)?;
    assert_eq!(kind, KernelKind::Linux);
    Ok(Booted {
        params: state.gpr.rsi,
        ram,
        state,
    })
}

#[test]
fn start_state_is_the_32_bit_protocols() {
    let image = BzImage::default();
    let Booted { ram, state, params } = boot(&image, 4 * MIB, &[], "console=ttyS0").unwrap();
    assert_eq!(state.rip, 16 * MIB);
    assert_eq!(state.rflags, 2);
    assert_eq!(
        (state.cr0, state.cr3, state.cr4, state.efer),
        (0x11, 0, 0, 0)
    );
    assert_eq!(
        (state.gpr.rbp, state.gpr.rdi, state.gpr.rbx),
        (0, 0, 0),
        "the protocol wants these to be zero"
    );
    assert_eq!(
        (
            state.cs.selector,
            state.cs.base,
            state.cs.limit,
            state.cs.access_rights
        ),
        (0x10, 0, 0xffff_ffff, 0xc09b)
    );
    for data in [state.ds, state.es, state.ss] {
        assert_eq!(
            (data.selector, data.base, data.limit, data.access_rights),
            (0x18, 0, 0xffff_ffff, 0xc093)
        );
    }
    // The descriptors behind the selectors say the same.
    assert_eq!(state.gdtr.limit, 0x1f);
    assert_eq!(ram.u64(state.gdtr.base + 0x10), 0x00cf_9b00_0000_ffff);
    assert_eq!(ram.u64(state.gdtr.base + 0x18), 0x00cf_9300_0000_ffff);
    assert!((0x1000..0x9_0000).contains(&params), "{params:#x}");
    // The kernel proper is where it is entered.
    assert_eq!(ram.bytes(16 * MIB, 0x8_0000), &image.code[..]);
}

#[test]
fn boot_parameters_are_filled() {
    let initrd = noise(0x12345, 9);
    let Booted { ram, params, .. } = boot(
        &BzImage::default(),
        4 * MIB,
        &[(5 * MIB, initrd.clone())],
        "console=ttyS0 quiet",
    )
    .unwrap();
    assert_eq!(ram.u8(params + 0x210), 0xff, "type_of_loader");
    assert_eq!(ram.u8(params + 0x211), 1, "loadflags");
    assert_eq!(ram.bytes(params + 0x202, 4), b"HdrS");
    assert_eq!(u64::from(ram.u32(params + 0x214)), 16 * MIB, "code32_start");
    assert_eq!(ram.u8(params + 0x1ef), 0, "sentinel");
    assert_eq!(
        ram.string(u64::from(ram.u32(params + 0x228))),
        "console=ttyS0 quiet"
    );
    let at = u64::from(ram.u32(params + 0x218));
    let len = u64::from(ram.u32(params + 0x21c));
    assert_eq!(ram.bytes(at, len), &initrd[..]);
    assert_eq!(at % 4096, 0);
    assert!(
        at + len <= 112 * MIB && at > 111 * MIB,
        "as high as RAM allows"
    );
    // Text screen.
    assert_eq!(ram.bytes(params + 6, 2), &[3, 80]);
    assert_eq!(ram.bytes(params + 0xe, 2), &[25, 1]);
    // The memory map, Umbra's memory reserved.
    let map = pc_map(128, 16);
    assert_eq!(usize::from(ram.u8(params + 0x1e8)), map.entries().len());
    for (i, e) in map.entries().iter().enumerate() {
        let at = params + 0x2d0 + 20 * i as u64;
        assert_eq!(
            (ram.u64(at), ram.u64(at + 8), ram.u32(at + 16)),
            (e.start, e.len(), e.kind.number())
        );
    }
    assert!(
        map.entries()
            .iter()
            .any(|e| e.start == 112 * MIB && e.kind == Kind::RESERVED)
    );
}

#[test]
fn several_modules_become_one_initrd_with_aligned_parts() {
    let (a, b) = (noise(1001, 3), noise(777, 4));
    let Booted { ram, params, .. } = boot(
        &BzImage::default(),
        4 * MIB,
        &[(5 * MIB, a.clone()), (6 * MIB, b.clone())],
        "",
    )
    .unwrap();
    let at = u64::from(ram.u32(params + 0x218));
    assert_eq!(u64::from(ram.u32(params + 0x21c)), 1004 + 777);
    assert_eq!(ram.bytes(at, 1001), &a[..]);
    assert_eq!(ram.bytes(at + 1001, 3), &[0, 0, 0]);
    assert_eq!(ram.bytes(at + 1004, 777), &b[..]);
}

#[test]
fn kernel_and_initrd_in_the_way_are_moved_whole() {
    // The kernel file overlaps its own destination, the initrd lies in the
    // middle of where the kernel unpacks.
    let initrd = noise(3 << 20, 5);
    let image = BzImage::default();
    let Booted { ram, params, .. } =
        boot(&image, 16 * MIB - 0x3000, &[(17 * MIB, initrd.clone())], "").unwrap();
    assert_eq!(ram.bytes(16 * MIB, 0x8_0000), &image.code[..]);
    let at = u64::from(ram.u32(params + 0x218));
    assert_eq!(ram.bytes(at, 3 << 20), &initrd[..]);
}

#[test]
fn initrd_stays_below_what_the_kernel_reaches() {
    let image = BzImage {
        initrd_last: 0x03ff_ffff,
        ..BzImage::default()
    };
    let Booted { ram, params, .. } =
        boot(&image, 4 * MIB, &[(5 * MIB, noise(5000, 1))], "").unwrap();
    let end = ram.u32(params + 0x218) + ram.u32(params + 0x21c);
    assert!(end <= 0x0400_0000 && end > 0x03f0_0000, "{end:#x}");
}

#[test]
fn relocatable_kernel_goes_above_an_occupied_preferred_address() {
    let image = BzImage::default();
    let mut map = pc_map(128, 16);
    map.add(17 * MIB, 4096, Kind::RESERVED).unwrap();
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(4 * MIB, &image.build());
    let (_, state) = start(&mut ram, &Handover::new(&map, kernel)).unwrap();
    assert_eq!(state.rip, 18 * MIB, "the next multiple of its alignment");
    assert_eq!(ram.bytes(18 * MIB, 0x8_0000), &image.code[..]);

    let fixed = BzImage {
        relocatable: false,
        ..BzImage::default()
    };
    let kernel = ram.put(4 * MIB, &fixed.build());
    let error = start(&mut ram, &Handover::new(&map, kernel)).unwrap_err();
    assert!(matches!(error, Error::NotFree { start, .. } if start == 16 * MIB));
}

#[test]
fn refusals_name_what_is_wrong() {
    let old = BzImage {
        version: 0x205,
        ..BzImage::default()
    };
    let error = boot(&old, 4 * MIB, &[], "").err().unwrap();
    assert_eq!(error, Error::LinuxTooOld { version: 0x205 });
    assert!(error.to_string().contains("2.05"), "{error}");

    let low = BzImage {
        load_flags: 0,
        ..BzImage::default()
    };
    assert_eq!(
        boot(&low, 4 * MIB, &[], "").err(),
        Some(Error::LinuxNotHigh)
    );

    let long = "x".repeat(2048);
    assert_eq!(
        boot(&BzImage::default(), 4 * MIB, &[], &long).err(),
        Some(Error::CommandLineTooLong {
            len: 2048,
            limit: 2047
        })
    );
    assert!(boot(&BzImage::default(), 4 * MIB, &[], &long[1..]).is_ok());

    let huge = BzImage {
        init_bytes: 200 << 20,
        ..BzImage::default()
    };
    assert!(matches!(
        boot(&huge, 4 * MIB, &[], "").err(),
        Some(Error::DoesNotFit { len, .. }) if len == 200 << 20
    ));
}

#[test]
fn a_cut_file_is_refused() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    let file = BzImage::default().build();
    for len in [0x290, 0x1000, SETUP_BYTES as usize, file.len() - 16] {
        let kernel = ram.put(4 * MIB, &file[..len]);
        let error = start(&mut ram, &Handover::new(&map, kernel)).unwrap_err();
        assert!(
            matches!(error, Error::Truncated { .. }),
            "{len:#x}: {error}"
        );
    }
}

#[test]
fn more_than_128_map_entries_go_to_the_extension() {
    let mut map = pc_map(128, 16);
    for i in 0..150 {
        map.add(
            0x1_0000_0000 + i * 0x10_0000,
            0x8_0000,
            Kind::new(2 + (i % 2) as u32),
        )
        .unwrap();
    }
    let total = map.entries().len();
    let mut ram = Ram::new(128 * MIB);
    let kernel = ram.put(4 * MIB, &BzImage::default().build());
    let (_, state) = start(&mut ram, &Handover::new(&map, kernel)).unwrap();
    let params = state.gpr.rsi;
    assert_eq!(ram.u8(params + 0x1e8), 128);
    let data = ram.u64(params + 0x250);
    assert_eq!(ram.u64(data), 0, "the only setup_data");
    assert_eq!(ram.u32(data + 8), 1, "SETUP_E820_EXT");
    assert_eq!(ram.u32(data + 12) as usize, (total - 128) * 20);
    let last = map.entries()[total - 1];
    let at = data + 16 + 20 * (total as u64 - 129);
    assert_eq!((ram.u64(at), ram.u64(at + 8)), (last.start, last.len()));
}

#[test]
fn rsdp_address_and_cursor_are_passed_on() {
    let map = pc_map(128, 16);
    let mut ram = Ram::new(128 * MIB);
    ram.put(0x450, &[7, 12]);
    let kernel = ram.put(4 * MIB, &BzImage::default().build());
    let mut handover = Handover::new(&map, kernel);
    handover.rsdp_address = Some(0xf_1230);
    let (_, state) = start(&mut ram, &handover).unwrap();
    assert_eq!(ram.u64(state.gpr.rsi + 0x70), 0xf_1230);
    assert_eq!(ram.bytes(state.gpr.rsi, 2), &[7, 12]);
}

#[test]
fn what_does_not_fit_is_refused_with_memory_untouched() {
    let map = pc_map(64, 16);
    let mut ram = Ram::new(64 * MIB);
    let kernel = ram.put(4 * MIB, &BzImage::default().build());
    let region = Region::new(5 * MIB, 40 * MIB);
    let before = ram.clone();
    let mut handover = Handover::new(&map, kernel);
    let modules = [ModuleRef {
        region,
        string: b"",
    }];
    handover.modules = &modules;
    let error = start(&mut ram, &handover).unwrap_err();
    assert!(matches!(error, Error::DoesNotFit { len, .. } if len == 40 * MIB));
    assert!(ram.0 == before.0);
}

#[test]
fn what_lies_at_the_top_already_is_not_overwritten_by_the_initrd() {
    // The kernel file lies where the initrd would go.
    let image = BzImage::default();
    let initrd = noise(2 << 20, 6);
    let Booted { ram, params, .. } =
        boot(&image, 111 * MIB, &[(5 * MIB, initrd.clone())], "").unwrap();
    assert_eq!(ram.bytes(16 * MIB, 0x8_0000), &image.code[..]);
    let at = u64::from(ram.u32(params + 0x218));
    assert!(ram.bytes(at, 2 << 20) == &initrd[..]);
    assert!(at + (2 << 20) <= 111 * MIB);

    // Two modules in the wrong order at the top: gathering them must not
    // overwrite the one that is still to be read.
    let (a, b) = (noise(1 << 20, 7), noise(1 << 20, 8));
    let modules = [(111 * MIB, a.clone()), (110 * MIB, b.clone())];
    let Booted { ram, params, .. } = boot(&image, 4 * MIB, &modules, "").unwrap();
    let at = u64::from(ram.u32(params + 0x218));
    assert!(ram.bytes(at, 1 << 20) == &a[..]);
    assert!(ram.bytes(at + (1 << 20), 1 << 20) == &b[..]);
}

#[test]
fn an_alignment_that_is_none_is_refused() {
    for alignment in [3, 0x1800, u32::MAX] {
        let image = BzImage {
            alignment,
            ..BzImage::default()
        };
        let error = boot(&image, 4 * MIB, &[], "").err();
        assert!(
            matches!(error, Some(Error::LinuxHeader(_))),
            "{alignment:#x}"
        );
    }
}

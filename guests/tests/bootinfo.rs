//! The boot loader's information, whole, damaged and hostile.

mod common;

use common::words;
use proptest::prelude::*;
use umbra_guests::bootinfo::{BootInfo, Error, Framebuffer, FramebufferKind, LOADER_MAGIC};
use umbra_guests::{Kind, Region};

fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut t = words(&[kind, 8 + body.len() as u32]);
    t.extend_from_slice(body);
    t.resize(t.len().next_multiple_of(8), 0);
    t
}

fn info(tags: &[Vec<u8>]) -> Vec<u8> {
    let body = tags.concat();
    let mut out = words(&[16 + body.len() as u32, 0]);
    out.extend(body);
    out.extend(tag(0, &[]));
    out
}

fn memory_map(entry_bytes: u32, entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = words(&[entry_bytes, 0]);
    for (start, len, kind) in entries {
        let mut e = start.to_le_bytes().to_vec();
        e.extend_from_slice(&len.to_le_bytes());
        e.extend_from_slice(&kind.to_le_bytes());
        e.resize(entry_bytes as usize, 0);
        body.extend(e);
    }
    tag(6, &body)
}

fn module(start: u32, end: u32, string: &[u8]) -> Vec<u8> {
    tag(3, &[&words(&[start, end])[..], string].concat())
}

fn pc() -> Vec<u8> {
    memory_map(24, &[(0, 0x9_fc00, 1), (0x10_0000, 0x700_0000, 1)])
}

fn parse(bytes: &[u8]) -> Result<BootInfo<'_>, Error> {
    BootInfo::parse(LOADER_MAGIC, bytes)
}

#[test]
fn everything_is_read() {
    let rsdp = [b"RSD PTR ".as_slice(), &[7; 28]].concat();
    let mut rgb = 0xe000_0000u64.to_le_bytes().to_vec();
    rgb.extend(words(&[4096, 1024, 768]));
    rgb.extend([32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);
    let bytes = info(&[
        tag(21, &words(&[0x20_0000])),
        tag(1, b"--umbra option\0"),
        tag(2, b"GRUB 2.06\0"),
        module(0x40_0000, 0x48_0000, b"first words\0"),
        module(0x50_0000, 0x50_0000, b"\0"),
        tag(4, &words(&[639, 0x1c_0000])),
        tag(5, &words(&[0xe0, 0xffff_ffff, 0xffff_ffff])),
        memory_map(40, &[(0, 0x9_fc00, 1), (0x10_0000, 0x700_0000, 1)]),
        tag(8, &rgb),
        tag(14, &rsdp[..20]),
        tag(15, &rsdp),
        tag(99, b"unknown"),
    ]);
    let mut longer = bytes.clone();
    longer.extend([0xff; 100]);
    let i = parse(&longer).unwrap();
    assert_eq!(BootInfo::total_bytes(&longer), Ok(bytes.len()));
    assert_eq!(i.command_line(), b"--umbra option");
    assert_eq!(i.boot_loader_name(), b"GRUB 2.06");
    let modules: Vec<_> = i.modules().map(|m| (m.region, m.string)).collect();
    assert_eq!(
        modules,
        [
            (Region::new(0x40_0000, 0x8_0000), &b"first words"[..]),
            (Region::new(0x50_0000, 0), &b""[..])
        ]
    );
    let map = i.memory_map().unwrap();
    assert_eq!(map.entries().len(), 2);
    assert_eq!(map.entries()[1].kind, Kind::USABLE);
    assert_eq!(map.usable_from(0x10_0000), 0x700_0000);
    assert_eq!(i.rsdp_v1(), Some(&rsdp[..20]));
    assert_eq!(i.rsdp_v2(), Some(&rsdp[..]));
    assert_eq!(i.basic_memory_kib(), Some((639, 0x1c_0000)));
    assert_eq!(i.boot_device().unwrap().bios_drive, 0xe0);
    assert_eq!(
        i.framebuffer(),
        Some(Framebuffer {
            address: 0xe000_0000,
            pitch: 4096,
            width: 1024,
            height: 768,
            bits_per_pixel: 32,
            kind: FramebufferKind::Rgb {
                fields: [16, 8, 8, 8, 0, 8]
            },
        })
    );
}

#[test]
fn what_is_wrong_is_said() {
    let says = |bytes: &[u8], words: &str| {
        let e = parse(bytes).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
        assert!(!e.contains('\n'));
    };
    let e = BootInfo::parse(0x2bad_b002, &info(&[pc()])).unwrap_err();
    assert_eq!(e, Error::NotMultiboot2(0x2bad_b002));
    says(&[], "0 bytes");
    says(&words(&[8, 0]), "8 bytes");
    says(
        &words(&[1000, 0, 0, 8]),
        "says it has 1000 bytes, and 16 are there",
    );
    says(&info(&[]), "no memory map");
    says(&info(&[pc(), tag(12, &[0; 8])]), "not its memory map");
    says(&info(&[pc(), tag(18, &[])]), "boot services running");
    says(&info(&[pc(), tag(11, &[0; 4])]), "32-bit UEFI");
    says(&info(&[pc(), tag(19, &[0; 4])]), "32-bit UEFI");
    says(&info(&[pc(), tag(17, &[])]), "no descriptor can have");
    says(&info(&[pc(), tag(17, &words(&[40, 1]))]), "cut off");
    says(&info(&[pc(), tag(17, &words(&[48, 1, 0, 0]))]), "cut off");
    says(
        &info(&[memory_map(16, &[])]),
        "length that no entry can have",
    );
    says(
        &info(&[memory_map(20, &[])]),
        "length that no entry can have",
    );
    says(&info(&[tag(6, &words(&[24, 0, 1, 2, 3]))]), "cut off");
    says(&info(&[pc(), module(2, 1, b"\0")]), "ends before it begins");
    says(&info(&[pc(), tag(3, &[0; 4])]), "shorter than a module");
    says(&info(&[pc(), tag(14, &[0; 19])]), "20 bytes");
    says(&info(&[pc(), tag(15, &[0; 35])]), "36 bytes");
    // A tag longer than what is left, and one shorter than its head.
    says(&words(&[24, 0, 1, 17, 0, 8]), "reaches past the end");
    says(&words(&[24, 0, 1, u32::MAX, 0, 8]), "reaches past the end");
    says(&words(&[24, 0, 1, 7, 0, 8]), "shorter than its own head");
    // No end tag.
    let mut no_end = [words(&[0, 0]), pc()].concat();
    let len = no_end.len() as u32;
    no_end[..4].copy_from_slice(&len.to_le_bytes());
    says(&no_end, "no end tag");
}

#[test]
fn a_map_of_too_many_entries_is_refused() {
    let entries: Vec<_> = (0..300).map(|i| (i * 0x2000, 0x1000, 1)).collect();
    let bytes = info(&[memory_map(24, &entries)]);
    let e = parse(&bytes).unwrap().memory_map().unwrap_err();
    assert!(e.to_string().contains("too many entries"), "{e}");
    // 300 that merge are fine, and the last one counts.
    let entries: Vec<_> = (0..300).map(|i| (i * 0x1000, 0x1000, 1)).collect();
    let bytes = info(&[memory_map(24, &entries)]);
    let map = parse(&bytes).unwrap().memory_map().unwrap();
    assert_eq!(map.usable_from(0), 300 * 0x1000);
}

#[test]
fn an_endless_run_of_tags_is_not_followed() {
    let mut tags = vec![pc()];
    tags.extend(vec![tag(99, &[]); 5000]);
    assert_eq!(parse(&info(&tags)).unwrap_err(), Error::NoEnd);
}

/// Uses everything, so that a panic in any part shows.
fn use_all(bytes: &[u8]) {
    let Ok(i) = parse(bytes) else { return };
    let _ = i.memory_map();
    let _ = (i.command_line(), i.boot_loader_name(), i.framebuffer());
    for m in i.modules() {
        assert!(m.region.len == 0 || m.region.last().is_some());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        use_all(&bytes);
        let mut framed = words(&[bytes.len() as u32 + 8, 0]);
        framed.extend(bytes);
        use_all(&framed);
    }

    #[test]
    fn any_tags_are_survived(
        tags in prop::collection::vec(
            (0u32..23, prop::collection::vec(any::<u8>(), 0..80)), 0..12),
        flip in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut list = vec![pc()];
        list.extend(tags.iter().map(|(kind, body)| tag(*kind, body)));
        let mut bytes = info(&list);
        use_all(&bytes);
        for (at, value) in flip {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        use_all(&bytes);
    }

    #[test]
    fn any_cut_is_refused(cut in any::<prop::sample::Index>()) {
        let bytes = info(&[tag(1, b"command line\0"), pc(), module(1, 2, b"m\0")]);
        let cut = cut.index(bytes.len());
        prop_assert!(parse(&bytes[..cut]).is_err());
    }
}

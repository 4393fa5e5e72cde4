//! Memory and kernel files for the tests.
#![allow(dead_code)] // each test file uses its own part of this

use umbra_guests::{Kind, MemoryMap, PhysMemory, Region, Unreachable};

pub const MIB: u64 = 1 << 20;

/// RAM from address 0 on; everything above is out of reach.
#[derive(Clone)]
pub struct Ram(pub Vec<u8>);

impl Ram {
    pub fn new(len_bytes: u64) -> Self {
        // Not zero, so that what has to be zeroed is seen not to be.
        Ram(vec![0xcc; len_bytes as usize])
    }

    fn slice(&self, address: u64, len: u64) -> Result<std::ops::Range<usize>, Unreachable> {
        let end = address.checked_add(len).ok_or(Unreachable { address })?;
        if end > self.0.len() as u64 {
            return Err(Unreachable { address });
        }
        Ok(address as usize..end as usize)
    }

    pub fn bytes(&self, address: u64, len: u64) -> &[u8] {
        &self.0[self.slice(address, len).unwrap()]
    }

    pub fn put(&mut self, address: u64, bytes: &[u8]) -> Region {
        self.write(address, bytes).unwrap();
        Region::new(address, bytes.len() as u64)
    }

    pub fn u8(&self, address: u64) -> u8 {
        self.bytes(address, 1)[0]
    }
    pub fn u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.bytes(address, 2).try_into().unwrap())
    }
    pub fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.bytes(address, 4).try_into().unwrap())
    }
    pub fn u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().unwrap())
    }

    /// The string at `address`, up to its NUL.
    pub fn string(&self, address: u64) -> String {
        let tail = &self.0[address as usize..];
        let end = tail.iter().position(|&b| b == 0).unwrap();
        String::from_utf8_lossy(&tail[..end]).into_owned()
    }
}

impl PhysMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable> {
        let range = self.slice(address, bytes.len() as u64)?;
        bytes.copy_from_slice(&self.0[range]);
        Ok(())
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        let range = self.slice(address, bytes.len() as u64)?;
        self.0[range].copy_from_slice(bytes);
        Ok(())
    }
    fn zero(&mut self, address: u64, len_bytes: u64) -> Result<(), Unreachable> {
        let range = self.slice(address, len_bytes)?;
        self.0[range].fill(0);
        Ok(())
    }
    fn copy_within(&mut self, to: u64, from: u64, len_bytes: u64) -> Result<(), Unreachable> {
        let from = self.slice(from, len_bytes)?;
        let to = self.slice(to, len_bytes)?;
        self.0.copy_within(from, to.start);
        Ok(())
    }
}

/// The map of a PC with `mib` MiB of RAM, of which the last `hidden_mib` are
/// Umbra's.
pub fn pc_map(mib: u64, hidden_mib: u64) -> MemoryMap {
    let mut map = MemoryMap::new();
    map.add(0, 0x9_fc00, Kind::USABLE).unwrap();
    map.add(0x9_fc00, 0x400, Kind::RESERVED).unwrap();
    map.add(0xe_8000, 0x1_8000, Kind::RESERVED).unwrap();
    map.add(MIB, (mib - 1) * MIB - 0x1_0000, Kind::USABLE)
        .unwrap();
    map.add(mib * MIB - 0x1_0000, 0x1_0000, Kind::ACPI).unwrap();
    map.add(0xfffc_0000, 0x4_0000, Kind::RESERVED).unwrap();
    map.reserve(Region::new(
        (mib - hidden_mib) * MIB,
        hidden_mib * MIB - 0x1_0000,
    ))
    .unwrap();
    map
}

/// `len` bytes that differ from place to place.
pub fn noise(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed)
        .collect()
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A file that has the setup header of a Linux 6.1 bzImage and noise as code.
pub struct BzImage {
    pub version: u16,
    pub load_flags: u8,
    pub relocatable: bool,
    pub pref_address: u64,
    pub init_bytes: u32,
    pub alignment: u32,
    pub initrd_last: u32,
    pub command_line_limit: u32,
    pub code: Vec<u8>,
}

impl Default for BzImage {
    fn default() -> Self {
        Self {
            version: 0x20f,
            load_flags: 1,
            relocatable: true,
            pref_address: 16 * MIB,
            init_bytes: 8 << 20,
            alignment: 2 << 20,
            initrd_last: 0x7fff_ffff,
            command_line_limit: 2047,
            code: noise(0x8_0000, 1),
        }
    }
}

pub const SETUP_SECTORS: usize = 39;

impl BzImage {
    pub fn build(&self) -> Vec<u8> {
        let setup = (SETUP_SECTORS + 1) * 512;
        let mut file = noise(setup, 0x55);
        file[0x1f1..0x290].fill(0);
        file[0x1f1] = SETUP_SECTORS as u8;
        set(
            &mut file,
            0x1f4,
            &(self.code.len().div_ceil(16) as u32).to_le_bytes(),
        );
        set(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        set(&mut file, 0x202, b"HdrS");
        set(&mut file, 0x206, &self.version.to_le_bytes());
        file[0x211] = self.load_flags;
        set(&mut file, 0x214, &0x10_0000u32.to_le_bytes());
        set(&mut file, 0x22c, &self.initrd_last.to_le_bytes());
        set(&mut file, 0x230, &self.alignment.to_le_bytes());
        file[0x234] = u8::from(self.relocatable);
        file[0x235] = 21;
        set(&mut file, 0x238, &self.command_line_limit.to_le_bytes());
        set(&mut file, 0x258, &self.pref_address.to_le_bytes());
        set(&mut file, 0x260, &self.init_bytes.to_le_bytes());
        file.extend_from_slice(&self.code);
        file
    }
}

/// One PT_LOAD segment.
#[derive(Clone)]
pub struct Seg {
    pub vaddr: u64,
    pub paddr: u64,
    pub data: Vec<u8>,
    pub memory_bytes: u64,
}

/// Builds small ELF files: the segments, then a `.symtab` of 48 bytes and a
/// name table that are not loaded.
pub struct Elf {
    pub bits: u32,
    pub entry: u64,
    pub segments: Vec<Seg>,
    pub sections: bool,
}

pub const SYMBOLS: [u8; 48] = *b"symbols, symbols, symbols, symbols, symbols, sym";

impl Elf {
    /// An image like Umbra's: linked high, loaded at 2 MiB, entered at a
    /// virtual address; `header` stands at the beginning of its first segment.
    pub fn umbra_like(header: &[u8]) -> Self {
        let mut first = header.to_vec();
        first.resize(0x1800, 0x90);
        Elf {
            bits: 64,
            entry: 0xffff_ffff_8000_0100,
            segments: vec![
                Seg {
                    vaddr: 0xffff_ffff_8000_0000,
                    paddr: 2 * MIB,
                    data: first,
                    memory_bytes: 0x1800,
                },
                Seg {
                    vaddr: 0xffff_ffff_8000_2000,
                    paddr: 2 * MIB + 0x2000,
                    data: noise(0x2345, 7),
                    memory_bytes: 0x5000,
                },
            ],
            sections: true,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let (ehdr, phdr, shdr) = if self.bits == 64 {
            (64, 56, 64)
        } else {
            (52, 32, 40)
        };
        let word = |v: u64| -> Vec<u8> {
            if self.bits == 64 {
                v.to_le_bytes().to_vec()
            } else {
                (v as u32).to_le_bytes().to_vec()
            }
        };
        let mut file = vec![0; ehdr + phdr * self.segments.len()];
        let mut offsets = Vec::new();
        for s in &self.segments {
            file.resize(file.len().next_multiple_of(64), 0);
            offsets.push(file.len() as u64);
            file.extend_from_slice(&s.data);
        }
        let mut shoff = 0;
        if self.sections {
            file.resize(file.len().next_multiple_of(8), 0);
            let symbols = file.len() as u64;
            file.extend_from_slice(&SYMBOLS);
            let names = file.len() as u64;
            file.extend_from_slice(b"\0.text\0.symtab\0.shstrtab\0");
            file.resize(file.len().next_multiple_of(8), 0);
            shoff = file.len() as u64;
            // null, .text (loaded), .symtab, .shstrtab (not loaded)
            let rows = [
                (0u32, 0u32, 0u64, 0u64, 0u64),
                (1, 1, self.segments[0].paddr, offsets[0], 16),
                (7, 2, 0, symbols, SYMBOLS.len() as u64),
                (15, 3, 0, names, 25),
            ];
            for (name, kind, addr, offset, size) in rows {
                let mut s = Vec::new();
                s.extend_from_slice(&name.to_le_bytes());
                s.extend_from_slice(&kind.to_le_bytes());
                s.extend(word(0));
                s.extend(word(addr));
                s.extend(word(offset));
                s.extend(word(size));
                s.resize(shdr, 0);
                file.extend(s);
            }
        }

        let mut h = b"\x7fELF".to_vec();
        h.extend_from_slice(&[if self.bits == 64 { 2 } else { 1 }, 1, 1]);
        h.resize(16, 0);
        let machine: u16 = if self.bits == 64 { 62 } else { 3 };
        h.extend_from_slice(&2u16.to_le_bytes());
        h.extend_from_slice(&machine.to_le_bytes());
        h.extend_from_slice(&1u32.to_le_bytes());
        h.extend(word(self.entry));
        h.extend(word(ehdr as u64));
        h.extend(word(shoff));
        h.extend_from_slice(&0u32.to_le_bytes());
        let (shnum, shstrndx) = if self.sections { (4, 3) } else { (0, 0) };
        for half in [ehdr, phdr, self.segments.len(), shdr, shnum, shstrndx] {
            h.extend_from_slice(&(half as u16).to_le_bytes());
        }
        file[..ehdr].copy_from_slice(&h);
        for (i, (s, offset)) in self.segments.iter().zip(&offsets).enumerate() {
            let mut p = 1u32.to_le_bytes().to_vec();
            let (file_bytes, memory_bytes) = (s.data.len() as u64, s.memory_bytes);
            if self.bits == 64 {
                p.extend_from_slice(&7u32.to_le_bytes());
            }
            for v in [*offset, s.vaddr, s.paddr, file_bytes, memory_bytes] {
                p.extend(word(v));
            }
            p.resize(phdr, 0);
            let at = ehdr + i * phdr;
            file[at..at + phdr].copy_from_slice(&p);
        }
        file
    }
}

/// A multiboot2 header with these tags: type, flags, body.
pub fn multiboot2_header(tags: &[(u16, u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    let end = (0u16, 0u16, Vec::new());
    for (kind, flags, data) in tags.iter().chain([&end]) {
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend_from_slice(&kind.to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
        body.extend_from_slice(&(8 + data.len() as u32).to_le_bytes());
        body.extend_from_slice(data);
    }
    let len = 16 + body.len() as u32;
    let mut header = 0xe852_50d6u32.to_le_bytes().to_vec();
    header.extend_from_slice(&0u32.to_le_bytes());
    header.extend_from_slice(&len.to_le_bytes());
    header.extend_from_slice(
        &0u32
            .wrapping_sub(0xe852_50d6u32.wrapping_add(len))
            .to_le_bytes(),
    );
    header.extend(body);
    header
}

/// 32-bit words, little-endian.
pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A multiboot header with `flags` and, after them, `more` words.
pub fn multiboot1_header(flags: u32, more: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let mut w = vec![magic, flags, 0u32.wrapping_sub(magic.wrapping_add(flags))];
    w.extend_from_slice(more);
    words(&w)
}

//! The INT 15h block, executed: what a caller in real mode gets.

mod common;

use common::{MIB, Ram, pc_map};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use umbra_guests::int15::{Installed, install};
use umbra_guests::{Error, Kind, MemoryMap, PhysMemory, Region};

/// How a call ended.
#[derive(Debug, PartialEq)]
enum End {
    /// IRET, with the carry flag that the caller then sees.
    Returned { carry: bool },
    /// A far jump out of all blocks.
    Chained { segment: u16, offset: u16 },
}

/// A real-mode CPU with as many instructions as the block uses; it panics on
/// any other.
struct Cpu<'r> {
    ram: &'r mut Ram,
    gpr: [u32; 8],
    cs: u16,
    ds: u16,
    es: u16,
    ss: u16,
    ip: u16,
    zero: bool,
    carry: bool,
}

const SMAP: u32 = 0x534d_4150;
const STACK: (u16, u16) = (0x2000, 0x1000);
/// EAX, ECX, EDX, EBX as `gpr` numbers them.
const A: usize = 0;
const C: usize = 1;
const D: usize = 2;
const B: usize = 3;
const SP: usize = 4;
const DI: usize = 7;

fn linear(segment: u16, offset: u16) -> u64 {
    (u64::from(segment) << 4) + u64::from(offset)
}

impl Cpu<'_> {
    fn register(&self, r: Register) -> u32 {
        let full = |r: Register| self.gpr[r.full_register32().number()];
        match r {
            Register::CS => self.cs.into(),
            Register::DS => self.ds.into(),
            r if r.is_gpr32() => full(r),
            r if r.is_gpr16() => full(r) & 0xffff,
            Register::AH => full(r) >> 8 & 0xff,
            Register::CL => full(r) & 0xff,
            _ => panic!("{r:?}"),
        }
    }

    fn set_register(&mut self, r: Register, value: u32) {
        let (mask, shift) = match r {
            Register::DS => return self.ds = value as u16,
            r if r.is_gpr32() => (u32::MAX, 0),
            r if r.is_gpr16() => (0xffff, 0),
            Register::AH => (0xff00, 8),
            Register::CL => (0xff, 0),
            _ => panic!("{r:?}"),
        };
        let full = &mut self.gpr[r.full_register32().number()];
        *full = *full & !mask | value << shift & mask;
    }

    fn address(&self, i: &Instruction) -> u64 {
        let segment = match i.memory_segment() {
            Register::CS => self.cs,
            Register::DS => self.ds,
            Register::ES => self.es,
            Register::SS => self.ss,
            r => panic!("{r:?}"),
        };
        let base = match i.memory_base() {
            Register::None => 0,
            r => self.register(r),
        };
        assert_eq!(i.memory_index(), Register::None);
        // 16-bit addressing wraps in the segment.
        let offset = (base as u16).wrapping_add(i.memory_displacement32() as u16);
        linear(segment, offset)
    }

    fn bytes_of(i: &Instruction, operand: u32) -> usize {
        match i.op_kind(operand) {
            OpKind::Register => i.op_register(operand).size(),
            OpKind::Memory => i.memory_size().size(),
            _ => 4,
        }
    }

    fn operand(&self, i: &Instruction, operand: u32) -> u32 {
        match i.op_kind(operand) {
            OpKind::Register => self.register(i.op_register(operand)),
            OpKind::Memory => {
                let mut bytes = [0; 4];
                let len = Self::bytes_of(i, operand);
                self.ram.read(self.address(i), &mut bytes[..len]).unwrap();
                u32::from_le_bytes(bytes)
            }
            _ => i.immediate(operand) as u32,
        }
    }

    fn set_operand(&mut self, i: &Instruction, value: u32) {
        match i.op_kind(0) {
            OpKind::Register => self.set_register(i.op_register(0), value),
            OpKind::Memory => {
                let len = Self::bytes_of(i, 0);
                let address = self.address(i);
                self.ram
                    .write(address, &value.to_le_bytes()[..len])
                    .unwrap();
            }
            k => panic!("{k:?}"),
        }
    }

    fn push(&mut self, value: u16) {
        let sp = (self.gpr[SP] as u16).wrapping_sub(2);
        self.set_register(Register::SP, sp.into());
        self.ram
            .write(linear(self.ss, sp), &value.to_le_bytes())
            .unwrap();
    }

    fn pop(&mut self) -> u16 {
        let sp = self.gpr[SP] as u16;
        self.set_register(Register::SP, sp.wrapping_add(2).into());
        self.ram.u16(linear(self.ss, sp))
    }

    fn step(&mut self) -> Option<End> {
        let mut code = [0; 15];
        self.ram.read(linear(self.cs, self.ip), &mut code).unwrap();
        let i = Decoder::with_ip(16, &code, self.ip.into(), DecoderOptions::NONE).decode();
        let next = i.next_ip16();
        self.ip = next;
        let jump_if = |cpu: &mut Self, taken: bool| {
            if taken {
                cpu.ip = i.near_branch16();
            }
        };
        match i.mnemonic() {
            Mnemonic::Cmp => {
                let mask = match Self::bytes_of(&i, 0) {
                    1 => 0xff,
                    2 => 0xffff,
                    _ => u32::MAX,
                };
                let (a, b) = (self.operand(&i, 0) & mask, self.operand(&i, 1) & mask);
                self.zero = a == b;
                self.carry = a < b;
            }
            Mnemonic::Je => jump_if(self, self.zero),
            Mnemonic::Jne => jump_if(self, !self.zero),
            Mnemonic::Jb => jump_if(self, self.carry),
            Mnemonic::Jae => jump_if(self, !self.carry),
            Mnemonic::Jmp if i.code() == Code::Jmp_m1616 => {
                let pointer = self.address(&i);
                let (offset, segment) = (self.ram.u16(pointer), self.ram.u16(pointer + 2));
                (self.cs, self.ip) = (segment, offset);
                if segment == 0xf000 {
                    return Some(End::Chained { segment, offset });
                }
            }
            Mnemonic::Jmp => jump_if(self, true),
            Mnemonic::Push => self.push(self.operand(&i, 0) as u16),
            Mnemonic::Pop => {
                let value = self.pop();
                self.set_operand(&i, value.into());
            }
            Mnemonic::Mov => self.set_operand(&i, self.operand(&i, 1)),
            Mnemonic::Imul => {
                let value = self.operand(&i, 1) * self.operand(&i, 2);
                self.set_operand(&i, value);
            }
            Mnemonic::Add => {
                let value = self.operand(&i, 0) + self.operand(&i, 1);
                self.set_operand(&i, value);
            }
            Mnemonic::Inc => self.set_operand(&i, self.operand(&i, 0) + 1),
            Mnemonic::Xor => self.set_operand(&i, self.operand(&i, 0) ^ self.operand(&i, 1)),
            Mnemonic::And => self.set_operand(&i, self.operand(&i, 0) & self.operand(&i, 1)),
            Mnemonic::Or => self.set_operand(&i, self.operand(&i, 0) | self.operand(&i, 1)),
            Mnemonic::Cld => {}
            Mnemonic::Movsd => {
                let (si, di) = (self.gpr[6] as u16, self.gpr[DI] as u16);
                let value = self.ram.u32(linear(self.ds, si));
                self.ram
                    .write(linear(self.es, di), &value.to_le_bytes())
                    .unwrap();
                self.set_register(Register::SI, si.wrapping_add(4).into());
                self.set_register(Register::DI, di.wrapping_add(4).into());
            }
            Mnemonic::Iret => {
                (self.ip, self.cs) = (self.pop(), self.pop());
                let carry = self.pop() & 1 != 0;
                return Some(End::Returned { carry });
            }
            m => panic!("{m:?} at {:#x}", self.ip),
        }
        None
    }
}

/// The general registers before a call, and what came of it.
struct Call {
    gpr: [u32; 8],
    end: End,
}

const BUFFER: (u16, u16) = (0x1000, 0x0040);

/// INT 15h as real mode does it, with every register that must survive set to
/// something recognisable and checked.
fn int15(ram: &mut Ram, eax: u32, ebx: u32, ecx: u32, edx: u32) -> Call {
    let before = [
        eax,
        ecx,
        edx,
        ebx,
        u32::from(STACK.1),
        0xbbbb,
        0x5151,
        u32::from(BUFFER.1),
    ];
    let (offset, segment) = (ram.u16(0x15 * 4), ram.u16(0x15 * 4 + 2));
    let mut cpu = Cpu {
        ram,
        gpr: before,
        cs: segment,
        ds: 0x3333,
        es: BUFFER.0,
        ss: STACK.0,
        ip: offset,
        zero: false,
        carry: false,
    };
    // The carry flag of the caller is the opposite of what should come back,
    // so an untouched one is seen; other flags must come back as they were.
    cpu.push(0x0246 | u16::from(eax >> 16 == 1));
    cpu.push(0x7c0);
    cpu.push(0x123);
    for _ in 0..200 {
        if let Some(end) = cpu.step() {
            if matches!(end, End::Returned { .. }) {
                assert_eq!((cpu.cs, cpu.ip), (0x7c0, 0x123));
                assert_eq!(cpu.gpr[SP..], before[SP..], "SP, BP, SI, DI");
                let flags = cpu.ram.u16(linear(STACK.0, STACK.1 - 2));
                assert_eq!(flags & !1, 0x246);
            } else {
                assert_eq!(cpu.gpr, {
                    let mut g = before;
                    g[SP] -= 6;
                    g
                });
            }
            assert_eq!((cpu.ds, cpu.es, cpu.ss), (0x3333, BUFFER.0, STACK.0));
            return Call { gpr: cpu.gpr, end };
        }
    }
    panic!("it does not return");
}

fn buffer() -> u64 {
    linear(BUFFER.0, BUFFER.1)
}

const OK: End = End::Returned { carry: false };
const FAILED: End = End::Returned { carry: true };

/// RAM with a BIOS: vector 15h at f000:f859, 639 KiB of base memory.
fn machine() -> Ram {
    let mut ram = Ram::new(2 * MIB);
    ram.put(0x15 * 4, &[0x59, 0xf8, 0x00, 0xf0]);
    ram.put(0x413, &639u16.to_le_bytes());
    ram
}

/// The map as a caller in real mode reads it, with a buffer of `room` bytes.
fn read_map(ram: &mut Ram, room: u32) -> Vec<(u64, u64, u32)> {
    let mut entries = Vec::new();
    let mut ebx = 0;
    loop {
        ram.put(buffer(), &[0xee; 32]);
        // Upper half of EAX: the carry flag starts set.
        let call = int15(ram, 0x1_e820, ebx, room, SMAP);
        assert_eq!(call.end, OK);
        assert_eq!((call.gpr[A], call.gpr[D]), (SMAP, SMAP));
        assert_eq!(call.gpr[C], if room >= 24 { 24 } else { 20 });
        let attributes = if room >= 24 { 1 } else { 0xeeee_eeee };
        assert_eq!(ram.u32(buffer() + 20), attributes);
        assert_eq!(ram.u64(buffer() + 24), 0xeeee_eeee_eeee_eeee);
        entries.push((
            ram.u64(buffer()),
            ram.u64(buffer() + 8),
            ram.u32(buffer() + 16),
        ));
        ebx = call.gpr[B];
        if ebx == 0 {
            return entries;
        }
    }
}

fn as_read(map: &MemoryMap) -> Vec<(u64, u64, u32)> {
    map.entries()
        .iter()
        .map(|e| (e.start, e.len(), e.kind.number()))
        .collect()
}

#[test]
fn e820_gives_the_map_with_umbra_and_the_block_reserved() {
    let mut ram = machine();
    let mut map = pc_map(128, 16);
    let Installed { block, chained } = install(&mut ram, &mut map, &[]).unwrap();
    assert_eq!(chained, (0xf000, 0xf859));
    assert_eq!(block, Region::new(638 * 1024, 1024));
    assert_eq!(ram.u16(0x413), 638);
    for room in [20, 23, 24, 255] {
        assert_eq!(read_map(&mut ram, room), as_read(&map));
    }
    assert_eq!(map.entries()[1].start, 638 * 1024);
    assert_eq!(map.entries()[1].kind, Kind::RESERVED);
    assert_eq!(map.usable_from(MIB), 111 * MIB);
}

#[test]
fn e820_refuses_what_the_interface_refuses() {
    let mut ram = machine();
    let mut map = pc_map(128, 16);
    install(&mut ram, &mut map, &[]).unwrap();
    let n = map.entries().len() as u32;
    ram.put(buffer(), &[0xee; 32]);
    for (ebx, ecx, edx) in [
        (0, 20, SMAP + 1),
        (0, 19, SMAP),
        (0, 0, SMAP),
        (n, 20, SMAP),
        (0x1_0000, 20, SMAP),
        (u32::MAX, 20, SMAP),
    ] {
        let call = int15(&mut ram, 0xe820, ebx, ecx, edx);
        assert_eq!(call.end, FAILED, "{ebx:#x} {ecx} {edx:#x}");
        assert_eq!(call.gpr[A], 0x8620);
        assert_eq!((call.gpr[B], call.gpr[C], call.gpr[D]), (ebx, ecx, edx));
    }
    assert!(ram.bytes(buffer(), 32).iter().all(|&b| b == 0xee));
}

#[test]
fn older_functions_give_sizes_without_umbra() {
    for (mib, e801, f88) in [
        (128, (15 * 1024, 96 * 16), 63 * 1024),
        (32, (15 * 1024, 0), 15 * 1024),
        (24, (7 * 1024, 0), 7 * 1024),
    ] {
        let mut ram = machine();
        let mut map = pc_map(mib, 16);
        install(&mut ram, &mut map, &[]).unwrap();
        let call = int15(&mut ram, 0x1_e801, 0, 0, 0);
        assert_eq!(call.end, OK);
        let low = call.gpr.map(|r| r & 0xffff);
        assert_eq!((low[A], low[B]), e801, "{mib} MiB");
        assert_eq!((low[C], low[D]), e801);
        let call = int15(&mut ram, 0x1_8800, 1, 2, 3);
        assert_eq!(call.end, OK);
        assert_eq!(call.gpr[A] & 0xffff, f88);
        assert_eq!((call.gpr[B], call.gpr[C], call.gpr[D]), (1, 2, 3));
        for ax in [0xe881, 0xda88, 0x8a00, 0x8aff, 0xc700] {
            let call = int15(&mut ram, ax, 1, 2, 3);
            assert_eq!(call.end, FAILED, "{ax:#x}");
            assert_eq!(call.gpr[A] >> 8, 0x86);
        }
    }
}

#[test]
fn other_functions_reach_the_old_handler_untouched() {
    let mut ram = machine();
    install(&mut ram, &mut pc_map(128, 16), &[]).unwrap();
    for ax in [
        0x0000, 0x2400, 0x2401, 0x8600, 0x8700, 0x8900, 0xc000, 0xe802, 0xec00, 0xe980,
    ] {
        assert_eq!(
            int15(&mut ram, ax, 1, 2, 3).end,
            End::Chained {
                segment: 0xf000,
                offset: 0xf859
            },
            "{ax:#x}"
        );
    }
}

#[test]
fn blocks_stack_each_below_the_one_before() {
    let mut ram = machine();
    let mut map = pc_map(256, 16);
    let mut below = 640 * 1024;
    for level in 1..=4 {
        // Each level hides 16 MiB more, and starts from what the BIOS says.
        let mut seen = MemoryMap::new();
        if level > 1 {
            for (start, len, kind) in read_map(&mut ram, 20) {
                seen.add(start, len, Kind::new(kind)).unwrap();
            }
            assert_eq!(seen, map);
            map = seen;
            map.reserve(Region::new((256 - 16 * level) * MIB, 16 * MIB))
                .unwrap();
        }
        let installed = install(&mut ram, &mut map, &[]).unwrap();
        assert!(installed.block.start + installed.block.len <= below);
        below = installed.block.start;
        assert_eq!(read_map(&mut ram, 24), as_read(&map));
    }
    assert_eq!(map.usable_from(MIB), (256 - 64 - 1) * MIB);
    // Other calls go down the whole chain.
    assert!(matches!(
        int15(&mut ram, 0x2400, 0, 0, 0).end,
        End::Chained { offset: 0xf859, .. }
    ));
}

#[test]
fn a_map_of_many_entries_takes_more_room() {
    let mut ram = machine();
    let mut map = pc_map(128, 16);
    for i in 0..240 {
        map.add(0x1_0000_0000 + i * 0x2000, 0x1000, Kind::RESERVED)
            .unwrap();
    }
    let installed = install(&mut ram, &mut map, &[]).unwrap();
    assert!(installed.block.len >= 208 + 20 * map.entries().len() as u64);
    assert_eq!(read_map(&mut ram, 20), as_read(&map));
}

#[test]
fn what_is_needed_in_base_memory_is_spared() {
    let mut ram = machine();
    let module = Region::new(637 * 1024 + 5, 1500);
    let installed = install(&mut ram, &mut pc_map(128, 16), &[module]).unwrap();
    assert_eq!(installed.block.start, 636 * 1024);
    assert!(
        ram.bytes(module.start, module.len)
            .iter()
            .all(|&b| b == 0xcc)
    );
}

#[test]
fn base_memory_that_cannot_be_is_refused() {
    for kib in [0, 64, 641, 0xffff] {
        let mut ram = machine();
        ram.put(0x413, &(kib as u16).to_le_bytes());
        let before = ram.clone();
        let mut map = pc_map(128, 16);
        assert!(matches!(
            install(&mut ram, &mut map, &[]),
            Err(Error::BaseMemory { .. })
        ));
        assert!(ram.0 == before.0);
        assert_eq!(map, pc_map(128, 16));
    }
}

//! The CPU as the firmware runs it: the state in which L1 begins.

use crate::arch::{cr, msr};
use core::arch::asm;
use umbra_arch::AccessRights;
use umbra_guests::{GeneralRegisters, Segment, StartState, TableRegister};

const FS_BASE: u32 = msr::IA32_FS_BASE;
const GS_BASE: u32 = msr::IA32_GS_BASE;
/// Access rights of a segment register that holds nothing.
const UNUSABLE: u32 = AccessRights::UNUSABLE.into_bits();
const BUSY_TSS: u32 = AccessRights::TSS_BUSY.into_bits();
/// "Accessed": VM entry wants it set in every usable segment.
const ACCESSED: u32 = 1;

/// Where L1 begins.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// RIP.
    pub rip: u64,
    /// RSP, on the firmware's stack.
    pub rsp: u64,
    /// CR3: the firmware's own tables.
    pub cr3: u64,
    /// RAX.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
}

/// The registers of this CPU, with `begin` in the place of those that differ.
pub fn capture(begin: &Begin) -> StartState {
    let gdtr = table_register(Table::Gdt);
    let [es, cs, ss, ds, fs, gs, tr] = selectors();
    let data = |selector| segment(&gdtr, selector);
    StartState {
        gpr: GeneralRegisters {
            rax: begin.rax,
            rcx: begin.rcx,
            rsp: begin.rsp,
            ..GeneralRegisters::default()
        },
        rip: begin.rip,
        rflags: flags(),
        cr0: cr::cr0(),
        cr3: begin.cr3,
        cr4: cr::cr4(),
        efer: msr::read(msr::IA32_EFER),
        cs: data(cs),
        ss: data(ss),
        ds: data(ds),
        es: data(es),
        fs: Segment {
            base: msr::read(FS_BASE),
            ..data(fs)
        },
        gs: Segment {
            base: msr::read(GS_BASE),
            ..data(gs)
        },
        ldtr: Segment {
            selector: 0,
            base: 0,
            limit: 0,
            access_rights: UNUSABLE,
        },
        tr: task(&gdtr, tr),
        gdtr,
        idtr: table_register(Table::Idt),
    }
}

enum Table {
    Gdt,
    Idt,
}

fn table_register(which: Table) -> TableRegister {
    #[repr(C, packed)]
    struct Stored {
        limit: u16,
        base: u64,
    }
    let mut stored = Stored { limit: 0, base: 0 };
    let to = &raw mut stored;
    match which {
        // SAFETY: stores ten bytes there.
        Table::Gdt => unsafe { asm!("sgdt [{}]", in(reg) to, options(nostack, preserves_flags)) },
        // SAFETY: as above.
        Table::Idt => unsafe { asm!("sidt [{}]", in(reg) to, options(nostack, preserves_flags)) },
    }
    TableRegister {
        base: stored.base,
        limit: stored.limit,
    }
}

/// ES, CS, SS, DS, FS, GS, TR.
fn selectors() -> [u16; 7] {
    let (es, cs, ss, ds, fs, gs, tr): (u16, u16, u16, u16, u16, u16, u16);
    // SAFETY: only reads registers.
    unsafe {
        asm!(
            "mov {0:x}, es", "mov {1:x}, cs", "mov {2:x}, ss", "mov {3:x}, ds",
            "mov {4:x}, fs", "mov {5:x}, gs", "str {6:x}",
            out(reg) es, out(reg) cs, out(reg) ss, out(reg) ds, out(reg) fs, out(reg) gs,
            out(reg) tr,
            options(nomem, nostack, preserves_flags),
        );
    }
    [es, cs, ss, ds, fs, gs, tr]
}

fn flags() -> u64 {
    let flags: u64;
    // SAFETY: only reads RFLAGS, by way of the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags
}

/// Eight bytes of the firmware's GDT.
fn descriptor(gdtr: &TableRegister, selector: u16) -> u64 {
    let offset = u64::from(selector & !7);
    if offset + 7 > u64::from(gdtr.limit) {
        return 0;
    }
    // SAFETY: within the GDT in use, which the firmware's tables map.
    unsafe { ((gdtr.base + offset) as *const u64).read_unaligned() }
}

fn segment(gdtr: &TableRegister, selector: u16) -> Segment {
    let raw = descriptor(gdtr, selector);
    if selector & !3 == 0 || raw == 0 {
        return Segment {
            selector,
            base: 0,
            limit: 0,
            access_rights: UNUSABLE,
        };
    }
    Segment {
        selector,
        base: base_of(raw),
        limit: limit_of(raw),
        access_rights: (raw >> 40) as u32 & 0xf0ff | ACCESSED,
    }
}

fn base_of(raw: u64) -> u64 {
    raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000
}

fn limit_of(raw: u64) -> u32 {
    let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
    if raw & 1 << 55 != 0 {
        limit << 12 | 0xfff
    } else {
        limit
    }
}

/// TR; firmware mostly has none, and VM entry wants one.
fn task(gdtr: &TableRegister, selector: u16) -> Segment {
    let raw = descriptor(gdtr, selector);
    if selector & !3 == 0 || raw == 0 {
        return Segment {
            selector: 0,
            base: 0,
            limit: 0xffff,
            access_rights: BUSY_TSS,
        };
    }
    let upper = descriptor(gdtr, selector + 8) & 0xffff_ffff;
    Segment {
        selector,
        base: base_of(raw) | upper << 32,
        limit: limit_of(raw),
        access_rights: BUSY_TSS | (raw >> 40) as u32 & 0x8000,
    }
}

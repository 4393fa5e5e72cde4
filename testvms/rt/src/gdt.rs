//! A CPU's own descriptor table and task state.

use core::arch::asm;
use core::cell::UnsafeCell;

/// 64-bit code, privilege level 0.
pub const CODE64: u16 = 0x08;
/// Flat data, privilege level 0.
pub const DATA: u16 = 0x10;
/// 32-bit code (compatibility mode), privilege level 0.
pub const CODE32: u16 = 0x18;
/// 16-bit code, privilege level 0.
pub const CODE16: u16 = 0x20;
/// 16-bit data, privilege level 0.
pub const DATA16: u16 = 0x28;
/// 32-bit code, privilege level 3, with its RPL.
pub const USER_CODE32: u16 = 0x33;
/// Flat data, privilege level 3, with its RPL.
pub const USER_DATA: u16 = 0x3b;
/// 64-bit code, privilege level 3, with its RPL.
pub const USER_CODE64: u16 = 0x43;
/// The task-state segment (two slots).
pub const TSS: u16 = 0x48;

/// The first slot that is for tests.
pub const FREE: u16 = 0x58;

/// Writes one of the slots that are for tests, in the running CPU's table. `selector` names it.
pub fn set_slot(selector: u16, descriptor: u64) {
    let slot = usize::from(selector >> 3);
    assert!((FREE..=LIMIT).contains(&selector), "slot {slot} is taken");
    // SAFETY: the slot is free, below the limit, and no other CPU writes this table.
    unsafe {
        (this().gdt.get().cast::<u64>())
            .add(slot)
            .write_volatile(descriptor)
    };
}

/// Slots of the table; those after the TSS are for tests.
pub const SLOTS: usize = 16;

/// CPUs that have tables: the one that booted, and those that [`smp`](crate::smp) starts.
pub const MAX_CPUS: usize = 8;

#[repr(C, align(16))]
struct Tables {
    gdt: UnsafeCell<[u64; SLOTS]>,
    tss: UnsafeCell<[u32; 26]>,
    stacks: UnsafeCell<[[u8; 16384]; 3]>,
}

// SAFETY: each is written only by the CPU that uses it, with interrupts off, or before that CPU
// is started.
unsafe impl Sync for Tables {}

static TABLES: [Tables; MAX_CPUS] = [const {
    Tables {
        gdt: UnsafeCell::new([
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_9b00_0000_ffff,
            0x0000_9b00_0000_ffff,
            0x0000_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]),
        tss: UnsafeCell::new([0; 26]),
        stacks: UnsafeCell::new([[0; 16384]; 3]),
    }
}; MAX_CPUS];

/// Which CPU runs this, by the table that it has loaded; one that has none of these counts as the
/// one that booted.
pub fn cpu_index() -> usize {
    let mut pointer = [0u16; 5];
    // SAFETY: SGDT stores ten bytes.
    unsafe { asm!("sgdt [{}]", in(reg) pointer.as_mut_ptr(), options(nostack, preserves_flags)) };
    let base = (1..5).fold(0, |base, n| base | u64::from(pointer[n]) << (16 * (n - 1)));
    let offset = base.wrapping_sub(TABLES.as_ptr() as u64);
    let index = offset / size_of::<Tables>() as u64;
    if index < MAX_CPUS as u64 {
        index as usize
    } else {
        0
    }
}

fn this() -> &'static Tables {
    &TABLES[cpu_index()]
}

/// The address of this CPU's descriptor table.
pub fn base() -> u64 {
    this().gdt.get() as u64
}

/// The address of the descriptor table of another CPU.
pub(crate) fn base_of(index: usize) -> u64 {
    TABLES[index].gdt.get() as u64
}

/// The address of this CPU's task-state segment.
pub fn tss_base() -> u64 {
    this().tss.get() as u64
}

/// The limit of the descriptor table, in bytes less one.
pub const LIMIT: u16 = (SLOTS * 8 - 1) as u16;

/// Fills this CPU's task state in and loads everything.
pub(crate) fn init() {
    let tables = this();
    let stacks = tables.stacks.get() as u64;
    let tss = tables.tss.get();
    // SAFETY: only the CPU that uses it writes it, and no reference to it exists.
    unsafe {
        let top = |n: u64| stacks + n * 16384;
        for (slot, address) in [(1, top(1)), (9, top(1)), (11, top(2)), (13, top(3))] {
            (*tss)[slot] = address as u32;
            (*tss)[slot + 1] = (address >> 32) as u32;
        }
        // No I/O permission map: its offset lies beyond the limit.
        (*tss)[25] = 104 << 16;
    }
    reload();
}

/// Loads GDTR, all segment registers and TR anew: after a test left them otherwise.
pub fn reload() {
    let pointer: [u16; 5] = pointer(LIMIT, base());
    let tss = tss_base();
    // SAFETY: the slots written describe the TSS above as available, which LTR needs; the table
    // and TSS live for ever; CS gets the 64-bit code segment that is running already.
    unsafe {
        let gdt = this().gdt.get();
        (*gdt)[9] = 103 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        (*gdt)[10] = tss >> 32;
        asm!(
            "lgdt [{pointer}]",
            "push {code}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "mov fs, {null:e}",
            "mov gs, {null:e}",
            "ltr {task:x}",
            pointer = in(reg) pointer.as_ptr(),
            code = const CODE64,
            t = out(reg) _,
            data = in(reg) DATA as u32,
            null = in(reg) 0u32,
            task = in(reg) TSS as u32,
            options(preserves_flags),
        );
    }
}

/// The memory operand of LGDT and LIDT.
pub fn pointer(limit: u16, base: u64) -> [u16; 5] {
    [
        limit,
        base as u16,
        (base >> 16) as u16,
        (base >> 32) as u16,
        (base >> 48) as u16,
    ]
}

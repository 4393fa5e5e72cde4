//! Hardware task switches: by JMP, CALL, INT and IRET, to TSSs with anything in them, and those that
//! fail, as an instruction and as the delivery of an exception.
//!
//! SDM "Task Switching", "Task-State Segment", "Interrupt 8 - Double Fault Exception (#DF)".

use core::arch::global_asm;
use rt::case;

use rt::page::Page;
use rt::trip;

global_asm!(include_str!("tasks.S"));

unsafe extern "C" {
    static tasks_go: u8;
    static tasks_new: u8;
    static mut tasks_gdt: [u64; 16];
    static mut tasks_idt: [u64; 49];
    static mut tasks_old: [u32; 26];
    static mut tasks_next: [u32; 26];
    static mut tasks_out: [u32; 16];
    static mut tasks_directory: u32;
    static mut tasks_vector: u32;
    static tasks_handlers: [[u32; 2]; 8];
}

/// A linear address that no page is mapped at.
const NOWHERE: u32 = 0x4000_0000;
/// Ways to start a switch, as `tasks_go` numbers them.
const WAYS: [(u32, &str); 4] = [(0, "JMP"), (1, "CALL"), (2, "INT"), (3, "IRET")];
const PAGING: u32 = 4;
const EXCEPTION: u32 = 8;

/// What a case asks for.
#[derive(Clone, Copy)]
struct Case {
    how: u32,
    /// In the new TSS.
    eflags: u32,
    is_16_bit: bool,
    /// The debug-trap flag.
    traps: bool,
    /// The base of the new TSS; 0 for the one there is.
    base: u32,
    /// The limit of the new TSS, its present bit, its CS, DS and LDT.
    limit: u16,
    is_present: bool,
    selectors: [u16; 3],
    /// The exception to begin with.
    vector: u32,
}

const PLAIN: Case = Case {
    how: 0,
    eflags: 2,
    is_16_bit: false,
    traps: false,
    base: 0,
    limit: 0x67,
    is_present: true,
    selectors: [0x18, 0x10, 0],
    vector: 0,
};

fn address<T>(of: *const T) -> u32 {
    of as usize as u32
}

fn tss(base: u32, kind: u64, limit: u16, is_present: bool) -> u64 {
    let base = u64::from(base);
    let present = if is_present { 0x80 } else { 0 };
    u64::from(limit) | (base & 0xff_ffff) << 16 | (kind | present) << 40 | (base >> 24) << 56
}

/// Fills the tables in for a case.
fn prepare(case: &Case, stack: u32) {
    let is_iret = case.how & (3 | EXCEPTION) == 3;
    let kind = if case.is_16_bit { 1 } else { 9 } | if is_iret { 2 } else { 0 };
    let base = match case.base {
        0 => address(&raw const tasks_next),
        base => base,
    };
    let task_gate = 0x28u64 << 16 | 0x8500 << 32;
    // SAFETY: statics of the code in tasks.S, which is not running, used by nobody else.
    unsafe {
        tasks_gdt = [0; 16];
        tasks_gdt[2] = 0x00cf_9300_0000_ffff;
        tasks_gdt[3] = 0x00cf_9b00_0000_ffff;
        tasks_gdt[4] = tss(address(&raw const tasks_old), 9, 0x67, true);
        tasks_gdt[5] = tss(base, kind, case.limit, case.is_present);
        // An LDT, a data segment that is not present, code that ends at its first page, a call gate.
        tasks_gdt[6] = tss(address(&raw const tasks_gdt), 2, 0x7f, true);
        tasks_gdt[7] = 0x00cf_1300_0000_ffff;
        tasks_gdt[8] = 0x0040_9b00_0000_0fff;
        tasks_gdt[9] = 0x0000_8c00_0018_0000;
        // A 16-bit TSS leaves ESP's upper half at ones: a stack that such an ESP is right for.
        let base = u64::from(stack.wrapping_sub(0x1000).wrapping_sub(0xffff_0000));
        tasks_gdt[10] = 0x00cf_9300_0000_ffff | (base & 0xff_ffff) << 16 | (base >> 24) << 56;
        for [vector, handler] in tasks_handlers {
            let handler = u64::from(handler);
            tasks_idt[vector as usize] =
                handler & 0xffff | 0x18 << 16 | 0x8e00 << 32 | (handler >> 16) << 48;
        }
        tasks_idt[0x30] = task_gate;
        if case.how & EXCEPTION != 0 {
            tasks_idt[case.vector as usize] = task_gate;
        }
        tasks_vector = case.vector;
        tasks_old = [0; 26];
        // A switch loads CR3 and never stores it.
        tasks_old[7] = tasks_directory;
        tasks_out = [0; 16];
        let next = &raw mut tasks_next;
        (*next) = [0; 26];
        let start = address(&raw const tasks_new);
        let [cs, ds, ldt] = case.selectors;
        if case.is_16_bit {
            // From IP on: IP, FLAGS, eight registers, ES, CS, SS, DS, LDT. Code above 64 KiB is not
            // reached: the fault says where the task was.
            let words = next.cast::<u16>();
            for (n, value) in [0x1234, case.eflags as u16].into_iter().enumerate() {
                *words.add(7 + n) = value;
            }
            for n in 0..8 {
                *words.add(9 + n) = 0x1000;
            }
            for (n, value) in [0x10, 0x40, 0x50, ds, ldt].into_iter().enumerate() {
                *words.add(17 + n) = value;
            }
        } else {
            (*next)[7] = tasks_directory;
            (*next)[8] = start;
            (*next)[9] = case.eflags;
            (*next)[14] = stack;
            for (n, value) in [0x10, cs, 0x10, ds, 0x10, 0x10, ldt]
                .into_iter()
                .enumerate()
            {
                (*next)[18 + n] = u32::from(value);
            }
            (*next)[25] = 0x68 << 16 | u32::from(case.traps);
        }
    }
}

/// Runs a case and says what came of it.
fn run_case(name: core::fmt::Arguments<'_>, case: &Case, stack: u32) {
    prepare(case, stack);
    // SAFETY: outside VMX operation; the code returns as it was called.
    unsafe { trip::call32(&raw const tasks_go as u32, case.how) };
    // SAFETY: as above; the code has run.
    let out = unsafe { (&raw const tasks_out).read_volatile() };
    if out[8] != 0 {
        let at = match out[10] {
            at if at < 0x1000 => at,
            _ => 0xfff,
        };
        case!(
            "task {name}: #{} code {:x} at +{at:x} flags {:x} TR {:x}",
            out[8],
            out[9],
            out[11],
            out[12]
        );
        return;
    }
    case!(
        "task {name}: flags {:x} TR {:x} TS {} DR7 {:x} link {:x} old flags {:x} stack {} then {:x}; DR6 {:x} flags {:x} at +{:x}",
        out[0],
        out[1],
        out[2] >> 3,
        out[3],
        out[4],
        out[5],
        out[6] == stack,
        out[7],
        out[13],
        out[14],
        if out[13] == 0 { 0 } else { out[15] }
    );
}

/// Makes the switches.
pub fn run() {
    let directory = Page::alloc(1);
    // Supervisor pages of 4 MiB, 64 MiB of them, one to one.
    for n in 0..16u64 {
        directory.write(n * 4, (n << 22) as u32 | 0x83);
    }
    let stack = Page::alloc(1).address() as u32 + 0x1000;
    // SAFETY: as in `prepare`.
    unsafe { tasks_directory = directory.address() as u32 };
    for (how, way) in WAYS {
        for eflags in [
            2,
            0,
            0xa,
            0x22,
            0x8002,
            0x8000_0002,
            0xffc0_802a,
            0x1_0002,
            0x4_0002,
            0x20_0cd7,
            0x18_3002,
        ] {
            let case = Case {
                how,
                eflags,
                ..PLAIN
            };
            run_case(format_args!("{way} {eflags:x}"), &case, stack);
        }
        for traps in [false, true] {
            let case = Case {
                how: how | PAGING,
                eflags: 0x8002,
                traps,
                ..PLAIN
            };
            run_case(format_args!("{way} T {traps}"), &case, stack);
        }
        let case = Case {
            how,
            eflags: 0x102,
            ..PLAIN
        };
        run_case(format_args!("{way} TF"), &case, stack);
        let case = Case {
            how,
            eflags: 0x1_0002,
            traps: true,
            ..PLAIN
        };
        run_case(format_args!("{way} T RF"), &case, stack);
        // A new task that cannot be, seen from the old one, and seen from the new one.
        for (what, case) in [
            (
                "absent",
                Case {
                    is_present: false,
                    ..PLAIN
                },
            ),
            (
                "short",
                Case {
                    limit: 0x66,
                    ..PLAIN
                },
            ),
            (
                "no CS",
                Case {
                    selectors: [0x10, 0x10, 0],
                    ..PLAIN
                },
            ),
            (
                "absent DS",
                Case {
                    selectors: [0x18, 0x38, 0],
                    ..PLAIN
                },
            ),
            (
                "no DS",
                Case {
                    selectors: [0x18, 0x48, 0],
                    ..PLAIN
                },
            ),
            (
                "LDT",
                Case {
                    selectors: [0x18, 0x14, 0x30],
                    ..PLAIN
                },
            ),
            (
                "EIP",
                Case {
                    selectors: [0x40, 0x10, 0],
                    ..PLAIN
                },
            ),
            (
                "16-bit",
                Case {
                    is_16_bit: true,
                    eflags: 0x802a,
                    limit: 0x2b,
                    ..PLAIN
                },
            ),
        ] {
            let case = Case { how, ..case };
            run_case(format_args!("{way} {what}"), &case, stack);
        }
        let case = Case {
            how: how | PAGING,
            base: NOWHERE,
            ..PLAIN
        };
        run_case(format_args!("{way} nowhere"), &case, stack);
    }
    // The same as the delivery of an exception: benign, contributory, page fault.
    for vector in [6, 13, 14] {
        for (what, case) in [
            ("good", PLAIN),
            (
                "nowhere",
                Case {
                    base: NOWHERE,
                    ..PLAIN
                },
            ),
            (
                "absent",
                Case {
                    is_present: false,
                    ..PLAIN
                },
            ),
            (
                "short",
                Case {
                    limit: 0x66,
                    ..PLAIN
                },
            ),
            (
                "absent DS",
                Case {
                    selectors: [0x18, 0x38, 0],
                    ..PLAIN
                },
            ),
        ] {
            let case = Case {
                how: PAGING | EXCEPTION,
                vector,
                ..case
            };
            if what == "good" {
                // The handler's task would go back to the faulting instruction.
                continue;
            }
            run_case(format_args!("#{vector} {what}"), &case, stack);
        }
    }
}

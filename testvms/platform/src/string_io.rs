//! INS and OUTS at COM1, whose ports a hypervisor that shares the line looks at.
//!
//! SDM "INS/INSB/INSW/INSD", "OUTS/OUTSB/OUTSW/OUTSD".

use core::arch::asm;
use rt::case;

use rt::cpu::{inb, outb};
use rt::page::Page;
use rt::trap;
use rt::window::{PRESENT, WRITE, Window};

use crate::probe::Shown;

const DATA: u16 = 0x3f8;
const LINE_CONTROL: u16 = 0x3fb;
const SCRATCH: u16 = 0x3ff;
const FS_BASE: u32 = 0xc000_0100;

/// Registers after a string instruction.
struct After {
    pointer: u64,
    count: u64,
    fault: Option<trap::Fault>,
}

macro_rules! string_io {
    ($($name:ident $register:tt $($line:literal),+;)*) => {$(
        fn $name(port: u16, mut pointer: u64, mut count: u64) -> After {
            // SAFETY: guarded; the memory is a page of the caller's, or faults.
            unsafe {
                asm!("lea {t}, [rip + 77f]", "mov [rip + RT_RECOVER_RIP], {t}",
                    $($line,)+
                    "77:", "mov qword ptr [rip + RT_RECOVER_RIP], 0", "cld",
                    t = out(reg) _, in("dx") port, inout($register) pointer,
                    inout("rcx") count);
            }
            After { pointer, count, fault: trap::take() }
        }
    )*};
}

string_io! {
    rep_outsb "rsi" "rep outsb";
    one_outsb "rsi" "outsb";
    rep_outsb_down "rsi" "std", "rep outsb";
    rep_outsb_32 "rsi" ".byte 0x67, 0xf3, 0x6e";
    rep_outsb_fs "rsi" ".byte 0x64, 0xf3, 0x6e";
    rep_insb "rdi" "rep insb";
    rep_insb_down "rdi" "std", "rep insb";
    one_insb "rdi" "insb";
}

fn show(what: &str, from: u64, after: &After) {
    let moved = after.pointer.wrapping_sub(from) as i64;
    match after.fault {
        Some(fault) => case!(
            "{what}: {}, moved {moved}, {} left",
            Shown::<u64>(Err(fault)),
            after.count
        ),
        None => case!("{what}: moved {moved}, {} left", after.count),
    }
}

/// Waits until the line is idle: the FIFO then takes 16 bytes.
fn wait_for_line() {
    while inb(DATA + 5) & 0x60 != 0x60 {
        core::hint::spin_loop();
    }
}

/// Tries them.
pub fn run() {
    let window = Window::open();
    let page = Page::alloc(1);
    let at = page.address();
    // Each a line of the transcript that belongs to a case.
    page.write_bytes(0, b"  OUTSB, up.\n");
    page.write_bytes(0x80, b"\n.nwod ,BSTUO  ");
    page.write_bytes(4096 - 9, b"  fault.\n");
    wait_for_line();
    let up = rep_outsb(DATA, at, 13);
    wait_for_line();
    show("REP OUTSB", at, &up);
    wait_for_line();
    let down = rep_outsb_down(DATA, at + 0x8e, 15);
    wait_for_line();
    show("REP OUTSB, DF", at + 0x8e, &down);
    rt::print!("  OUTSB");
    wait_for_line();
    let one = one_outsb(DATA, at + 12, 9);
    wait_for_line();
    show("OUTSB of a line feed", at + 12, &one);
    let none = rep_outsb(DATA, 0x8000_0000_0000, 0);
    show("REP OUTSB of nothing", 0x8000_0000_0000, &none);
    wait_for_line();
    let narrow = rep_outsb_32(DATA, 0xabcd_0000_0000_0000 | at, 0x1_0000_000d);
    wait_for_line();
    show("REP OUTSB, 32-bit addresses", at, &narrow);
    // SAFETY: nothing here uses FS.
    unsafe { rt::cpu::wrmsr(FS_BASE, 0x80) };
    wait_for_line();
    let by_fs = rep_outsb_fs(DATA, at - 0x80, 13);
    wait_for_line();
    show("REP OUTSB, FS", at - 0x80, &by_fs);
    // SAFETY: as above.
    unsafe { rt::cpu::wrmsr(FS_BASE, 0) };

    let linear = window.map(0, at, PRESENT | WRITE) + 4096 - 9;
    wait_for_line();
    let faulting = rep_outsb(DATA, linear, 13);
    wait_for_line();
    show("REP OUTSB into a hole", linear, &faulting);
    let wild = rep_outsb(DATA, 0x8000_0000_0000, 4);
    show("REP OUTSB, not canonical", 0x8000_0000_0000, &wild);

    outb(SCRATCH, 0x5a);
    for (name, port) in [("scratch", SCRATCH), ("line control", LINE_CONTROL)] {
        page.fill(0);
        let up = rep_insb(port, at, 3);
        show("REP INSB", at, &up);
        let down = rep_insb_down(port, at + 12, 3);
        show("REP INSB, DF", at + 12, &down);
        let one = one_insb(port, at + 20, 7);
        show("INSB", at + 20, &one);
        case!(
            "REP INSB of {name}: {:x} {:x} {:x}",
            page.read::<u64>(0),
            page.read::<u64>(8),
            page.read::<u64>(16)
        );
        let linear = window.map(1, at, PRESENT);
        let read_only = rep_insb(port, linear, 3);
        show("REP INSB to a read-only page", linear, &read_only);
        let linear = window.map(2, at, PRESENT | WRITE) + 4094;
        let hole = rep_insb(port, linear, 3);
        show("REP INSB into a hole", linear, &hole);
    }
    for value in [0u8, 0xff, 0xa5] {
        page.write(0, value);
        let _ = rep_outsb(SCRATCH, at, 1);
        case!("OUTSB to the scratch register: {:x}", inb(SCRATCH));
    }
}

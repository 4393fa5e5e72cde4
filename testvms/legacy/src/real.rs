//! Real mode: no VMX instruction exists there.
//!
//! Outside VMX operation alone, which keeps CR0.PE set; the group `control` shows that.

use core::arch::global_asm;

use rt::gdt;
use rt::trap::vector_name;
use rt::vmx::CR4_VMXE;
use rt::{case, report};

use crate::bench::{Bench, FLAGS};
use crate::insn::{AT_BX, MEMORY, PLAIN};

/// A page of conventional memory that neither firmware nor loader uses any more: interrupt vectors, code,
/// what goes in and comes out, the instruction under test, the stack.
const LOW: u64 = 0x8000;
const CODE: u64 = 0x100;
const IN_OUT: u64 = 0x700;
const CELL: u64 = 0x800;

global_asm!(
    include_str!("real.S"),
    low = const LOW,
    code = const CODE,
    in_out = const IN_OUT,
    cell = const CELL,
    flat = const gdt::DATA,
    code16 = const gdt::CODE16,
    data16 = const gdt::DATA16,
    code32 = const gdt::CODE32,
);

unsafe extern "C" {
    static legacy_real: u8;
    static legacy_low: u8;
    static legacy_low_end: u8;
    static legacy_real_stubs: u8;
    static legacy_real_gdtr: u8;
}

/// What came of an instruction.
struct Outcome {
    vector: u16,
    ip: u16,
    flags: u16,
    /// Bytes that were left on the stack.
    left: u32,
}

/// Runs one instruction in real mode.
fn one(bytes: &[u8], cx: u32, bx: u32) -> Outcome {
    let low = LOW as *mut u8;
    let start = &raw const legacy_low as u64;
    // SAFETY: the low page is free memory, mapped one to one, and everything stays inside it: the code is
    // shorter than from CODE to IN_OUT. The code keeps the contract of `call32`, as every vector of
    // its table leads back to it.
    unsafe {
        core::ptr::write_bytes(low, 0xcc, 0x1000);
        let length = &raw const legacy_low_end as u64 - start;
        assert!(
            length < IN_OUT - CODE,
            "the code for the low page is too long"
        );
        core::ptr::copy_nonoverlapping(start as *const u8, low.add(CODE as usize), length as usize);
        let stubs = CODE + (&raw const legacy_real_stubs as u64 - start);
        for vector in 0..32u64 {
            let entry = (LOW >> 4) << 16 | (stubs + vector * 8);
            low.cast::<u32>()
                .add(vector as usize)
                .write_volatile(entry as u32);
        }
        let gdtr = low.add((CODE + (&raw const legacy_real_gdtr as u64 - start)) as usize);
        gdtr.cast::<u16>().write_unaligned(gdt::LIMIT);
        gdtr.add(2)
            .cast::<u32>()
            .write_unaligned(gdt::base() as u32);
        for (n, value) in [FLAGS, cx, bx].into_iter().enumerate() {
            low.add(IN_OUT as usize + n * 4)
                .cast::<u32>()
                .write_volatile(value);
        }
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), low.add(CELL as usize), bytes.len());
        rt::trip::call32(&raw const legacy_real as u32, 0);
        let word = |n: usize| {
            low.add(IN_OUT as usize + n * 4)
                .cast::<u16>()
                .read_volatile()
        };
        Outcome {
            vector: word(0),
            ip: word(1),
            flags: word(3),
            left: 0x1000 - u32::from(word(4)),
        }
    }
}

/// Runs the group.
pub fn run(_: &Bench) {
    report::group(format_args!("real"));
    for (what, cr4) in [("VMXE 0", 0), ("VMXE 1", CR4_VMXE)] {
        // SAFETY: outside VMX operation the bit enables VMXON and nothing else.
        unsafe { rt::cpu::set_cr4(rt::cpu::cr4() | cr4) };
        let show = |name: &str, bytes: &[u8], cx| {
            let out = one(bytes, cx, 0x900);
            let moved = out.ip.wrapping_sub(CELL as u16);
            let name_of = vector_name(out.vector as u8);
            let changed = u32::from(out.flags) ^ FLAGS;
            case!(
                "{what} {name}: {name_of} ip+{moved:x} flags^{changed:x} left {}",
                out.left
            );
        };
        show("nop", &[0x90], 0);
        for insn in &MEMORY {
            show(insn.name, &insn.encode(&[], AT_BX), insn.ecx);
            show(insn.name, &insn.encode(&[0x67], &[0x03]), insn.ecx);
        }
        for (name, bytes) in PLAIN {
            show(name, bytes, 0);
        }
        // SAFETY: as above.
        unsafe { rt::cpu::set_cr4(rt::cpu::cr4() & !cr4) };
    }
}

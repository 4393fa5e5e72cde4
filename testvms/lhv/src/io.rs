//! I/O instructions: every form, unconditional exiting and the bitmaps.
//!
//! SDM "Exit Qualification for I/O Instructions", "I/O-Bitmap Addresses".

use rt::l2_code;
use rt::vmx::vm::{Code, Mode};
use umbra_vmcs::controls::Proc;
use umbra_vmcs::exit::Reason;

use crate::tester::Tester;

l2_code! {
    fn in8_imm = "in al, 0x60", "vmcall";
    fn in16_imm = "in ax, 0x60", "vmcall";
    fn in32_imm = "in eax, 0x60", "vmcall";
    fn out8_imm = "out 0x61, al", "vmcall";
    fn out16_imm = "out 0x61, ax", "vmcall";
    fn out32_imm = "out 0x61, eax", "vmcall";
    fn in8_dx = "in al, dx", "vmcall";
    fn in16_dx = "in ax, dx", "vmcall";
    fn in32_dx = "in eax, dx", "vmcall";
    fn out8_dx = "out dx, al", "vmcall";
    fn out16_dx = "out dx, ax", "vmcall";
    fn out32_dx = "out dx, eax", "vmcall";
    fn insb = "insb", "vmcall";
    fn insw = "insw", "vmcall";
    fn insd = "insd", "vmcall";
    fn rep_insb = "rep insb", "vmcall";
    fn outsb = "outsb", "vmcall";
    fn outsw = "outsw", "vmcall";
    fn outsd_gs = ".byte 0x65", "outsd", "vmcall";
    fn rep_outsd = "rep outsd", "vmcall";
}

/// IN.
const IN: u64 = 1 << 3;
/// A string instruction.
const STRING: u64 = 1 << 4;
/// With a REP prefix.
const REP: u64 = 1 << 5;
/// The port is an immediate operand.
const IMMEDIATE: u64 = 1 << 6;

/// Name, code, the qualification less the port, the immediate port.
type Row = (&'static str, fn() -> Code, u64);

const ROWS: [Row; 20] = [
    ("in al, imm", in8_imm, IN | IMMEDIATE | 0x60 << 16),
    ("in ax, imm", in16_imm, 1 | IN | IMMEDIATE | 0x60 << 16),
    ("in eax, imm", in32_imm, 3 | IN | IMMEDIATE | 0x60 << 16),
    ("out imm, al", out8_imm, IMMEDIATE | 0x61 << 16),
    ("out imm, ax", out16_imm, 1 | IMMEDIATE | 0x61 << 16),
    ("out imm, eax", out32_imm, 3 | IMMEDIATE | 0x61 << 16),
    ("in al, dx", in8_dx, IN | PORT << 16),
    ("in ax, dx", in16_dx, 1 | IN | PORT << 16),
    ("in eax, dx", in32_dx, 3 | IN | PORT << 16),
    ("out dx, al", out8_dx, PORT << 16),
    ("out dx, ax", out16_dx, 1 | PORT << 16),
    ("out dx, eax", out32_dx, 3 | PORT << 16),
    ("insb", insb, IN | STRING | PORT << 16),
    ("insw", insw, 1 | IN | STRING | PORT << 16),
    ("insd", insd, 3 | IN | STRING | PORT << 16),
    ("rep insb", rep_insb, IN | STRING | REP | PORT << 16),
    ("outsb", outsb, STRING | PORT << 16),
    ("outsw", outsw, 1 | STRING | PORT << 16),
    ("gs outsd", outsd_gs, 3 | STRING | PORT << 16),
    ("rep outsd", rep_outsd, 3 | STRING | REP | PORT << 16),
];

/// A port that no device answers.
const PORT: u64 = 0x5658;

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    for (name, code, qualification) in ROWS {
        t.fresh(&code());
        t.vm.proc(Proc::UNCONDITIONAL_IO_EXITING, Proc::USE_IO_BITMAPS);
        t.vm.registers.rdx = PORT;
        t.vm.registers.rsi = 0x9800;
        t.vm.registers.rdi = 0x9900;
        t.vm.registers.rcx = 3;
        let exit = t.exit_and_skip(name, Reason::Io);
        t.equal("qualification", exit.qualification, qualification);
        let is_end = t.vm.run();
        let is_end =
            matches!(is_end, rt::vmx::Outcome::Exit(exit) if exit.known() == Some(Reason::Vmcall));
        t.check("the VMCALL after it comes next", is_end);
    }

    t.fresh(&in32_dx());
    t.vm.proc(Proc::UNCONDITIONAL_IO_EXITING, Proc::USE_IO_BITMAPS);
    t.vm.registers.rdx = PORT;
    t.exit_and_skip("in, answered", Reason::Io);
    t.vm.registers.rax = 0xcafe_f00d;
    t.reach_end("in, then");
    t.equal("what L2 read", t.vm.registers.rax, 0xcafe_f00d);

    bitmaps(t);
}

/// One bit decides for each port; an access that touches any set bit exits, and so does one that
/// wraps around.
fn bitmaps(t: &mut Tester) {
    t.fresh(&out8_dx());
    t.vm.registers.rdx = 0x80;
    t.reach_end("bitmap clear, port 80");
    for (name, code, port, bit, exits) in [
        (
            "bitmap, port 80 byte",
            out8_dx as fn() -> Code,
            0x80u64,
            0x80u64,
            true,
        ),
        ("bitmap, port 80 for bit 81", out8_dx, 0x80, 0x81, false),
        (
            "bitmap, port 80 word for bit 81",
            out16_dx,
            0x80,
            0x81,
            true,
        ),
        (
            "bitmap, port 80 dword for bit 83",
            out32_dx,
            0x80,
            0x83,
            true,
        ),
        (
            "bitmap, port 80 dword for bit 84",
            out32_dx,
            0x80,
            0x84,
            false,
        ),
        (
            "bitmap, port 7fff word for bit 8000",
            in16_dx,
            0x7fff,
            0x8000,
            true,
        ),
        (
            "bitmap, port 8000 for bit 8000",
            in8_dx,
            0x8000,
            0x8000,
            true,
        ),
        (
            "bitmap, port ffff for bit ffff",
            in8_dx,
            0xffff,
            0xffff,
            true,
        ),
        (
            "bitmap, port ffff word wraps",
            in16_dx,
            0xffff,
            0x1234,
            true,
        ),
        (
            "bitmap, port fffd dword wraps",
            out32_dx,
            0xfffd,
            0x1234,
            true,
        ),
    ] {
        if t.mode == Mode::V86 && name.ends_with("wraps") {
            // The I/O permission map of the TSS ends at port FFFFH: #GP comes first.
            continue;
        }
        t.fresh(&code());
        let byte = t.vm.io_bitmaps.read::<u8>(bit / 8);
        t.vm.io_bitmaps.write(bit / 8, byte | 1 << (bit % 8));
        t.vm.registers.rdx = port;
        t.exit(name, if exits { Reason::Io } else { Reason::Vmcall });
    }

    t.fresh(&out8_dx());
    t.vm.io_bitmaps.fill(0xff);
    t.vm.proc(Proc::empty(), Proc::USE_IO_BITMAPS);
    t.vm.registers.rdx = 0x80;
    t.reach_end("bitmaps not used");

    t.fresh(&out8_dx());
    t.vm.proc(Proc::UNCONDITIONAL_IO_EXITING, Proc::empty());
    t.vm.registers.rdx = 0x80;
    t.reach_end("unconditional exiting is ignored with bitmaps");
}

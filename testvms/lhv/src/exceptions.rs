//! Exceptions in L2: through the exception bitmap to L1, or through L2's own table.
//!
//! SDM "Exception Bitmap", "Information for VM Exits Due to Vectored Events".

use rt::l2_code;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Mode, layout};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::events;
use crate::tester::Tester;

l2_code! {
    fn undefined = "ud2", "vmcall";
    fn breakpoint = "int3", "vmcall";
    fn debug = ".byte 0xf1", "vmcall";
    fn divide = "xor edx, edx", "xor ecx, ecx", "div ecx", "vmcall";
    fn no_fpu = "fld1", "vmcall";
    fn step = "nop", "vmcall";
    fn far_gate = "int 0x45", "vmcall";
    fn page_read = "mov eax, [0xc010]", "vmcall";
    fn page_write = "mov dword ptr [0xc010], 5", "vmcall";
    fn overflow {
        64 = "vmcall";
        32 = "mov eax, 0x7fffffff", "add eax, 1", "into", "vmcall";
        16 = "mov eax, 0x7fffffff", "add eax, 1", "into", "vmcall";
    }
    fn stack {
        64 = "mov rbp, 0x8000000000000000", "mov rax, [rbp]", "vmcall";
        32 = "vmcall";
        16 = "vmcall";
    }
}

/// Name, code, vector.
type Row = (&'static str, fn() -> Code, u8);

const ROWS: [Row; 7] = [
    ("#UD", undefined, 6),
    ("#BP", breakpoint, 3),
    ("#DB by ICEBP", debug, 1),
    ("#DE", divide, 0),
    ("#NM", no_fpu, 7),
    ("#OF", overflow, 4),
    ("#SS", stack, 12),
];

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    for (name, code, vector) in ROWS {
        let is_missing = match vector {
            4 => t.mode == Mode::Long,
            12 => t.mode != Mode::Long,
            _ => false,
        };
        if is_missing {
            continue;
        }
        t.fresh(&code());
        prepare(vector);
        write(field::EXCEPTION_BITMAP, 1 << vector);
        let exit = t.exit(name, Reason::ExceptionOrNmi);
        t.equal("vector", exit.interruption as u8, vector);

        t.fresh(&code());
        prepare(vector);
        write(field::EXCEPTION_BITMAP, !(1 << vector) & 0xffff_ffff);
        t.reach_end("in L2");
        events::check_handler(t, vector);
    }

    t.fresh(&step());
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | 1 << 8);
    write(field::EXCEPTION_BITMAP, 1 << 1);
    t.exit("#DB by single step", Reason::ExceptionOrNmi);

    t.fresh(&far_gate());
    write(field::GUEST_IDTR_LIMIT, 0x7f);
    write(field::EXCEPTION_BITMAP, 1 << 13);
    t.exit("#GP while INT is delivered", Reason::ExceptionOrNmi);

    t.fresh(&undefined());
    write(field::GUEST_IDTR_LIMIT, 0);
    write(field::EXCEPTION_BITMAP, 1 << 8);
    t.exit("#DF after #UD and #GP", Reason::ExceptionOrNmi);

    if !matches!(t.mode, Mode::Real | Mode::Flat32) {
        page_faults(t);
    }
}

/// What has to be set for a vector to come.
fn prepare(vector: u8) {
    if vector == 7 {
        write(field::GUEST_CR0, read(field::GUEST_CR0) | 1 << 3);
    }
}

/// Takes the page at C000H out of L2's own tables, or makes it read-only.
fn protect(t: &Tester, is_present: bool) {
    let is_32_bit = matches!(t.mode, Mode::Prot32 | Mode::V86);
    let at = layout::PAGE_TABLE + if is_32_bit { 4 } else { 8 } * 12;
    let entry = t.vm.memory.read::<u32>(at);
    t.vm.memory
        .write(at, if is_present { entry & !2 } else { entry & !1 });
    write(field::GUEST_CR0, read(field::GUEST_CR0) | 1 << 16);
}

/// The error-code mask and match decide together with the bitmap.
fn page_faults(t: &mut Tester) {
    for (name, code, is_present, bitmap, mask, value, exits) in [
        (
            "#PF read, bit set",
            page_read as fn() -> Code,
            false,
            1 << 14,
            0,
            0,
            true,
        ),
        ("#PF read, bit clear", page_read, false, 0, 0, 0, false),
        (
            "#PF write of a read-only page",
            page_write,
            true,
            1 << 14,
            0,
            0,
            true,
        ),
        (
            "#PF write, mask W match W",
            page_write,
            true,
            1 << 14,
            2,
            2,
            true,
        ),
        (
            "#PF read, mask W match W",
            page_read,
            false,
            1 << 14,
            2,
            2,
            false,
        ),
        (
            "#PF read, mask P match P, bit clear",
            page_read,
            false,
            0,
            1,
            1,
            true,
        ),
        (
            "#PF write, mask P match P, bit clear",
            page_write,
            true,
            0,
            1,
            1,
            false,
        ),
    ] {
        t.fresh(&code());
        protect(t, is_present);
        write(field::EXCEPTION_BITMAP, bitmap);
        write(field::PAGE_FAULT_ERROR_CODE_MASK, mask);
        write(field::PAGE_FAULT_ERROR_CODE_MATCH, value);
        if exits {
            let exit = t.exit(name, Reason::ExceptionOrNmi);
            t.equal("address", exit.qualification, 0xc010);
        } else {
            t.reach_end(name);
            events::check_handler(t, 14);
        }
    }
}

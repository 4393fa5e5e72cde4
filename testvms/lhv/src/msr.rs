//! RDMSR and WRMSR: always, by bitmap, outside the bitmap's ranges.
//!
//! SDM "MSR-Bitmap Address".

use rt::cpu;
use rt::l2_code;
use rt::vmx::insn::write;
use rt::vmx::vm::Mode;
use umbra_vmcs::controls::Proc;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn rdmsr = "rdmsr", "vmcall";
    fn wrmsr = "wrmsr", "vmcall";
}

const PAT: u32 = 0x277;
const LSTAR: u32 = 0xc000_0082;
const FS_BASE: u32 = 0xc000_0100;
/// In neither range of the bitmap.
const OUTSIDE: u32 = 0x4000_0000;

/// Bytes of the bitmap page where each quarter starts.
const READ_LOW: u64 = 0;
const READ_HIGH: u64 = 1024;
const WRITE_LOW: u64 = 2048;
const WRITE_HIGH: u64 = 3072;

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    if t.mode == Mode::V86 {
        for (name, code) in [("rdmsr", rdmsr()), ("wrmsr", wrmsr())] {
            t.fresh(&code);
            write(field::EXCEPTION_BITMAP, 1 << 13);
            t.vm.registers.rcx = PAT.into();
            t.exit(name, Reason::ExceptionOrNmi);
        }
        return;
    }
    t.fresh(&rdmsr());
    t.vm.proc(Proc::empty(), Proc::USE_MSR_BITMAPS);
    t.vm.registers.rcx = PAT.into();
    t.exit_and_skip("rdmsr, no bitmap", Reason::Rdmsr);
    t.vm.registers.rax = 0x1111_2222;
    t.vm.registers.rdx = 0x3333_4444;
    t.reach_end("rdmsr, then");
    t.equal("EAX that L1 gave", t.vm.registers.rax, 0x1111_2222);

    t.fresh(&wrmsr());
    t.vm.proc(Proc::empty(), Proc::USE_MSR_BITMAPS);
    t.vm.registers.rcx = LSTAR.into();
    t.exit_and_skip("wrmsr, no bitmap", Reason::Wrmsr);
    t.reach_end("wrmsr, then");

    t.fresh(&rdmsr());
    t.vm.registers.rcx = PAT.into();
    t.reach_end("rdmsr PAT, bit clear");
    let value = t.vm.registers.rdx << 32 | t.vm.registers.rax & 0xffff_ffff;
    t.equal("PAT as L2 reads it", value, cpu::rdmsr(PAT));

    for (name, is_write, msr, quarter, bit, exits) in [
        ("rdmsr PAT, its bit", false, PAT, READ_LOW, PAT, true),
        (
            "rdmsr PAT, its write bit",
            false,
            PAT,
            WRITE_LOW,
            PAT,
            false,
        ),
        (
            "rdmsr PAT, the bit after",
            false,
            PAT,
            READ_LOW,
            PAT + 1,
            false,
        ),
        ("rdmsr LSTAR, its bit", false, LSTAR, READ_HIGH, 0x82, true),
        (
            "rdmsr LSTAR, the low bit of that number",
            false,
            LSTAR,
            READ_LOW,
            0x82,
            false,
        ),
        ("wrmsr LSTAR, its bit", true, LSTAR, WRITE_HIGH, 0x82, true),
        (
            "wrmsr LSTAR, its read bit",
            true,
            LSTAR,
            READ_HIGH,
            0x82,
            false,
        ),
        ("rdmsr 1fff, its bit", false, 0x1fff, READ_LOW, 0x1fff, true),
        (
            "rdmsr c0001fff, its bit",
            false,
            0xc000_1fff,
            READ_HIGH,
            0x1fff,
            true,
        ),
        ("rdmsr 2000, no bit", false, 0x2000, READ_LOW, 0, true),
        (
            "rdmsr bfffffff, no bit",
            false,
            0xbfff_ffff,
            READ_LOW,
            0,
            true,
        ),
        (
            "rdmsr c0002000, no bit",
            false,
            0xc000_2000,
            READ_HIGH,
            0,
            true,
        ),
        ("rdmsr outside, no bit", false, OUTSIDE, READ_LOW, 0, true),
        ("wrmsr outside, no bit", true, OUTSIDE, WRITE_LOW, 0, true),
        ("rdmsr x2APIC, its bit", false, 0x802, READ_LOW, 0x802, true),
    ] {
        t.fresh(&if is_write { wrmsr() } else { rdmsr() });
        let at = quarter + u64::from(bit / 8);
        t.vm.msr_bitmap.write(at, 1u8 << (bit % 8));
        t.vm.registers.rcx = msr.into();
        t.exit(
            name,
            if !exits {
                Reason::Vmcall
            } else if is_write {
                Reason::Wrmsr
            } else {
                Reason::Rdmsr
            },
        );
    }

    passed_through(t);
}

/// MSRs that VM entry and exit switch, or leave as L2 set them.
fn passed_through(t: &mut Tester) {
    let before = cpu::rdmsr(LSTAR);
    t.fresh(&wrmsr());
    t.vm.registers.rcx = LSTAR.into();
    t.vm.registers.rax = 0x1234_5678;
    t.reach_end("wrmsr LSTAR, not intercepted");
    t.equal("LSTAR as L1 reads it after", cpu::rdmsr(LSTAR), 0x1234_5678);
    // SAFETY: SYSCALL is not used; this is the value that was there.
    unsafe { cpu::wrmsr(LSTAR, before) };

    t.fresh(&rdmsr());
    write(field::GUEST_FS_BASE, 0x12_3450);
    t.vm.registers.rcx = FS_BASE.into();
    t.reach_end("rdmsr FS base, not intercepted");
    t.equal(
        "FS base as L2 reads it",
        t.vm.registers.rax & 0xffff_ffff,
        0x12_3450,
    );

    t.fresh(&wrmsr());
    t.vm.registers.rcx = FS_BASE.into();
    t.vm.registers.rax = 0x65_4320;
    t.reach_end("wrmsr FS base, not intercepted");
    t.equal(
        "FS base in the VMCS",
        rt::vmx::insn::read(field::GUEST_FS_BASE),
        0x65_4320,
    );
    t.equal("FS base of L1", cpu::rdmsr(FS_BASE), 0);
}

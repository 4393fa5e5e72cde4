//! CR0, CR3, CR4 and CR8: masks and shadows, target values, CLTS, LMSW, SMSW.
//!
//! SDM "Guest/Host Masks and Read Shadows for CR0 and CR4", "Exit Qualification for Control-Register
//! Accesses".

use rt::l2_code;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::Mode;
use umbra_vmcs::controls::Proc;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn read_cr0 {
        64 = "mov rax, cr0", "vmcall";
        32 = "mov eax, cr0", "vmcall";
        16 = "mov eax, cr0", "vmcall";
    }
    fn write_cr0 {
        64 = "mov cr0, rax", "vmcall";
        32 = "mov cr0, eax", "vmcall";
        16 = "mov cr0, eax", "vmcall";
    }
    fn read_cr4 {
        64 = "mov rsi, cr4", "vmcall";
        32 = "mov esi, cr4", "vmcall";
        16 = "mov esi, cr4", "vmcall";
    }
    fn write_cr4 {
        64 = "mov cr4, rdi", "vmcall";
        32 = "mov cr4, edi", "vmcall";
        16 = "mov cr4, edi", "vmcall";
    }
    fn read_cr3 {
        64 = "mov rdx, cr3", "vmcall";
        32 = "mov edx, cr3", "vmcall";
        16 = "mov edx, cr3", "vmcall";
    }
    fn write_cr3 {
        64 = "mov cr3, rbx", "vmcall";
        32 = "mov cr3, ebx", "vmcall";
        16 = "mov cr3, ebx", "vmcall";
    }
    fn read_cr8 {
        64 = "mov r9, cr8", "vmcall";
        32 = "vmcall";
        16 = "vmcall";
    }
    fn write_cr8 {
        64 = "mov cr8, r10", "vmcall";
        32 = "vmcall";
        16 = "vmcall";
    }
    fn clts = "clts", "vmcall";
    fn lmsw = "lmsw cx", "vmcall";
    fn lmsw_memory = "lmsw word ptr [0x9200]", "vmcall";
    fn smsw = "smsw eax", "vmcall";
}

const TS: u64 = 1 << 3;
const EM: u64 = 1 << 2;
const MP: u64 = 1 << 1;
/// CR4.DE: no other bit depends on it.
const DE: u64 = 1 << 3;
/// CR4.TSD.
const TSD: u64 = 1 << 2;

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    if t.mode == Mode::V86 {
        t.fresh(&read_cr0());
        write(field::EXCEPTION_BITMAP, 1 << 13);
        t.exit("mov from cr0", Reason::ExceptionOrNmi);
        return;
    }
    cr0(t);
    task_switched(t);
    cr4(t);
    cr3(t);
    if t.mode == Mode::Long {
        cr8(t);
    }
}

/// L2 reads its CR0 through mask and shadow.
fn cr0(t: &mut Tester) {
    t.fresh(&read_cr0());
    write(field::CR0_GUEST_HOST_MASK, TS | EM);
    write(field::CR0_READ_SHADOW, TS);
    let real = read(field::GUEST_CR0);
    t.reach_end("mov from cr0");
    t.equal(
        "CR0 as L2 reads it",
        t.vm.registers.rax,
        real & !(TS | EM) | TS,
    );

    t.fresh(&smsw());
    write(field::CR0_GUEST_HOST_MASK, TS | MP);
    write(field::CR0_READ_SHADOW, MP | EM);
    t.reach_end("smsw");
    t.equal("MSW as L2 reads it", t.vm.registers.rax & 0xe, MP);

    t.fresh(&write_cr0());
    write(field::CR0_GUEST_HOST_MASK, TS);
    let real = read(field::GUEST_CR0);
    t.vm.registers.rax = real | EM;
    t.reach_end("mov to cr0, other bits");
    t.equal("CR0 in the VMCS", read(field::GUEST_CR0), real | EM);

    t.fresh(&write_cr0());
    write(field::CR0_GUEST_HOST_MASK, TS);
    t.vm.registers.rax = real | TS;
    let exit = t.exit_and_skip("mov to cr0, masked bit", Reason::CrAccess);
    t.equal("qualification", exit.qualification, 0);
    t.equal("CR0 unchanged", read(field::GUEST_CR0), real);
    t.reach_end("mov to cr0, then");

    t.fresh(&write_cr0());
    write(field::CR0_GUEST_HOST_MASK, TS);
    write(field::CR0_READ_SHADOW, TS);
    t.vm.registers.rax = real | TS;
    t.reach_end("mov to cr0, as the shadow has it");
    t.equal("CR0 unchanged", read(field::GUEST_CR0), real);
}

/// CLTS and LMSW.
fn task_switched(t: &mut Tester) {
    for (name, mask, shadow, exits) in [
        ("clts, not masked", 0, TS, false),
        ("clts, masked, shadow set", TS, TS, true),
        ("clts, masked, shadow clear", TS, 0, false),
    ] {
        t.fresh(&clts());
        write(field::GUEST_CR0, read(field::GUEST_CR0) | TS);
        write(field::CR0_GUEST_HOST_MASK, mask);
        write(field::CR0_READ_SHADOW, shadow);
        t.exit(
            name,
            if exits {
                Reason::CrAccess
            } else {
                Reason::Vmcall
            },
        );
        let is_set = read(field::GUEST_CR0) & TS != 0;
        t.check("CR0.TS after it", is_set == (exits || mask != 0));
    }
    for (name, value, mask, shadow, exits) in [
        ("lmsw, not masked", 0xb, 0, 0, false),
        ("lmsw, masked and different", 0xb, TS, 0, true),
        ("lmsw, masked and equal", 0xb, TS, TS, false),
    ] {
        t.fresh(&lmsw());
        write(field::CR0_GUEST_HOST_MASK, mask);
        write(field::CR0_READ_SHADOW, shadow);
        t.vm.registers.rcx = value;
        t.exit(
            name,
            if exits {
                Reason::CrAccess
            } else {
                Reason::Vmcall
            },
        );
    }
    t.fresh(&lmsw_memory());
    write(field::CR0_GUEST_HOST_MASK, TS);
    t.vm.memory.write(0x9200, 0x1bu16);
    let exit = t.exit("lmsw memory", Reason::CrAccess);
    t.equal("linear address", exit.guest_linear, 0x9200);
}

fn cr4(t: &mut Tester) {
    t.fresh(&read_cr4());
    write(field::CR4_GUEST_HOST_MASK, DE | TSD);
    write(field::CR4_READ_SHADOW, DE);
    let real = read(field::GUEST_CR4);
    t.reach_end("mov from cr4");
    t.equal(
        "CR4 as L2 reads it",
        t.vm.registers.rsi,
        real & !(DE | TSD) | DE,
    );

    t.fresh(&write_cr4());
    write(field::CR4_GUEST_HOST_MASK, DE);
    t.vm.registers.rdi = real | TSD;
    t.reach_end("mov to cr4, other bits");
    t.equal("CR4 in the VMCS", read(field::GUEST_CR4), real | TSD);

    t.fresh(&write_cr4());
    write(field::CR4_GUEST_HOST_MASK, DE);
    t.vm.registers.rdi = real | DE;
    t.exit_and_skip("mov to cr4, masked bit", Reason::CrAccess);
    t.reach_end("mov to cr4, then");
}

fn cr3(t: &mut Tester) {
    t.fresh(&read_cr3());
    t.vm.proc(Proc::CR3_STORE_EXITING, Proc::empty());
    t.exit_and_skip("mov from cr3, exiting", Reason::CrAccess);
    t.reach_end("mov from cr3, then");

    t.fresh(&write_cr3());
    t.vm.proc(Proc::CR3_LOAD_EXITING, Proc::empty());
    let same = read(field::GUEST_CR3);
    t.vm.registers.rbx = same;
    t.exit_and_skip("mov to cr3, exiting", Reason::CrAccess);
    t.reach_end("mov to cr3, then");

    let targets = t.vmx.caps.cr3_targets();
    for (name, count, target, exits) in [
        ("mov to cr3, a target", 1, same, false),
        ("mov to cr3, no target", 1, same + 0x1000, true),
        ("mov to cr3, target not counted", 0, same, true),
    ] {
        if targets < 4 {
            t.skip(name);
            continue;
        }
        t.fresh(&write_cr3());
        t.vm.proc(Proc::CR3_LOAD_EXITING, Proc::empty());
        write(field::CR3_TARGET_COUNT, count);
        write(field::CR3_TARGET_VALUE_0, target);
        t.vm.registers.rbx = same;
        t.exit(
            name,
            if exits {
                Reason::CrAccess
            } else {
                Reason::Vmcall
            },
        );
    }

    if t.vm.proc(
        Proc::empty(),
        Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING,
    ) {
        t.fresh(&write_cr3());
        t.vm.proc(
            Proc::empty(),
            Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING,
        );
        t.vm.registers.rbx = same | 8;
        t.reach_end("mov to cr3, not exiting");
        t.equal("CR3 in the VMCS", read(field::GUEST_CR3), same | 8);
    }
}

fn cr8(t: &mut Tester) {
    t.fresh(&read_cr8());
    t.vm.proc(Proc::CR8_STORE_EXITING, Proc::empty());
    t.exit_and_skip("mov from cr8, exiting", Reason::CrAccess);
    t.vm.registers.r9 = 7;
    t.reach_end("mov from cr8, then");
    t.equal("R9 that L1 gave", t.vm.registers.r9, 7);

    t.fresh(&write_cr8());
    t.vm.proc(Proc::CR8_LOAD_EXITING, Proc::empty());
    t.vm.registers.r10 = 5;
    t.exit_and_skip("mov to cr8, exiting", Reason::CrAccess);
    t.reach_end("mov to cr8, then");
    t.equal("CR8 of L1", rt::cpu::cr8(), 0);
}

//! Exits by single instructions: with the control that asks for them, and the ones without one.

use rt::l2_code;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Mode, Vm};
use umbra_vmcs::controls::{Pin, Proc, Proc2};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn cpuid = "mov eax, 0", "mov ecx, 0", "cpuid", "vmcall";
    fn vmcall = "mov ebx, 0x12345678", "vmcall", "add ebx, 1", "vmcall";
    fn hlt = "hlt", "vmcall";
    fn pause = "pause", "vmcall";
    fn rdtsc = "rdtsc", "vmcall";
    fn rdtscp = "rdtscp", "vmcall";
    fn rdpmc = "mov ecx, 0", "rdpmc", "vmcall";
    fn invlpg = "invlpg [0x9123]", "vmcall";
    fn wbinvd = "wbinvd", "vmcall";
    fn invd = "invd", "vmcall";
    fn monitor = "mov eax, 0x9000", "xor ecx, ecx", "xor edx, edx", "monitor", "vmcall";
    fn mwait = "xor eax, eax", "xor ecx, ecx", "mwait", "vmcall";
    fn rdrand = "rdrand esi", "vmcall";
    fn rdseed = "rdseed edi", "vmcall";
    fn xsetbv = "mov eax, 1", "xor ecx, ecx", "xor edx, edx", "xsetbv", "vmcall";
    fn sgdt = "sgdt [0x9010]", "vmcall";
    fn sidt = "sidt [0x9010]", "vmcall";
    fn lgdt = "lgdt [0x9020]", "vmcall";
    fn lidt = "lidt [0x9020]", "vmcall";
    fn sldt = "sldt eax", "vmcall";
    fn str_memory = "str word ptr [0x9040]", "vmcall";
    fn lldt = "xor ebx, ebx", "lldt bx", "vmcall";
    fn ltr = "mov ebp, 0x18", "ltr bp", "vmcall";
    fn vmclear = "vmclear qword ptr [0x9100]", "vmcall";
    fn vmptrld = "vmptrld qword ptr [0x9100]", "vmcall";
    fn vmptrst = "vmptrst qword ptr [0x9100]", "vmcall";
    fn vmxon = "vmxon qword ptr [0x9100]", "vmcall";
    fn vmxoff = "vmxoff", "vmcall";
    fn vmlaunch = "vmlaunch", "vmcall";
    fn vmresume = "vmresume", "vmcall";
    fn vmfunc = "xor eax, eax", "xor ecx, ecx", "vmfunc", "vmcall";
    fn ud2 = "ud2", "vmcall";
    fn invpcid {
        64 = "mov edx, 2", "invpcid rdx, xmmword ptr [0x9100]", "vmcall";
        32 = "mov edx, 2", "invpcid edx, xmmword ptr [0x9100]", "vmcall";
        16 = "vmcall";
    }
    fn invept {
        64 = "mov esi, 1", "invept rsi, xmmword ptr [0x9100]", "vmcall";
        32 = "mov esi, 1", "invept esi, xmmword ptr [0x9100]", "vmcall";
        16 = "vmcall";
    }
    fn invvpid {
        64 = "mov edi, 1", "mov ebx, 0x9000", "invvpid rdi, xmmword ptr [rbx + 0x10]", "vmcall";
        32 = "mov edi, 1", "mov ebx, 0x9000", "invvpid edi, xmmword ptr [ebx + 0x10]", "vmcall";
        16 = "vmcall";
    }
    fn vmread {
        64 = "mov ecx, 0x681e", "vmread rbx, rcx", "vmcall";
        32 = "mov ecx, 0x681e", "vmread ebx, ecx", "vmcall";
        16 = "vmcall";
    }
    fn vmread_memory {
        64 = "mov ecx, 0x681e", "mov edx, 0x8f00", "mov esi, 4",
            "vmread qword ptr [rdx + rsi * 8 + 0x104], rcx", "vmcall";
        32 = "mov ecx, 0x681e", "mov edx, 0x8f00", "mov esi, 4",
            "vmread dword ptr [edx + esi * 8 + 0x104], ecx", "vmcall";
        16 = "vmcall";
    }
    fn vmwrite {
        64 = "mov ecx, 0x681e", "vmwrite rcx, qword ptr fs:[0x9100]", "vmcall";
        32 = "mov ecx, 0x681e", "vmwrite ecx, dword ptr fs:[0x9100]", "vmcall";
        16 = "vmcall";
    }
    fn mov_dr {
        64 = "mov rdx, dr3", "vmcall";
        32 = "mov edx, dr3", "vmcall";
        16 = "mov edx, dr3", "vmcall";
    }
    fn mov_to_dr {
        64 = "xor ecx, ecx", "mov dr0, rcx", "vmcall";
        32 = "xor ecx, ecx", "mov dr0, ecx", "vmcall";
        16 = "xor ecx, ecx", "mov dr0, ecx", "vmcall";
    }
}

/// Who may execute an instruction.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    /// Any mode, any privilege level.
    Any,
    /// Any mode, at privilege level 0.
    Privileged,
    /// As `Privileged`, and not tried in virtual-8086 mode: the SDM gives #GP there ("Relative
    /// Priority of Faults and VM Exits"), Bochs 3.0 the exit.
    Level0,
    /// Not in real and virtual-8086 mode.
    Protected,
    /// 64-bit mode and, when EFER.LMA is 0, protected mode.
    Vmx,
}

/// One row: name, code, the controls it needs, who may execute it, its reason.
struct Row(&'static str, fn() -> Code, Needs, Where, Reason);

/// What has to be set before.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Proc(Proc),
    Proc2(Proc2),
    /// The secondary control makes the instruction work, the primary one makes it exit.
    Both(Proc, Proc2),
    /// A bit of CR4.
    Cr4(u64),
}

const fn proc(bits: Proc) -> Needs {
    Needs::Proc(bits)
}
const fn proc2(bits: Proc2) -> Needs {
    Needs::Proc2(bits)
}

use Where::{Any, Level0, Privileged, Protected};

const ROWS: [Row; 34] = [
    Row("hlt", hlt, proc(Proc::HLT_EXITING), Privileged, Reason::Hlt),
    Row(
        "pause",
        pause,
        proc(Proc::PAUSE_EXITING),
        Any,
        Reason::Pause,
    ),
    Row(
        "rdtsc",
        rdtsc,
        proc(Proc::RDTSC_EXITING),
        Any,
        Reason::Rdtsc,
    ),
    Row(
        "rdtscp",
        rdtscp,
        Needs::Both(Proc::RDTSC_EXITING, Proc2::ENABLE_RDTSCP),
        Any,
        Reason::Rdtscp,
    ),
    Row(
        "rdpmc",
        rdpmc,
        proc(Proc::RDPMC_EXITING),
        Privileged,
        Reason::Rdpmc,
    ),
    Row(
        "invlpg",
        invlpg,
        proc(Proc::INVLPG_EXITING),
        Privileged,
        Reason::Invlpg,
    ),
    Row(
        "wbinvd",
        wbinvd,
        proc2(Proc2::WBINVD_EXITING),
        Privileged,
        Reason::WbinvdWbnoinvd,
    ),
    Row("invd", invd, Needs::Nothing, Privileged, Reason::Invd),
    Row(
        "monitor",
        monitor,
        proc(Proc::MONITOR_EXITING),
        Privileged,
        Reason::Monitor,
    ),
    Row(
        "mwait",
        mwait,
        proc(Proc::MWAIT_EXITING),
        Privileged,
        Reason::Mwait,
    ),
    Row(
        "rdrand",
        rdrand,
        proc2(Proc2::RDRAND_EXITING),
        Any,
        Reason::Rdrand,
    ),
    Row(
        "rdseed",
        rdseed,
        proc2(Proc2::RDSEED_EXITING),
        Any,
        Reason::Rdseed,
    ),
    Row(
        "xsetbv",
        xsetbv,
        Needs::Cr4(1 << 18),
        Level0,
        Reason::Xsetbv,
    ),
    Row(
        "sgdt",
        sgdt,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Any,
        Reason::GdtrIdtr,
    ),
    Row(
        "sidt",
        sidt,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Any,
        Reason::GdtrIdtr,
    ),
    Row(
        "lgdt",
        lgdt,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Privileged,
        Reason::GdtrIdtr,
    ),
    Row(
        "lidt",
        lidt,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Privileged,
        Reason::GdtrIdtr,
    ),
    Row(
        "sldt",
        sldt,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Protected,
        Reason::LdtrTr,
    ),
    Row(
        "str",
        str_memory,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Protected,
        Reason::LdtrTr,
    ),
    Row(
        "lldt",
        lldt,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Protected,
        Reason::LdtrTr,
    ),
    Row(
        "ltr",
        ltr,
        proc2(Proc2::DESCRIPTOR_TABLE_EXITING),
        Protected,
        Reason::LdtrTr,
    ),
    Row(
        "mov-from-dr",
        mov_dr,
        proc(Proc::MOV_DR_EXITING),
        Level0,
        Reason::DrAccess,
    ),
    Row(
        "mov-to-dr",
        mov_to_dr,
        proc(Proc::MOV_DR_EXITING),
        Level0,
        Reason::DrAccess,
    ),
    Row(
        "vmclear",
        vmclear,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmclear,
    ),
    Row(
        "vmptrld",
        vmptrld,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmptrld,
    ),
    Row(
        "vmptrst",
        vmptrst,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmptrst,
    ),
    Row("vmxon", vmxon, Needs::Nothing, Where::Vmx, Reason::Vmxon),
    Row("vmxoff", vmxoff, Needs::Nothing, Where::Vmx, Reason::Vmxoff),
    Row(
        "vmlaunch",
        vmlaunch,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmlaunch,
    ),
    Row(
        "vmresume",
        vmresume,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmresume,
    ),
    Row("vmread", vmread, Needs::Nothing, Where::Vmx, Reason::Vmread),
    Row(
        "vmread-memory",
        vmread_memory,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmread,
    ),
    Row(
        "vmwrite",
        vmwrite,
        Needs::Nothing,
        Where::Vmx,
        Reason::Vmwrite,
    ),
    Row(
        "vmfunc",
        vmfunc,
        proc2(Proc2::ENABLE_VM_FUNCTIONS),
        Any,
        Reason::Vmfunc,
    ),
];

/// Those that exist only with their control and in wider modes.
const WIDE: [Row; 3] = [
    Row(
        "invpcid",
        invpcid,
        Needs::Both(Proc::INVLPG_EXITING, Proc2::ENABLE_INVPCID),
        Protected,
        Reason::Invpcid,
    ),
    Row("invept", invept, Needs::Nothing, Where::Vmx, Reason::Invept),
    Row(
        "invvpid",
        invvpid,
        Needs::Nothing,
        Where::Vmx,
        Reason::Invvpid,
    ),
];

/// #UD and #GP.
const UD_GP: u64 = 1 << 6 | 1 << 13;

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    t.fresh(&cpuid());
    t.exit_and_skip("cpuid", Reason::Cpuid);
    t.vm.registers.rax = 0x4c48_5631;
    t.reach_end("cpuid, then");
    t.equal("RAX that L1 gave", t.vm.registers.rax, 0x4c48_5631);

    t.fresh(&vmcall());
    t.exit_and_skip("vmcall", Reason::Vmcall);
    t.equal("RBX that L2 gave", t.vm.registers.rbx, 0x1234_5678);
    t.reach_end("vmcall, then");
    t.equal("RBX kept", t.vm.registers.rbx, 0x1234_5679);

    for row in ROWS.iter().chain(&WIDE) {
        one(t, row);
    }

    t.fresh(&ud2());
    write(field::GUEST_IDTR_LIMIT, 0);
    t.exit("triple fault", Reason::TripleFault);
}

fn one(t: &mut Tester, Row(name, code, needs, place, reason): &Row) {
    let is_wide_only = matches!(
        *name,
        "invpcid" | "invept" | "invvpid" | "vmread" | "vmread-memory" | "vmwrite"
    );
    if t.mode.is_16_bit() && is_wide_only {
        return;
    }
    if t.mode == Mode::V86 && *place == Level0 {
        return;
    }
    t.fresh(&code());
    if !arrange(&t.vm, *needs) {
        t.skip(name);
        return;
    }
    write(field::EXCEPTION_BITMAP, UD_GP);
    let is_allowed = match place {
        Any | Level0 => true,
        Privileged => t.mode != Mode::V86,
        Protected => !t.mode.is_16_bit(),
        Where::Vmx => !t.mode.is_16_bit() && t.mode != Mode::Compat,
    };
    if !is_allowed {
        let exit = t.exit(name, Reason::ExceptionOrNmi);
        t.check(
            "it is #UD or #GP",
            matches!(exit.interruption & 0xff, 6 | 13),
        );
        return;
    }
    t.exit_and_skip(name, *reason);
    let exit = t.vm.run();
    let is_end =
        matches!(exit, rt::vmx::Outcome::Exit(exit) if exit.known() == Some(Reason::Vmcall));
    t.check("the VMCALL after it comes next", is_end);
}

/// Sets what a row needs; `false` when the CPU lacks it.
fn arrange(vm: &Vm, needs: Needs) -> bool {
    vm.pin(Pin::empty(), Pin::empty());
    match needs {
        Needs::Nothing => true,
        Needs::Proc(bits) => vm.proc(bits, Proc::empty()),
        Needs::Proc2(bits) => {
            let is_offered = vm.proc2(bits, Proc2::empty());
            if is_offered && bits == Proc2::ENABLE_VM_FUNCTIONS {
                write(field::VM_FUNCTION_CONTROLS, 0);
            }
            is_offered
        }
        Needs::Both(first, second) => {
            vm.proc(first, Proc::empty()) && vm.proc2(second, Proc2::empty())
        }
        Needs::Cr4(bits) => {
            write(field::GUEST_CR4, read(field::GUEST_CR4) | bits);
            true
        }
    }
}

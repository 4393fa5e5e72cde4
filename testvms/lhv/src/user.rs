//! L2 at privilege level 3: what comes first, the exit or the fault.
//!
//! SDM "Relative Priority of Faults and VM Exits", "Instructions That Cause VM Exits".

use rt::case;
use rt::l2_code;
use rt::vmx::Outcome;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, SEGMENTS};
use umbra_vmcs::controls::{Proc, Proc2};
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn user_vmcall = "vmcall";
    fn user_vmread { 64 = "vmread rax, rcx", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmwrite { 64 = "vmwrite rax, rcx", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmclear { 64 = "vmclear [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmptrld { 64 = "vmptrld [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmptrst { 64 = "vmptrst [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmxon { 64 = "vmxon [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmxoff = "vmxoff", "vmcall";
    fn user_vmlaunch = "vmlaunch", "vmcall";
    fn user_vmresume = "vmresume", "vmcall";
    fn user_vmfunc = "xor eax, eax", "vmfunc", "vmcall";
    fn user_invept { 64 = "invept rax, [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_invvpid { 64 = "invvpid rax, [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_vmmcall = ".byte 0x0f, 0x01, 0xd9", "vmcall";
    fn user_hlt = "hlt", "vmcall";
    fn user_cpuid = "cpuid", "vmcall";
    fn user_rdmsr = "rdmsr", "vmcall";
    fn user_wrmsr = "wrmsr", "vmcall";
    fn user_invd = "invd", "vmcall";
    fn user_wbinvd = "wbinvd", "vmcall";
    fn user_xsetbv = "xsetbv", "vmcall";
    fn user_invlpg = "invlpg [0x9000]", "vmcall";
    fn user_rdtsc = "rdtsc", "vmcall";
    fn user_rdtscp = "rdtscp", "vmcall";
    fn user_rdpmc = "rdpmc", "vmcall";
    fn user_pause = "pause", "vmcall";
    fn user_monitor = "monitor", "vmcall";
    fn user_mwait = "mwait", "vmcall";
    fn user_in = "in al, 0x80", "vmcall";
    fn user_cr0 { 64 = "mov rax, cr0", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_cr3 { 64 = "mov cr3, rax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_cr8 { 64 = "mov cr8, rax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_dr { 64 = "mov rax, dr7", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_clts = "clts", "vmcall";
    fn user_smsw = "smsw eax", "vmcall";
    fn user_sgdt { 64 = "sgdt [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_lgdt { 64 = "lgdt [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_sldt = "sldt eax", "vmcall";
    fn user_lldt = "lldt ax", "vmcall";
    fn user_rdrand = "rdrand eax", "vmcall";
    fn user_rdseed = "rdseed eax", "vmcall";
    fn user_invpcid { 64 = "invpcid rax, [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_xsaves { 64 = "xsaves [0x9000]", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn user_misaligned = "mov dword ptr [0x9001], 1", "vmcall";
    fn user_not_canonical { 64 = "mov rcx, 0x8000000000000000", "mov [rcx], eax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
}

/// RFLAGS.AC and CR0.AM.
const AC: u64 = 1 << 18;
const AM: u64 = 1 << 18;
/// Name and code.
type Row = (&'static str, fn() -> Code);

const ROWS: [Row; 45] = [
    ("vmcall", user_vmcall),
    ("vmread", user_vmread),
    ("vmwrite", user_vmwrite),
    ("vmclear", user_vmclear),
    ("vmptrld", user_vmptrld),
    ("vmptrst", user_vmptrst),
    ("vmxon", user_vmxon),
    ("vmxoff", user_vmxoff),
    ("vmlaunch", user_vmlaunch),
    ("vmresume", user_vmresume),
    ("vmfunc", user_vmfunc),
    ("invept", user_invept),
    ("invvpid", user_invvpid),
    ("vmmcall", user_vmmcall),
    ("hlt", user_hlt),
    ("cpuid", user_cpuid),
    ("rdmsr", user_rdmsr),
    ("wrmsr", user_wrmsr),
    ("invd", user_invd),
    ("wbinvd", user_wbinvd),
    ("xsetbv", user_xsetbv),
    ("invlpg", user_invlpg),
    ("rdtsc", user_rdtsc),
    ("rdtscp", user_rdtscp),
    ("rdpmc", user_rdpmc),
    ("pause", user_pause),
    ("monitor", user_monitor),
    ("mwait", user_mwait),
    ("in", user_in),
    ("mov from cr0", user_cr0),
    ("mov to cr3", user_cr3),
    ("mov to cr8", user_cr8),
    ("mov from dr7", user_dr),
    ("clts", user_clts),
    ("smsw", user_smsw),
    ("sgdt", user_sgdt),
    ("lgdt", user_lgdt),
    ("sldt", user_sldt),
    ("lldt", user_lldt),
    ("rdrand", user_rdrand),
    ("rdseed", user_rdseed),
    ("invpcid", user_invpcid),
    ("xsaves", user_xsaves),
    ("not aligned", user_misaligned),
    ("not canonical", user_not_canonical),
];

/// The controls that make instructions exit.
const EXITING: Proc = Proc::HLT_EXITING
    .union(Proc::INVLPG_EXITING)
    .union(Proc::MWAIT_EXITING)
    .union(Proc::RDPMC_EXITING)
    .union(Proc::RDTSC_EXITING)
    .union(Proc::CR3_LOAD_EXITING)
    .union(Proc::CR8_LOAD_EXITING)
    .union(Proc::MOV_DR_EXITING)
    .union(Proc::MONITOR_EXITING)
    .union(Proc::PAUSE_EXITING);
const EXITING2: [Proc2; 4] = [
    Proc2::DESCRIPTOR_TABLE_EXITING,
    Proc2::WBINVD_EXITING,
    Proc2::RDRAND_EXITING,
    Proc2::RDSEED_EXITING,
];
/// The ones that make instructions exist.
const ENABLING: [Proc2; 3] = [
    Proc2::ENABLE_RDTSCP,
    Proc2::ENABLE_INVPCID,
    Proc2::ENABLE_XSAVES_XRSTORS,
];

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    for (name, code) in ROWS {
        for exits in [true, false] {
            for intercepted in [true, false] {
                t.fresh(&code());
                go_to_user();
                if exits {
                    t.vm.proc(EXITING, Proc::USE_MSR_BITMAPS | Proc::USE_IO_BITMAPS);
                    t.vm.proc(Proc::UNCONDITIONAL_IO_EXITING, Proc::empty());
                    for control in EXITING2 {
                        t.vm.proc2(control, Proc2::empty());
                    }
                }
                for control in ENABLING {
                    t.vm.proc2(control, Proc2::empty());
                }
                write(
                    field::EXCEPTION_BITMAP,
                    if intercepted { 0xffff_ffff } else { 0 },
                );
                t.vm.registers.rcx = 0x277;
                let what = if exits { "exiting" } else { "not exiting" };
                let whose = if intercepted { "to L1" } else { "in L2" };
                let outcome = t.vm.run();
                case!(
                    "{name}, {what}, {whose}: {outcome} cs={:x} rsp={:x}",
                    read(field::GUEST_CS_SELECTOR),
                    read(field::GUEST_RSP)
                );
                t.check("an exit", matches!(outcome, Outcome::Exit(_)));
            }
        }
    }
}

/// Privilege level 3, with alignment checks on.
fn go_to_user() {
    for (n, segment) in SEGMENTS[..6].iter().enumerate() {
        let selector = if n == 0 { 0x0b } else { 0x33 };
        write(segment.selector, selector);
        write(segment.rights, read(segment.rights) | 3 << 5);
    }
    write(field::GUEST_CR0, read(field::GUEST_CR0) | AM);
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | AC);
}

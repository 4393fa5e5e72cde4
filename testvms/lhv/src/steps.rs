//! One instruction of L2 at a time: by the monitor trap flag, by single steps, by both; and what
//! waits at a VM entry: debug exceptions, windows, an expired timer.
//!
//! SDM "Monitor Trap Flag", "Debug Exceptions" (in VMX non-root operation), "Delivery of Pending
//! Debug Exceptions after VM Entry", "Priority Among Multiple Events".

use rt::cpu;
use rt::l2_code;
use rt::vmx::Outcome;
use rt::vmx::ept;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Mode, layout};
use rt::{case, report};
use umbra_vmcs::controls::{Pin, Proc};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn step_nops = "nop", "nop", "nop", "nop", "vmcall";
    fn step_out = "out 0x80, al", "nop", "vmcall";
    fn step_string = "rep stosb", "nop", "vmcall";
    fn step_mov_ss = "mov ax, ss", "mov ss, ax", "nop", "nop", "vmcall";
    fn step_pop_ss {
        64 = "vmcall";
        32 = "push ss", "pop ss", "nop", "nop", "vmcall";
        16 = "push ss", "pop ss", "nop", "nop", "vmcall";
    }
    fn step_sti = "sti", "nop", "nop", "vmcall";
    fn step_sti_twice = "sti", "sti", "nop", "vmcall";
    fn step_flags = "pushf", "popf", "nop", "vmcall";
    fn step_halt = "hlt", "nop", "vmcall";
    fn step_halt_open = "sti", "hlt", "nop", "vmcall";
    fn step_int3 = "int3", "nop", "vmcall";
    fn step_icebp = ".byte 0xf1", "nop", "vmcall";
    fn step_int = "int 0x45", "nop", "vmcall";
    fn step_undefined = "ud2", "vmcall";
    fn step_divide = "div ecx", "vmcall";
    fn step_cr3 {
        64 = "mov cr3, rax", "nop", "vmcall";
        32 = "mov cr3, ecx", "nop", "vmcall";
        16 = "mov cr3, ecx", "nop", "vmcall";
    }
    fn step_cr0 {
        64 = "mov rax, cr0", "mov cr0, rax", "nop", "vmcall";
        32 = "mov eax, cr0", "mov cr0, eax", "nop", "vmcall";
        16 = "mov eax, cr0", "mov cr0, eax", "nop", "vmcall";
    }
    fn step_iret {
        64 = "mov rdx, rsp", "push 0x10", "push rdx", "pushfq", "push 8", "lea rax, [rip + 2f]", "push rax", "iretq", "2: nop", "vmcall";
        32 = "pushfd", "push cs", "call 2f", "2: add dword ptr [esp], 6", "iretd", "nop", "nop", "vmcall";
        16 = "vmcall";
    }
    fn step_cpuid = "cpuid", "nop", "vmcall";
    fn step_rdmsr = "rdmsr", "nop", "vmcall";
    fn step_wrmsr = "wrmsr", "nop", "vmcall";
    fn step_wbinvd = "wbinvd", "nop", "vmcall";
    fn step_load = "mov eax, [0xc010]", "nop", "vmcall";
    fn step_modify = "add dword ptr [0xc010], 1", "nop", "vmcall";
    fn step_call = "mov ax, ss", "mov ss, ax", "vmcall";
    fn step_mov_ss_msr = "mov ax, ss", "mov ss, ax", "rdmsr", "nop", "vmcall";
    fn step_mov_ss_int3 = "mov ax, ss", "mov ss, ax", "int3", "nop", "vmcall";
    fn step_mov_ss_load = "mov ax, ss", "mov ss, ax", "mov eax, [0xc010]", "nop", "vmcall";
    /// What single steps a debug exception's handler counts: 64-bit only.
    fn step_loop {
        64 = "2: wbinvd", "jmp 2b";
        32 = "vmcall";
        16 = "vmcall";
    }
    /// Calls L1 when it is at the same place twice.
    fn step_watch {
        64 = "push rax", "mov rax, [rsp + 8]", "cmp rax, [0x9100]", "je 2f", "mov [0x9100], rax", "pop rax", "iretq", "2: vmcall";
        32 = "vmcall";
        16 = "vmcall";
    }
}

/// RFLAGS.TF and RFLAGS.IF.
const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
/// Interruptibility: blocking by STI, by MOV SS, by NMI.
const BY_STI: u64 = 1;
const BY_MOV_SS: u64 = 2;
const BY_NMI: u64 = 8;
/// Activity: HLT, shutdown.
const HALTED: u64 = 1;
const SHUTDOWN: u64 = 2;
/// Pending debug exceptions: breakpoint 0, an enabled breakpoint was met, single step.
const B0: u64 = 1;
const ENABLED: u64 = 1 << 12;
const BS: u64 = 1 << 14;
/// The exception bitmap's bit for #DB.
const DEBUG: u64 = 1 << 1;
/// Events to inject: #DB, an interrupt, a pending exit by the monitor trap flag.
const INJECT_DEBUG: u64 = 1 << 31 | 3 << 8 | 1;
const INJECT_INTERRUPT: u64 = 1 << 31 | 0x45;
const INJECT_MTF: u64 = 1 << 31 | 7 << 8;
/// No L2 of these runs longer than this, in ticks: one that sleeps is woken.
const MOST_TICKS: u64 = 20_000_000;
/// DR6 as a reset leaves it.
const DR6_INITIAL: u64 = 0xffff_0ff0;
/// MSRs that a hypervisor is likely to watch: IA32_MTRRCAP, IA32_MTRR_DEF_TYPE, IA32_VMX_BASIC.
const MTRR_CAP: u64 = 0xfe;
const MTRR_DEF_TYPE: u64 = 0x2ff;
const VMX_BASIC: u64 = 0x480;

/// What stops L2 after an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Trap,
    Step,
    StepInL2,
    Both,
}

impl How {
    const ALL: [Self; 4] = [Self::Trap, Self::Step, Self::StepInL2, Self::Both];

    /// The word in transcripts, behind the piece of code's.
    fn suffix(self) -> &'static str {
        match self {
            Self::Trap => ", mtf",
            Self::Step => ", tf",
            Self::StepInL2 => ", tf to L2",
            Self::Both => ", mtf and tf",
        }
    }
}

/// What is special about a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    /// The MSR that RCX names.
    Msr(u64),
    /// RCX counts three, RDI points to memory.
    Count,
    /// RAX holds what CR3 cannot.
    BadCr3,
    /// The page that it accesses is not in EPT.
    NoEpt,
    /// The page that it accesses is not in L2's own tables.
    NoPage,
}

/// Name, code, what is special.
type Row = (&'static str, fn() -> Code, With);

const ROWS: [Row; 32] = [
    ("nop", step_nops, With::Nothing),
    ("out", step_out, With::Nothing),
    ("rep stosb", step_string, With::Count),
    ("mov ss", step_mov_ss, With::Nothing),
    ("pop ss", step_pop_ss, With::Nothing),
    ("sti", step_sti, With::Nothing),
    ("sti twice", step_sti_twice, With::Nothing),
    ("popf", step_flags, With::Nothing),
    ("hlt", step_halt, With::Nothing),
    ("sti, hlt", step_halt_open, With::Nothing),
    ("int3", step_int3, With::Nothing),
    ("icebp", step_icebp, With::Nothing),
    ("int", step_int, With::Nothing),
    ("ud2", step_undefined, With::Nothing),
    ("div", step_divide, With::Nothing),
    ("mov cr3, bad", step_cr3, With::BadCr3),
    ("mov cr0", step_cr0, With::Nothing),
    ("iret", step_iret, With::Nothing),
    ("cpuid", step_cpuid, With::Nothing),
    ("rdmsr LSTAR", step_rdmsr, With::Msr(0xc000_0082)),
    ("rdmsr MTRRCAP", step_rdmsr, With::Msr(MTRR_CAP)),
    ("wrmsr MTRR_DEF_TYPE", step_wrmsr, With::Msr(MTRR_DEF_TYPE)),
    ("wrmsr VMX_BASIC", step_wrmsr, With::Msr(VMX_BASIC)),
    ("wbinvd", step_wbinvd, With::Nothing),
    ("load, no EPT", step_load, With::NoEpt),
    ("modify, no EPT", step_modify, With::NoEpt),
    ("load, no page", step_load, With::NoPage),
    ("mov ss, vmcall", step_call, With::Nothing),
    ("mov ss, rdmsr", step_mov_ss_msr, With::Msr(MTRR_CAP)),
    ("mov ss, int3", step_mov_ss_int3, With::Nothing),
    ("mov ss, load, no EPT", step_mov_ss_load, With::NoEpt),
    ("mov ss, load, no page", step_mov_ss_load, With::NoPage),
];

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    for mode in [Mode::Long, Mode::Prot32, Mode::Real] {
        if !t.vm.can(mode, t.with_ept) || mode != Mode::Long && !t.with_ept {
            continue;
        }
        t.mode = mode;
        report::group(format_args!("steps {}", mode.name()));
        let is_whole = mode == Mode::Long && t.with_ept;
        for row in ROWS {
            for how in How::ALL {
                // Elsewhere both at once, which shows the most.
                if is_whole || how == How::Both {
                    step(t, row, how);
                }
            }
        }
        if mode != Mode::Prot32 {
            pending(t);
            windows(t);
            expired(t);
        }
    }
    t.mode = Mode::Long;
    not_lost(t);
}

/// L2 anew before `code`, with a timer that wakes it and DR6 as after a reset.
fn fresh(t: &mut Tester, code: &Code) {
    t.fresh(code);
    timer(t, MOST_TICKS >> (t.vmx.caps.misc & 0x1f));
    // SAFETY: no breakpoint is enabled.
    unsafe { cpu::set_dr6(DR6_INITIAL) };
}

fn timer(t: &Tester, value: u64) {
    if t.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty()) {
        write(field::VMX_PREEMPTION_TIMER_VALUE, value);
    }
}

/// Sets flags of L2.
fn set_flags(flags: u64) {
    write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | flags);
}

/// Enters L2, and prints the exit with what waits in L2 afterwards.
fn enter(t: &mut Tester, what: core::fmt::Arguments<'_>) -> Outcome {
    let outcome = t.vm.run();
    case!(
        "{what}: {outcome} flags={:x} blocked={:x} pending={:x} activity={:x} dr6={:x}",
        read(field::GUEST_RFLAGS),
        read(field::GUEST_INTERRUPTIBILITY_STATE),
        read(field::GUEST_PENDING_DEBUG_EXCEPTIONS),
        read(field::GUEST_ACTIVITY_STATE),
        cpu::dr6(),
    );
    t.check("no host fault", !matches!(outcome, Outcome::HostFault(_)));
    outcome
}

/// Goes on until L2 calls L1, as a hypervisor would: an instruction that exited is skipped, a missing
/// page is given.
fn go_on(t: &mut Tester, name: &str, what: &str, most: u32) {
    for round in 0..most {
        let Outcome::Exit(exit) = enter(t, format_args!("{name}{what} {round}")) else {
            return;
        };
        if exit.is_entry_failure() {
            return;
        }
        match exit.known() {
            Some(Reason::MonitorTrapFlag) => {}
            // A #DB that exits has been taken: nothing is pending, as it has to be where TF goes with
            // blocking or HLT.
            Some(Reason::ExceptionOrNmi) => {
                let state = read(field::GUEST_INTERRUPTIBILITY_STATE);
                write(
                    field::GUEST_INTERRUPTIBILITY_STATE,
                    state & !(BY_STI | BY_MOV_SS),
                );
                write(field::GUEST_ACTIVITY_STATE, 0);
            }
            Some(Reason::Cpuid) => t.vm.skip(&exit),
            Some(Reason::EptViolation) => {
                let page = t.vm.memory.address() + 0xc000;
                t.vm.ept().map(0xc000, page, ept::ALL);
            }
            Some(Reason::InterruptWindow) => {
                t.vm.proc(Proc::empty(), Proc::INTERRUPT_WINDOW_EXITING);
            }
            Some(Reason::NmiWindow) => {
                t.vm.proc(Proc::empty(), Proc::NMI_WINDOW_EXITING);
            }
            Some(Reason::PreemptionTimer) => {
                // Once more at most, and awake.
                timer(t, MOST_TICKS >> (t.vmx.caps.misc & 0x1f));
                write(field::GUEST_ACTIVITY_STATE, 0);
            }
            _ => return,
        }
    }
}

fn step(t: &mut Tester, (name, code, with): Row, how: How) {
    let is_flat = matches!(t.mode, Mode::Real | Mode::Flat32);
    let is_missing = match with {
        With::NoEpt => !t.with_ept,
        With::NoPage => is_flat,
        With::BadCr3 => t.mode != Mode::Long,
        _ => false,
    };
    // Bochs halts on behind the #DB's delivery.
    let is_left_out = how == How::StepInL2 && name.ends_with("hlt");
    if is_missing || is_left_out {
        return;
    }
    fresh(t, &code());
    match with {
        With::Msr(index) => {
            t.vm.registers.rcx = index;
            if index == MTRR_DEF_TYPE {
                t.vm.registers.rax = cpu::rdmsr(index as u32);
            }
        }
        With::Count => {
            t.vm.registers.rcx = 3;
            t.vm.registers.rdi = 0x9000;
        }
        With::BadCr3 => t.vm.registers.rax = 0xaaaa_aaaa_aaaa_aaaa,
        With::NoEpt => t.vm.ept().map(0xc000, t.vm.memory.address() + 0xc000, 0),
        With::NoPage => {
            let entry_bytes = if t.mode == Mode::Prot32 { 4 } else { 8 };
            t.vm.memory
                .write(layout::PAGE_TABLE + 12 * entry_bytes, 0u32);
        }
        With::Nothing => {}
    }
    if matches!(how, How::Trap | How::Both) && !t.vm.proc(Proc::MONITOR_TRAP_FLAG, Proc::empty()) {
        return;
    }
    if how != How::Trap {
        set_flags(TF);
    }
    let intercepted = if how == How::StepInL2 { 0 } else { DEBUG };
    write(field::EXCEPTION_BITMAP, intercepted);
    go_on(t, name, how.suffix(), 12);
}

/// Debug exceptions that wait at the entry, under each kind of blocking and in each state.
fn pending(t: &mut Tester) {
    for (blocking, activity) in [
        (0, 0),
        (BY_STI, 0),
        (BY_MOV_SS, 0),
        (BY_NMI, 0),
        (0, HALTED),
        (0, SHUTDOWN),
    ] {
        // By the SDM BS has to go with TF where something blocks, or in HLT.
        let is_tied = blocking & 3 != 0 || activity == HALTED;
        for (flags, waits) in [
            (0, 0),
            (0, B0 | ENABLED),
            (0, B0),
            (0, BS),
            (TF, 0),
            (TF, BS),
            (TF, BS | B0 | ENABLED),
            (TF, B0 | ENABLED),
        ] {
            if is_tied && (flags & TF != 0) != (waits & BS != 0) {
                continue;
            }
            // In shutdown they are dropped, and Bochs delivers them.
            if activity == SHUTDOWN && waits != 0 {
                continue;
            }
            for intercepted in [DEBUG, 0] {
                // Bochs delivers one that wakes L2 from HLT, and halts on.
                if activity == HALTED && waits & (BS | ENABLED) != 0 && intercepted == 0 {
                    continue;
                }
                fresh(t, &step_nops());
                set_flags(flags | if blocking == BY_STI { IF } else { 0 });
                write(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
                write(field::GUEST_ACTIVITY_STATE, activity);
                write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, waits);
                write(field::EXCEPTION_BITMAP, intercepted);
                case!(
                    "debug {waits:x}, flags {flags:x}, blocked {blocking}, activity {activity}, \
                     bitmap {intercepted:x}"
                );
                go_on(t, "then", "", 3);
            }
        }
    }
}

/// Windows, with what opens or shuts them, and an event that is injected at the same entry.
fn windows(t: &mut Tester) {
    for is_nmi in [false, true] {
        for (blocking, activity) in [
            (0, 0),
            (BY_STI, 0),
            (BY_MOV_SS, 0),
            (BY_NMI, 0),
            (0, HALTED),
        ] {
            for (event, flags) in [
                (0, 0),
                (0, IF),
                (INJECT_DEBUG, 0),
                (INJECT_DEBUG, IF),
                (INJECT_INTERRUPT, IF),
                (INJECT_MTF, IF),
            ] {
                let is_refused = event == INJECT_INTERRUPT && blocking & 3 != 0
                    || blocking == BY_STI && flags & IF == 0;
                if is_refused {
                    continue;
                }
                fresh(t, &step_nops());
                let has_it = if is_nmi {
                    t.vm.pin(Pin::NMI_EXITING | Pin::VIRTUAL_NMIS, Pin::empty())
                        && t.vm.proc(Proc::NMI_WINDOW_EXITING, Proc::empty())
                } else {
                    t.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty())
                };
                if !has_it {
                    continue;
                }
                set_flags(flags);
                write(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
                write(field::GUEST_ACTIVITY_STATE, activity);
                write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
                case!(
                    "{} window, event {event:x}, flags {flags:x}, blocked {blocking}, activity {activity}",
                    if is_nmi { "NMI" } else { "interrupt" }
                );
                go_on(t, "then", "", 3);
            }
        }
    }
    // The window opens behind the instruction that follows the first STI.
    for code in [step_sti as fn() -> Code, step_sti_twice] {
        fresh(t, &code());
        t.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty());
        go_on(t, "interrupt window, by STI", "", 3);
    }
}

/// A timer at 0, with what else waits at the entry.
fn expired(t: &mut Tester) {
    for activity in [0, HALTED, SHUTDOWN] {
        for (event, waits, flags) in [
            (0, 0, 0),
            (INJECT_DEBUG, 0, 0),
            (INJECT_INTERRUPT, 0, IF),
            (INJECT_MTF, 0, 0),
            (0, B0 | ENABLED, 0),
            (0, BS, TF),
            (INJECT_DEBUG, BS, TF),
        ] {
            // In shutdown the SDM allows an NMI and #MC alone, and drops what waits.
            if activity == SHUTDOWN && (event != 0 || waits != 0) {
                continue;
            }
            for intercepted in [DEBUG, 0] {
                // As above: Bochs halts on.
                if activity == HALTED && waits != 0 && intercepted == 0 {
                    continue;
                }
                fresh(t, &step_nops());
                if !t.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty()) {
                    return;
                }
                write(field::VMX_PREEMPTION_TIMER_VALUE, 0);
                set_flags(flags);
                write(field::GUEST_ACTIVITY_STATE, activity);
                write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, waits);
                write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event);
                write(field::EXCEPTION_BITMAP, intercepted);
                case!(
                    "timer at 0, event {event:x}, debug {waits:x}, flags {flags:x}, \
                     activity {activity}, bitmap {intercepted:x}"
                );
                go_on(t, "then", "", 4);
            }
        }
    }
}

/// An exit between two single steps loses neither: L2's own handler looks.
fn not_lost(t: &mut Tester) {
    /// Where the handler goes, in the code page.
    const WATCH: u64 = 0x100;
    fresh(t, &step_loop());
    if !t.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty()) {
        return;
    }
    let handler = layout::CODE + WATCH;
    t.vm.memory
        .write_bytes(handler, step_watch().bytes(Mode::Long));
    let gate = layout::IDT + 16;
    t.vm.memory.write(gate, handler as u16);
    t.vm.memory.write(gate + 6, (handler >> 16) as u16);
    set_flags(TF);
    let rate = t.vmx.caps.misc & 0x1f;
    let mut others = 0;
    for round in 0..400u64 {
        write(
            field::VMX_PREEMPTION_TIMER_VALUE,
            (3 + 29 * (round % 40)) >> rate,
        );
        match t.vm.run() {
            Outcome::Exit(exit) if exit.known() == Some(Reason::PreemptionTimer) => {}
            outcome => {
                others += 1;
                case!("single steps: {outcome}");
                break;
            }
        }
    }
    t.equal("single steps lost", others, 0);
}

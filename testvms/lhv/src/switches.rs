//! What a VM entry and a VM exit load, save, set to a fixed value, and leave alone.
//!
//! SDM "Loading Guest State", "Saving Guest State", "Loading Host State".

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rt::vmx::insn::{read, write};
use rt::{cpu, gdt, l2_code, more, trap};
use umbra_vmcs::controls::{Entry, Exit};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    /// Shows the MSR of RCX in RDI:RSI, then writes RDX:RBX to it.
    fn switch_msr { 64 = "mov r8, rdx", "rdmsr", "mov esi, eax", "mov edi, edx", "mov rax, rbx", "mov rdx, r8", "wrmsr", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    /// Shows DR7 and IA32_DEBUGCTL, then writes others.
    fn switch_debug { 64 = "mov rsi, dr7", "mov ecx, 0x1d9", "rdmsr", "mov edi, eax", "mov eax, 0x408", "mov dr7, rax", "mov eax, 2", "xor edx, edx", "wrmsr", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    /// Shows what no transition switches, and writes it.
    fn switch_nothing { 64 = "mov rsi, cr2", "mov rdi, dr0", "mov r8, dr3", "mov r9, dr6", "mov r10, cr8", "lea rax, [rsi + 1]", "mov cr2, rax", "lea rax, [rdi + 1]", "mov dr0, rax", "lea rax, [r8 + 1]", "mov dr3, rax", "xor r9, 1", "mov dr6, r9", "lea rax, [r10 + 1]", "mov cr8, rax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn switch_cr0 { 64 = "mov rsi, cr0", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    /// Clears CR4.OSXSAVE.
    fn switch_cr4 { 64 = "mov rax, cr4", "btr rax, 18", "mov cr4, rax", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn switch_ldt { 64 = "sldt esi", "str edi", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    /// Sets CR0.TS, then uses the FPU.
    fn switch_fpu { 64 = "mov rax, cr0", "or eax, 8", "mov cr0, rax", "fnop", "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
    fn switch_end { 64 = "vmcall"; 32 = "vmcall"; 16 = "vmcall"; }
}

// A host RIP of this file's own: it notes what the exit has loaded, before anything else of L1 runs.
global_asm!(
    r#"
lhv_switch_exit:
    push rax
    push rbx
    push rcx
    push rdx
    pushfq
    pop rax
    mov [rip + {loaded} + 24], rax
    mov rax, cr0
    mov [rip + {loaded}], rax
    mov rax, cr3
    mov [rip + {loaded} + 8], rax
    mov rax, cr4
    mov [rip + {loaded} + 16], rax
    mov eax, 1
    cpuid
    mov [rip + {loaded} + 32], rcx
    pop rdx
    pop rcx
    pop rbx
    pop rax
    jmp rt_vm_exit
    "#,
    loaded = sym LOADED,
);

unsafe extern "C" {
    static lhv_switch_exit: u8;
}

/// CR0, CR3, CR4, RFLAGS and CPUID.1:ECX right after an exit.
static LOADED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

const EFER: u32 = 0xc000_0080;
const PAT: u32 = 0x277;
const DEBUGCTL: u32 = 0x1d9;
/// EFER.SCE and EFER.NXE.
const SCE: u64 = 1;
const NXE: u64 = 1 << 11;
/// CR0.NW and CR0.CD.
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
/// CR4.MCE, CR4.PCIDE and CR4.OSXSAVE.
const MCE: u64 = 1 << 6;
const PCIDE: u64 = 1 << 17;
const OSXSAVE: u64 = 1 << 18;
/// CPUID.1:ECX, the features for the last two.
const HAS_PCID: u32 = 1 << 17;
const HAS_XSAVE: u32 = 1 << 26;
/// CPUID.1:ECX follows CR4.OSXSAVE in this bit.
const SHOWS_OSXSAVE: u32 = 1 << 27;
/// A slot for a local descriptor table, and its descriptor: present, of 256 bytes, at 0.
const LDT: u16 = gdt::FREE;
const LDT_DESCRIPTOR: u64 = 0x0000_8200_0000_00ff;

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    page_attributes(t);
    extended_features(t);
    debug_controls(t);
    left_alone(t);
    msrs_left_alone(t);
    cache_bits(t);
    xsave_bit(t);
    process_context(t);
    tables(t);
    system_entry(t);
    no_fpu(t);
}

/// Has the next exit note what it loads.
fn note(t: &mut Tester) {
    t.vm.keeps_host_rip = true;
    write(field::HOST_RIP, &raw const lhv_switch_exit as u64);
}

fn noted() -> [u64; 5] {
    core::array::from_fn(|n| LOADED[n].load(Relaxed))
}

/// Three controls, each of the eight ways.
fn three() -> impl Iterator<Item = [bool; 3]> {
    (0..8).map(|bits: u8| [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0])
}

fn set(t: &Tester, [loads, saves, loads_back]: [bool; 3], controls: (Entry, Exit, Exit)) -> bool {
    let (entry, save, load) = controls;
    let pick_entry = |on| {
        if on {
            (entry, Entry::empty())
        } else {
            (Entry::empty(), entry)
        }
    };
    let pick = |on, bit| {
        if on {
            (bit, Exit::empty())
        } else {
            (Exit::empty(), bit)
        }
    };
    let (on, off) = pick_entry(loads);
    let (saves_on, saves_off) = pick(saves, save);
    let (back_on, back_off) = pick(loads_back, load);
    t.vm.entry_controls(on, off)
        && t.vm.exit_controls(saves_on, saves_off)
        && t.vm.exit_controls(back_on, back_off)
}

/// IA32_PAT.
fn page_attributes(t: &mut Tester) {
    const OF_L1: u64 = 0x0007_0406_0007_0406;
    const OF_L2: u64 = 0x0000_0000_0000_0406;
    const WRITTEN: u64 = 6;
    const FOR_L1: u64 = 0x0607_0406_0007_0406;
    let before = cpu::rdmsr(PAT);
    for way in three() {
        t.fresh(&switch_msr());
        if !set(t, way, (Entry::LOAD_PAT, Exit::SAVE_PAT, Exit::LOAD_PAT)) {
            t.skip("IA32_PAT");
            break;
        }
        // SAFETY: write-back stays entry 0, which is what L1's tables name.
        unsafe { cpu::wrmsr(PAT, OF_L1) };
        write(field::GUEST_IA32_PAT, OF_L2);
        write(field::HOST_IA32_PAT, FOR_L1);
        t.vm.registers.rcx = PAT.into();
        t.vm.registers.rbx = WRITTEN;
        t.reach_end("IA32_PAT");
        let [loads, saves, loads_back] = way;
        more!(
            "loaded {loads}, saved {saves}, loaded back {loads_back}: in L2 {:x}:{:x}, field {:x}, in L1 {:x}",
            t.vm.registers.rdi & 0xffff_ffff,
            t.vm.registers.rsi & 0xffff_ffff,
            read(field::GUEST_IA32_PAT),
            cpu::rdmsr(PAT),
        );
    }
    // SAFETY: as it was.
    unsafe { cpu::wrmsr(PAT, before) };
}

/// IA32_EFER.
fn extended_features(t: &mut Tester) {
    let before = cpu::rdmsr(EFER);
    for way in three() {
        t.fresh(&switch_msr());
        if !set(t, way, (Entry::LOAD_EFER, Exit::SAVE_EFER, Exit::LOAD_EFER)) {
            t.skip("IA32_EFER");
            break;
        }
        // SAFETY: SYSCALL is not used, and no page of L1 is execute-disabled.
        unsafe { cpu::wrmsr(EFER, before & !(SCE | NXE)) };
        write(field::GUEST_IA32_EFER, 0x500 | NXE);
        write(field::HOST_IA32_EFER, before & !SCE | NXE);
        t.vm.registers.rcx = EFER.into();
        t.vm.registers.rbx = 0x500 | SCE;
        t.reach_end("IA32_EFER");
        let [loads, saves, loads_back] = way;
        more!(
            "loaded {loads}, saved {saves}, loaded back {loads_back}: in L2 {:x}, field {:x}, in L1 {:x}",
            t.vm.registers.rsi & 0xffff_ffff,
            read(field::GUEST_IA32_EFER),
            cpu::rdmsr(EFER),
        );
    }
    // SAFETY: as it was.
    unsafe { cpu::wrmsr(EFER, before) };
}

/// DR7 and IA32_DEBUGCTL.
fn debug_controls(t: &mut Tester) {
    for (loads, saves) in [(true, true), (true, false), (false, true), (false, false)] {
        t.fresh(&switch_debug());
        let (on, off) = if loads {
            (Entry::LOAD_DEBUG_CONTROLS, Entry::empty())
        } else {
            (Entry::empty(), Entry::LOAD_DEBUG_CONTROLS)
        };
        let (save, not) = if saves {
            (Exit::SAVE_DEBUG_CONTROLS, Exit::empty())
        } else {
            (Exit::empty(), Exit::SAVE_DEBUG_CONTROLS)
        };
        if !t.vm.entry_controls(on, off) || !t.vm.exit_controls(save, not) {
            t.skip("debug controls");
            continue;
        }
        write(field::GUEST_DR7, 0x404);
        write(field::GUEST_IA32_DEBUGCTL, 2);
        // SAFETY: bits for exact breakpoints, which enable none; last-branch records disturb nothing.
        unsafe { cpu::set_dr7(0x402) };
        // SAFETY: as above.
        unsafe { cpu::wrmsr(DEBUGCTL, 1) };
        t.reach_end("debug controls");
        more!(
            "loaded {loads}, saved {saves}: in L2 {:x} {:x}, field {:x}, in L1 {:x} {:x}",
            t.vm.registers.rsi,
            t.vm.registers.rdi & 0xffff_ffff,
            read(field::GUEST_DR7),
            cpu::dr7(),
            cpu::rdmsr(DEBUGCTL),
        );
        // What Bochs saves where nothing was loaded is not the MSR.
        if loads {
            more!("field {:x}", read(field::GUEST_IA32_DEBUGCTL));
        }
    }
}

/// Registers that belong to whoever runs.
fn left_alone(t: &mut Tester) {
    for round in 0..2u64 {
        t.fresh(&switch_nothing());
        let value = 0x1000 * (round + 1);
        // SAFETY: CR2 is written by page faults alone, and no breakpoint is enabled.
        unsafe { cpu::set_cr2(value) };
        // SAFETY: as above.
        unsafe { asm!("mov dr0, {0}", "mov dr3, {0}", in(reg) value + 8, options(nomem, nostack)) };
        // SAFETY: as above.
        unsafe { cpu::set_dr6(0xffff_0ff0) };
        // SAFETY: no interrupt is expected.
        unsafe { cpu::set_cr8(round + 2) };
        t.reach_end("left alone");
        let r = &t.vm.registers;
        more!(
            "in L2 cr2 {:x} dr0 {:x} dr3 {:x} dr6 {:x} cr8 {:x}",
            r.rsi,
            r.rdi,
            r.r8,
            r.r9 ^ 1,
            r.r10
        );
        let (dr0, dr3): (u64, u64);
        // SAFETY: reads.
        unsafe {
            asm!("mov {}, dr0", "mov {}, dr3", out(reg) dr0, out(reg) dr3, options(nomem, nostack));
        }
        more!(
            "in L1 cr2 {:x} dr0 {dr0:x} dr3 {dr3:x} dr6 {:x} cr8 {:x}",
            cpu::cr2(),
            cpu::dr6(),
            cpu::cr8()
        );
    }
    // SAFETY: as it was.
    unsafe { cpu::set_cr8(0) };
}

/// MSRs that no transition switches.
fn msrs_left_alone(t: &mut Tester) {
    for (name, index) in [
        ("STAR", 0xc000_0081u32),
        ("LSTAR", 0xc000_0082),
        ("CSTAR", 0xc000_0083),
        ("FMASK", 0xc000_0084),
        ("KERNEL_GS_BASE", 0xc000_0102),
        ("TSC_AUX", 0xc000_0103),
        ("XSS", 0xda0),
        ("MISC_ENABLE", 0x1a0),
        ("MTRR_DEF_TYPE", 0x2ff),
        ("MTRR_FIX64K", 0x250),
        ("TSC_ADJUST", 0x3b),
        ("SPEC_CTRL", 0x48),
    ] {
        let before = cpu::rdmsr(index);
        let can_change = index >= 0xc000_0000;
        let value = if can_change { before ^ 0x10 } else { before };
        t.fresh(&switch_msr());
        t.vm.registers.rcx = index.into();
        t.vm.registers.rbx = value & 0xffff_ffff;
        t.vm.registers.rdx = value >> 32;
        t.reach_end(name);
        let seen = (t.vm.registers.rdi << 32) | t.vm.registers.rsi & 0xffff_ffff;
        t.check("L2 sees L1's", seen == before);
        t.check("L1 sees L2's", cpu::rdmsr(index) == value);
        // SAFETY: as it was.
        unsafe { cpu::wrmsr(index, before) };
    }
}

/// CR0.CD and CR0.NW are loaded by neither transition.
fn cache_bits(t: &mut Tester) {
    let before = cpu::cr0();
    for (in_l1, in_guest, in_host) in [
        (0, 0, 0),
        (0, CD | NW, 0),
        (0, 0, CD | NW),
        (CD, 0, 0),
        (CD, CD | NW, 0),
        (CD | NW, 0, 0),
    ] {
        t.fresh(&switch_cr0());
        write(
            field::GUEST_CR0,
            read(field::GUEST_CR0) & !(CD | NW) | in_guest,
        );
        write(field::HOST_CR0, before & !(CD | NW) | in_host);
        // SAFETY: caches off changes no result.
        unsafe { cpu::set_cr0(before & !(CD | NW) | in_l1) };
        t.reach_end("CR0");
        more!(
            "in L1 {in_l1:x}, fields {in_guest:x} {in_host:x}: in L2 {:x}, saved {:x}, after it {:x}",
            t.vm.registers.rsi & (CD | NW),
            read(field::GUEST_CR0) & (CD | NW),
            cpu::cr0() & (CD | NW),
        );
    }
    // SAFETY: as it was.
    unsafe { cpu::set_cr0(before) };
}

/// CPUID in L1 follows the CR4 that the exit loads.
fn xsave_bit(t: &mut Tester) {
    if cpu::cpuid(1, 0).ecx & HAS_XSAVE == 0 {
        return t.skip("CR4.OSXSAVE");
    }
    let before = cpu::cr4();
    for in_l1 in [OSXSAVE, 0] {
        // SAFETY: what XSETBV chose before stays.
        unsafe { cpu::set_cr4(before & !OSXSAVE | in_l1) };
        t.fresh(&switch_cr4());
        write(field::GUEST_CR4, read(field::GUEST_CR4) | OSXSAVE);
        t.reach_end("CR4.OSXSAVE");
        let shows = cpu::cpuid(1, 0).ecx & SHOWS_OSXSAVE != 0;
        t.equal("CPUID in L1 after L2 cleared it", shows, in_l1 != 0);
        // And the other way round: set in L2, and loaded clear or set.
        t.fresh(&switch_end());
        write(field::GUEST_CR4, read(field::GUEST_CR4) | OSXSAVE);
        t.reach_end("CR4.OSXSAVE set in L2");
        let shows = cpu::cpuid(1, 0).ecx & SHOWS_OSXSAVE != 0;
        t.equal("CPUID in L1 after L2 had it", shows, in_l1 != 0);
    }
    // The exit loads another value than L1 had.
    for (in_l1, loaded) in [(0, OSXSAVE), (OSXSAVE, 0)] {
        // SAFETY: as above.
        unsafe { cpu::set_cr4(before & !OSXSAVE | in_l1) };
        t.fresh(&switch_end());
        write(field::HOST_CR4, before & !OSXSAVE | loaded);
        note(t);
        t.reach_end("CR4.OSXSAVE loaded");
        let [_, _, cr4, flags, features] = noted();
        t.equal("CR4 after it", cr4 & OSXSAVE, loaded);
        let shows = features as u32 & SHOWS_OSXSAVE != 0;
        t.equal("CPUID after it", shows, loaded != 0);
        t.equal("RFLAGS after it", flags, 2);
        let shows = cpu::cpuid(1, 0).ecx & SHOWS_OSXSAVE != 0;
        t.equal("CPUID when L1 has put it back", shows, in_l1 != 0);
    }
    // SAFETY: as it was.
    unsafe { cpu::set_cr4(before) };
}

/// A CR3 with a process-context identifier, and CR4.PCIDE with it.
fn process_context(t: &mut Tester) {
    if cpu::cpuid(1, 0).ecx & HAS_PCID == 0 {
        return t.skip("CR4.PCIDE");
    }
    let (cr3, cr4) = (cpu::cr3(), cpu::cr4());
    for context in [0u64, 1, 0xfff] {
        // SAFETY: the same tables; the identifier is 0 when PCIDE changes.
        unsafe { cpu::set_cr4(cr4 | PCIDE) };
        // SAFETY: the same tables.
        unsafe { cpu::set_cr3(cr3 | context) };
        t.fresh(&switch_end());
        t.reach_end("CR4.PCIDE");
        more!(
            "cr3 {:x}, cr4 {:x}",
            cpu::cr3() ^ cr3,
            cpu::cr4() & (PCIDE | MCE)
        );
        // SAFETY: machine checks are not expected.
        unsafe { cpu::set_cr4(cpu::cr4() ^ MCE) };
        more!("cr4 {:x}", (cpu::cr4() ^ cr4) & (PCIDE | MCE));
        // SAFETY: the same tables, without a flush.
        unsafe { cpu::set_cr3(cr3 | context | 1 << 63) };
        more!("cr3 {:x}", cpu::cr3() ^ cr3);
        // A VM exit takes the identifier away, and PCIDE.
        t.fresh(&switch_end());
        write(field::HOST_CR3, cr3);
        write(field::HOST_CR4, cr4);
        note(t);
        t.reach_end("CR4.PCIDE cleared");
        let [_, loaded, bits, ..] = noted();
        t.equal("CR3", loaded, cr3);
        t.equal("CR4", bits, cr4);
        // SAFETY: as it was.
        unsafe { cpu::set_cr3(cr3) };
        // SAFETY: as it was.
        unsafe { cpu::set_cr4(cr4) };
        // And gives L1 both, which had neither.
        t.fresh(&switch_end());
        write(field::HOST_CR3, cr3 | context);
        write(field::HOST_CR4, cr4 | PCIDE);
        note(t);
        t.reach_end("CR4.PCIDE set");
        let [_, loaded, bits, ..] = noted();
        t.equal("CR3", loaded, cr3 | context);
        t.equal("CR4", bits, cr4 | PCIDE);
    }
}

/// LDTR, TR, GDTR and IDTR.
fn tables(t: &mut Tester) {
    gdt::set_slot(LDT, LDT_DESCRIPTOR);
    gdt::set_slot(LDT + 8, 0);
    t.fresh(&switch_ldt());
    // SAFETY: nothing of L1 lies in it.
    unsafe { asm!("lldt {:x}", in(reg) LDT, options(nostack, preserves_flags)) };
    write(field::GUEST_LDTR_SELECTOR, 0x50);
    write(field::GUEST_LDTR_LIMIT, 0xff);
    write(field::GUEST_LDTR_ACCESS_RIGHTS, 0x82);
    t.reach_end("LDTR");
    let (ldt, task): (u64, u64);
    let mut gdtr = [0u16; 5];
    let mut idtr = [0u16; 5];
    // SAFETY: stores ten bytes each.
    unsafe {
        asm!("sldt {:e}", "str {:e}", "sgdt [{}]", "sidt [{}]", out(reg) ldt, out(reg) task,
            in(reg) gdtr.as_mut_ptr(), in(reg) idtr.as_mut_ptr(), options(nostack, preserves_flags));
    }
    more!(
        "in L2 {:x} {:x}, in L1 {:x} {:x}, limits {:x} {:x}",
        t.vm.registers.rsi & 0xffff,
        t.vm.registers.rdi & 0xffff,
        ldt & 0xffff,
        task & 0xffff,
        gdtr[0],
        idtr[0],
    );
    // A selector of the table that is gone.
    let error: u64;
    // SAFETY: FS is not used; a fault is handed back.
    unsafe {
        asm!(
            "lea {t}, [rip + 77f]",
            "mov [rip + RT_RECOVER_RIP], {t}",
            "mov {s:e}, 4",
            "mov fs, {s:x}",
            "77:",
            "mov qword ptr [rip + RT_RECOVER_RIP], 0",
            t = out(reg) _,
            s = out(reg) error,
            options(nostack),
        );
    }
    let fault = trap::take();
    more!(
        "selector {error:x}: {}",
        fault.is_some_and(|f| f.vector == 13)
    );
}

/// The SYSENTER MSRs, FS and GS, loaded by the exit.
fn system_entry(t: &mut Tester) {
    const SYSENTER_CS: u32 = 0x174;
    const FS_BASE: u32 = 0xc000_0100;
    t.fresh(&switch_end());
    write(field::HOST_IA32_SYSENTER_CS, 0x18);
    write(field::HOST_IA32_SYSENTER_ESP, 0xffff_8000_0000_1000);
    write(field::HOST_IA32_SYSENTER_EIP, 0x7fff_ffff_f000);
    write(field::HOST_FS_BASE, 0xffff_8000_1234_5000);
    write(field::HOST_GS_BASE, 0x1234_5678);
    write(field::GUEST_IA32_SYSENTER_ESP, 0x1111);
    t.reach_end("SYSENTER");
    for index in [
        SYSENTER_CS,
        SYSENTER_CS + 1,
        SYSENTER_CS + 2,
        FS_BASE,
        FS_BASE + 1,
    ] {
        more!("{index:x}: {:x}", cpu::rdmsr(index));
    }
    t.fresh(&switch_end());
    t.reach_end("SYSENTER back");
}

/// #NM in L2, whose cause L2 and L1 change.
fn no_fpu(t: &mut Tester) {
    const TS: u64 = 1 << 3;
    const EM: u64 = 1 << 2;
    t.fresh(&switch_fpu());
    write(field::EXCEPTION_BITMAP, 1 << 7);
    let before = read(field::GUEST_CR0);
    t.exit("L2 sets CR0.TS: #NM", Reason::ExceptionOrNmi);
    t.equal("CR0 saved", read(field::GUEST_CR0), before | TS);
    write(field::GUEST_CR0, before | EM);
    t.exit("L1 sets CR0.EM instead: #NM", Reason::ExceptionOrNmi);
    write(field::GUEST_CR0, before);
    t.reach_end("neither");
}

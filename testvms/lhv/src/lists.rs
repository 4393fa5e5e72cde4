//! The three MSR lists.
//!
//! SDM "VM-Exit Controls for MSRs", "VM-Entry Controls for MSRs", "Loading MSRs".

use rt::page::Page;
use rt::vmx::insn::{read, write};
use rt::vmx::stub;
use rt::{case, cpu, l2_code, more};
use umbra_vmcs::controls::{Entry, Pin};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn read_lstar = "mov ecx, 0xc0000082", "rdmsr", "vmcall";
    fn list_rdmsr = "rdmsr", "vmcall";
    fn list_tsc = "rdtsc", "vmcall";
    fn list_spin = "2: jmp 2b";
    fn load_idt {
        64 = "mov word ptr [0x9100], 0x123", "mov rax, 0x4567000", "mov [0x9102], rax",
            "lidt [0x9100]", "vmcall", "sidt [0x9000]", "vmcall";
        32 = "ud2";
        16 = "ud2";
    }
    fn write_lstar = "mov ecx, 0xc0000082", "mov eax, 0x2222", "xor edx, edx", "wrmsr", "vmcall";
}

const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FS_BASE: u32 = 0xc000_0100;
const X2APIC_ID: u32 = 0x802;

/// One list in a page of its own.
struct List(Page);

impl List {
    fn set(&self, index: u64, msr: u32, value: u64) {
        self.0.write(index * 16, msr);
        self.0.write(index * 16 + 4, 0u32);
        self.0.write(index * 16 + 8, value);
    }

    fn value(&self, index: u64) -> u64 {
        self.0.read(index * 16 + 8)
    }
}

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    let [entry_load, exit_store, exit_load] = [(); 3].map(|()| List(Page::alloc(1)));
    let before = (cpu::rdmsr(LSTAR), cpu::rdmsr(CSTAR));

    t.fresh(&read_lstar());
    entry_load.set(0, CSTAR, 0x3333);
    entry_load.set(1, LSTAR, 0x1111);
    write(field::VM_ENTRY_MSR_LOAD_ADDRESS, entry_load.0.address());
    write(field::VM_ENTRY_MSR_LOAD_COUNT, 2);
    t.reach_end("entry loads LSTAR and CSTAR");
    t.equal("LSTAR in L2", t.vm.registers.rax & 0xffff_ffff, 0x1111);
    t.equal("CSTAR after the exit", cpu::rdmsr(CSTAR), 0x3333);

    t.fresh(&write_lstar());
    exit_store.set(0, LSTAR, 0);
    exit_load.set(0, LSTAR, 0x4444);
    write(field::VM_EXIT_MSR_STORE_ADDRESS, exit_store.0.address());
    write(field::VM_EXIT_MSR_STORE_COUNT, 1);
    write(field::VM_EXIT_MSR_LOAD_ADDRESS, exit_load.0.address());
    write(field::VM_EXIT_MSR_LOAD_COUNT, 1);
    t.reach_end("exit stores, then loads LSTAR");
    t.equal("LSTAR stored", exit_store.value(0), 0x2222);
    t.equal("LSTAR loaded", cpu::rdmsr(LSTAR), 0x4444);

    for (name, index, msr, reserved, value) in [
        ("entry load of FS base", 0, FS_BASE, 0u32, 0),
        ("entry load of FS base, third", 2, FS_BASE, 0, 0),
        ("entry load of an x2APIC MSR", 1, X2APIC_ID, 0, 0),
        ("entry load, reserved bits set", 1, CSTAR, 1, 0),
        ("entry load, LSTAR not canonical", 1, LSTAR, 0, 1 << 63),
    ] {
        t.fresh(&read_lstar());
        for slot in 0..3 {
            entry_load.set(slot, CSTAR, 0x5555 + slot);
        }
        entry_load.set(index, msr, value);
        entry_load.0.write(index * 16 + 4, reserved);
        write(field::VM_ENTRY_MSR_LOAD_ADDRESS, entry_load.0.address());
        write(field::VM_ENTRY_MSR_LOAD_COUNT, 3);
        t.entry_failure(name, 34, index + 1);
        let loaded = if index == 0 { 0 } else { 0x5555 + index - 1 };
        if index > 0 {
            t.equal("CSTAR as far as it was loaded", cpu::rdmsr(CSTAR), loaded);
        }
    }
    unread(t, &entry_load);
    longest(t);
    held_in_vmcs(t, &entry_load);
    // SAFETY: SYSCALL is not used; these are the values that were there.
    unsafe {
        cpu::wrmsr(LSTAR, before.0);
        cpu::wrmsr(CSTAR, before.1);
    }
    time(t, &entry_load, &exit_load);
}

/// An entry that fails in its list, between two that do not: L2 goes on with the IDTR that it
/// loaded, whether or not L1 looks at it in between.
fn unread(t: &mut Tester, entry_load: &List) {
    const LENGTH_OF_VMCALL: u64 = 3;
    for is_read in [true, false] {
        t.fresh(&load_idt());
        let mut enter = |is_launch| {
            // Not `run`: it reads fields.
            let _ = stub::enter(&mut t.vm.registers, is_launch, false);
            read(field::EXIT_REASON)
        };
        let first = enter(true);
        if is_read {
            read(field::GUEST_IDTR_BASE);
        }
        write(field::GUEST_RIP, read(field::GUEST_RIP) + LENGTH_OF_VMCALL);
        entry_load.set(0, FS_BASE, 0);
        write(field::VM_ENTRY_MSR_LOAD_ADDRESS, entry_load.0.address());
        write(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
        let failed = enter(false);
        write(field::VM_ENTRY_MSR_LOAD_COUNT, 0);
        let second = enter(false);
        case!("a failed entry between, read {is_read}: {first:x}, {failed:x}, {second:x}");
        t.equal("IDT limit in L2", t.vm.memory.read::<u16>(0x9000), 0x123);
        t.equal(
            "IDT base in L2",
            t.vm.memory.read::<u64>(0x9002),
            0x456_7000,
        );
    }
}

/// Lists as long as the CPU recommends at most, which begin in the middle of a page.
fn longest(t: &mut Tester) {
    const START: u64 = 0x7f0;
    let count = u64::from(t.vmx.caps.msr_list_max());
    let pages = (START + 16 * count).div_ceil(4096) as usize;
    let lists = [(); 3].map(|()| Page::alloc(pages));
    let fill = |list: &Page, first: u64| {
        for n in 0..count {
            let at = START + 16 * n;
            list.write(at, u64::from(LSTAR));
            list.write(at + 8, first + n);
        }
    };
    for (what, bad) in [
        ("longest lists", None),
        ("longest lists, the last entry fails", Some(count - 1)),
    ] {
        t.fresh(&read_lstar());
        for (list, first) in lists.iter().zip([0x1_0000, 0x2_0000, 0x3_0000]) {
            fill(list, first);
        }
        for (address, number, list) in [
            (
                field::VM_ENTRY_MSR_LOAD_ADDRESS,
                field::VM_ENTRY_MSR_LOAD_COUNT,
                &lists[0],
            ),
            (
                field::VM_EXIT_MSR_STORE_ADDRESS,
                field::VM_EXIT_MSR_STORE_COUNT,
                &lists[1],
            ),
            (
                field::VM_EXIT_MSR_LOAD_ADDRESS,
                field::VM_EXIT_MSR_LOAD_COUNT,
                &lists[2],
            ),
        ] {
            write(address, list.address() + START);
            write(number, count);
        }
        if let Some(bad) = bad {
            lists[0].write(START + 16 * bad, u64::from(FS_BASE));
            t.entry_failure(what, 34, bad + 1);
            t.equal(
                "LSTAR by the exit's list",
                cpu::rdmsr(LSTAR),
                0x3_0000 + count - 1,
            );
            continue;
        }
        t.reach_end(what);
        let in_l2 = t.vm.registers.rax & 0xffff_ffff;
        t.equal("LSTAR in L2", in_l2, 0x1_0000 + count - 1);
        let stored: u64 = lists[1].read(START + 16 * (count - 1) + 8);
        t.equal("LSTAR stored last", stored, in_l2);
        let first: u64 = lists[1].read(START + 8);
        t.equal("LSTAR stored first", first, in_l2);
        t.equal("LSTAR loaded", cpu::rdmsr(LSTAR), 0x3_0000 + count - 1);
    }
}

/// MSRs that have a place in the guest-state area, loaded by the list after that.
fn held_in_vmcs(t: &mut Tester, list: &List) {
    for (name, msr, value, held) in [
        (
            "IA32_EFER",
            0xc000_0080u32,
            0xd01u64,
            field::GUEST_IA32_EFER,
        ),
        (
            "IA32_EFER without LME",
            0xc000_0080,
            0,
            field::GUEST_IA32_EFER,
        ),
        (
            "IA32_EFER, reserved bit",
            0xc000_0080,
            0x10_0500,
            field::GUEST_IA32_EFER,
        ),
        ("IA32_PAT", 0x277, 0x0007_0106, field::GUEST_IA32_PAT),
        (
            "IA32_PAT, reserved type",
            0x277,
            0x2_0000,
            field::GUEST_IA32_PAT,
        ),
        ("IA32_DEBUGCTL", 0x1d9, 2, field::GUEST_IA32_DEBUGCTL),
        (
            "IA32_SYSENTER_CS",
            0x174,
            0x1234,
            field::GUEST_IA32_SYSENTER_CS,
        ),
        (
            "IA32_SYSENTER_ESP",
            0x175,
            0x5678,
            field::GUEST_IA32_SYSENTER_ESP,
        ),
        (
            "IA32_SYSENTER_EIP, not canonical",
            0x176,
            1 << 63,
            field::GUEST_IA32_SYSENTER_EIP,
        ),
        ("GS base", 0xc000_0101, 0, field::GUEST_GS_BASE),
    ] {
        let before = cpu::rdmsr(msr);
        t.fresh(&list_rdmsr());
        if held == field::GUEST_IA32_PAT {
            t.vm.entry_controls(Entry::LOAD_PAT, Entry::empty());
            write(held, before);
        }
        t.vm.registers.rcx = msr.into();
        list.set(0, msr, value);
        write(field::VM_ENTRY_MSR_LOAD_ADDRESS, list.0.address());
        write(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
        let outcome = t.vm.run();
        case!(
            "entry loads {name}: {outcome}, in L2 {:x}",
            t.vm.registers.rax & 0xffff_ffff
        );
        // Bochs saves IA32_DEBUGCTL from the field, not from the MSR.
        if held != field::GUEST_IA32_DEBUGCTL {
            more!("saved {:x}", read(held));
        }
        if !matches!(msr, 0xc000_0101) {
            // SAFETY: as it was.
            unsafe { cpu::wrmsr(msr, before) };
        }
    }
}

/// IA32_TSC in the lists; and a preemption timer counts increments of the TSC, not what is written to
/// it.
fn time(t: &mut Tester, entry_load: &List, exit_load: &List) {
    const IA32_TSC: u32 = 0x10;
    const SET: u64 = 1 << 50;
    /// More than any L0 takes from the list to L2, or to L1.
    const NEAR: u64 = 1 << 26;
    let before = cpu::tsc();
    let lists = || {
        entry_load.set(0, IA32_TSC, SET);
        exit_load.set(0, IA32_TSC, before);
        write(field::VM_ENTRY_MSR_LOAD_ADDRESS, entry_load.0.address());
        write(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
        write(field::VM_EXIT_MSR_LOAD_ADDRESS, exit_load.0.address());
        write(field::VM_EXIT_MSR_LOAD_COUNT, 1);
    };
    t.fresh(&list_tsc());
    lists();
    t.reach_end("entry and exit load IA32_TSC");
    let in_l2 = t.vm.registers.rdx << 32 | t.vm.registers.rax & 0xffff_ffff;
    t.check("in L2", (SET..SET + NEAR).contains(&in_l2));
    t.check("in L1", (before..before + NEAR).contains(&cpu::tsc()));

    // Forward by far more than the timer; then back.
    for (what, code, value, ticks, reason) in [
        (
            "forward, a late timer",
            list_tsc as fn() -> rt::vmx::vm::Code,
            SET,
            1u64 << 31,
            Reason::Vmcall,
        ),
        ("forward", list_spin, SET, 50_000, Reason::PreemptionTimer),
        ("back", list_spin, 0x1000, 50_000, Reason::PreemptionTimer),
    ] {
        t.fresh(&code());
        lists();
        entry_load.set(0, IA32_TSC, value);
        if !t.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty()) {
            return t.skip("preemption timer");
        }
        write(
            field::VMX_PREEMPTION_TIMER_VALUE,
            ticks >> (t.vmx.caps.misc & 0x1f),
        );
        rt::print!("IA32_TSC set {what}: ");
        t.exit("exit", reason);
    }
}

//! The three MSR lists.
//!
//! SDM "VM-Exit Controls for MSRs", "VM-Entry Controls for MSRs", "Loading MSRs".

use rt::page::Page;
use rt::vmx::insn::write;
use rt::{cpu, l2_code};
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn read_lstar = "mov ecx, 0xc0000082", "rdmsr", "vmcall";
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
    // SAFETY: SYSCALL is not used; these are the values that were there.
    unsafe {
        cpu::wrmsr(LSTAR, before.0);
        cpu::wrmsr(CSTAR, before.1);
    }
}

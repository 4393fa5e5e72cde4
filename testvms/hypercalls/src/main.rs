//! hypercalls: Umbra's own calls, from L1 and from L2, and that every other VMCALL goes
//! where the SDM sends it.
//!
//! See `README.md` beside this crate for what it asks.
#![no_std]
#![no_main]

use core::arch::asm;
use rt::lab::{Choice, Stop};
use rt::vmx::insn;
use rt::vmx::vm::{Mode, Vm, layout};
use rt::vmx::{Exit, Outcome, Vmx};
use rt::{Boot, case, cpu, report};
use umbra_vmcs::exit::Reason;

rt::entry!(main);

/// Where Umbra's own calls begin by default.
const BASE: u32 = 0x4c41_5000;
/// "UMBR".
const SIGNATURE: u32 = 0x5242_4d55;
/// VMCALL; CPUID, which ends L2's run with the answer in its registers.
const CODE: &[u8] = &[0x0f, 0x01, 0xc1, 0x0f, 0xa2];

/// VMCALL of L1, which must not fault: EAX, EBX, ECX, EDX.
fn call(number: u32, argument: u32) -> [u32; 4] {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: only a call that a hypervisor below answers comes here; RBX is put back.
    unsafe {
        asm!("xchg {kept}, rbx", "vmcall", "xchg {kept}, rbx",
             kept = inout(reg) 0u64 => ebx,
             inout("eax") BASE + number => eax,
             inout("ecx") argument => ecx,
             inout("edx") 0 => edx,
             options(nostack));
    }
    [eax, ebx as u32, ecx, edx]
}

fn leaf(number: u32, argument: u32) -> [u32; 4] {
    let words = cpu::cpuid(BASE + number, argument);
    [words.eax, words.ebx, words.ecx, words.edx]
}

fn show(what: &str, [eax, ebx, ecx, edx]: [u32; 4]) {
    case!("{what}: {eax:#x} {ebx:#x} {ecx:#x} {edx:#x}");
}

/// VMCALL of L1 with an EAX that is not Umbra's.
fn outside(when: &str) {
    match insn::vmcall() {
        Ok(()) => case!("L1 beside the range, {when}: done"),
        Err(error) => case!("L1 beside the range, {when}: {error}"),
    }
}

/// What becomes of a VMCALL of L2 with this EAX and ECX.
fn of_l2(vm: &mut Vm, what: &str, eax: u32, ecx: u32) {
    vm.jump(0);
    vm.registers.rax = eax.into();
    vm.registers.rcx = ecx.into();
    match vm.run() {
        Outcome::Exit(exit) if exit.known() == Some(Reason::Cpuid) => {
            let r = &vm.registers;
            let words = [r.rax, r.rbx, r.rcx, r.rdx].map(|register| register as u32);
            show(what, words);
        }
        Outcome::Exit(Exit { reason, .. }) => {
            case!("{what}: exit of L2, reason {reason}");
        }
        other => case!("{what}: {other}"),
    }
}

fn main(boot: &Boot) -> Result<(), Stop> {
    Choice::read(boot, &[])?;
    if leaf(0, 0)[0] != SIGNATURE {
        report::lacks(format_args!("an Umbra that answers"));
        return Ok(());
    }
    report::group(format_args!("L1 outside of VMX operation"));
    show("leaf, version", leaf(0, 0));
    show("leaf, what only VMCALL does", leaf(3, 0));
    show("version", call(0, 0));
    let [capabilities, vmcss, cpus, epts] = call(1, 0);
    case!(
        "capabilities: EPT {}, {vmcss} VMCSs, {cpus} CPU, {epts} EPT pointers",
        capabilities & 1
    );
    show("ledger, which is off", call(2, 0));
    show("unknown", call(0xff, 0));
    outside("before VMXON");

    let vmx = Vmx::prepare()?;
    vmx.enter()?;
    report::group(format_args!("L1 in VMX operation, and L2"));
    outside("in VMX operation");
    show("version in VMX operation", call(0, 0));
    let mut vm = Vm::new(&vmx);
    vm.reset(Mode::Long, vmx.has_ept());
    vm.memory.write_bytes(layout::CODE, CODE);
    of_l2(&mut vm, "L2 version", BASE, 0);
    of_l2(&mut vm, "L2 ledger", BASE + 2, 0);
    of_l2(&mut vm, "L2 may not forbid", BASE + 3, 0);
    of_l2(&mut vm, "L2 below the range", BASE - 1, 0);
    of_l2(&mut vm, "L2 above the range", BASE + 0x100, 0);
    of_l2(&mut vm, "L2 with KVM's number", 1, 0);
    show("L1 forbids", call(3, 0));
    of_l2(&mut vm, "L2, forbidden", BASE, 0);
    show("L1 allows", call(3, 1));
    of_l2(&mut vm, "L2, allowed again", BASE, 0);
    Ok(())
}

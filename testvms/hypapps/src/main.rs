//! hypapps: what the hypapp that Umbra was built with answers, to L1 and to L2.
//!
//! See `README.md` beside this crate for what it asks.
#![no_std]
#![no_main]

use core::arch::asm;
use rt::lab::{Choice, Stop};
use rt::trap::{self, Fault};
use rt::vmx::Vmx;
use rt::vmx::insn;
use rt::vmx::vm::{Mode, Outcome, Vm, layout};
use rt::{Boot, case, cpu, report};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

rt::entry!(main);

/// Where Umbra's own calls begin by default.
const BASE: u32 = 0x4c41_5000;
/// "UMBR".
const UMBRA: u32 = 0x5242_4d55;
/// Where a hypapp's calls begin.
const HYPAPP: u32 = BASE + 0x40;
/// "HELO".
const HELLO: u32 = 0x4f4c_4548;
/// EAX of the answer to what is no call.
const REFUSED: u32 = u32::MAX;
/// #GP, as a vector and in the exception bitmap.
const GP: u32 = 13;
/// VMCALL; CPUID, which ends L2's run with the answer in its registers.
const CODE: &[u8] = &[0x0f, 0x01, 0xc1, 0x0f, 0xa2];

type Words = [u32; 4];

/// VMCALL of L1 with a number of the hypapp's.
fn call(number: u32, ecx: u64, edx: u64) -> Result<Words, Fault> {
    let (eax, ebx, ecx_after, edx_after): (u32, u64, u64, u64);
    // SAFETY: guarded; a hypervisor below answers in these registers, and RBX is put back.
    unsafe {
        asm!("xchg {kept}, rbx",
             rt::vmx_insn!(@guard), "vmcall", rt::vmx_insn!(@unguard),
             "xchg {kept}, rbx",
             kept = inout(reg) 0u64 => ebx,
             t = out(reg) _,
             inout("eax") HYPAPP + number => eax,
             inout("rcx") ecx => ecx_after,
             inout("rdx") edx => edx_after,
             options(nostack));
    }
    match trap::take() {
        Some(fault) => Err(fault),
        None => Ok([eax, ebx as u32, ecx_after as u32, edx_after as u32]),
    }
}

fn leaf(number: u32) -> Words {
    let words = cpu::cpuid(HYPAPP + number, 0);
    [words.eax, words.ebx, words.ecx, words.edx]
}

/// What L2 finds in its registers after a VMCALL with a number of the hypapp's, or the exit
/// that L1 sees instead.
fn of_l2(vm: &mut Vm, number: u32, rcx: u64, rdx: u64) -> Result<Words, Outcome> {
    vm.jump(0);
    let r = &mut vm.registers;
    (r.rax, r.rcx, r.rdx) = ((HYPAPP + number).into(), rcx, rdx);
    match vm.run() {
        Outcome::Exit(exit) if exit.known() == Some(Reason::Cpuid) => {
            let r = &vm.registers;
            Ok([r.rax, r.rbx, r.rcx, r.rdx].map(|register| register as u32))
        }
        other => Err(other),
    }
}

/// A case in which words are answered.
fn answers<E: core::fmt::Display>(what: &str, found: Result<Words, E>, expected: Words) {
    match found {
        Ok([eax, ebx, ecx, edx]) => {
            case!("{what}: {eax:#x} {ebx:#x} {ecx:#x} {edx:#x}");
            report::check(format_args!("{what}"), [eax, ebx, ecx, edx] == expected);
        }
        Err(other) => {
            case!("{what}: {other}");
            report::check(format_args!("{what}"), false);
        }
    }
}

fn main(boot: &Boot) -> Result<(), Stop> {
    Choice::read(boot, &[])?;
    if cpu::cpuid(BASE, 0).eax != UMBRA {
        report::lacks(format_args!("an Umbra that answers"));
        return Ok(());
    }
    let vmx = Vmx::prepare()?;
    let [who, ..] = leaf(0);
    match who {
        HELLO => hello(&vmx),
        _ => nobody(),
    }
}

/// Without a hypapp, its numbers are no calls.
fn nobody() -> Result<(), Stop> {
    report::group(format_args!("no hypapp"));
    let none = [REFUSED, 0, 0, 0];
    answers("leaf", Ok::<_, Fault>(leaf(0)), none);
    answers("call of L1", call(0, 0, 0), none);
    Ok(())
}

fn hello(vmx: &Vmx) -> Result<(), Stop> {
    report::group(format_args!("hello, L1"));
    let none = [REFUSED, 0, 0, 0];
    answers("leaf", Ok::<_, Fault>(leaf(0)), [HELLO, 0, 0, 0]);
    answers("another leaf", Ok::<_, Fault>(leaf(1)), none);
    answers("call", call(0, 5, 7), [HELLO, 12, 1, 1]);
    answers(
        "call again",
        call(0, 1 << 32, u64::MAX),
        [HELLO, u32::MAX, 1, 2],
    );
    answers("unknown call", call(2, 0, 0), none);
    let faulted = call(1, 0, 0);
    let is_gp = matches!(faulted, Err(fault) if u32::from(fault.vector) == GP && fault.error == 0);
    case!("call that faults: {}", if is_gp { "#GP(0)" } else { "no" });
    report::check(format_args!("#GP(0)"), is_gp);

    vmx.enter()?;
    report::group(format_args!("hello, L2"));
    let mut vm = Vm::new(vmx);
    for with_ept in [false, true] {
        if !vm.can(Mode::Long, with_ept) {
            report::lacks(format_args!("EPT"));
            continue;
        }
        let calls = 2 * u32::from(with_ept);
        vm.reset(Mode::Long, with_ept);
        vm.memory.write_bytes(layout::CODE, CODE);
        answers("call", of_l2(&mut vm, 0, 2, 3), [HELLO, 5, 2, calls + 1]);
        answers(
            "call again",
            of_l2(&mut vm, 0, 0, 9),
            [HELLO, 9, 2, calls + 2],
        );
        insn::write(field::EXCEPTION_BITMAP, 1 << GP);
        let faulted = of_l2(&mut vm, 1, 0, 0);
        case!("call that faults, which L1 wants: {}", Shown(&faulted));
        let is_gp = matches!(faulted, Err(Outcome::Exit(exit))
            if exit.known() == Some(Reason::ExceptionOrNmi) && insn::read(field::GUEST_RIP) == layout::CODE);
        report::check(format_args!("an exit at the VMCALL"), is_gp);
    }
    answers("leaf", Ok::<_, Fault>(leaf(0)), [HELLO, 0, 2, 4]);
    answers(
        "call of L1 in VMX operation",
        call(0, 1, 2),
        [HELLO, 3, 1, 3],
    );
    Ok(())
}

/// The exit of a call that was not answered.
struct Shown<'a>(&'a Result<Words, Outcome>);

impl core::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Ok(_) => f.write_str("answered"),
            Err(outcome) => outcome.fmt(f),
        }
    }
}

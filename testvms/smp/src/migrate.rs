//! A VMCS that goes from CPU to CPU.
//!
//! SDM "Software Use of Virtual-Machine Control Structures": VMCLEAR on the one, VMPTRLD on the other.

use core::sync::atomic::Ordering::SeqCst;
use rt::case;

use rt::gdt;
use rt::trap;
use rt::vmx::insn::{self, read, write};
use rt::vmx::vm::Outcome;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::Others;
use crate::lab::{self, RESULTS};

/// Exits on each CPU before the VMCS goes on.
const EXITS: u64 = 5;
/// A field that no CPU looks at here.
const NOTE: umbra_vmcs::Field = field::GUEST_IA32_SYSENTER_ESP;

/// Runs L2 of the first CPU's VMCS on this one, which is in VMX operation.
fn run_on(index: usize) {
    let lab = lab::own(index);
    let mut ends = 0;
    lab.vm.vmcs = lab::vmcs_of(0);
    lab.vm.clear();
    write(field::HOST_GDTR_BASE, gdt::base());
    write(field::HOST_TR_BASE, gdt::tss_base());
    write(field::HOST_IDTR_BASE, trap::base());
    let note = read(NOTE);
    while ends < EXITS {
        match lab.vm.run() {
            Outcome::Exit(exit) if exit.known() == Some(Reason::Vmcall) => lab.vm.skip(&exit),
            _ => break,
        }
        ends += 1;
    }
    write(NOTE, note + 1);
    let vmcs = lab.vm.vmcs.address();
    let cleared = insn::vmclear(&vmcs).is_ok();
    for (to, value) in RESULTS[index].iter().zip([ends, note, cleared.into(), 0]) {
        to.store(value, SeqCst);
    }
}

fn elsewhere(index: usize) {
    let own = lab::vmcs_of(index);
    lab::enter_vmx(index, &lab::counting());
    run_on(index);
    lab::own(index).vm.vmcs = own;
    lab::leave_vmx();
}

/// From the first CPU to each of the others, and back, twice.
pub fn run(others: &Others) {
    lab::enter_vmx(0, &lab::counting());
    write(NOTE, 100);
    for round in 0..2 {
        for index in core::iter::once(0).chain(others.iter().map(|cpu| cpu.index)) {
            let done = match others.iter().find(|cpu| cpu.index == index) {
                Some(cpu) => cpu.run(elsewhere),
                None => {
                    run_on(0);
                    true
                }
            };
            let [ends, note, cleared] = [0, 1, 2].map(|n: usize| RESULTS[index][n].load(SeqCst));
            case!(
                "VMCS on cpu {index}, round {round}: {done}, {ends} exits, note {note}, cleared {cleared}"
            );
        }
    }
    case!("L2 counted {}", lab::counted(0));
    lab::leave_vmx();
}

//! VMX aborts, one CPU after the other.
//!
//! SDM "VMX Aborts": the CPU stores an indicator in its VMCS region and shuts down for good; the
//! others go on. It ends the machine, so it is run for the word `abort` alone.

use core::sync::atomic::Ordering::SeqCst;
use rt::case;

use rt::page::Page;
use rt::smp::{Cpu, wait_for};
use rt::vmx::insn::write;
use umbra_vmcs::field;

use crate::lab::{self, RESULTS};
use crate::{Others, VECTORS};

/// Cannot be loaded from a list.
const FS_BASE: u32 = 0xc000_0100;
/// "There was a failure on loading host MSRs."
const LOADING_HOST_MSRS: u32 = 4;
/// Where the indicator lies in a VMCS region, in bytes.
const INDICATOR: u64 = 4;

/// Enters an L2 whose VM exit cannot be completed.
fn abort(index: usize) {
    let list = Page::alloc(1);
    list.write(0, FS_BASE);
    let lab = lab::enter_vmx(index, &lab::ending());
    write(field::VM_EXIT_MSR_LOAD_ADDRESS, list.address());
    write(field::VM_EXIT_MSR_LOAD_COUNT, 1);
    RESULTS[index][0].store(lab.vm.vmcs.address(), SeqCst);
    lab::run_and_store(index);
}

fn indicator(index: usize) -> u32 {
    match RESULTS[index][0].load(SeqCst) {
        0 => 0,
        region => Page::read_foreign(region + INDICATOR).map_or(0, |word| word as u32),
    }
}

/// Whether the CPU is gone for good.
fn is_gone(cpu: &Cpu, vector: u8) -> bool {
    !cpu.restart(vector)
}

/// The others, then the one that booted.
pub fn run(others: &Others) {
    for (cpu, vector) in others.iter().zip(VECTORS) {
        let starts = cpu.restart(vector);
        RESULTS[cpu.index][0].store(0, SeqCst);
        cpu.begin(abort);
        let has_indicator = wait_for(|| indicator(cpu.index) == LOADING_HOST_MSRS);
        case!(
            "cpu {}: starts: {starts}, aborts: {has_indicator}, nothing starts it again: {}",
            cpu.index,
            is_gone(cpu, vector)
        );
    }
    lab::enter_vmx(0, &lab::ending());
    lab::run_and_store(0);
    lab::leave_vmx();
    lab::show("cpu 0 goes on", 0);
    abort(0);
    case!("and aborts: false");
}

//! The stub around VM entries and exits. See `vmentry.S`.

use crate::cpu::percpu::PerCpu;
use core::arch::global_asm;
use core::mem::offset_of;

global_asm!(
    include_str!("vmentry.S"),
    THIS = const offset_of!(PerCpu, this),
    REGS = const offset_of!(PerCpu, cpu.regs.gprs),
    XMM = const offset_of!(PerCpu, cpu.regs.xmm),
    INBOX = const offset_of!(PerCpu, shared.nmi_inbox),
    options(att_syntax)
);

unsafe extern "C" {
    /// Where every VM exit comes to: the HOST_RIP of every VMCS.
    pub safe static umbra_vm_exit: u8;

    /// Enters L1 for the first time; see `vmentry.S`.
    pub fn umbra_first_entry(host_rsp: u64, is_launch: u64) -> !;
}

/// What the stub came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The CPU was in VMX non-root operation, or refused the guest state
    /// (exit reason bit 31).
    Exited,
    /// VMfailValid.
    VmFailValid,
    /// VMfailInvalid.
    VmFailInvalid,
}

impl Outcome {
    /// From the number that the stub passes.
    pub const fn from_stub(number: u64) -> Self {
        match number {
            0 => Self::Exited,
            1 => Self::VmFailValid,
            _ => Self::VmFailInvalid,
        }
    }
}

//! The stub around VM entries and exits. See `vmentry.S`.

use crate::cpu::percpu::PerCpu;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, Ordering};

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
    safe static umbra_vm_exit: u8;

    /// The same with the exit trace on.
    safe static umbra_vm_exit_traced: u8;

    /// Enters L1 for the first time; see `vmentry.S`.
    pub fn umbra_first_entry(host_rsp: u64, is_launch: u64) -> !;
}

/// See [`exit_stub`].
static EXIT_STUB: AtomicPtr<u8> = AtomicPtr::new((&raw const umbra_vm_exit).cast_mut());

/// The HOST_RIP of every VMCS.
pub fn exit_stub() -> u64 {
    EXIT_STUB.load(Ordering::Relaxed) as u64
}

/// Every exit goes through the trace from now on. At boot, before any VMCS is
/// made: this is why the trace costs nothing when it is off.
pub fn trace_exits() {
    let traced = (&raw const umbra_vm_exit_traced).cast_mut();
    EXIT_STUB.store(traced, Ordering::Relaxed);
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

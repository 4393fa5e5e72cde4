//! The stub around VM entries and exits. See `vmentry.S`.

use crate::percpu::PerCpu;
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

/// The registers that no VMCS holds, of L1 or of L2, whichever ran last.
#[repr(C, align(16))]
#[derive(Clone, Debug, Default)]
pub struct Registers {
    /// By the numbers of instruction encodings: RAX, RCX, RDX, RBX, (RSP), RBP,
    /// RSI, RDI, R8 to R15. Index 4 is not used: RSP is in the VMCS.
    pub gprs: [u64; 16],
    /// XMM0 to XMM15.
    pub xmm: [[u64; 2]; 16],
}

/// Indices into [`Registers::gprs`].
pub mod gpr {
    #![allow(missing_docs)]
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

impl Registers {
    /// EDX:EAX.
    pub fn edx_eax(&self) -> u64 {
        self.gprs[gpr::RDX] << 32 | self.gprs[gpr::RAX] & 0xffff_ffff
    }

    /// Sets EAX and EDX, clearing the upper halves of RAX and RDX.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.gprs[gpr::RAX] = value & 0xffff_ffff;
        self.gprs[gpr::RDX] = value >> 32;
    }
}

//! L1's VMX instructions, in VMX root operation.
//!
//! Each is an exit to L0. The conditions stand in the order of the SDM's
//! pseudo-code for the instruction (volume 3C, "VMX Instruction Reference").

mod invalidate;
mod launch;
mod pointer;
mod rw;
mod switch;

use umbra_arch::{Efer, Exception, Gpa1, Rflags};
use umbra_vmcs::InsnError;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;
use umbra_vmcs::rules::instructions::{InsnAnswer, InsnRule, VMCALL_IN_ROOT};

use crate::fault::Refusal;
use crate::hw::{Hardware, VmcsAccess};
use crate::operand::rights_in;
use crate::state::Nested;

/// How an instruction of L1 ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The flags are written; RIP moves on.
    Next,
    /// An exception; RIP stays.
    Fault(Exception),
    /// Nothing; RIP stays, so that L1 executes the instruction again.
    Again,
    /// A VM entry took place (or failed after the checks on host state):
    /// RIP is that of whichever level runs now.
    Switched,
    /// VMXOFF let an INIT through that VMX root operation had blocked; RIP has
    /// moved on.
    Init,
    /// A VMX abort: the CPU is in the shutdown state. The number is the
    /// indicator that went into the VMCS region.
    Abort(u32),
}

/// VMsucceed, VMfailInvalid or VMfailValid. SDM "Conventions".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeed,
    FailInvalid,
    FailValid(InsnError),
}

pub(crate) use Outcome::{FailInvalid, FailValid, Succeed};

/// How an instruction ends whose rule, one of those that the code evaluates
/// itself, does not hold.
pub(crate) const fn broken(rule: &'static InsnRule) -> Outcome {
    match rule.answer {
        InsnAnswer::Fail(error) => FailValid(error),
        // The other answers are exceptions, and exceptions come as `Fault`.
        _ => FailInvalid,
    }
}

impl Nested {
    /// Carries out the VMX instruction that L1 exited with. vmcs01 is current.
    #[inline(always)]
    pub fn instruction(&mut self, hw: &mut impl Hardware, reason: Reason) -> Done {
        let result = match reason {
            Reason::Vmxon => self.vmxon(hw),
            Reason::Vmxoff => return self.vmxoff(hw),
            Reason::Vmclear => self.vmclear(hw),
            Reason::Vmptrld => self.vmptrld(hw),
            Reason::Vmptrst => self.vmptrst(hw),
            Reason::Vmread => self.vmread(hw),
            Reason::Vmwrite => self.vmwrite(hw),
            Reason::Invept => self.invept(hw),
            Reason::Invvpid => self.invvpid(hw),
            Reason::Vmcall => self.vmcall(hw),
            Reason::Vmlaunch => return self.launch(hw, false),
            Reason::Vmresume => return self.launch(hw, true),
            _ => Err(Exception::UD.into()),
        };
        self.finish(hw, result)
    }

    pub(crate) fn finish(
        &mut self,
        hw: &mut impl VmcsAccess,
        result: Result<Outcome, Refusal>,
    ) -> Done {
        match result {
            Ok(outcome) => {
                self.write_flags(hw, outcome);
                Done::Next
            }
            Err(Refusal::Fault(fault)) => Done::Fault(fault),
            Err(Refusal::Again) => Done::Again,
        }
    }

    /// The conditions that most VMX instructions begin with and that the CPU
    /// has not checked before the exit to L0. It has checked the mode: in real,
    /// virtual-8086 and compatibility mode they raise #UD without an exit.
    pub(crate) fn require_root(&self, hw: &mut impl VmcsAccess) -> Result<(), Exception> {
        if !self.in_vmx_operation() {
            return Err(Exception::UD);
        }
        require_cpl0(hw)
    }

    /// Writes the arithmetic flags and, for VMfailValid, the error number. With
    /// no current VMCS every failure is VMfailInvalid.
    #[inline(always)]
    fn write_flags(&mut self, hw: &mut impl VmcsAccess, outcome: Outcome) {
        let old = hw.read(field::GUEST_RFLAGS);
        let mut rflags = old & !Rflags::STATUS.bits();
        match (outcome, self.current()) {
            (Succeed, _) => {}
            (FailInvalid, _) | (FailValid(_), None) => rflags |= Rflags::CF.bits(),
            (FailValid(error), Some(id)) => {
                self.slots.set_error(id, error);
                rflags |= Rflags::ZF.bits();
            }
        }
        if rflags != old {
            hw.write(field::GUEST_RFLAGS, rflags);
        }
    }

    /// VMCALL in VMX root operation without a monitor for SMM: VMfail. It exits
    /// to L0 in every mode.
    fn vmcall(&mut self, hw: &mut impl VmcsAccess) -> Result<Outcome, Refusal> {
        if !self.in_vmx_operation() {
            return Err(Exception::UD.into());
        }
        if Rflags::VM.is_in(hw.read(field::GUEST_RFLAGS)) || is_compatibility_mode(hw) {
            return Err(Exception::UD.into());
        }
        require_cpl0(hw)?;
        Ok(broken(&VMCALL_IN_ROOT))
    }

    /// Whether `address` fits the presented CPU's physical width and is 4 KiB
    /// aligned.
    pub(crate) fn is_page_address(&self, address: Gpa1) -> bool {
        address.page_offset() == 0 && address.raw() & !self.cpu.physical_mask() == 0
    }
}

fn is_compatibility_mode(hw: &mut impl VmcsAccess) -> bool {
    Efer::LMA.is_in(hw.read(field::GUEST_IA32_EFER))
        && !rights_in(hw, field::GUEST_CS_ACCESS_RIGHTS).long()
}

/// #GP(0) unless CPL is 0. The CPL is SS.DPL, SDM "Guest Register State".
pub(crate) fn require_cpl0(hw: &mut impl VmcsAccess) -> Result<(), Exception> {
    if rights_in(hw, field::GUEST_SS_ACCESS_RIGHTS).dpl() != 0 {
        return Err(Exception::GP);
    }
    Ok(())
}

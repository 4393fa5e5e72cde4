//! The end of an instruction that L0 executed for the guest of the current VMCS, L1 or
//! L2: it stands behind it, as if the CPU had executed it.

use umbra_arch::state::Blocking;
use umbra_arch::{Debugctl, Efer, PendingDebug, Rflags};
use umbra_vmcs::field;

use crate::hw::VmcsAccess;
use crate::operand::rights_in;

/// Whether the guest is in 64-bit mode.
#[inline]
pub fn is_64_bit_mode(hw: &mut impl VmcsAccess) -> bool {
    rights_in(hw, field::GUEST_CS_ACCESS_RIGHTS).long()
        && Efer::LMA.is_in(hw.read(field::GUEST_IA32_EFER))
}

/// Moves the guest behind the instruction that exited.
#[inline(always)]
pub fn skip_instruction(hw: &mut impl VmcsAccess) {
    let length = hw.read(field::VM_EXIT_INSTRUCTION_LENGTH);
    let mut rip = hw.read(field::GUEST_RIP).wrapping_add(length);
    if rip >> 32 != 0 && !is_64_bit_mode(hw) {
        rip &= 0xffff_ffff;
    }
    hw.write(field::GUEST_RIP, rip);
    end_of_instruction(hw);
}

/// An instruction, or one turn of a repeated one, was executed: blocking by STI and MOV
/// SS ends, and a single step is due.
#[inline(always)]
pub fn end_of_instruction(hw: &mut impl VmcsAccess) {
    const STI_OR_MOV_SS: u64 = Blocking::STI.union(Blocking::MOV_SS).bits() as u64;

    let state = hw.read(field::GUEST_INTERRUPTIBILITY_STATE);
    if state & STI_OR_MOV_SS != 0 {
        hw.write(field::GUEST_INTERRUPTIBILITY_STATE, state & !STI_OR_MOV_SS);
    }
    let rflags = hw.read(field::GUEST_RFLAGS);
    if Rflags::RF.is_in(rflags) {
        hw.write(field::GUEST_RFLAGS, rflags & !Rflags::RF.bits());
    }
    if Rflags::TF.is_in(rflags) && !Debugctl::BTF.is_in(hw.read(field::GUEST_IA32_DEBUGCTL)) {
        let pending = hw.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        hw.write(
            field::GUEST_PENDING_DEBUG_EXCEPTIONS,
            pending | PendingDebug::BS.bits(),
        );
    }
}

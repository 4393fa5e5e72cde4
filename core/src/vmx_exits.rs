//! VMX instructions of L1.

use crate::percpu::Cpu;
use crate::run::{Action, Event};
use umbra_vmcs::exit::Reason;

/// L1 executed the VMX instruction that `reason` names. Outside VMX operation
/// each raises #UD, but for VMXON with CR4.VMXE.
pub fn handle(_cpu: &mut Cpu, _reason: Reason) -> Action {
    Action::Inject(Event::INVALID_OPCODE)
}

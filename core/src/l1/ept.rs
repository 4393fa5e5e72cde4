//! EPT violations of L1.

use crate::action::Action;
use crate::cpu::percpu::Cpu;
use crate::nested_hw::map_on_demand;
use crate::nmi;
use crate::vmcs::current::read;
use umbra_arch::{EventInfo, Gpa1};
use umbra_nested::beyond_width;
use umbra_vmcs::field;

/// RAM and the low 4 GiB are always mapped; what lies above is mapped when L1
/// first touches it.
pub fn violation(cpu: &mut Cpu, gpa1: Gpa1, qualification: u64) -> Action {
    if map_on_demand(cpu, gpa1) {
        nmi::block_again(qualification);
        return Action::Resume;
    }
    let vectoring = EventInfo::from_bits(read(field::IDT_VECTORING_INFORMATION) as u32);
    let fault = beyond_width::fault(cpu, qualification);
    match beyond_width::in_delivery(vectoring, fault) {
        Some(fault) => Action::raise(fault),
        None => super::stop::triple_fault(cpu),
    }
}

//! EPT violations of L1.

use crate::nmi;
use crate::percpu::{Cpu, Tables};
use crate::platform::msr_policy::settle;
use crate::run::{Action, Event};
use umbra_ept::ept01::OnDemand;

/// RAM and the low 4 GiB are always mapped; what lies above is mapped when L1
/// first touches it.
pub fn violation(cpu: &mut Cpu, gpa: u64, qualification: u64) -> Action {
    nmi::block_again(qualification);
    let mut done = cpu.ept01.map_on_demand(&mut Tables, gpa);
    if let Err(OnDemand::NoPages(owed)) = done {
        settle(owed);
        cpu.ept01.invalidated(&mut Tables);
        done = cpu.ept01.map_on_demand(&mut Tables, gpa);
    }
    match done {
        Ok(()) => Action::Resume,
        // No such address: L1's paging entries cannot hold it, so only an
        // access without paging or a machine with more than 48 bits gets here.
        Err(_) => Action::Inject(Event::GENERAL_PROTECTION),
    }
}

//! INS and OUTS to a port that L0 watches.

use crate::current::change;
use crate::exit::IoAccess;
use crate::percpu::Cpu;
use crate::run::Action;
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field;

/// L1 does it itself, with nothing intercepted from then on. What it loses is
/// L0's knowledge of the serial line and of how the run ends, never L1's data.
pub fn handle(_cpu: &mut Cpu, _access: IoAccess) -> Action {
    change(
        field::PRIMARY_PROCESSOR_BASED_CONTROLS,
        0,
        u64::from(Proc::USE_IO_BITMAPS.bits()),
    );
    Action::Resume
}
